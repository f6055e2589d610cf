"""A run: prepare it, let a pilot measure, execute it, verify what came out."""
