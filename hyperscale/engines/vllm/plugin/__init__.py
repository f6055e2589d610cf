"""What vLLM loads at its start: registration, hooks, and the messages between its processes."""
