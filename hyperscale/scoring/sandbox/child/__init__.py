"""What runs inside a sandbox; it imports nothing from the rest of hyperscale.

It is started by path, as a package of its own, so that nothing of the user's environment comes with it.

An origin's life (`main`): enter the root directory (`root`, only for ``unshare``), give up root and capabilities
(`process`), load modules, leave the other processes (`landlock`), then fork for each test. The fork reads its program
and input, keeps three or four descriptors (`solve.arrange_descriptors`), limits itself (`process`), puts the system
call filter in force (`syscalls`), runs the program (`solve`) and exits. The origin waits for its end, kills whatever is
left and says how it ended.
"""
