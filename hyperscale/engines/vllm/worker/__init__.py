"""The worker's side: the tables of entries of each layer and head, and the eviction rules."""
