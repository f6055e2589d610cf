"""Retrofits a model that a user names on data that a user brings: ``hyperscale retrofit``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hyperscale import models
from hyperscale.errors import ModelError, RetrofitError
from hyperscale.methods.core.dms_config import has_gates
from hyperscale.models.context import context_limit
from hyperscale.retrofit import memory_estimate
from hyperscale.retrofit.checkpoints import require_accepted
from hyperscale.retrofit.recipes import NAMES, name_recipe
from hyperscale.retrofit.reporting.records import RECORD, Activations, TrainingRecord
from hyperscale.retrofit.reporting.step_metrics import StepMetrics, format_line
from hyperscale.retrofit.resume.same_training import list_settings, require_same_settings
from hyperscale.retrofit.run_training import train
from hyperscale.retrofit.settings import RetrofitSettings, check_shares
from hyperscale.retrofit.training_job import TrainingJob
from hyperscale.utils.files import try_writing, write_atomic

if TYPE_CHECKING:
    from hyperscale.retrofit.sources.text_files import TextSource

Report = Callable[[str], None]
#: Folder of the texts that a retrofit got by itself.
SOURCES = "data"
#: Longest row unless one is set, in tokens.
DEFAULT_LENGTH = 8192
#: Rows on CUDA are a multiple of this, the block of FlexAttention's kernels.
CUDA_BLOCK = 128


def run_retrofit(
    settings: RetrofitSettings,
    report: Report,
    show_step: Callable[[StepMetrics], None] | None = None,
    report_seconds: float = 30.0,
) -> None:
    """Train, check and save; every message is a line of ``report``.

    Args:
        settings: What to do.
        report: Called with lines.
        show_step: Called with the figures of steps that are read out; by default their line goes to ``report``.
        report_seconds: Time after which a step is read out even if it is not due to be logged.

    What can be refused is refused early: before the data are read, before weights are loaded, before the training.

    Raises:
        RetrofitError: Settings, data or memory do not allow it, or the gate check refused a checkpoint.
        ModelError: The model is unknown, missing, of an unsupported kind or already retrofitted.
    """
    show_step = show_step or (lambda step: report(format_line(step)))
    if settings.recipe_name is None and (name := _begun_recipe(settings.out)):
        settings = settings.with_recipe(name)
    begun = _find_begun(settings)
    from hyperscale.retrofit.parallel.launch import is_started, launch_ranks

    if not is_started():
        _require_writable(settings.out)

    if is_started():  # one of several: none may write before all have looked
        from hyperscale.retrofit.parallel.ranks import join_ranks

        ranks, _ = join_ranks(settings.device or _default_device())
        if ranks.count != settings.gpus:
            raise RetrofitError(
                f"torchrun has started {ranks.count} processes, and --gpus is {settings.gpus}: "
                f"pass --gpus {ranks.count}"
            )
        ranks.wait()
        if not ranks.is_first:
            report = show_step = _ignore
    if begun is not None and begun.finished:
        report(f"the retrofit in {settings.out} is complete")
        require_accepted(begun.dms)
        return
    device = settings.device or _default_device()
    model = models.find(settings.model)
    if model.shape and model.shape.parameters:  # the registry knows the size without weights or configuration
        frozen = settings.is_frozen or settings.recipe_name is None  # what takes least
        estimate = memory_estimate.estimate_memory(
            model.shape.parameters, settings.weights, frozen=frozen, gpus=settings.gpus
        )
        memory_estimate.require_memory(estimate, settings.model, settings.weights, _memory_of(device))
    from hyperscale.retrofit.sources.hub_texts import PREFIX
    from hyperscale.retrofit.sources.own_texts import OWN, read_messages
    from hyperscale.retrofit.sources.text_files import read_texts

    # Before the weights are looked for: a mistake about the data shows at once.
    is_file = settings.data != OWN and not settings.data.startswith(PREFIX)
    if settings.prompts is not None and settings.data != OWN:
        raise RetrofitError("--prompts goes with --data self: leave one of them out")
    if settings.prompts is not None:
        read_messages(settings.prompts)
    source = None
    if is_file:
        report(f"reading {settings.data} …")
        source = read_texts(Path(settings.data), settings.column)
    models.require(model.base, settings.model)
    config = read_config(model.base)
    length = choose_length(settings, config, device)
    parameters = memory_estimate.count_parameters(config)
    memory = _memory_of(device)
    fused = _attends_fused(config, device)
    if settings.recipe_name is None:
        settings = _choose_recipe(settings, parameters, config, length, memory[1], report, fused=fused)
        report(f"recipe: {settings.recipe_name}")
    if settings.update_rank:
        from hyperscale.retrofit.low_rank.updates import require_peft

        require_peft()
    kept = _estimate(settings, parameters, config, length, kept=True, fused=fused)
    before = begun.activations if begun is not None else None
    fits = kept.fits(memory[1], memory_estimate.USABLE_TO_KEEP)
    if is_started():  # all do the same, though GPUs may differ in memory and the first alone may see the record
        before, fits = ranks.gather(before)[0], all(ranks.gather(fits))
    activations, reason = _choose_activations(settings.activations, before, device, fits=fits)
    if reason:
        report(f"activations: {activations}, {reason}")
    estimate = kept if activations == "kept" else _estimate(settings, parameters, config, length, fused=fused)
    report(f"training takes about {estimate}; {memory[0]} has {memory[1] / memory_estimate.GIB:,.0f} GiB")
    memory_estimate.require_memory(estimate, settings.model, settings.weights, memory, is_kept=activations == "kept")
    if settings.gpus > 1 and not is_started():
        _require_gpus(settings.gpus, device)
        check_shares(settings.gpus, settings.recipe(parameters))
        if source is None:
            _get_source(settings, model.base, device, length, parameters, report)
        report(f"training in {settings.gpus} processes …")
        launch_ranks(settings.gpus)
        return
    if source is None:
        source = _get_source(settings, model.base, device, length, parameters, report)
    job = TrainingJob(settings, model.base, config, device, length, source, activations, estimate, begun)
    train(job, report, show_step, report_seconds)


def _estimate(
    settings: RetrofitSettings, parameters: int, config: Any, length: int, *, kept: bool = False, fused: bool
) -> memory_estimate.MemoryEstimate:
    return memory_estimate.estimate_memory(
        parameters,
        settings.weights,
        config,
        settings.rows,
        length,
        frozen=settings.is_frozen,
        rank=settings.update_rank,
        gpus=settings.gpus,
        kept=kept,
        fused=fused,
    )


def _attends_fused(config: Any, device: str) -> bool:
    """Whether training on this device attends with the project's own kernels."""
    import torch

    from hyperscale.retrofit.attention.packed_attention import attends_fused

    return attends_fused(memory_estimate.head_dim_of(config), torch.device(device))


def _require_gpus(count: int, device: str) -> None:
    import torch

    if not device.startswith("cuda"):
        return
    if torch.device(device).index is not None:
        raise RetrofitError(f"--device {device} is one GPU: pass --device cuda with --gpus {count}")
    if count > (there := torch.cuda.device_count()):
        raise RetrofitError(f"--gpus {count}: this machine has {there}: pass a smaller number")


def _ignore(_: Any) -> None:
    """What a process that does not report does with a report."""


def _choose_recipe(
    settings: RetrofitSettings,
    parameters: int,
    config: Any,
    length: int,
    memory: int,
    report: Report = _ignore,
    *,
    fused: bool = False,
) -> RetrofitSettings:
    """The settings with the first recipe that fits; with the first that goes with them if none does."""
    from hyperscale.retrofit.low_rank.updates import INSTALL, is_installed

    # What is to train, if given, is what tells recipes apart.
    names = (name_recipe(settings.train),) if "train" in settings.model_fields_set else NAMES
    # A better recipe is worth more than activations that are kept, unless they are asked for.
    kept = settings.activations == "kept"
    first = None
    for name in names:
        try:
            chosen = settings.with_recipe(name)
            if settings.gpus > 1:
                check_shares(settings.gpus, chosen.recipe(parameters))
        except RetrofitError:  # it contradicts a setting that was given
            continue
        first = first or chosen
        if not _estimate(chosen, parameters, config, length, kept=kept, fused=fused).fits(memory):
            continue
        if chosen.update_rank and "train" not in settings.model_fields_set and not is_installed():
            report(f"recipe {name} would fit, but needs peft: {INSTALL}")
            continue
        return chosen
    return first or settings.with_recipe(names[0])


def _choose_activations(
    asked: Literal["auto", "recomputed", "kept"], before: Activations | None, device: str, *, fits: bool
) -> tuple[Activations, str]:
    """What is held of a forward pass for the backward pass, and why; what the user asked for goes without a reason.

    Args:
        asked: The setting.
        before: What the training that goes on began with; None if it is a new one.
        device: Where it trains.
        fits: Whether all activations fit its memory.
    """
    if asked != "auto":
        return asked, ""
    if before is not None:
        return before, "as this training began"
    if not device.startswith("cuda"):  # memory that has been measured is a GPU's
        return "recomputed", ""
    return ("kept", "as they fit") if fits else ("recomputed", "as all of them do not fit")


def _begun_recipe(out: Path) -> str | None:
    """The recipe of the retrofit that a folder holds, if it does."""
    if (out / RECORD).is_file():
        stored = TrainingRecord.read(out).settings
    elif known := _settings_of_sources(out):
        stored = known
    else:
        return None
    return name_recipe(stored.get("train", "all"))


def _require_writable(out: Path) -> None:
    try:
        try_writing(out)
    except OSError as error:
        raise RetrofitError(f"cannot write in {out} ({error.strerror}): choose another folder with --out") from None


def _settings_of_sources(out: Path) -> dict[str, Any] | None:
    """The settings of a retrofit that was ended while it got its texts; None if the folder holds something else.

    Empty if it had got none yet: then nothing binds the next command.
    """
    if not out.is_dir() or [path.name for path in out.iterdir()] != [SOURCES]:
        return None
    if {path.name for path in (out / SOURCES).iterdir() if path.name[0] != "."} <= {"settings.json"}:
        return {}
    try:
        stored = json.loads((out / SOURCES / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) else None


def _get_source(
    settings: RetrofitSettings, base: str, device: str, length: int, parameters: int, report: Report
) -> "TextSource":
    """Texts of the hub, or of the model itself; they become a file in the training's folder.

    The settings are there first, so that a command that was ended while it got them is known to be the same one.
    """
    from hyperscale.retrofit.sources.hub_texts import fetch_hub_texts
    from hyperscale.retrofit.sources.own_texts import OWN, OwnTextPlan, write_own_texts
    from hyperscale.utils.hub import load_tokenizer

    tokens = settings.recipe(parameters).total_steps * settings.rows * settings.accumulate * length
    folder = settings.out / SOURCES
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "settings.json", json.dumps(list_settings(settings), indent=1) + "\n")
    if settings.data != OWN:
        report(f"reading {settings.data} …")
        return fetch_hub_texts(settings.data, settings.column, tokens, folder / "hub.jsonl")
    plan = OwnTextPlan(base, device, length, min(tokens, settings.own_tokens), settings.seed, settings.prompts)
    return write_own_texts(plan, load_tokenizer(base), folder / "self.jsonl", report)


def _find_begun(settings: RetrofitSettings) -> TrainingRecord | None:
    """The record of the retrofit that the folder holds; None if the folder is new or empty.

    Raises:
        RetrofitError: The folder holds something else, or a retrofit with other settings.
    """
    out = settings.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if (stored := _settings_of_sources(out)) is not None:
        if stored:
            require_same_settings(out, stored, settings)
        return None
    if not (out / RECORD).is_file():
        raise RetrofitError(f"{out} exists and is not empty: nothing is overwritten, pass another --out")
    begun = TrainingRecord.read(out)
    if not begun.settings:
        raise RetrofitError(f"{out} holds a retrofit of a version that could not resume: pass another --out")
    require_same_settings(out, begun.settings, settings)
    return begun


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _memory_of(device: str) -> tuple[str, int]:
    """Name and bytes of the device's memory."""
    from hyperscale.engines.devices import check_device

    check_device(device)
    return memory_estimate.device_memory(device)


def read_config(base: str) -> Any:
    """The transformers configuration of a model that can be retrofitted."""
    from hyperscale.engines.config_check import load_supported_config
    from hyperscale.engines.families.names import explain_absent

    config = load_supported_config(base)
    if reason := explain_absent(config.model_type, "hyperscale retrofit"):
        raise ModelError(f"{reason}: pass a model of one of these")
    for is_one, kind in ((has_gates(config), "DMS"), (getattr(config, "dmc_cr", None) is not None, "DMC")):
        if is_one:
            raise ModelError(f"{base} is a {kind} checkpoint already: pass the original model")
    return config


def choose_length(settings: RetrofitSettings, config: Any, device: str) -> int:
    """Tokens of a row: long enough that something is evicted, and no longer than the model's context."""
    context = context_limit(config.to_dict()) or DEFAULT_LENGTH
    length = settings.length or min(DEFAULT_LENGTH, context)
    # The decision on a token comes from the next one and takes effect after the window: nothing is evicted below w + 3.
    if not settings.window + 2 < length <= context:
        raise RetrofitError(
            f"--length {length} does not lie between the window and the model's context: "
            f"{settings.window + 3} to {context}"
        )
    if device.startswith("cuda") and length % CUDA_BLOCK:
        raise RetrofitError(f"--length {length} is no multiple of {CUDA_BLOCK}, the block of the GPU's attention")
    return length
