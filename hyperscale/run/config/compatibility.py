"""Settings of a run that do not go together."""

from typing import TYPE_CHECKING

from hyperscale.errors import ConfigError

if TYPE_CHECKING:
    from hyperscale.run.config.schema import RunConfig


def check_engine(config: "RunConfig") -> None:
    """Refuse what vLLM, or the engine of presses, cannot do here before anything is loaded.

    Raises:
        ConfigError: They cannot.
        EngineError: vLLM is not installed, or in a version that nobody has tried.
    """
    if config.engine != "vllm":
        pressed = [name for name in config.methods if name.startswith("kvpress:")]
        if pressed and config.kv_dtype != "auto":
            raise ConfigError(
                f"{pressed[0]} runs on transformers' cache, which is not quantised: leave it or --kv-dtype out"
            )
        return
    if config.extend or config.force_answer:
        raise ConfigError(
            "--extend and --force-answer steer chains token by token, which the vllm engine cannot: leave --engine out"
        )
    if config.kv_dtype != "auto":
        raise ConfigError("--kv-dtype is the torch engine's: leave --engine vllm or --kv-dtype out")
    from hyperscale.engines.vllm import versions

    versions.check()
    if unable := [name for name in config.methods if name not in versions.METHODS]:
        raise ConfigError(
            f"{unable[0]} does not run in vLLM, which runs {', '.join(versions.METHODS)}: leave --engine vllm out"
        )


def check_strategy(config: "RunConfig") -> None:
    """Refuse a vote, or a word to think on with, that the run would not use.

    Raises:
        ConfigError: It would not.
    """
    if config.extend_word != type(config).model_fields["extend_word"].default and not config.extend:
        raise ConfigError(f"--extend-word {config.extend_word!r} goes with --extend N, which says how often it is used")
    if config.vote is None:
        return
    from hyperscale.scoring.voting import strategies

    if strategies.get(config.vote).scorer not in (None, strategies.LOGPROB):
        raise ConfigError(
            f"--vote {config.vote} needs finished chains: run without it, then `hyperscale score FOLDER "
            "--vote best-of-n --scorer PATH`"
        )
