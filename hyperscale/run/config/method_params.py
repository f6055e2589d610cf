"""Completes the parameters of methods: the setting ``pin_prompt``, and budgets in tokens."""

from typing import TYPE_CHECKING, Any

from hyperscale.errors import ConfigError

if TYPE_CHECKING:
    from hyperscale.run.config.schema import RunConfig

PIN = "pin_prompt"
BUDGET = "budget"
RULE = "rule"
_MOST_TOKENS = 2**31
_MOST_DIGITS = 12


def complete_params(config: "RunConfig") -> dict[str, dict[str, Any]]:
    """Each method's parameters, with the prompt's pin, and with budgets in tokens as ascending tuples.

    Raises:
        ConfigError: Parameters belong to no method of the run or are set elsewhere, no method pins its prompt, or a
            budget is no whole number of tokens.
        MethodError: A method is unknown.
    """
    merged = merge_pin_prompt(config)
    for name, params in merged.items():
        if BUDGET in params:
            _check_budgeted(name, params)
    return {
        name: {**params, BUDGET: _budgets(name, params[BUDGET])} if BUDGET in params else params
        for name, params in merged.items()
    }


def _check_budgeted(name: str, params: dict[str, Any]) -> None:
    """Refuse a budget in tokens of a method that has none, and beside a rule of budgets that grow."""
    from hyperscale.methods import parameters  # imports torch

    known = parameters(name)
    if known and BUDGET not in known:  # of a press kvpress says what it takes
        raise ConfigError(
            f"--method-param {name}.{BUDGET}: {name} has no budget in tokens; `hyperscale methods NAME` shows which "
            "methods have one, --cr sets compression ratios"
        )
    if RULE in params:
        raise ConfigError(
            f"--method-param {name}.{RULE} has no effect beside {name}.{BUDGET}, which is the same at every length: "
            "give one of them"
        )


def _budgets(name: str, value: Any) -> tuple[int, ...]:
    """Budgets in tokens: one number, a list of them, or several with commas between."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    budgets = []
    for part in parts:
        text = str(part).strip()
        # Without zeros in front: 1,024 would be budgets of 1 and of 24 tokens.
        is_whole = text.isascii() and text.isdecimal() and not text.startswith("0") and len(text) < _MOST_DIGITS
        if isinstance(part, bool) or not is_whole or int(text) >= _MOST_TOKENS:
            raise ConfigError(
                f"--method-param {name}.{BUDGET} must be whole numbers of tokens from 1 on, like 1024 or 512,1024, "
                f"not {value!r}"
            )
        budgets.append(int(text))
    if not budgets or len(set(budgets)) < len(budgets):
        raise ConfigError(f"--method-param {name}.{BUDGET} must name budgets, each once, not {value!r}")
    return tuple(sorted(budgets))


def merge_pin_prompt(config: "RunConfig") -> dict[str, dict[str, Any]]:
    """Each method's parameters; `RunConfig.pin_prompt` is among them for every method that has such a parameter.

    Raises:
        ConfigError: Parameters belong to no method of the run or are set elsewhere, or no method pins its prompt.
        MethodError: A method is unknown.
    """
    methods = ", ".join(config.methods)
    if foreign := sorted(set(config.params) - set(config.methods)):
        raise ConfigError(f"--method-param {foreign[0]}: {foreign[0]!r} is no method of this run ({methods})")
    for name, params in config.params.items():
        if "cr" in params:
            raise ConfigError(f"--method-param {name}.cr: compression ratios are set by --cr for all methods")
    pin = config.pin_prompt
    if pin is None:
        return config.params
    option = f"--{'' if pin else 'no-'}pin-prompt"
    from hyperscale.methods import parameters  # imports torch

    pinning = [name for name in config.methods if PIN in parameters(name)]
    if not pinning:
        raise ConfigError(
            f"{option}: no method of this run ({methods}) pins the prompt; `hyperscale methods` shows which do"
        )
    for name in pinning:
        if config.params.get(name, {}).get(PIN, pin) is not pin:
            raise ConfigError(
                f"--method-param {name}.{PIN} is {str(not pin).lower()} and {option} says otherwise: give one of them"
            )
    return {name: dict(params) for name, params in config.params.items()} | {
        name: {**config.params.get(name, {}), PIN: pin} for name in pinning
    }
