"""The settings of a run, as a user writes them: options, YAML keys and their documentation come from here."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from hyperscale.engines import registry
from hyperscale.engines.devices import device_kind, is_device_name
from hyperscale.methods.names import VANILLA
from hyperscale.tasks.own.sources import is_path
from hyperscale.utils.settings import check_characters, check_json, setting


class RunConfig(BaseModel):
    """A run as the user asks for it; empty or None means the default, which `resolve` fills in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What is measured: a model, its methods, and the budget that they share.
    model: str = setting(
        "mini",
        "Name (`hyperscale models`), local folder or hub id.",
        details="A hub id may be `owner/name@revision`.",
        group="Model, methods and budget",
    )
    revision: str | None = setting(None, "Branch, tag or commit of a hub id.", unset="the hub's main branch")
    methods: tuple[str, ...] = setting(
        (VANILLA,),
        "Methods to run; all into the same results folder.",
        option="method",
        min_length=1,
        details="Written vanilla,dms; they run in this order, but those after each other that share a process of vLLM.",
    )
    budget: str = setting(
        "8x",
        "Ceiling per problem: 8x, kv_reads=2^28, peak_kv=32Ki, peak_bytes=8GiB, tokens=1M, seconds=600, all, or a "
        "grid's name.",
    )
    axis: str | None = setting(
        None, "Cost that 8x counts: kv_reads, peak_kv, peak_bytes, tokens or seconds.", unset="kv_reads"
    )
    # On which problems.
    tasks: tuple[str, ...] = setting(
        (),
        "Tasks, e.g. mini_aime,mini_lcb, files of your own, NAME.yaml, or tasks of lm-eval's, lm_eval:gsm8k.",
        option="task",
        unset="the model's",
        group="Tasks",
    )
    include: tuple[str, ...] = setting((), "Folders of task files, whose tasks --task then names.")
    context: tuple[Annotated[int, Field(ge=1, le=2**24)], ...] = setting(
        (),
        "Tokens of the prompts of context tasks, e.g. 4096,8192.",
        unset="the task's",
        details="Each length is a task of its own, niah_single@4096, which --task also takes.",
    )
    data: dict[str, str] = setting(
        {},
        "JSONL or Parquet file, or a folder of them, for a task's data set: PATH, or task=PATH",
        details="Without a task it is the only task's. A context task takes text files, which its prompts are filled "
        "with.",
    )
    task_params: dict[str, dict[str, Any]] = setting(
        {},
        "Choice of a task's problems, e.g. livecodebench.end_date=2024-12-31",
        option="task-param",
        example="livecodebench.end_date=2024-12-31",
        plain_text=True,
    )
    # Parameters of the methods beyond the CR.
    params: dict[str, dict[str, Any]] = setting(
        {},
        "Parameter of a method (`hyperscale methods`), e.g. window.recent=32",
        option="method-param",
        example="window.recent=32",
        details="The compression ratio is no such parameter: `cr` sets it for all methods. A `budget` in tokens, or "
        "several like `512,1024`, takes its place for one method.",
        group="Points: parameters, lengths, ratios",
    )
    pin_prompt: bool | None = setting(
        None,
        "Never evict the prompt (--no-pin-prompt: it may be evicted). For methods with this parameter.",
        unset="each method's own",
        details="It sets `pin_prompt` of each of them.",
    )
    # The candidates W-L-CR of the plan.
    lengths: tuple[Annotated[int, Field(ge=1, le=2**24)], ...] = setting(
        (), "Values of L in tokens, e.g. 8192,16384.", option="length", unset="the task's"
    )
    crs: tuple[Annotated[float, Field(ge=1, le=1024)], ...] = setting(
        (),
        "Compression ratios, e.g. 4,8.",
        option="cr",
        unset="all that the model's DMS checkpoints offer",
        details="Of all methods but vanilla. If it is left out, all methods run at the ratios for which the model has "
        "retrofits of every requested kind (DMS if none is requested), else at the grid's ratios.",
    )
    grid: str | None = setting(None, "Grid of candidates (`hyperscale budgets`).", unset="the model's")
    limit: int | None = setting(None, "Only the first N problems of each task.", ge=1, le=10**9)
    # How problems are put to the model.
    system_prompt: str | None = setting(
        None,
        "Text that stands before each problem as the system's message.",
        details="The template must take one.",
        group="Prompts",
    )
    template_args: dict[str, Any] = setting(
        {},
        "Argument of the model's chat template, e.g. enable_thinking=false",
        option="template-arg",
        example="enable_thinking=false",
        details="Numbers, true, false and other JSON values are what they are; anything else is text.",
    )
    chat_template: str | None = setting(
        None,
        "Name of one of the model's chat templates, or a file with one; none for plain prompts.",
        unset="the model's; plain prompts if it has none",
    )
    # Sampling.
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = setting(
        (0,),
        "Seeds of the sampling noise, e.g. 0,1,2.",
        option="seed",
        min_length=1,
        details="Each seed generates every chain of the plan.",
        group="Sampling",
    )
    temperature: float | None = setting(None, "Softmax temperature.", unset="the model's", ge=0, le=10)
    top_p: float | None = setting(None, "Nucleus mass.", unset="the model's", gt=0, le=1)
    top_k: int | None = setting(
        None, "How many of the most probable tokens are kept; 0 keeps all.", unset="the model's", ge=0, le=10**9
    )
    min_p: float | None = setting(
        None,
        "Least probability of a token, as a part of the most probable one's; 0 keeps all.",
        unset="the model's",
        ge=0,
        le=1,
    )
    repetition_penalty: float | None = setting(
        None,
        "Makes tokens that the prompt or the chain has already less likely, above 1; 1 is none.",
        unset="the model's",
        gt=0,
        le=100,
    )
    # Where and in which types it runs.
    engine: str = setting(
        registry.AUTO,
        "Engine that generates the chains (docs/vllm.md).",
        choices=(registry.AUTO, *registry.available()),
        details="`auto` is vLLM on CUDA where it is installed and runs every method and setting of the run, else "
        "torch; the plan says which and why. A results folder keeps the engine that it was made with.",
        group="Engine",
    )
    device: str = setting(
        "auto",
        "Where the model runs.",
        choices=("auto", "cpu", "cuda", "cuda:N"),
        details="`auto` is CUDA where there is one; `cuda:1` is the second GPU.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "Type of the weights.",
        details="`auto` is float32 on the CPU and bfloat16 on CUDA. In bfloat16 on the CPU a chain may depend on the "
        "batch size.",
    )
    kv_dtype: Literal[
        "auto",
        "fp8",
        "int8",
        "int4",
        "fp8_e4m3",
        "fp8_e5m2",
        "fp8_per_token_head",
        "int8_per_token_head",
        "int4_per_token_head",
        "turboquant_k8v4",
        "turboquant_4bit_nc",
        "turboquant_k3v4_nc",
        "turboquant_3bit_nc",
    ] = setting(
        "auto",
        "Type that the cache keeps keys and values in.",
        details="`auto` is that of `dtype`. int8 and int4 are the torch engine's; the last nine are vLLM's own, for "
        "vanilla ([docs/vllm.md](vllm.md#quantised-caches)).",
    )
    batch_size: int | None = setting(
        None,
        "Chains that decode together, in each engine; changes no result.",
        unset="64; in vLLM on a GPU what the cache has room for",
        details="There the plan counts, with this GPU, the chains of which most fit: from 64 to 256, vLLM's own "
        "default on most cards, and no more than a method of the run has at a time. It says what it chose and why. The "
        "built-in model has 128 for 64.",
        ge=1,
        le=65536,
    )
    cuda_graphs: bool | None = setting(
        None,
        "Launch decode steps of the torch engine on a GPU as CUDA graphs (--no-cuda-graphs: kernel by kernel); changes "
        "no result.",
        unset="yes, where method and cache allow it",
        details="It makes small models several times as fast. A quantised cache takes none. Refused where the run "
        "has another engine or no GPU.",
    )
    gpu_memory: float | None = setting(
        None,
        "Part of the GPU's memory that vLLM takes; changes no result.",
        unset="0.9",
        gt=0,
        le=1,
        details="Weights and cache. Refused where the run has another engine or no GPU.",
    )
    compilation: Literal["auto", "none", "graphs", "full"] = setting(
        "auto",
        "What vLLM prepares on a GPU: nothing, CUDA graphs, or compiled code too; changes no result but by rounding.",
        details="`auto`: more, the more steps are planned; the plan says which. Another value is refused where the "
        "run has another engine or no GPU.",
    )
    sandbox: Literal["auto", "bwrap", "unshare", "none"] = setting(
        "auto", "Where programs that the model writes run.", details="`auto` is the strongest sandbox that works here."
    )
    # Several GPUs, several machines.
    gpus: int | None = setting(
        None,
        "GPUs to use.",
        unset="all that are there; one if --device names it",
        ge=1,
        le=65536,
        group="Several GPUs and machines",
    )
    tensor_parallel: int = setting(
        1, "GPUs that share one engine of vLLM, each with a part of its heads; changes no result.", ge=1, le=1024
    )
    engines: int | None = setting(
        None,
        "Engines side by side; changes no result.",
        unset="as many as the GPUs allow; on the CPU 1",
        ge=1,
        le=65536,
        details="Problems go to whichever engine has room, longest first.",
    )
    executor: Literal["local", "ray"] = setting(
        "local",
        "Where engines run: in processes of this machine, or over a Ray cluster (docs/cluster.md); changes no result.",
    )
    address: str | None = setting(
        None,
        "Address of the Ray cluster, as `ray.init` takes it.",
        unset="the one that RAY_ADDRESS or this machine has, else one is started here",
    )
    stall_timeout: float = setting(
        600.0,
        "Seconds without a token after which one of several engines is taken to hang, and replaced.",
        gt=0,
        le=10**7,
    )
    # Steering of chains, and how they vote.
    extend: int = setting(
        0,
        "Replace a chain's end of thinking up to N times and let it go on, up to L.",
        ge=0,
        le=10**6,
        group="Reasoning and voting",
    )
    extend_word: str = setting(
        "Wait", "Word put in place of an end of thinking that --extend replaces; the tokenizer must have it."
    )
    force_answer: int = setting(
        0,
        "At L, close the thinking and let the chain answer in at most K tokens.",
        unset="0: no",
        ge=0,
        le=10**6,
        details="Only chains that have not ended at L.",
    )
    vote: str | None = setting(
        None,
        "How W chains make one verdict: majority, pass@k, pass@all, mean@k or best-of-n; `hyperscale score` can change "
        "it later.",
        unset="the task's",
    )
    # Planning.
    predict: Literal["auto", "earlier", "pilot", "closed"] = setting(
        "auto",
        "What costs are predicted from.",
        details="`earlier`: finished runs beside this one's folder, else the closed form. `pilot`: a few of the run's "
        "own chains, generated first. `closed`: the closed form. `auto`: earlier runs, else a pilot where the run is "
        "large enough for one, else the closed form.",
        group="Plan",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _legible(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse texts that are empty, as of an unset variable, or that no file can hold, and truths for numbers."""
        name = str(info.field_name)
        texts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
        if "" in texts and name not in ("engine", "device"):  # these say what they take
            raise ValueError("is empty: give it a value, or leave it out")
        entries = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(each, bool) for each in entries) and "bool" not in str(cls.model_fields[name].annotation):
            raise ValueError("must be no truth value")
        if name in ("params", "task_params", "template_args"):
            check_json(value)
        check_characters(value)
        return value

    @field_validator("methods", "tasks", "include", "context", "lengths", "crs", "seeds")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("has the same entry twice")
        return values

    @field_validator("engine")
    @classmethod
    def _known_engine(cls, name: str) -> str:
        names = (registry.AUTO, *registry.available())
        if name not in names:
            raise ValueError(f"must be {' or '.join(map(repr, names))}")
        return name

    @field_validator("device")
    @classmethod
    def _known_device(cls, name: str) -> str:
        if name != "auto" and not is_device_name(name):
            raise ValueError("must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
        return name

    def folder_name(self) -> str:
        """Default name of the run's folder: the model, the methods, the budget and what departs from the defaults."""
        # Only what the user set stands in the name: a default is filled in later and may depend on the model.
        parts = [Path(self.model).name, "+".join(self.methods), self.budget]
        for label, value in (
            ("", tuple(Path(task).stem if is_path(task) else task.replace(":", "-") for task in self.tasks)),
            ("context", self.context),
            ("L", self.lengths),
            ("cr", self.crs),
            ("", self.axis),
            ("grid", self.grid),
            ("n", self.limit),
            ("extend", self.extend),
            ("word", self._extension_word_label()),
            ("answer", self.force_answer),
        ):
            if value:
                parts.append(label + (",".join(map(_short, value)) if isinstance(value, tuple) else str(value)))
        if self.pin_prompt is not None:
            parts.append("pinned" if self.pin_prompt else "unpinned")
        if self.seeds != (0,):
            parts.append("seed" + ",".join(map(str, self.seeds)))
        for label, number in (
            ("t", self.temperature),
            ("p", self.top_p),
            ("k", self.top_k),
            ("minp", self.min_p),
            ("rep", self.repetition_penalty),
        ):
            if number is not None:
                parts.append(f"{label}{number:g}")
        parts += [
            value
            for value in (self.engine, device_kind(self.device), self.dtype, self.predict)
            if value not in ("auto", registry.REFERENCE)
        ]
        parts += [f"kv{self.kv_dtype}"] if self.kv_dtype != "auto" else []
        # Parameters are too long for a name; their hash tells folders apart.
        parts += [_hash(params) for params in (self.params, self.task_params) if params]
        if any((self.system_prompt, self.template_args, self.chat_template)):
            parts.append("prompt" + _hash([self.system_prompt, self.template_args, self.chat_template]))
        return re.sub(r"[^\w.+,=^-]", "_", "-".join(parts))

    def _extension_word_label(self) -> str:
        """The extension word in a folder's name: empty for the default; its hash where a name cannot hold it."""
        word = self.extend_word
        if word == type(self).model_fields["extend_word"].default:
            return ""
        # Every other character would become an underscore, and two words the same one.
        return word if re.fullmatch(r"\w+", word) else _hash(word)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
