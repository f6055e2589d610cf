"""What a run is: the typed configuration, read, completed and checked."""
