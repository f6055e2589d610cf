"""Reads pickles that hold strings and containers, and refuses every other pickle before anything in it is built.

LiveCodeBench ships its private tests as pickles, and loading a pickle from a download runs whatever it asks for. Here
the opcodes are read first, as data: only those that build strings, lists, tuples and dictionaries are let through, so
no class is looked up, no function called and no memory reserved that the pickle's own bytes do not fill.
"""

import io
import pickle
import pickletools
from typing import Any, NoReturn

_STRINGS = {"UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"}
_LISTS = {"EMPTY_LIST", "LIST", "APPEND", "APPENDS"}
_TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_DICTIONARIES = {"EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_MEMO = {"MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
_ALLOWED = {"PROTO", "FRAME", "MARK", "STOP"} | _STRINGS | _LISTS | _TUPLES | _DICTIONARIES | _PUTS | _MEMO
MAX_OPCODES = 5_000_000


class _Unpickler(pickle.Unpickler):
    """A second lock on the door: should an opcode slip through, it still finds no class."""

    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is not a string or a container")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise pickle.UnpicklingError("persistent objects are not strings or containers")


def loads(data: bytes) -> Any:
    """The string or container in a pickle.

    Raises:
        ValueError: The pickle is malformed, or would build anything but strings, lists, tuples and dictionaries.
    """
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name not in _ALLOWED:
                raise ValueError(f"a pickle with opcode {opcode.name} holds more than strings and containers")
            # A memo index makes room for itself and everything below it, so a great one is a bomb of a few bytes.
            if (opcode.name in _PUTS and int(argument or 0) > count) or count > MAX_OPCODES:
                raise ValueError("a pickle of this shape is meant to fill the memory")
        return _Unpickler(io.BytesIO(data)).load()
    except ValueError:
        raise
    except Exception as error:  # a malformed pickle raises whatever its bytes happen to spell
        raise ValueError(f"malformed pickle: {' '.join(str(error).split()) or type(error).__name__}") from None
