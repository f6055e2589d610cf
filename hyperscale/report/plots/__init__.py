"""Pictures of frontiers, by matplotlib."""
