"""The parameters of a run's methods, as its configuration gives them."""

from typing import TYPE_CHECKING, Any

from hyperscale.errors import ConfigError

if TYPE_CHECKING:
    from hyperscale.run.config.schema import RunConfig

PIN = "pin_prompt"


def settle(config: "RunConfig") -> dict[str, dict[str, Any]]:
    """Each method's parameters, `RunConfig.pin_prompt` among them for the methods that have it.

    Raises:
        ConfigError: Parameters belong to no method of the run or are set elsewhere, or no method pins its prompt.
        MethodError: A method is unknown.
    """
    if unused := sorted(set(config.params) - set(config.methods)):
        raise ConfigError(f"params.{unused[0]}: {unused[0]!r} is no method of this run ({', '.join(config.methods)})")
    if fixed := [name for name, params in config.params.items() if "cr" in params]:
        raise ConfigError(f"params.{fixed[0]}.cr: compression ratios are set by crs (--cr) for all methods")
    wanted = config.pin_prompt
    if wanted is None:
        return config.params
    from hyperscale import methods  # imports torch

    able = [name for name in config.methods if PIN in methods.parameters(name)]
    if not able:
        raise ConfigError(
            f"--{'' if wanted else 'no-'}pin-prompt: no method of this run ({', '.join(config.methods)}) pins the "
            "prompt; `hyperscale methods` shows which do"
        )
    for name in able:
        if config.params.get(name, {}).get(PIN, wanted) is not wanted:
            raise ConfigError(
                f"params.{name}.{PIN} is {str(not wanted).lower()} and --{'' if wanted else 'no-'}pin-prompt says "
                "otherwise: give one of them"
            )
    return {name: dict(params) for name, params in config.params.items()} | {
        name: {**config.params.get(name, {}), PIN: wanted} for name in able
    }
