"""Finds presses of the installed kvpress by name, checks them, and makes them anew for every chain.

kvpress (github.com/NVIDIA/kvpress) is optional and imported here at the first use of one of its names.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import getsource, signature
from typing import Any

from hyperscale.errors import MethodError, first_line
from hyperscale.methods.names import KVPRESS

INSTALL = "pip install 'hyperscale-kv[kvpress]', see docs/kvpress.md"
BY_RATIO = ("compression_ratio", "target_compression_ratio", "target_size")
"""Values of presses that follow from the CR."""
DECODING = "decoding"
"""Switches a press on while decoding."""


@dataclass(frozen=True)
class Node:
    """A class of press and those that its object wraps, in the order of its signature."""

    kind: type[Any]
    inner: "tuple[Node, ...]" = ()

    def walk(self) -> "Iterator[Node]":
        """This one and all below it."""
        yield self
        for node in self.inner:
            yield from node.walk()

    def settings(self) -> list[str]:
        """Names that a user may set."""
        unset = (*BY_RATIO, DECODING, *wrapped(self.kind))
        return [name for name in signature(self.kind).parameters if name not in unset and not name.startswith("_")]

    def has(self, name: str) -> bool:
        """Whether the class is made with a value of this name."""
        return name in signature(self.kind).parameters

    def build(self, arguments: Callable[["Node"], Mapping[str, Any]]) -> Any:
        """The object, made with what ``arguments`` gives for each class."""
        presses = [node.build(arguments) for node in self.inner]
        return self.kind(**dict(zip(wrapped(self.kind), presses, strict=True)), **arguments(self))


def wrapped(kind: type[Any]) -> list[str]:
    """Names of the values that a class of press is made with and that are presses themselves."""
    parameters = signature(kind).parameters.values()
    # Annotations may be strings, unions or lists of presses: the word tells them all.
    return [p.name for p in parameters if "Press" in str(p.annotation) and not p.name.startswith("_")]


@cache
def package() -> Any:
    """The module kvpress.

    Raises:
        MethodError: It is not installed, or cannot be imported.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # kvpress wraps every attention function that is registered when it is imported; ours are not made for that.
    functions = {name: f for name, f in ALL_ATTENTION_FUNCTIONS.items() if f.__module__.startswith("hyperscale.")}
    try:
        import kvpress
    except ImportError as error:
        missing = error.name == "kvpress"
        why = "is not installed" if missing else f"cannot be imported ({first_line(error)})"
        raise MethodError(f"methods named {KVPRESS}NAME need the package kvpress, which {why}: {INSTALL}") from None
    for name, function in functions.items():
        ALL_ATTENTION_FUNCTIONS[name] = function
    return kvpress


def parse(name: str) -> Node:
    """Read ``DecodingPress:SnapKVPress``: a press that wraps others is followed by them, in the order of its signature.

    Raises:
        MethodError: There is no such press, it does nothing while decoding, or it wraps others than follow it.
    """
    parts = name.split(":")
    root = _find(parts.pop(0))
    if not _decodes(root):
        raise MethodError(f"{KVPRESS}{name}: {_prompt_only(root)}")
    node = _take(root, parts, name)
    if parts:
        raise MethodError(f"{KVPRESS}{name}: {parts[0]} has no place in it, as nothing before wraps one more press")
    return node


def masks(node: Node) -> bool:
    """Whether a press masks entries of single heads in place, so that nothing is freed."""
    classes = {base for part in node.walk() for base in part.kind.__mro__ if base.__module__.startswith("kvpress.")}
    # kvpress has no attribute that says so: presses that mask set these indices on the attention module.
    return any("masked_key_indices" in getsource(base) for base in classes)


def _find(name: str) -> type[Any]:
    kind = getattr(package(), name, None)
    if isinstance(kind, type) and issubclass(kind, package().BasePress):
        return kind
    raise MethodError(f"kvpress has no press {name!r}; those that work while decoding: {', '.join(_decoding())}")


def _decodes(kind: type[Any]) -> bool:
    kvpress = package()
    return issubclass(kind, (kvpress.DecodingPress, kvpress.PrefillDecodingPress)) or Node(kind).has(DECODING)


def _decoding() -> list[str]:
    kinds = [(name, getattr(package(), name)) for name in package().__all__]
    return [name for name, kind in kinds if issubclass(kind, package().BasePress) and _decodes(kind)]


def _prompt_only(kind: type[Any]) -> str:
    name = kind.__name__
    if issubclass(kind, package().ScorerPress):
        return f"{name} only scores the prompt by itself; to evict by its scores write {KVPRESS}DecodingPress:{name}"
    return f"{name} compresses only the prompt; those that work while decoding: {', '.join(_decoding())}"


def _take(kind: type[Any], parts: list[str], name: str) -> Node:
    """The node of a class, taking the names of what it wraps from the front of ``parts``."""
    inner = []
    for field in wrapped(kind):
        if not parts:
            raise MethodError(
                f"{KVPRESS}{name}: {kind.__name__} wraps one more press ({field}), whose name follows it, "
                f"e.g. {KVPRESS}DecodingPress:KnormPress"
            )
        wrapped_kind = _find(parts.pop(0))
        # Nothing but a decoding press may do more, when it is called on a model, than hook the model's layers.
        if not _decodes(wrapped_kind) and wrapped_kind.__call__ is not package().BasePress.__call__:
            raise MethodError(
                f"{KVPRESS}{name}: {wrapped_kind.__name__} needs passes over the prompt of its own, so nothing can "
                "wrap it"
            )
        inner.append(_take(wrapped_kind, parts, name))
    return Node(kind, tuple(inner))
