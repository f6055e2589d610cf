"""KV-compression methods: one file each, registered by name."""

from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, getdoc, signature
from typing import Any

from hyperscale.errors import MethodError
from hyperscale.methods.base import Method

_CLASSES = {
    "vanilla": "hyperscale.methods.vanilla:Vanilla",
    "dms": "hyperscale.methods.dms:DMS",
    "window": "hyperscale.methods.window:Window",
    "random": "hyperscale.methods.random_:Random",
    "streaming": "hyperscale.methods.streaming:Streaming",
    "tova": "hyperscale.methods.tova:TOVA",
}


def _load(name: str) -> type[Method]:
    if name not in _CLASSES:
        raise MethodError(f"unknown method {name!r}; known methods: {', '.join(_CLASSES)}")
    module, _, attribute = _CLASSES[name].partition(":")
    method: type[Method] = getattr(import_module(module), attribute)
    return method


def create(name: str, *, cr: float, **params: Any) -> Method:
    """Make a method.

    Args:
        name: A registered name.
        cr: Nominal compression ratio, at least 1.
        **params: The method's own parameters.

    Raises:
        MethodError: The name is unknown, or a parameter is unknown or out of range.
    """
    method, known = _load(name), parameters(name)
    for param in params:
        if param not in known:
            raise MethodError(f"method {name} has no parameter {param!r}; it has: {', '.join(known)}")
    try:
        return method(cr=cr, **params)
    except (TypeError, ValueError) as error:
        raise MethodError(f"a parameter of {name} has the wrong type ({error}) in {params}") from None


def parameters(name: str) -> list[str]:
    """Names of a method's parameters, ``cr`` among them.

    Raises:
        MethodError: The name is unknown.
    """
    found = signature(_load(name)).parameters.values()
    return [parameter.name for parameter in found if parameter.kind != Parameter.VAR_KEYWORD]


def needs_gates(name: str) -> bool:
    """Whether a method runs only on a checkpoint retrofitted with DMS gates.

    Raises:
        MethodError: The name is unknown.
    """
    return _load(name).needs_gates


@dataclass(frozen=True)
class Description:
    """What there is to say of a method with its default parameters.

    Attributes:
        name: The registered name.
        kind: See `Method`.
        needs: "attention", "gates": what it needs of the pass or the checkpoint.
        length_invariant: See `Method`.
        summary: One line.
        source: Paper and reference code.
        params: Parameters by name; ``cr`` is what it is where a run names no ratio.
        rule: The method's own text.
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
        MethodError: The name is unknown.
    """
    kind = _load(name)
    method = kind()
    needs = [word for word, needed in (("attention", kind.needs_attention), ("gates", kind.needs_gates)) if needed]
    facts = (kind.kind, tuple(needs), method.length_invariant, kind.summary, kind.source, method.params())
    return Description(name, *facts, getdoc(kind) or "")


def available() -> dict[str, str]:
    """Registered names with one line about each."""
    return {name: _load(name).summary for name in _CLASSES}
