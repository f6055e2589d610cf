"""KV-compression methods: one file each, registered by name."""

from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from hyperscale.errors import MethodError
from hyperscale.methods.base import Method
from hyperscale.methods.presses import PREFIX

_CLASSES = {
    "vanilla": "hyperscale.methods.vanilla:Vanilla",
    "dms": "hyperscale.methods.dms:DMS",
    "window": "hyperscale.methods.window:Window",
    "random": "hyperscale.methods.random_:Random",
    "streaming": "hyperscale.methods.streaming:Streaming",
    "keydiff": "hyperscale.methods.keydiff:KeyDiff",
    "triattention": "hyperscale.methods.triattention:TriAttention",
    "quest": "hyperscale.methods.quest:Quest",
    "tova": "hyperscale.methods.tova:TOVA",
    "h2o": "hyperscale.methods.h2o:H2O",
    "snapkv": "hyperscale.methods.snapkv:SnapKV",
    "rkv": "hyperscale.methods.rkv:RKV",
}


def _load(name: str) -> type[Method]:
    if name not in _CLASSES:
        raise MethodError(f"unknown method {name!r}; known methods: {', '.join(_CLASSES)}, {PREFIX}NAME")
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
    factory = _press(name) if name.startswith(PREFIX) else _checked(name, params)
    try:
        return factory(cr=cr, **params)
    except (TypeError, ValueError) as error:
        raise MethodError(f"a parameter of {name} has the wrong type ({error}) in {params}") from None


def _checked(name: str, params: Iterable[str]) -> Callable[..., Method]:
    method = _load(name)
    known = [
        parameter.name for parameter in signature(method).parameters.values() if parameter.kind != Parameter.VAR_KEYWORD
    ]
    for param in params:
        if param not in known:
            raise MethodError(f"method {name} has no parameter {param!r}; it has: {', '.join(known)}")
    return method


def _press(name: str) -> Callable[..., Method]:
    from hyperscale.methods.kvpress_ import create as press

    return lambda *, cr, **params: press(name.removeprefix(PREFIX), cr, params)


def needs_gates(name: str) -> bool:
    """Whether a method runs only on a checkpoint retrofitted with DMS gates.

    Raises:
        MethodError: The name is unknown.
    """
    return not name.startswith(PREFIX) and _load(name).needs_gates


def notes(made: Iterable[Method]) -> list[str]:
    """What is to be said of methods, each line once."""
    return list(dict.fromkeys(note for method in made for note in method.notes()))


def available() -> dict[str, str]:
    """Registered names with one line about each."""
    return {name: _load(name).summary for name in _CLASSES}
