"""Finds the files of users' own tasks by the tasks' names.

A run is told paths, and from then on speaks of names, as samples do. It keeps path and text of each file in its
``run.json``, so that results can be read where the file is gone.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hyperscale.errors import TaskError
from hyperscale.tasks.own import groups
from hyperscale.utils.paths import expand_home, is_there
from hyperscale.utils.yaml_files import YamlFile, read_yaml

if TYPE_CHECKING:
    from yaml import SafeLoader

SUFFIXES = (".yaml", ".yml")
REMEDY = "docs/own-tasks.md shows what a task's file holds"


class FunctionName(str):
    """What stands behind ``!function``: ``module.name``, with the folder of the file that says it.

    In the text of a run's ``run.json``, which has included files merged, a function of a file in another folder is
    written with the way there, ``../other/module.name``; the value is ``module.name`` all the same.
    """

    __slots__ = ("folder",)

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Self:
        """The name of a function.

        Args:
            text: What is written behind ``!function``.
            folder: Where the file stands that says it.
        """
        way, _, name = text.rpartition("/")
        self = super().__new__(cls, name)
        self.folder = folder / way
        return self

    def __getnewargs__(self) -> tuple[str, Path]:  # type: ignore[override]  # str's own takes no folder
        return str(self), self.folder

    def seen_from(self, folder: Path) -> str:
        """What a file of another folder writes behind ``!function``."""
        if self.folder == folder:
            return str(self)
        way = os.path.relpath(self.folder.resolve(), folder.resolve())
        return str(self) if way == "." else f"{Path(way).as_posix()}/{self}"

    @property
    def as_function(self) -> str:
        """As `hyperscale.utils.user_functions` takes it, ``module:name``."""
        module, _, name = self.rpartition(".")
        return f"{module}:{name}"


@dataclass(frozen=True)
class TaskSource:
    """A task's file.

    Attributes:
        path: Absolute.
        text: What it holds, or held when a run began.
    """

    path: Path
    text: str

    def parse(self) -> YamlFile:
        """Its keys, with their lines.

        Raises:
            TaskError: It is no YAML, or no mapping.
        """
        return read_yaml(self.path, TaskError, REMEDY, loader=task_loader(self.path.parent), text=self.text)


@cache
def task_loader(folder: Path | None = None) -> "type[SafeLoader]":
    """Reads ``!function module.name`` of a file in a folder as a `FunctionName`; lm-eval would import it.

    Args:
        folder: None for the text alone.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor(
        "!function", lambda loader, node: node.value if folder is None else FunctionName(node.value, folder)
    )
    return Loader


_SOURCES: dict[str, TaskSource] = {}  # by name, of all that this process was told of
_GROUP_SOURCES: dict[str, TaskSource] = {}  # the same of groups in folders


def is_path(name: str) -> bool:
    """Whether a task is named by its file."""
    return name.endswith(SUFFIXES)


def check_name(name: str) -> str:
    """The name of a task, if it is not taken for its file.

    Raises:
        ValueError: It is; the message follows the key.
    """
    if is_path(name):
        raise ValueError(f"must not end in {' or '.join(SUFFIXES)}: --task would take it for a path")
    return name


def read_source(path: Path | str) -> TaskSource:
    """A task's file.

    Raises:
        TaskError: It cannot be read.
    """
    path = expand_home(path).absolute()
    if is_there(path) and path.is_dir():
        raise TaskError(f"{path} is a folder: name a file in it, or pass --include {path} and the task's name")
    try:
        return TaskSource(path, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TaskError(f"no task file {path} ({error.strerror}): pass --task the path of a YAML file") from None
    except UnicodeDecodeError:
        raise TaskError(f"cannot read {path} (it is not UTF-8): {REMEDY}") from None


def name_of(file: YamlFile) -> str:
    """The name of the task in a file.

    Raises:
        TaskError: It says none.
    """
    name = file.values.get("task")
    if isinstance(group := file.values.get("group"), str):
        raise TaskError(
            f"{file.place(('group',))}: this is the group {group} and no task: pass --include and its folder, and "
            f"--task {group}"
        )
    if not isinstance(name, str) or not name.strip():
        raise TaskError(f"{file.place(('task',))}: task must be a name, as in `task: capitals`")
    return name


def declare(path: Path | str) -> str:
    """Make a task known by its name, in this process; a later file takes the place of an earlier one.

    Raises:
        TaskError: The file cannot be read, or names no task.
    """
    source = read_source(path)
    name = name_of(source.parse())
    _SOURCES[name] = source
    return name


def make_known(name: str, source: TaskSource) -> None:
    """Make a task known by a name that its file does not have."""
    _SOURCES[name] = source


def declare_folder(path: Path | str) -> list[str]:
    """Make all tasks of a folder known by their names: its YAML files without an underscore in front.

    Groups are known by their names too (`expand_group`), with an underscore in front of their files or without.
    Templates, which have no ``task``, are left alone.

    Raises:
        TaskError: There is no such folder, a file cannot be read, or two files have one name.
    """
    folder = expand_home(path).absolute()
    if not is_there(folder) or not folder.is_dir():
        raise TaskError(f"no folder {folder}: pass --include a folder of task files, or --task the path of one")
    paths: dict[str, Path] = {}
    for file in sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES):
        source = read_source(file)
        values = source.parse()
        if isinstance(group := values.values.get("group"), str):
            _GROUP_SOURCES[group] = source
        if file.name.startswith("_") or "group" in values.values or "task" not in values.values:
            continue
        name = name_of(values)
        if name in paths:
            raise TaskError(f"{paths[name]} and {file} are both named {name}: rename one (task)")
        paths[name] = file
        _SOURCES[name] = source
    if not paths:
        raise TaskError(f"{folder} holds no task file: such a file ends in .yaml and has the key `task`")
    return list(paths)


def declared_groups(folder: Path | None = None) -> list[str]:
    """Names of the groups of a folder that was declared; of all such folders if None."""
    place = None if folder is None else expand_home(folder).absolute()
    return sorted(name for name, source in _GROUP_SOURCES.items() if place in (None, source.path.parent))


def is_group(name: str) -> bool:
    """Whether a name is that of a group of a folder's."""
    return name in _GROUP_SOURCES


def expand_group(name: str, within: tuple[str, ...] = ()) -> list[str]:
    """The tasks of a group of a folder's, in its order; from then on its mean is known (`groups`).

    Raises:
        TaskError: It lists something else than names of tasks and groups, or one that no folder has.
    """
    source = _GROUP_SOURCES[name]
    file = source.parse()
    parts = file.values.get("task")
    parts = [parts] if isinstance(parts, str) else parts
    place = file.place(("task",))
    if name in within or not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise TaskError(f"{place}: task of the group {name} must list names of tasks and of other groups")
    found: list[str] = []
    for part in parts:
        if part not in _SOURCES and part not in _GROUP_SOURCES:
            raise TaskError(f"{place}: the group {name} lists {part}, which no folder of --include has")
        found += expand_group(part, (*within, name)) if part in _GROUP_SOURCES else [part]
    found = list(dict.fromkeys(found))
    groups.make_known(name, found, file.values, file.place(("aggregate_metric_list",)))
    return found


def list_files(folder: Path) -> list[Path]:
    """The task files of a folder, by name; an underscore in front marks what others include."""
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("_"))


def find(name: str) -> TaskSource | None:
    """The file of a task; None if this process was told of none."""
    return _SOURCES.get(name)


def declared() -> list[str]:
    """Names of all tasks that were made known."""
    return sorted(_SOURCES)


def with_included(source: TaskSource, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a file over those of the files that it includes, as lm-eval puts them together.

    Raises:
        TaskError: One of them cannot be read, or they include each other.
    """
    file = source.parse()
    values: dict[str, Any] = {}
    names = file.values.get("include")
    names = [names] if isinstance(names, str) else names or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TaskError(f"{file.place(('include',))}: include must be a file, or a list of files")
    for name in names:
        path = (source.path.parent / name).absolute()
        if path in (*seen, source.path):
            raise TaskError(f"{file.place(('include',))}: include: {name} includes this file again")
        values |= with_included(read_source(path), (*seen, source.path))
    values |= file.values
    values.pop("include", None)
    return values


def describe(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Path and text of the files of those of the tasks that have one, for ``run.json``; included files are merged."""
    sources = {name: source for name in names if (source := find(name)) is not None}
    return {name: {"path": str(source.path), "text": _whole_text(source)} for name, source in sources.items()}


def _whole_text(source: TaskSource) -> str:
    """The text of a file, with what it includes."""
    if "include" not in source.parse().values:
        return source.text
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    folder = source.path.parent
    Dumper.add_representer(
        FunctionName, lambda dumper, name: dumper.represent_scalar("!function", name.seen_from(folder))
    )
    return yaml.dump(with_included(source), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def restore(files: Mapping[str, Any]) -> None:
    """Make known what a ``run.json`` has of the run's task files; what is known already stays."""
    for name, entry in files.items():
        if isinstance(entry, dict) and isinstance(entry.get("path"), str) and isinstance(entry.get("text"), str):
            _SOURCES.setdefault(name, TaskSource(Path(entry["path"]), entry["text"]))
