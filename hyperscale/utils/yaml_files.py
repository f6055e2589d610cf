"""Reads YAML mappings and remembers the line of every key, for messages; a key that stands twice is refused."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import HyperscaleError, first_line
from hyperscale.utils.validation import Location

if TYPE_CHECKING:
    from yaml import SafeLoader
    from yaml.nodes import Node


_MAX_ENTRIES = 20_000
_ODD_KEYS = {"bool": "true or false", "null": "nothing", "int": "a number", "float": "a number"}  # by YAML's tags


@dataclass(frozen=True)
class YamlFile:
    """The contents of a YAML file.

    Attributes:
        path: The file.
        values: Its mapping.
        lines: The line, counted from 1, of each key and list entry.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[Location, int]

    def place(self, location: Location) -> str:
        """Path and line of a key; of the innermost key around it that stands in the file, if it does not itself."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.lines:
                return f"{self.path}, line {self.lines[location[:end]]}"
        return str(self.path)


def read_yaml(
    path: Path,
    failure: type[HyperscaleError],
    remedy: str,
    loader: "type[SafeLoader] | None" = None,
    text: str | None = None,
) -> YamlFile:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.
        failure: The error to raise.
        remedy: What such a file should be, the end of a message: "pass a YAML file with …".
        loader: Constructs the values; a subclass may know tags that plain YAML does not. By default dates stay text.
        text: What the file holds or held, if it is not to be read.

    Raises:
        HyperscaleError: Of the type ``failure``: the file cannot be read, is no YAML or no mapping, or has a key twice
            or one that YAML takes for a number, a truth value or nothing.
    """
    import yaml

    lines: dict[Location, int] = {}
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_odd_keys(node, path, failure)
        _note_lines(node, (), lines, path, failure)  # before the values, which hide what stands twice
        values = yaml.load(text, Loader=loader or _text_dates_loader())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise failure(f"cannot read {path} ({reason}): {remedy}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "not YAML"
        raise failure(f"cannot read {path}{line} ({reason}): {remedy}") from None
    except RecursionError:
        raise failure(f"cannot read {path} (nested too deeply, or a part of itself): {remedy}") from None
    except (ValueError, TypeError) as error:  # what YAML's own types refuse: a date like 2024-13-45, a list as a key
        raise failure(f"cannot read {path} ({first_line(error)}): {remedy}") from None
    if not isinstance(values, dict):
        raise failure(f"{path} is not a mapping: {remedy}")
    return YamlFile(path, values, lines)


@cache
def _text_dates_loader() -> "type[SafeLoader]":
    """YAML's safe loader, but dates stay text: no setting of ours is a date, and JSON, which stores them, has none."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _refuse_odd_keys(node: "Node | None", path: Path, failure: type[HyperscaleError]) -> None:
    """Refuse keys of the mapping itself that are no texts: YAML reads ``on`` and ``no`` as true and false."""
    from yaml.nodes import MappingNode

    for key, _ in node.value if isinstance(node, MappingNode) else ():
        kind = _ODD_KEYS.get(key.tag.removeprefix("tag:yaml.org,2002:"))
        if kind is not None:
            raise failure(
                f"{path}, line {key.start_mark.line + 1}: YAML takes the key {key.value} for {kind}: put it in quotes"
            )


def _note_lines(
    node: "Node | None", location: Location, lines: dict[Location, int], path: Path, failure: type[HyperscaleError]
) -> None:
    """Fill in the lines of all that lies below a node."""
    from yaml.nodes import MappingNode, SequenceNode

    # An alias is its anchor's node again: a few lines of aliases of aliases unfold to more than a memory holds.
    if len(lines) > _MAX_ENTRIES:
        raise failure(f"{path} unfolds to more than {_MAX_ENTRIES:,} entries: write them without aliases")

    if isinstance(node, MappingNode):
        for key, value in node.value:
            inner = (*location, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:  # YAML's own reader would take the last one in silence
                raise failure(f"{path}, line {line}: {key.value!r} stands in line {lines[inner]} too: leave one out")
            lines[inner] = line
            _note_lines(value, inner, lines, path, failure)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            lines[*location, index] = value.start_mark.line + 1
            _note_lines(value, (*location, index), lines, path, failure)
