"""The worker process that runs model-written programs; it imports nothing from the rest of hyperscale.

The worker is started by path, as a package of its own, so that nothing of the user's environment comes with it.

A worker's life (`main`): enter the root directory (`root`, only for ``unshare``), give up root and capabilities
(`process`), load modules, then serve programs. For each test it forks. The fork keeps three or four descriptors
(`solve.arrange_descriptors`), limits itself (`process`), puts the system call filter in force (`syscalls`, and
`guard` at that level), runs the program (`solve`) and exits. Meanwhile the worker reads the fork's pipe within the
limits, kills whatever is left and answers with one line (`collect`).
"""
