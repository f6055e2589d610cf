"""KV-compression methods: one file each, registered by name."""

from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from hyperscale.errors import MethodError
from hyperscale.methods.base import Method

_CLASSES = {
    "vanilla": "hyperscale.methods.vanilla:Vanilla",
    "dms": "hyperscale.methods.dms:DMS",
    "window": "hyperscale.methods.window:Window",
    "random": "hyperscale.methods.random_:Random",
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
    method = _load(name)
    known = [
        parameter.name for parameter in signature(method).parameters.values() if parameter.kind != Parameter.VAR_KEYWORD
    ]
    for param in params:
        if param not in known:
            raise MethodError(f"method {name} has no parameter {param!r}; it has: {', '.join(known)}")
    try:
        return method(cr=cr, **params)
    except (TypeError, ValueError) as error:
        raise MethodError(f"a parameter of {name} has the wrong type ({error}) in {params}") from None


def needs_gates(name: str) -> bool:
    """Whether a method runs only on a checkpoint retrofitted with DMS gates.

    Raises:
        MethodError: The name is unknown.
    """
    return _load(name).needs_gates


def available() -> dict[str, str]:
    """Registered names with one line about each."""
    return {name: _load(name).summary for name in _CLASSES}
