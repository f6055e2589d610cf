"""One training of a retrofit: loads the model and the texts, trains, and writes checkpoints, record and picture."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import ModelError, RetrofitError, first_line
from hyperscale.retrofit import memory_estimate
from hyperscale.retrofit.checkpoints import save_checkpoint, train_checkpoints
from hyperscale.retrofit.reporting.records import CheckpointRecord, TrainingRecord
from hyperscale.retrofit.reporting.step_metrics import StepMetrics
from hyperscale.retrofit.resume.same_training import list_settings, require_same_base, require_same_data
from hyperscale.retrofit.sources.settings import OWN
from hyperscale.retrofit.training_job import TrainingJob
from hyperscale.utils.files import write_atomic, write_folder

if TYPE_CHECKING:
    from hyperscale.retrofit.documents import Corpus
    from hyperscale.retrofit.trainer import TrainedStudent


def train(
    job: TrainingJob, report: Callable[[str], None], show_step: Callable[[StepMetrics], None], report_seconds: float
) -> None:
    """Load the model, tokenise, train from the beginning or from where an earlier process stopped, and write.

    Args:
        job: What to train, on what and where.
        report: Called with lines.
        show_step: Called with the figures of steps that are read out.
        report_seconds: Time after which a step is read out even if it is not due to be logged.

    Raises:
        RetrofitError: See `hyperscale.retrofit.job.run_retrofit`.
    """
    import torch
    from safetensors import SafetensorError

    from hyperscale.engines.loading import load_model
    from hyperscale.retrofit.documents import build_corpus
    from hyperscale.retrofit.parallel.ranks import join_ranks
    from hyperscale.retrofit.parallel.sharded_loading import build_empty, fill_model
    from hyperscale.retrofit.parallel.sharding import gather_model
    from hyperscale.retrofit.reporting.metrics_file import MetricsFile, read_metrics
    from hyperscale.retrofit.reporting.model_card import CARD, write_card
    from hyperscale.retrofit.reporting.training_picture import PICTURE, draw_training
    from hyperscale.retrofit.resume.state_parts import StateParts
    from hyperscale.retrofit.resume.state_saver import StateSaver
    from hyperscale.retrofit.trainer import Retrofit
    from hyperscale.utils.hub import load_tokenizer

    settings, recipe, begun = job.settings, job.recipe, job.begun
    ranks, device = join_ranks(job.device)
    on_gpu = torch.device(device).type == "cuda"
    report(f"loading {job.base} …")
    folder = _find_shards(job.base, job.config) if ranks.count > 1 else None
    if folder is None:
        teacher, tokenizer = load_model(job.base, device="cpu", dtype=torch.bfloat16)
    else:
        teacher, tokenizer = build_empty(job.config, torch.bfloat16), load_tokenizer(job.base)
    # What is saved is bfloat16, so that is what the teacher is; CPUs compute with it in float32.
    if not on_gpu:
        _widen(teacher)
    elif ranks.count == 1:
        teacher.to(device)
    report("tokenising …")
    corpus = build_corpus(
        job.source,
        tokenizer,
        length=job.length,
        window=settings.window,
        training_tokens=recipe.total_steps * job.step_tokens,
        seed=settings.seed,
        whole_chats=settings.whole_chats,
        joined=settings.packing == "joined",
        date=job.date,
    )
    if corpus.note:
        report(corpus.note)
    passes = recipe.total_steps * job.step_tokens / max(corpus.tokens, 1)
    report(
        f"{len(corpus.train):,} documents, {corpus.tokens:,} tokens, seen {passes:.1f} times; "
        f"{len(corpus.held_out):,} held out; {recipe.total_steps:,} steps of {job.step_tokens:,} tokens"
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    record = _begin_record(job, device, corpus)
    if begun is not None:
        require_same_base(settings.out, job.base, begun.base_id, record.base_id)
        require_same_data(settings.out, begun.data_hash, record.data_hash)
        for what, before, now in (
            ("device", begun.device, record.device),
            ("torch", begun.torch, record.torch),
            ("transformers", begun.transformers, record.transformers),
        ):
            if before != now:
                report(f"note: begun with {what} {before}, goes on with {now}: results differ by rounding")
    parts = StateParts(settings.out, ranks)
    state = parts.read() if any(ranks.gather(begun is not None)) else None
    # Checkpoints that the state does not know of are trained again, and come out the same.
    done = begun.dms[: state["place"]["ratio"]] if begun is not None and state is not None else []
    if ranks.is_first:
        record.model_copy(update={"dms": done}).write(settings.out)

    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)  # texts of the model's own were written here too

    def save(student: "TrainedStudent", name: str, made: CheckpointRecord) -> None:
        whole = student.model if ranks.count == 1 else gather_model(student.model, ranks)
        if not ranks.is_first:
            return
        try:
            with write_folder(settings.out / name) as folder:
                save_checkpoint(whole, folder, **student.config.to_hf())
                tokenizer.save_pretrained(folder)
                write_atomic(folder / CARD, write_card(record, made, settings.out.resolve(), name))
        except Exception as error:
            # A full disk is a bare Exception of the tokenizer's writer, and an error of its own of safetensors'.
            if not isinstance(error, (OSError, SafetensorError)) and type(error) is not Exception:
                raise
            raise RetrofitError(
                f"{settings.out / name} could not be written ({first_line(error)}): free some room, and the same "
                "command goes on with the state that was kept, or begins again if there is none"
            ) from None
        report(f"wrote {settings.out / name}")

    def write_record(checkpoints: list[CheckpointRecord], finished: bool = False) -> None:
        memory = dict(record.memory_gib)
        if on_gpu:
            memory["peak"] = torch.cuda.max_memory_allocated(device) / memory_estimate.GIB
        changes = {"dms": checkpoints, "memory_gib": memory, "finished": finished}
        record.model_copy(update=changes).write(settings.out)

    def record_made(checkpoints: list[CheckpointRecord]) -> None:
        if ranks.is_first:
            write_record(checkpoints)
        ranks.wait()  # the first one wrote while the others went on

    dtype = torch.bfloat16 if settings.weights == "bfloat16" else torch.float32
    if recipe.is_frozen and (ranks.count > 1 or not on_gpu):
        # A layer is sharded as a whole, in one type; and without autocast it computes in one.
        dtype = next(teacher.parameters()).dtype
    retrofit = Retrofit(
        teacher,
        recipe,
        report=report,
        dtype=dtype,
        frugal=True,
        recompute=job.activations == "recomputed",
        graphs=job.settings.cuda_graphs,
        ranks=ranks,
        device=torch.device(device),
        fill=None if folder is None else partial(fill_model, folder=folder, ranks=ranks, device=torch.device(device)),
    )
    del teacher
    if state is not None:
        retrofit.load_state_dict(state)
        del state
        report(f"going on after {retrofit.steps_done:,} of {recipe.total_steps:,} steps")
    batches = corpus.training_batches(settings.rows, job.length, settings.seed)
    held_out = corpus.held_out_batches(settings.rows, job.length)
    try:
        with ExitStack() as stack:
            retrofit.report_seconds = report_seconds
            if ranks.is_first:
                metrics = stack.enter_context(MetricsFile(settings.out, retrofit.steps_done))

                def observe(step: StepMetrics) -> None:
                    metrics.append(step)
                    show_step(step)

                retrofit.observe = observe
            saver = stack.enter_context(StateSaver(retrofit, settings.out, settings.save_minutes * 60, report))
            retrofit.after_step = saver.after_step
            train_checkpoints(retrofit, batches, held_out, save, record_made, done)
    finally:
        is_complete = retrofit.ratio == len(recipe.crs)  # though a checkpoint may have been refused
        made = TrainingRecord.read(settings.out).dms if ranks.is_first else []
        if len(made) == len(recipe.crs):
            write_record(made, finished=True)
        if is_complete:  # the record first: a kill between the two must not begin the training again
            ranks.wait()
            parts.remove()
        if len(made) == len(recipe.crs):
            draw_training(settings.out, read_metrics(settings.out), made)
            report(f"wrote {settings.out / PICTURE}")
        if is_complete:
            ranks.wait()  # one that ends with an error ends the others: not while the first one writes


def _find_shards(base: str, config: Any) -> Path | None:
    """The folder of a checkpoint that processes can read part by part; None if each has to load it as a whole."""
    from hyperscale.engines.weights_check import check_weights
    from hyperscale.retrofit.parallel.sharded_loading import find_files
    from hyperscale.utils.hub import cached_folder

    folder = Path(base)
    if not folder.is_dir():
        try:
            folder = cached_folder(base)
        except ModelError:
            return None
    # One tensor that is embedding and output cannot be given storage twice.
    if config.tie_word_embeddings or not find_files(folder):
        return None
    check_weights(folder, config)
    return folder


def _begin_record(job: TrainingJob, device: str, corpus: "Corpus") -> TrainingRecord:
    """The record before any checkpoint; the device is that of this process."""
    import torch
    import transformers

    from hyperscale.models.weights_identity import identify_weights

    settings, source = job.settings, job.source
    is_without_prompts = settings.data == OWN and settings.prompts is None
    return TrainingRecord(
        model=settings.model,
        base=job.base,
        data={
            "path": str(source.path),
            "column": source.column,
            "entries": len(source.entries),
            **source.notes,
        },
        documents={
            "train": len(corpus.train),
            "held_out": len(corpus.held_out),
            "tokens": corpus.tokens,
            "left_out": corpus.left_out,
        },
        length=job.length,
        rows=settings.rows,
        # What the model writes without prompts stands behind the template's opening, and counts as a whole.
        loss="all tokens" if corpus.counts_all or is_without_prompts else "last reply",
        weights=settings.weights,
        recipe=job.recipe,
        activations=job.activations,
        memory_gib={"estimate": (job.estimate.weights + job.estimate.activations) / memory_estimate.GIB},
        device=torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu",
        torch=torch.__version__,
        transformers=transformers.__version__,
        settings=list_settings(settings),
        date=job.date,
        data_hash=corpus.hash(),
        base_id=identify_weights(job.base),
    )


def _widen(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
