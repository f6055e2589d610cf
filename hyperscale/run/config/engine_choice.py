"""Chooses the engine of a run that names none: the folder's, else vLLM on a GPU if it can run all of it, else torch."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hyperscale.engines import registry
from hyperscale.engines.devices import device_index, device_kind
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.kv.formats import AUTO
from hyperscale.models.checkpoint import read_checkpoint_config
from hyperscale.results.manifest import RUN_FILE, complete_config, read_info
from hyperscale.run.config.resolve import SET_FOR_RUN, ResolvedConfig
from hyperscale.run.config.task_kinds import find_likelihood_task

if TYPE_CHECKING:
    from hyperscale.methods.arm import Arm
    from hyperscale.methods.core.base import Method

_GIB = 1 << 30
_LEAST_CAPABILITY = (8, 0)  # bfloat16, and what vLLM's kernels are built for
_FLOAT8_CAPABILITY = (8, 9)  # quantised caches


def with_engine(
    config: ResolvedConfig, methods: "Mapping[Arm, Method]", paths: Iterable[str], folder: Path | None
) -> ResolvedConfig:
    """The configuration with an engine in the place of ``auto``, and with the reason for it; all of it is checked.

    A folder keeps the engine that it was made with.

    Args:
        config: The configuration, on its device.
        methods: Each arm's method.
        paths: The checkpoints of all arms that are at hand.
        folder: Where the run is or will be stored, if that is known.

    Raises:
        HyperscaleError: The engine that was named, or that the folder has, cannot run it, or none can; or a setting was
            named that only another engine reads, or that is read on a GPU alone.
    """
    paths = list(paths)
    if config.engine != registry.AUTO:
        engine, reason = config.engine, f"{config.engine} ({SET_FOR_RUN})"
    elif folder is not None and (folder / RUN_FILE).exists():
        engine = str(complete_config(read_info(folder)["config"])["engine"])
        reason = f"{engine}: this folder's"
    else:
        engine, reason = _choose(config, methods, paths)
    config = config.model_copy(update={"engine": engine, "engine_choice": reason})
    check_engine(config, methods, paths)
    _check_gpu_settings(config)
    return config


def check_engine(config: ResolvedConfig, methods: "Mapping[Arm, Method]", paths: Iterable[str]) -> None:
    """Refuse what the engine of a run cannot do, before the first arm has run for hours.

    Raises:
        HyperscaleError: It cannot run a method with its parameters, a setting, a checkpoint, or on the device.
    """
    configs = [(path, read_checkpoint_config(path)) for path in dict.fromkeys(paths)]
    for provider, names in registry.assign(config.engine, config.methods).items():
        steering = bool(config.extend or config.force_answer)
        provider.check(
            names, steering=steering, kv_dtype=config.kv_dtype, likelihood=find_likelihood_task(config.tasks)
        )
        chosen = [method for arm, method in methods.items() if arm.method in names]
        provider.check_methods(chosen, config.device, config.kv_dtype)
        for path, values in configs:
            provider.check_model(path, values, names, config.device)
            provider.check_rules(chosen, path, values, config.kv_dtype)
            if config.tensor_parallel > 1:
                provider.check_sharing(chosen, path, values, config.tensor_parallel, config.device)


def _check_gpu_settings(config: ResolvedConfig) -> None:
    """Refuse a setting that was named and that nothing in the run would read.

    Raises:
        ConfigError: There is one: another engine's, or one of a GPU on the CPU.
    """
    readers = registry.gpu_settings()
    providers = {provider.name for provider in registry.assign(config.engine, config.methods)}
    for name in config.named_gpu_settings:
        option, value, reader = name.replace("_", "-"), getattr(config, name), readers[name]
        written = f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option} {value}"
        if device_kind(config.device) == "cpu":
            raise ConfigError(
                f"{written} is for the {reader} engine on a GPU, and this run is on the CPU: leave it out, or pass "
                "--device cuda"
            )
        if reader not in providers:
            engine, _, reason = config.engine_choice.partition(": ")
            raise ConfigError(
                f"{written} is for the {reader} engine, and this run is on {engine}{f' ({reason})' if reason else ''}: "
                f"leave it out, or pass --engine {reader}"
            )


def _choose(config: ResolvedConfig, methods: "Mapping[Arm, Method]", paths: Sequence[str]) -> tuple[str, str]:
    """An engine that can run it, and which and why in words for the plan."""
    reason: str | None = "on a CPU vLLM is no faster, and an installation of its own"
    if device_kind(config.device) == "cuda":
        reason = _refusal("vllm", config, methods, paths) or _gpu_refusal(config)
        if reason is None:
            return "vllm", "vllm: it is installed and runs every method and setting of this run"
    # vLLM where torch has no such method or setting; if the GPU is taken, it is for vLLM to say so.
    if why := _refusal("torch", config, methods, paths):
        if _refusal("vllm", config, methods, paths) is None:
            return "vllm", f"vllm: {why}"
        # Of a cache that vLLM alone keeps, vLLM says what is missing.
        alone = set(registry.get("vllm").kv_dtypes) - set(registry.get("torch").kv_dtypes)
        if config.kv_dtype in alone:
            return "vllm", f"vllm: {why}"
    return "torch", f"torch: {reason}"


def _refusal(engine: str, config: ResolvedConfig, methods: "Mapping[Arm, Method]", paths: Sequence[str]) -> str | None:
    """Why an engine cannot run it, without the advice; None if it can."""
    try:
        check_engine(config.model_copy(update={"engine": engine}), methods, paths)
    except HyperscaleError as error:
        return str(error).partition(": ")[0]
    return None


def _gpu_refusal(config: ResolvedConfig) -> str | None:
    """Why vLLM would not start on this machine's GPU; None if it would, or if there is none, as when it is planned."""
    import torch

    if not torch.cuda.is_available():
        return None
    index = device_index(config.device) or 0
    capability = torch.cuda.get_device_capability(index)
    wanted = _LEAST_CAPABILITY if config.kv_dtype == AUTO else _FLOAT8_CAPABILITY
    if capability < wanted:
        wanted_name, name = (".".join(map(str, version)) for version in (wanted, capability))
        return f"vLLM wants a GPU of compute capability {wanted_name}, and this one has {name}"
    free, total = torch.cuda.mem_get_info(index)
    if free < config.gpu_memory * total:
        used = f"{(total - free) / _GIB:.1f} of {total / _GIB:.1f} GiB of the GPU are in use"
        return f"{used}, and vLLM would take {config.gpu_memory:.0%} of it (--gpu-memory)"
    return None
