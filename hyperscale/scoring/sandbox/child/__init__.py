"""What runs on the other side: the worker process that runs model-written programs. It imports nothing else of ours.

The worker is started by path, as a package of its own, so that nothing of the user's environment comes with it.
"""
