"""Shows runs: tables on the console, the live view of a run and of a chain, JSON events for programs."""
