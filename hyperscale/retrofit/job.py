"""Retrofits a model that a user names on data that a user brings: ``hyperscale retrofit``."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale import models
from hyperscale.errors import HyperscaleError, RetrofitError
from hyperscale.retrofit import memory_estimate
from hyperscale.retrofit.checkpoints import require_accepted
from hyperscale.retrofit.choices import (
    attends_fused_on,
    choose_activations,
    choose_length,
    choose_recipe,
    estimate_settings,
    read_config,
)
from hyperscale.retrofit.reporting.records import Activations
from hyperscale.retrofit.reporting.step_metrics import StepMetrics, format_line
from hyperscale.retrofit.resume.begun import (
    DATE,
    SOURCES,
    SOURCES_SETTINGS,
    find_begun,
    find_date,
    find_recipe,
    require_writable,
)
from hyperscale.retrofit.resume.folder_lock import hold_folder
from hyperscale.retrofit.resume.same_training import list_settings
from hyperscale.retrofit.resume.state_parts import remove_leftover
from hyperscale.retrofit.run_training import train
from hyperscale.retrofit.settings import RetrofitSettings, check_shares
from hyperscale.retrofit.sources.settings import HUB, OWN
from hyperscale.retrofit.training_job import TrainingJob
from hyperscale.utils.files import write_atomic

if TYPE_CHECKING:
    from hyperscale.retrofit.parallel.ranks import Ranks
    from hyperscale.retrofit.sources.text_files import TextSource

Report = Callable[[str], None]


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
    ranks = _join_others(settings)
    if ranks is None:
        require_writable(settings.out)
    elif not ranks.is_first:
        report = show_step = _ignore
    with hold_folder(settings.out, report, ranks):
        job = _prepare(settings, ranks, report)
        if job is None:
            return
        if not _is_launcher(settings, ranks):
            train(job, report, show_step, report_seconds)
            return
    # The first of the processes holds the folder from here on: they may go on when this one is killed.
    from hyperscale.retrofit.parallel.launch import launch_ranks

    report(f"training in {settings.gpus} processes …")
    launch_ranks(settings.gpus)


def _prepare(settings: RetrofitSettings, ranks: "Ranks | None", report: Report) -> TrainingJob | None:
    """What to train, when nothing speaks against it; None if the folder holds the whole retrofit."""
    if settings.recipe_name is None and (name := find_recipe(settings.out)):
        settings = settings.with_recipe(name)
    begun = find_begun(settings)
    date = find_date(settings.out, begun)
    if ranks is not None:
        ranks.wait()  # none may write before all have looked
    if begun is not None and begun.finished:
        report(f"the retrofit in {settings.out} is complete")
        remove_leftover(settings.out)
        require_accepted(begun.dms)
        return None
    if ranks is not None:  # clocks differ, and the first alone may see the record
        date = ranks.gather(date)[0]
    from hyperscale.retrofit.parallel.launch import is_launched

    report_plan = _ignore if is_launched() else report
    device = settings.device or _default_device()
    _require_known_memory(settings, device)
    # Before the weights are looked for: a mistake about the data shows at once.
    source = _read_given_texts(settings, report_plan)
    model = models.find(settings.model)
    models.require(model.base, settings.model)
    config = read_config(model.base)
    length = choose_length(settings, config, device)
    parameters = memory_estimate.count_parameters(config)
    settings, activations, estimate = _choose_what_fits(
        settings, config, length, device, begun.activations if begun is not None else None, ranks, report_plan
    )
    for line in settings.list_unused():
        report_plan(line)
    if _is_launcher(settings, ranks):
        _require_gpus(settings.gpus, device, is_chosen=settings.device is not None)
        check_shares(settings.gpus, settings.recipe(parameters))
    if source is None:

        def get_source(report: Report) -> "TextSource":
            return _get_source(settings, model.base, device, length, parameters, date, report)

        source = get_source(report_plan) if ranks is None else _get_together(ranks, get_source, report_plan)
    return TrainingJob(settings, model.base, config, device, length, source, activations, estimate, date, begun)


def _is_launcher(settings: RetrofitSettings, ranks: "Ranks | None") -> bool:
    """Whether this process starts those that train."""
    return settings.gpus > 1 and ranks is None


def _join_others(settings: RetrofitSettings) -> "Ranks | None":
    """This process among the several of a training; None if it is not one of several."""
    from hyperscale.retrofit.parallel.launch import is_started

    if not is_started():
        return None
    from hyperscale.retrofit.parallel.ranks import join_ranks

    ranks, _ = join_ranks(settings.device or _default_device())
    if ranks.count != settings.gpus:
        raise RetrofitError(
            f"torchrun has started {ranks.count} processes, and --gpus is {settings.gpus}: pass --gpus {ranks.count}"
        )
    return ranks


def _require_known_memory(settings: RetrofitSettings, device: str) -> None:
    """Refuse a model that no recipe can train here, if the registry knows its size without weights or configuration."""
    model = models.find(settings.model)
    if not (model.shape and model.shape.parameters):
        return
    frozen = settings.is_frozen or settings.recipe_name is None  # what takes least
    estimate = memory_estimate.estimate_memory(
        model.shape.parameters, settings.weights, frozen=frozen, gpus=settings.gpus
    )
    memory_estimate.require_memory(estimate, settings.model, settings.weights, _memory_of(device), gpus=settings.gpus)


def _read_given_texts(settings: RetrofitSettings, report: Report) -> "TextSource | None":
    """The texts of a file or folder; None if they come from the hub or from the model itself."""
    from hyperscale.retrofit.sources.own_texts import read_messages
    from hyperscale.retrofit.sources.text_files import SUFFIXES, read_texts
    from hyperscale.utils.row_files import describe_left_out

    if settings.prompts is not None and settings.data != OWN:
        raise RetrofitError("--prompts goes with --data self: leave one of them out")
    if isinstance(prompts := settings.prompts_source, Path):
        read_messages(prompts)
    if settings.data == OWN or settings.data.startswith(HUB):
        return None
    report(f"reading {settings.data} …")
    texts = read_texts(Path(settings.data), settings.column)
    if left_out := describe_left_out(Path(settings.data), SUFFIXES):
        report(f"left out of {settings.data}: {left_out}; read are {', '.join(SUFFIXES)} directly in it")
    return texts


def _choose_what_fits(
    settings: RetrofitSettings,
    config: Any,
    length: int,
    device: str,
    before: Activations | None,
    ranks: "Ranks | None",
    report: Report,
) -> tuple[RetrofitSettings, Activations, memory_estimate.MemoryEstimate]:
    """The settings with their recipe, what is held of a forward pass, and the memory that it takes.

    Args:
        settings: What is asked for.
        config: Of the model.
        length: Tokens of a row.
        device: Where it trains.
        before: What is held of a forward pass by a training that goes on.
        ranks: The processes of the training, of which this is one.
        report: Called with lines.

    Raises:
        RetrofitError: It does not fit.
    """
    parameters = memory_estimate.count_parameters(config)
    memory = _memory_of(device)
    fused = attends_fused_on(config, device)
    if settings.recipe_name is None:
        settings = choose_recipe(settings, parameters, config, length, memory[1], report, fused=fused)
        report(f"recipe: {settings.recipe_name}")
    if settings.update_rank:
        from hyperscale.retrofit.low_rank.updates import require_peft

        require_peft()
    kept = estimate_settings(settings, parameters, config, length, kept=True, fused=fused)
    fits = kept.fits(memory[1], memory_estimate.USABLE_TO_KEEP)
    if ranks is not None:  # all do the same, though GPUs may differ in memory and the first alone may see the record
        before, fits = ranks.gather(before)[0], all(ranks.gather(fits))
    activations, reason = choose_activations(settings.activations, before, device, fits=fits)
    if reason:
        report(f"activations: {activations}, {reason}")
    is_kept = activations == "kept"
    estimate = kept if is_kept else estimate_settings(settings, parameters, config, length, fused=fused)
    report(f"training takes about {estimate}; {memory[0]} has {memory[1] / memory_estimate.GIB:,.0f} GiB")
    memory_estimate.require_memory(
        estimate, settings.model, settings.weights, memory, is_kept=is_kept, gpus=settings.gpus
    )
    return settings, activations, estimate


def _get_together(ranks: "Ranks", get_source: "Callable[[Report], TextSource]", report: Report) -> "TextSource":
    """The texts of a training that several processes share: the first one writes them, the others read its file.

    Raises:
        RetrofitError: The first one could not; all processes are told.
    """
    refusal, source = "", None
    if ranks.is_first:
        try:
            source = get_source(report)
        except HyperscaleError as error:
            refusal = str(error)
    ranks.wait()  # a model of 32B writes for an hour
    if refusal := ranks.gather(refusal)[0]:
        raise RetrofitError(refusal)
    return source or get_source(_ignore)


def _get_source(
    settings: RetrofitSettings, base: str, device: str, length: int, parameters: int, date: datetime, report: Report
) -> "TextSource":
    """Texts of the hub, or of the model itself; they become a file in the training's folder.

    The settings are there first, so that a command that was ended while it got them is known to be the same one.
    """
    from hyperscale.retrofit.sources.hub_texts import fetch_hub_texts
    from hyperscale.retrofit.sources.own_texts import OwnTextPlan, write_own_texts
    from hyperscale.utils.hub import load_tokenizer

    tokens = settings.recipe(parameters).total_steps * settings.rows * settings.accumulate * length
    folder = settings.out / SOURCES
    folder.mkdir(parents=True, exist_ok=True)
    begun_with = {**list_settings(settings), DATE: date.isoformat()}
    write_atomic(folder / SOURCES_SETTINGS, json.dumps(begun_with, indent=1) + "\n")
    if settings.data != OWN:
        report(f"reading {settings.data} …")
        return fetch_hub_texts(settings.data, settings.column, tokens, length, folder / "hub.jsonl", report)
    plan = OwnTextPlan(
        base,
        device,
        length,
        min(tokens, settings.own_tokens),
        settings.seed,
        settings.prompts_source,
        settings.own_temperature,
        settings.own_top_p,
        date,
    )
    return write_own_texts(plan, load_tokenizer(base), folder / "self.jsonl", report)


def _require_gpus(count: int, device: str, *, is_chosen: bool) -> None:
    import torch

    if not device.startswith("cuda"):
        if is_chosen:
            return
        raise RetrofitError(
            f"--gpus {count}: this machine has no GPU: leave it out, or pass --device cpu for {count} processes"
        )
    if torch.device(device).index is not None:
        raise RetrofitError(f"--device {device} is one GPU: pass --device cuda with --gpus {count}")
    if count > (there := torch.cuda.device_count()):
        raise RetrofitError(f"--gpus {count}: this machine has {there}: pass a smaller number")


def _ignore(_: Any) -> None:
    """What a process that does not report does with a report."""


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _memory_of(device: str) -> tuple[str, int]:
    """Name and bytes of the device's memory."""
    from hyperscale.engines.devices import check_device

    check_device(device)
    return memory_estimate.device_memory(device)
