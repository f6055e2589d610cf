"""Makes methods by name, checks their parameters, and describes them for listings.

To add a method, write its file and add one line to the table here; it is imported at the first use of its name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from types import NoneType
from typing import Any

from hyperscale.errors import MethodError
from hyperscale.methods.core.base import Method
from hyperscale.methods.names import KVPRESS

_CLASSES = {
    "vanilla": "hyperscale.methods.vanilla:Vanilla",
    "dms": "hyperscale.methods.dms:DMS",
    "window": "hyperscale.methods.window:Window",
    "random": "hyperscale.methods.random_eviction:Random",
    "streaming": "hyperscale.methods.streaming:Streaming",
    "keydiff": "hyperscale.methods.keydiff:KeyDiff",
    "knorm": "hyperscale.methods.knorm:Knorm",
    "triattention": "hyperscale.methods.triattention:TriAttention",
    "quest": "hyperscale.methods.quest:Quest",
    "tova": "hyperscale.methods.tova:TOVA",
    "h2o": "hyperscale.methods.h2o:H2O",
    "snapkv": "hyperscale.methods.snapkv:SnapKV",
    "rkv": "hyperscale.methods.rkv:RKV",
    "dmc": "hyperscale.methods.dmc:DMC",
}
_LIMIT = 2**31
"""No size may reach it: positions are kept in 32 bits."""
#: What a parameter of each annotated type may be, in words and in types.
_NUMBERS: dict[Any, tuple[str, tuple[type, ...]]] = {
    int: ("whole number", (int,)),
    int | None: ("whole number", (int, NoneType)),
    float: ("number", (int, float)),
}


def require_known(name: str) -> None:
    """Refuse a name that no method has; a press's is looked at when it is made.

    Raises:
        MethodError: None has it.
    """
    if name not in _CLASSES and not name.startswith(KVPRESS):
        raise MethodError(f"unknown method {name!r}; known methods: {', '.join(_CLASSES)}, {KVPRESS}NAME")


def _load(name: str) -> type[Method]:
    require_known(name)
    module, _, attribute = _CLASSES[name].partition(":")
    method: type[Method] = getattr(import_module(module), attribute)
    return method


def create(name: str, *, cr: float, **params: Any) -> Method:
    """Make a method.

    Args:
        name: A registered name, or ``kvpress:NAME``.
        cr: Nominal compression ratio, at least 1.
        **params: The method's own parameters.

    Raises:
        MethodError: The name is unknown, or a parameter is unknown or out of range.
    """
    try:
        if name.startswith(KVPRESS):
            from hyperscale.methods.kvpress.method import create as create_press

            return create_press(name.removeprefix(KVPRESS), cr, params)
        method = _load(name)
        _check_types(name, method, {"cr": cr, **params})
        return method(cr=cr, **params)
    except (TypeError, ValueError) as error:
        raise MethodError(f"a parameter of {name} has the wrong type ({error}) in {params}") from None


def _check_types(name: str, method: type[Method], params: Mapping[str, Any]) -> None:
    """Refuse parameters that the method does not have, and values that are no number where it needs one."""
    annotations = {field.name: field.type for field in method.parameters()}
    for param, value in params.items():
        if param not in annotations:
            raise MethodError(f"method {name} has no parameter {param!r}; it has: {', '.join(annotations)}")
        if annotations[param] not in _NUMBERS:
            continue  # a word or a truth value, which the method checks by itself
        word, types = _NUMBERS[annotations[param]]
        # True is an int to Python, and a size that is no whole number shows only where it is used.
        if isinstance(value, bool) or not isinstance(value, types):
            raise MethodError(f"{param} of {name} must be a {word}, not {value!r}")
        if isinstance(value, int) and value >= _LIMIT:
            raise MethodError(f"{param} of {name} must be below {_LIMIT}, not {value}")


def parameters(name: str) -> list[str]:
    """Names of a method's parameters, ``cr`` among them; none of a press, which takes what kvpress lets it.

    Raises:
        MethodError: The name is unknown.
    """
    if name.startswith(KVPRESS):
        return []
    return [field.name for field in _load(name).parameters()]


def retrofit_kind(name: str) -> str | None:
    """The kind of retrofit that a method runs on, or None if it runs any model.

    Raises:
        MethodError: The name is unknown.
    """
    return None if name.startswith(KVPRESS) else _load(name).retrofit_kind


def notes(methods: Iterable[Method]) -> list[str]:
    """What users should know about some methods, each line once."""
    return list(dict.fromkeys(note for method in methods for note in method.notes()))


@dataclass(frozen=True)
class Description:
    """What `hyperscale methods` shows of a method with its default parameters.

    Attributes:
        name: The registered name.
        kind: See `Method`.
        needs: What it needs of the pass or the model: "attention", "a dms checkpoint".
        length_invariant: See `Method`.
        summary: One line.
        source: Paper and reference code.
        params: Parameters by name with their defaults.
        rule: The method's docstring, with all parameters explained.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    length_invariant: bool
    summary: str
    source: str
    params: dict[str, Any]
    rule: str


def describe(name: str) -> Description:
    """Describe a method.

    Raises:
        MethodError: The name is unknown, or a press's.
    """
    if name.startswith(KVPRESS):
        raise MethodError(f"{name} is kvpress's: see its documentation; docs/kvpress.md says how it is run here")
    method = _load(name)()
    retrofit = None if method.retrofit_kind is None else f"a {method.retrofit_kind} checkpoint"
    return Description(
        name=name,
        kind=method.kind,
        needs=tuple(filter(None, ("attention" if method.needs_attention else None, retrofit))),
        length_invariant=method.length_invariant,
        summary=method.summary,
        source=method.source,
        params=method.params(),
        rule=_explain(type(method)),
    )


_PARAMETERS = "\nParameters:\n"


def _explain(kind: type[Method]) -> str:
    """A method's docstring, which explains the parameters that the class adds, with those that it inherits."""
    entries: dict[str, str] = {}
    for base in reversed(kind.__mro__):  # so that a class may explain a parameter anew
        section = cleandoc(base.__doc__ or "").partition(_PARAMETERS)[2]
        # Each entry starts at an indentation of four, and its further lines lie deeper.
        for entry in re.split(r"\n(?=    \w)", section):
            entries[entry.strip().partition(":")[0]] = entry
    rule = cleandoc(kind.__doc__ or "").partition(_PARAMETERS)[0]
    return "\n".join([rule.rstrip() + "\n" + _PARAMETERS.rstrip(), *(entries[f.name] for f in kind.parameters())])


def available() -> dict[str, str]:
    """Registered names with one line about each."""
    return {name: _load(name).summary for name in _CLASSES}
