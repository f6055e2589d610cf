"""What a training shows and leaves to be read: a live line, ``metrics.jsonl``, a picture and a model card."""
