"""What a terminal or a program sees of a run: tables, the live view, JSON events."""
