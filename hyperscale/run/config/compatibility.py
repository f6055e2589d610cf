"""Refuses settings of a run that do not go together."""

from typing import TYPE_CHECKING

from hyperscale.engines import registry
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.kv.formats import AUTO, QUANTISED
from hyperscale.methods.registry import require_known
from hyperscale.run.config.task_kinds import find_likelihood_task, likelihood_tasks

if TYPE_CHECKING:
    from hyperscale.run.config.schema import RunConfig


def check_engine(config: "RunConfig") -> None:
    """Refuse what the engines of a run cannot do, before anything is loaded; of ``auto``, what no engine can.

    Raises:
        ConfigError: They cannot run a method, steer chains or quantise the cache as the configuration asks.
        EngineError: An engine is not installed, or in a version that is not supported.
        MethodError: A method has an unknown name.
    """
    for name in config.methods:
        require_known(name)
    if config.engine != registry.AUTO:
        _check_engine(config, config.engine)
        return
    # The reference first: the others may take long to import.
    refusals: dict[str, HyperscaleError] = {}
    for name in sorted(registry.available(), key=lambda name: name != registry.REFERENCE):
        try:
            _check_engine(config, name)
        except HyperscaleError as error:
            refusals[name] = error
        else:
            return
    if config.kv_dtype not in (AUTO, *QUANTISED):  # the reference engine never has it, so its advice is of no use
        raise next(error for name, error in refusals.items() if name != registry.REFERENCE)
    raise refusals[registry.REFERENCE]


def _check_engine(config: "RunConfig", engine: str) -> None:
    steering = bool(config.extend or config.force_answer)
    for provider, methods in registry.assign(engine, config.methods).items():
        provider.check(
            methods, steering=steering, kv_dtype=config.kv_dtype, likelihood=find_likelihood_task(config.tasks)
        )


def check_placement(config: "RunConfig") -> None:
    """Refuse settings of several engines that do not go together, before any machine is looked at.

    Raises:
        ConfigError: They do not.
    """
    if config.address is not None and config.executor != "ray":
        raise ConfigError(f"--address {config.address} is that of a Ray cluster: pass --executor ray as well")
    if config.tensor_parallel > 1 and config.engine not in (registry.AUTO, "vllm"):
        raise ConfigError(
            f"--tensor-parallel {config.tensor_parallel}: only vLLM shares one engine among GPUs: pass --engine vllm, "
            "or leave --tensor-parallel out to have an engine on each GPU"
        )
    if config.gpus is not None and config.engines is not None:
        need = config.engines * config.tensor_parallel
        if need > config.gpus:
            raise ConfigError(
                f"--engines {config.engines} of {config.tensor_parallel} GPUs each take {need}, more than --gpus "
                f"{config.gpus}: pass one of the two"
            )


def check_strategy(config: "RunConfig") -> None:
    """Refuse a strategy of voting, or an extension word, that the run could not use.

    Raises:
        ConfigError: The word is given without --extend, or the strategy needs finished chains.
    """
    if config.extend_word != type(config).model_fields["extend_word"].default and not config.extend:
        raise ConfigError(f"--extend-word {config.extend_word!r} goes with --extend N, which says how often it is used")
    # A reward model scores finished chains: such a vote is taken afterwards.
    if config.vote is None:
        return
    if len(likelihood_tasks(config.tasks)) == len(config.tasks):
        raise ConfigError(
            f"--vote {config.vote}: {', '.join(config.tasks)} {'are' if len(config.tasks) > 1 else 'is'} scored by "
            "likelihood, which gives each problem one verdict, so nothing votes: leave --vote out"
        )
    from hyperscale.scoring.voting import strategies

    if strategies.get(config.vote).scorer not in (None, strategies.LOGPROB):
        raise ConfigError(
            f"--vote {config.vote} needs finished chains: run without it, then `hyperscale score FOLDER "
            "--vote best-of-n --scorer PATH`"
        )
