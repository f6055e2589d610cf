"""Open files without a name: what a test is given, and what it cannot change."""

import os
import tempfile


def open_data(data: bytes) -> int:
    """A descriptor of an open file that holds data and has no name; sealed where the system has seals."""
    if hasattr(os, "memfd_create"):
        import fcntl

        number = os.memfd_create("data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(number, rest) :]
        os.lseek(number, 0, os.SEEK_SET)
        if hasattr(os, "memfd_create"):
            fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    except BaseException:
        os.close(number)
        raise
    return number
