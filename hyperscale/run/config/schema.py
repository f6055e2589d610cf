"""What a run is: the typed configuration, read from options or a YAML file, and its defaults made explicit."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hyperscale.methods.names import VANILLA


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("the same entry twice")
    return values


class RunConfig(BaseModel):
    """A run as the user asks for it; empty or None means the default, which `resolve` fills in.

    Attributes:
        model: Name in models.yaml, local folder or hub id.
        methods: KV-compression methods, in the order they run.
        budget: Ceiling per problem, as `Budget.parse` reads it, or the name of a grid in budgets/.
        axis: Axis that ``8x`` counts on.
        tasks: Names of tasks; the model's default tasks if empty.
        data: Task name to a JSONL or Parquet file, or a folder of them, that stands in for the task's data set;
            "" names the run's only task.
        task_params: Task name to choices of its problems, e.g. LiveCodeBench's ``release`` and ``start_date``.
        lengths: Values of L for every task; each task's own if empty.
        crs: Nominal compression ratios of all methods but vanilla. If empty: those that the model's retrofits for the
            methods, or else for DMS, offer, for every method, so that methods meet at equal ratios; the grid's if the
            model has none.
        grid: Name of the grid of candidates; the model's if None.
        limit: First N problems of each task.
        seeds: Seeds of the sampling noise; each generates every chain of the plan.
        temperature: Softmax temperature; the model's default if None.
        top_p: Nucleus mass; the model's default if None.
        params: Method name to parameters beyond the CR.
        pin_prompt: Whether the prompt is never evicted, for every method with such a parameter; `resolve` moves it into
            ``params``. Each method's own default if None.
        engine: What generates: ``torch``, or ``vllm`` where it is installed (docs/vllm.md).
        device: Where the model runs; ``auto`` is CUDA where there is one.
        dtype: Of the weights; ``auto`` is float32 on the CPU, bfloat16 on CUDA.
        kv_dtype: What the cache keeps keys and values in; ``auto`` is ``dtype``.
        batch_size: Chains that decode together; it changes no result. The model's default if None.
        gpu_memory: Part of the GPU's memory that vLLM takes, weights and cache; it changes no result.
        sandbox: Where programs that the model wrote run; ``auto`` is the strongest that works.
        predict: What the plan's costs are predicted from. ``earlier``: finished runs beside this one's folder, else the
            closed form; ``pilot``: a few of the run's own chains, generated first; ``closed``: the closed form.
            ``auto``: earlier runs, else a pilot where the run is large enough for one, else the closed form.
        extend: How often a chain's end of thinking is replaced by ``extend_word``; 0 for never.
        extend_word: What a chain goes on thinking with.
        force_answer: K: a chain that has not ended at L closes its thinking and answers in at most K tokens; 0 for no
            such answers.
        vote: How W chains make one verdict (`hyperscale.scoring.voting.strategies`); each task's own if None. It can be
            chosen anew for a finished run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "mini"
    methods: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)] = (VANILLA,)
    budget: str = "8x"
    axis: str | None = None
    tasks: Annotated[tuple[str, ...], AfterValidator(_distinct)] = ()
    data: dict[str, str] = {}
    task_params: dict[str, dict[str, Any]] = {}
    lengths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_distinct)] = ()
    crs: Annotated[tuple[Annotated[float, Field(ge=1, le=1024)], ...], AfterValidator(_distinct)] = ()
    grid: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_distinct)] = (0,)
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    params: dict[str, dict[str, Any]] = {}
    pin_prompt: bool | None = None
    engine: Literal["torch", "vllm"] = "torch"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    kv_dtype: Literal["auto", "fp8", "int8", "int4"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    sandbox: Literal["auto", "bwrap", "unshare", "none"] = "auto"
    predict: Literal["auto", "pilot", "earlier", "closed"] = "auto"
    extend: Annotated[int, Field(ge=0)] = 0
    extend_word: str = "Wait"
    force_answer: Annotated[int, Field(ge=0)] = 0
    vote: str | None = None

    def crs_of(self, method: str) -> tuple[float, ...]:
        """Nominal CRs that a method of a resolved configuration runs at."""
        return (1.0,) if method == VANILLA else self.crs

    def compared(self) -> dict[str, Any]:
        """The part that decides the results; a folder holds runs that agree in it."""
        aside = {"batch_size", "gpu_memory", "sandbox", "data", "vote", "pin_prompt"}
        shown = self.model_dump(mode="json", exclude=aside)
        # Where these are not used, a folder from before they existed is still the same run's.
        unused = {
            "task_params": {},
            "lengths": [],
            "predict": "auto",
            "extend": 0,
            "force_answer": 0,
            "kv_dtype": "auto",
            "engine": "torch",
        }
        if not self.extend:
            unused["extend_word"] = self.extend_word
        return {name: value for name, value in shown.items() if name not in unused or value != unused[name]}

    def folder_name(self) -> str:
        """Default name of the run's folder: the model, the methods, the budget and what departs from the defaults."""
        parts = [Path(self.model).name, "+".join(self.methods), self.budget]
        for label, value in (
            ("", self.tasks),
            ("L", self.lengths),
            ("cr", self.crs),
            ("", self.axis),
            ("grid", self.grid),
            ("n", self.limit),
            ("extend", self.extend),
            ("answer", self.force_answer),
        ):
            if value:
                parts.append(label + (",".join(map(_short, value)) if isinstance(value, tuple) else str(value)))
        if self.pin_prompt is not None:
            parts.append("pinned" if self.pin_prompt else "unpinned")
        if self.seeds != (0,):
            parts.append("seed" + ",".join(map(str, self.seeds)))
        for label, number in (("t", self.temperature), ("p", self.top_p)):
            if number is not None:
                parts.append(f"{label}{number:g}")
        parts += [
            value for value in (self.engine, self.device, self.dtype, self.predict) if value not in ("auto", "torch")
        ]
        parts += [f"kv{self.kv_dtype}"] if self.kv_dtype != "auto" else []
        parts += [
            hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:6]
            for params in (self.params, self.task_params)
            if params
        ]
        return re.sub(r"[^\w.+,=^-]", "_", "-".join(parts))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
