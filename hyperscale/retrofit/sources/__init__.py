"""Gets texts that a user has no file of: from a data set of the hub, or written by the model itself.

Either becomes a file in ``data/`` of the training's folder, from which the same command goes on without asking again.
"""
