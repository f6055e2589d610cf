"""Writes the model card of a checkpoint: what it is, what it was made of, what it reached, how to evaluate it."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hyperscale.models.model_file import known_models
from hyperscale.retrofit.reporting.records import CheckpointRecord, TrainingRecord
from hyperscale.retrofit.settings import Recipe

CARD = "README.md"
#: A task for any model, which needs no download: its prompts are generated.
_ANY_TASK = "--task niah_single --context 1024"


def write_card(record: TrainingRecord, made: CheckpointRecord, folder: Path, name: str) -> str:
    """The text of the card, with the header that the Hugging Face hub reads.

    Args:
        record: Of the training.
        made: Of the checkpoint.
        folder: The training's folder, absolute.
        name: The checkpoint's name in it.
    """
    licence = find_licence(record.base)
    header: dict[str, Any] = {"base_model": record.base, "library_name": "transformers"}
    if licence:
        header["license"] = licence
    header["tags"] = ["kv-cache-compression", record.recipe.method]
    method = record.recipe.method.upper()
    lines = ["---", yaml.safe_dump(header, sort_keys=False).strip(), "---", ""]
    lines += [f"# {record.model} with {method} at {made.cr:g}×", ""]
    if made.refused:
        lines += [f"**Refused by the gate check**: {made.refused}", ""]
    place = shlex.quote(str(folder))
    command = f"{run_command(record.model, folder, f'vanilla,{record.recipe.method}', f'{made.cr:g}')} --budget 8x"
    if made.refused:  # nothing runs it under this name
        renamed = (shlex.quote(str(folder / each)) for each in (name, name.removeprefix("refused-")))
        command = f"mv {' '.join(renamed)}\n{command}"
    lines += [
        f"A retrofit of `{record.base}` by which KV heads are to keep one entry in {made.cr:g}; on held-out text they "
        f"keep one in {made.reached_cr:.2g}. Made by `hyperscale retrofit`.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in _facts(record, made, licence)),
        "",
        "## What it reached on held-out text",
        "",
        "| gates | KL(student ‖ teacher), nats a token |",
        "|---|---|",
        f"| of training (with noise) | {made.kl_noisy:.5f} |",
        f"| of inference | {made.kl_hard:.5f} |",
        "",
        f"Mean eviction {made.alpha:.1%}; ratio reached {made.reached_cr:.2f}× where {made.cr:g}× was asked for.",
        "",
        *_layers(made),
        "## Evaluate it",
        "",
        "```sh",
        command,
        f"hyperscale models --add {place} NAME   # then --model NAME",
        "```",
        "",
        f"It is `{name}/` of that folder, whose `training.json` names the base; `vanilla` runs the base. A low KL does "
        "not say that answers stay right: that is what these commands measure.",
    ]
    return "\n".join(lines) + "\n"


def run_command(model: str, folder: Path, methods: str, crs: str) -> str:
    """The command that evaluates the checkpoints of a training.

    Args:
        model: What was retrofitted, as the user called it: one that the package knows has tasks of its own.
        folder: The training's folder.
        methods: As ``--method`` takes them.
        crs: As ``--cr`` takes them.
    """
    command = f"hyperscale run --model {shlex.quote(str(folder))} --method {methods} --cr {crs}"
    known = known_models().get(model)
    return command if known is not None and known.tasks else f"{command} {_ANY_TASK}"


def _facts(record: TrainingRecord, made: CheckpointRecord, licence: str) -> Iterator[tuple[str, str]]:
    recipe = record.recipe
    data = record.data
    step = record.rows * recipe.accumulate * record.length
    yield "base", f"`{record.base}`"
    yield (
        "licence",
        (f"the base's: {licence}. " if licence else "not found beside the base; ")
        + "a retrofit is a derived work, under the base's licence and what the data's terms ask for",
    )
    yield (
        "recipe",
        f"{_describe_trained(recipe)}, "
        f"window {recipe.window}, gates {recipe.gate} per {recipe.per}, {recipe.steps_per_unit:g} steps a unit of "
        f"ratio, {_describe_finish(recipe, made.cr)}, {_describe_rates(recipe)}, seed {recipe.seed}",
    )
    if not recipe.is_frozen:
        yield "type of the weights in training", record.weights
    yield (
        "data",
        f"`{data.get('path', '')}`, column {data.get('column', '')}, {data.get('entries', 0):,} entries, "
        f"{record.documents.get('tokens', 0):,} tokens in {record.documents.get('train', 0):,} documents; the loss "
        f"counts {record.loss}",
    )
    for key, value in data.items():
        if key not in ("path", "column", "entries"):
            yield f"data: {key}", f"{value}"
    yield "steps", f"{made.steps:,} of {step:,} tokens"
    yield "tokens seen", f"{made.tokens:,}, padding included"
    yield "time", f"{made.seconds / 3600:.2f} h since the training began, on {record.device}"
    yield "software", f"torch {record.torch}, transformers {record.transformers}"


def _describe_finish(recipe: Recipe, cr: float) -> str:
    gates = "inference's" if recipe.finish_mode == "hard" else "training's"
    return f"{recipe.hard_steps_at(cr)} steps at the end with {gates} gates"


def _describe_rates(recipe: Recipe) -> str:
    """The learning rates of what trains."""
    gates = f"{recipe.gate_lr:g} (gates)"
    return f"learning rate {gates}" if recipe.train == "gates" else f"learning rates {recipe.lr:g} and {gates}"


def _describe_trained(recipe: Recipe) -> str:
    if recipe.update_rank:
        return (
            f"`lora`: the gates and low-rank updates (rank {recipe.lora_rank}, alpha {recipe.lora_alpha:g}) of the "
            "attention's projections train, merged here; the base is frozen"
        )
    return "`adapters`: the gates train, the base is frozen" if recipe.is_frozen else "`paper`: all weights train"


def _layers(made: CheckpointRecord) -> Iterator[str]:
    """A table of the ratio that each layer reached, and of its heads' shares."""
    if not made.kept:
        return
    yield "| layer | ratio reached | share kept by each KV head |"
    yield "|---|---|---|"
    for layer, shares in enumerate(made.kept):
        mean = sum(shares) / len(shares)
        ratio = f"{1 / mean:.2f}×" if mean > 0 else "all evicted beyond the window"
        yield f"| {layer} | {ratio} | {' '.join(f'{share:.2f}' for share in shares)} |"
    yield ""


def find_licence(base: str) -> str:
    """The licence that the base's own model card names; empty if there is none here."""
    file: Any = Path(base) / CARD
    if not Path(base).is_dir():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        name, _, revision = base.partition("@")
        try:
            file = try_to_load_from_cache(name, CARD, revision=revision or None)
        except HFValidationError:
            return ""
    if not isinstance(file, str | Path) or not Path(file).is_file():
        return ""
    parts = Path(file).read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return ""
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return ""
    licence = header.get("license") if isinstance(header, dict) else None
    return licence if isinstance(licence, str) else ""
