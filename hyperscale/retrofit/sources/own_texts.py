"""Has the model write its own training data: answers to prompts, or whole documents from its template's opening.

The prompts are those of a file, or made of messages that the model writes first.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, Literal

from hyperscale import methods
from hyperscale.engines import registry
from hyperscale.engines.base import Engine, Request, Sampling
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.errors import EngineError, HyperscaleError, RetrofitError, first_line
from hyperscale.models.checkpoint import read_checkpoint_config
from hyperscale.models.prompts import PromptFormat
from hyperscale.models.shape import count_parameters, shape_from_config
from hyperscale.retrofit.sources.own_messages import OwnMessages, find_turn
from hyperscale.retrofit.sources.settings import OWN
from hyperscale.retrofit.sources.text_files import TextEntry, TextSource, TokenIds, read_text, require_whole_characters
from hyperscale.utils.files import append_whole, cut_torn_line, write_atomic
from hyperscale.utils.row_files import list_data_files, read_rows

#: Columns of a file of prompts that are looked for, in this order.
PROMPT_COLUMNS = ("prompt", "problem", "question", "text")
#: Documents that are generated together and written at once on a CPU.
BATCH = 64
#: The same on a GPU, which waits for launches with few: as many as their caches have room for in a part of its memory.
GPU_BATCH = range(16, 1025)
#: Tokens in a row that are looked for in what a document had before.
REPEATED_RUN = 8
_CACHE_SHARE = 0.4


@dataclass(frozen=True)
class OwnTextPlan:
    """What is to be written.

    Attributes:
        base: The checkpoint that writes.
        device: Where.
        length: Tokens of a document, its prompt included.
        tokens: Tokens to write, at least.
        seed: Of the sampling.
        prompts: File of prompts; "self" for messages that the model writes; None for the opening of the chat template.
        temperature: Of the draws.
        top_p: Nucleus mass that they are from.
        date: What the chat template takes for the present; now if None.
    """

    base: str
    device: str
    length: int
    tokens: int
    seed: int
    prompts: Path | Literal["self"] | None
    temperature: float = 1.0
    top_p: float = 1.0
    date: datetime | None = None


def write_own_texts(plan: OwnTextPlan, tokenizer: Any, file: Path, report: Any) -> TextSource:
    """Write until there are as many tokens as asked for, from where an earlier process stopped.

    Without prompts, whose answers end by themselves, no document more is written than that takes. A document's noise
    depends on the seed and its number alone, so a resumed file is the unbroken one. Messages of the model's own are
    written as they are needed, in files beside this one, and answered once each.

    Args:
        plan: What to write.
        tokenizer: The model's.
        file: JSONL, a line for each document: ``ids``, ``start`` (of what counts in the loss) and ``finish``.
        report: Called with lines.

    Raises:
        RetrofitError: The prompts cannot be used, or are not those that the file was begun with; or the model has no
            chat template to write messages from, or hardly writes new ones.
        EngineError: No engine runs the model.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    messages = None
    if plan.prompts == OWN:
        messages = OwnMessages(file.parent, tokenizer, plan.length, _sampling(plan), plan.date)
    prompts = messages.prompts if messages is not None else read_prompts(plan, tokenizer)
    if file.exists():
        cut_torn_line(file)
    documents = _read(file)
    if messages is not None:
        messages.require(len(documents))
    _require_same_prompts(file, documents, prompts)
    tokens = sum(len(document["ids"]) for document in documents)
    if tokens < plan.tokens:
        batch = _batch_size(plan)
        name, engine = _start_engine(plan, batch, report)
        report(f"{plan.base} writes {plan.tokens:,} tokens in the {name} engine; {tokens:,} are there")
        try:
            while tokens < plan.tokens:
                # As many as are missing if they come as long as those before, which may be shorter than a row.
                usual = tokens / len(documents) if documents else plan.length
                wanted = min(batch, ceil((plan.tokens - tokens) / usual))
                numbers = range(len(documents), len(documents) + wanted)
                if messages is not None:
                    messages.write(numbers.stop, engine, batch, report)
                written = _generate(engine, plan, prompts, numbers)
                append_whole(file, "".join(json.dumps(document) + "\n" for document in written).encode())
                documents += written
                tokens += sum(len(document["ids"]) for document in written)
                report(f"{len(documents):,} documents, {tokens:,} of {plan.tokens:,} tokens")
        finally:
            engine.close()
    figures = {**(messages.summarise() if messages is not None else {}), **summarise(documents)}
    report("; ".join(f"{key}: {value}" for key, value in figures.items()))
    write_atomic(file.with_suffix(".json"), json.dumps(figures, indent=1) + "\n")
    entries = [
        TextEntry(f"{file} line {number}", TokenIds(document["ids"], document["start"]))
        for number, document in enumerate(documents, start=1)
    ]
    return TextSource(Path(OWN), "ids", entries, {"file": str(file), **figures})


def summarise(documents: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Shares of duplicates and repetitions, lengths and endings of what was written, for the record."""
    written = [tuple(document["ids"][document["start"] :]) for document in documents]
    lengths = sorted(map(len, written))
    ended = sum(document["finish"] == "stop" for document in documents)
    return {
        "duplicates": f"{1 - len(set(written)) / len(written):.1%} of {len(written):,} documents",
        "lengths": f"{lengths[0]:,} to {lengths[-1]:,} tokens written, median {median(lengths):,.0f}",
        "ended by themselves": f"{ended / len(documents):.1%}",
        "repeated": f"{_repeated_share(written):.1%} of runs of {REPEATED_RUN} tokens stand earlier in their document",
    }


def _repeated_share(documents: Sequence[Sequence[int]]) -> float:
    """How many runs of tokens have been written before in the same document: much of it is a loop."""
    all_runs = repeated = 0
    for ids in documents:
        runs = [tuple(ids[i : i + REPEATED_RUN]) for i in range(len(ids) - REPEATED_RUN + 1)]
        all_runs += len(runs)
        repeated += len(runs) - len(set(runs))
    return repeated / max(all_runs, 1)


def read_prompts(plan: OwnTextPlan, tokenizer: Any) -> list[tuple[int, ...]]:
    """Token ids of the prompts of a file; of the template's opening alone if there is none.

    Raises:
        RetrofitError: The file is empty, lacks the columns, or a prompt is as long as a row; or there is no opening.
    """
    if not isinstance(plan.prompts, Path):
        return [_opening(tokenizer, plan.date)]
    prompt_format = PromptFormat(tokenizer, date=plan.date)
    prompts = [prompt_format.prompt(message).ids for message in read_messages(plan.prompts)]
    if (longest := max(map(len, prompts))) >= plan.length - 1:
        raise RetrofitError(
            f"a prompt of {plan.prompts} has {longest} tokens and a row {plan.length}: shorten it, or pass a larger "
            "--length"
        )
    return prompts


def read_messages(path: Path) -> list[str]:
    """The messages of a file of prompts.

    Raises:
        RetrofitError: It holds none, lacks the columns, or cannot be read.
    """
    if not (messages := list(_iterate_messages(path))):
        raise RetrofitError(f"{path} holds no prompts")
    return messages


def _iterate_messages(path: Path) -> Iterator[str]:
    for file in list_data_files(path, (".jsonl", ".parquet", ".txt"), RetrofitError, "--prompts"):
        if file.suffix == ".txt":
            yield from filter(None, map(str.strip, read_text(file).split("\n")))
            continue
        for row in read_rows(file, RetrofitError):
            message = next((row.row[name] for name in PROMPT_COLUMNS if isinstance(row.row.get(name), str)), None)
            if message is None:
                raise RetrofitError(f"{row.place} has no text in a column {', '.join(PROMPT_COLUMNS)}: add one")
            require_whole_characters(message, row.place)
            yield message


def _opening(tokenizer: Any, date: datetime | None) -> tuple[int, ...]:
    """What stands before a first message in the chat template; without one, the token that texts begin with."""
    if opening := find_turn(tokenizer, date).opening:
        return opening
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise RetrofitError(
            "the model has neither a chat template nor a first token to write from: pass --prompts FILE"
        )
    return (token,)


def _start_engine(plan: OwnTextPlan, batch: int, report: Any) -> tuple[str, Engine]:
    """VLLM where it runs this model and starts, else the torch engine."""
    spec = EngineSpec(
        plan.base,
        methods.create("vanilla", cr=1),
        batch_size=batch,
        device=plan.device,
        dtype="bfloat16" if plan.device.startswith("cuda") else "float32",
        max_tokens=plan.length,
    )
    provider, reference = _choose_provider(spec), registry.get(registry.REFERENCE)
    try:
        return provider.name, _build(provider, spec)
    except EngineError as error:  # it wants most of the GPU's memory, which others may use too
        if provider.name == reference.name:
            raise
        report(f"{first_line(error)}. The {reference.name} engine writes instead")
    return reference.name, _build(reference, spec)


def _build(provider: EngineProvider, spec: EngineSpec) -> Engine:
    weights = provider.load_weights(spec) if provider.shared_weights else None
    return provider.build(spec, weights)


def _batch_size(plan: OwnTextPlan) -> int:
    if not plan.device.startswith("cuda"):
        return BATCH
    import torch

    free, _ = torch.cuda.mem_get_info(torch.device(plan.device))
    folder = Path(plan.base)
    parameters = count_parameters(folder) if folder.is_dir() else None
    shape = shape_from_config(read_checkpoint_config(plan.base), plan.base, parameters)
    room = _CACHE_SHARE * (free - (shape.weight_bytes("bfloat16") or 0))
    return count_documents(room, shape.entry_bytes("bfloat16") * plan.length)


def count_documents(room: float, document: int) -> int:
    """Documents that a GPU generates at a time: a power of two in `GPU_BATCH` whose caches fit, or the least of it.

    Args:
        room: Bytes for their caches.
        document: Bytes of one document's.
    """
    fits = max(GPU_BATCH.start, min(GPU_BATCH.stop - 1, int(room // document)))
    return 1 << (fits.bit_length() - 1)


def _choose_provider(spec: EngineSpec) -> EngineProvider:
    vllm = registry.get("vllm")
    try:
        vllm.check(["vanilla"], steering=False, kv_dtype="auto")
        vllm.check_methods([spec.method], spec.device)
        # Under dms too, which is to run on it later: that asks for heads that all of vLLM's kernels take.
        vllm.check_model(spec.checkpoint, read_checkpoint_config(spec.checkpoint), ["vanilla", "dms"], spec.device)
    except HyperscaleError:
        return registry.get(registry.REFERENCE)
    return vllm


def _generate(
    engine: Engine, plan: OwnTextPlan, prompts: Sequence[tuple[int, ...]], numbers: range
) -> list[dict[str, Any]]:
    """The documents of some numbers, in their order.

    Without prompts an end of sequence does not end a document: the model goes on behind it until the document is as
    long as a row.
    """
    starts = {number: prompts[number % len(prompts)] for number in numbers}
    requests = (Request(f"own/{number}", 0, ids, plan.length - len(ids)) for number, ids in starts.items())
    written = {int(chain.problem.partition("/")[2]): chain for chain in engine.generate(requests, _sampling(plan))}
    # From the opening on, all that was written counts.
    return [
        {"ids": [*ids, *written[number].token_ids], "start": len(ids), "finish": written[number].finish}
        for number, ids in starts.items()
    ]


def _sampling(plan: OwnTextPlan) -> Sampling:
    """How documents are drawn, and messages of the model's own alike."""
    return Sampling(temperature=plan.temperature, top_p=plan.top_p, seed=plan.seed, ignore_ends=plan.prompts is None)


def _require_same_prompts(file: Path, documents: Sequence[dict[str, Any]], prompts: Sequence[tuple[int, ...]]) -> None:
    """Refuse to go on with answers to other prompts, as where the file of prompts has changed."""
    for number, document in enumerate(documents):
        if tuple(document["ids"][: document["start"]]) != prompts[number % len(prompts)]:
            raise RetrofitError(
                f"document {number + 1} of {file} answers another prompt than there is now: bring back the prompts "
                "that it was begun with, or pass another --out"
            )


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [row.row for row in read_rows(file, RetrofitError)]
