"""Finds functions that users name as ``module:function``, in a file beside theirs or in an installed package."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from hyperscale.errors import HyperscaleError, first_line

FORM = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_MODULES: dict[Path, dict[str, ModuleType]] = {}  # of each folder, by name: what its functions have imported from it


def find_source(name: str, folder: Path) -> Path | None:
    """The file of a function's module, without running it: ``folder/module.py``; None if it is not beside the user's.

    Args:
        name: ``module:function``; dots lead into folders.
        folder: Where the user's file stands.
    """
    module = name.partition(":")[0]
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


class _TextLoader(SourceFileLoader):
    """Compiles a module's text each time.

    Python's own loader takes compiled code for the text's if length and second of the last change agree: what a user
    has just changed would not run, though the version of the task, which is of the text, says that it did.
    """

    def get_code(self, fullname: str) -> CodeType:
        """See the base class."""
        return self.source_to_code(self.get_data(self.path), self.path)


def load_function(name: str, folder: Path, failure: type[HyperscaleError]) -> Callable[..., Any]:
    """A function by its name. Its module is run, with the folder on Python's path; each call runs it anew.

    The function finds what lies in the folder when it is called, too.

    Args:
        name: ``module:function``.
        folder: Where the user's file stands: modules beside it come before installed ones.
        failure: The error to raise.

    Raises:
        HyperscaleError: Of the type ``failure``: the name has another form, there is no such module or function, or the
            module fails.
    """
    match = FORM.fullmatch(name)
    if match is None:
        raise failure(f"{name!r} names no function: write module:function, for `def function` in module.py")
    module_name, function_name = match.groups()
    source = find_source(name, folder)
    try:
        with _imports_from(folder):
            if source is not None:
                name_there = f"hyperscale_user.{module_name}"
                loader = _TextLoader(name_there, str(source))
                spec = importlib.util.spec_from_file_location(name_there, source, loader=loader)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                sys.modules[name_there] = module  # where dataclasses look for the names in their annotations
                try:
                    spec.loader.exec_module(module)
                finally:
                    del sys.modules[name_there]
            else:
                module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if source is None and error.name and module_name.startswith(error.name):
            raise failure(
                f"there is no module {module_name} for {name}: neither {module_name.replace('.', '/')}.py in {folder} "
                "nor an installed package"
            ) from None
        raise failure(f"{name}: {source or module_name} needs {error.name}, which is not installed") from None
    except Exception as error:  # whatever the user's module does
        raise failure(f"{name}: {describe_failure(error, source or module_name)}") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        names = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise failure(f"{source or module_name} has no function {function_name}; it has: {', '.join(names) or 'none'}")

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _imports_from(folder):
            return function(*args, **kwargs)

    return call


def describe_failure(error: Exception, source: Path | str) -> str:
    """What a user's function raised, and in which line of its file."""
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(source):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    if line is None and isinstance(error, SyntaxError):
        line = error.lineno
    place = f"{source}, line {line}" if line else str(source)
    return f"{place} raises {type(error).__name__}: {first_line(error)}"


@contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """The folder first among those that modules are sought in.

    What is imported from it is known inside alone: a module of another folder may have the same name, and Python would
    take the one that it has for the other.
    """
    own = _MODULES.setdefault(folder, {})
    before = dict(sys.modules)
    sys.modules.update(own)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        own |= {name: module for name, module in sys.modules.items() if _is_new(name, before, folder)}
        sys.path.remove(str(folder))
        for name in own:
            if name in before:
                sys.modules[name] = before[name]
            else:
                sys.modules.pop(name, None)


def _is_new(name: str, before: Mapping[str, ModuleType], folder: Path) -> bool:
    """Whether a module, or the package that it is in, was not known before and is one of a folder's own.

    It is not if it lies deeper in the folder, as in an environment there: some packages cannot be imported twice.
    """
    package = name.partition(".")[0]
    if name in before or package in before:
        return False
    places = [getattr(sys.modules.get(package), "__file__", None)]
    places += getattr(sys.modules.get(package), "__path__", None) or ()
    return any(Path(place).parent == folder for place in places if isinstance(place, str))
