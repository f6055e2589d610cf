"""The contract by which an engine states what it can run before anything is loaded, and is built.

An engine is a package with two parts: an `Engine` (`hyperscale.engines.base`), which generates, and an
`EngineProvider`, which says what the engine can run and builds it. A provider is imported whenever a run is configured,
so its module imports no torch and none of the engine's packages at the top. `hyperscale.engines.registry` lists them.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hyperscale.engines.devices import device_kind
from hyperscale.errors import ConfigError
from hyperscale.kv.formats import AUTO
from hyperscale.methods.names import needed_engine

if TYPE_CHECKING:
    from hyperscale.engines.base import Engine
    from hyperscale.methods.core.base import Method
    from hyperscale.models.shape import Shape


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is built from: one method on one checkpoint.

    Attributes:
        checkpoint: Local folder or hub id of the weights.
        method: The method in force.
        batch_size: Most chains that decode together.
        device: Where the model runs, as torch names it.
        dtype: Type of the weights: "float32", "bfloat16" or "float16".
        kv_dtype: What the cache keeps keys and values in: "auto" for ``dtype``, or a name of `kv.formats`.
        cuda_graphs: Whether decode steps may be captured in CUDA graphs, by an engine that leaves the choice.
        gpu_memory: Part of a GPU's memory that an engine takes which reserves its memory in advance.
        max_tokens: Most tokens of a sequence, its prompt included; the model's own limit if None.
        methods: All methods that the engine is to run in turn (`Engine.switch`), ``method`` among them; empty for that
            one alone.
        compilation: What an engine prepares that compiles: "none", "graphs", "full", or "auto" for what is worth it.
        planned_steps: Decode steps that it is planned to make at most, with all methods; None if that is not known.
        tensor_parallel: GPUs that share the engine, each with a part of its heads.
    """

    checkpoint: str
    method: "Method"
    batch_size: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    kv_dtype: str = AUTO
    cuda_graphs: bool = True
    gpu_memory: float = 0.9
    max_tokens: int | None = None
    methods: "tuple[Method, ...]" = ()
    compilation: Literal["auto", "none", "graphs", "full"] = "auto"
    planned_steps: int | None = None
    tensor_parallel: int = 1


class EngineProvider(ABC):
    """Says what an engine can run, refuses the rest, and builds it.

    Attributes:
        name: The name that ``--engine`` takes, unless the engine stands in for another.
        stands_in_for: Name of the engine in whose runs this one runs the methods that need it; such an engine is not
            chosen by name. None for all others.
        steering: Whether the engine can replace ends of thinking and force answers (``--extend``, ``--force-answer``).
        scores_texts: Whether the engine can score given texts (`Request.forced_ids`), as problems of likelihood need.
        kv_dtypes: What its cache can keep keys and values in, of at least one method.
        devices: Kinds of devices that it runs on.
        batches: Whether chains decode together; if not, the batch size is 1 whatever a run asks for.
        gpu_settings: Settings of a run that this engine alone reads, and on a GPU alone. A run that names one and that
            nothing of it would read is refused.
        packages: Packages that decide what it generates; their versions are kept with a run.
        shared_weights: Name for what `load_weights` gives. Engines of one name, checkpoint, device and dtype share it,
            so that the next arm of a run need not load it again. None if each engine loads its own weights, so that
            every change of arms starts an engine.
    """

    name: ClassVar[str]
    stands_in_for: ClassVar[str | None] = None
    steering: ClassVar[bool] = True
    scores_texts: ClassVar[bool] = True
    kv_dtypes: ClassVar[tuple[str, ...]] = (AUTO,)
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    batches: ClassVar[bool] = True
    gpu_settings: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "numpy")
    shared_weights: ClassVar[str | None] = None

    def check(self, methods: Sequence[str], *, steering: bool, kv_dtype: str, likelihood: str | None = None) -> None:
        """Refuse what the engine cannot do, by names alone.

        Args:
            methods: Names of the methods that it is to run.
            steering: Whether chains are steered.
            kv_dtype: What the cache is to keep keys and values in.
            likelihood: A task whose problems are scored by likelihood; None if there is none.

        Raises:
            ConfigError: It does not run one of these.
            EngineError: It is not installed here, or in a version that is not supported.
        """
        if steering and not self.steering:
            raise ConfigError(
                f"--extend and --force-answer steer chains token by token, which the {self.name} engine cannot: leave "
                "--engine out"
            )
        if likelihood is not None and not self.scores_texts:
            raise ConfigError(
                f"{likelihood} is scored by the likelihood of given texts, which the {self.name} engine cannot feed: "
                "leave --engine out, or run this task by itself with --engine torch"
            )
        if reason := self.explain_kv_dtype(kv_dtype, methods):
            raise ConfigError(reason)
        self.check_installed()
        for method in methods:
            if reason := self.explain_method(method):
                raise ConfigError(reason)

    def check_methods(self, methods: "Sequence[Method]", device: str, kv_dtype: str = AUTO) -> None:
        """Refuse what the engine cannot do, when parameters of methods and the device are known.

        Args:
            methods: What it is to run.
            device: Where.
            kv_dtype: What the cache is to keep keys and values in.

        Raises:
            ConfigError: It does not run on this device, or not with such a cache there.
            MethodError: It does not run a method with these parameters, or not on this device.
        """
        kind = device_kind(device)
        if kind not in self.devices:
            raise ConfigError(
                f"the {self.name} engine runs on {' and '.join(self.devices)}, not on {kind}: pass --device "
                f"{self.devices[0]}"
            )

    def check_sharing(  # noqa: B027  # optional
        self, methods: "Sequence[Method]", path: str, config: Mapping[str, Any], ranks: int, device: str
    ) -> None:
        """Refuse what GPUs that share an engine cannot do.

        Args:
            methods: What it is to run.
            path: Of the checkpoint.
            config: Values of its ``config.json``.
            ranks: How many GPUs share it; at least 2.
            device: Their kind.

        Raises:
            MethodError: A method does not run so.
            ModelError: The model does not.
        """

    def check_model(self, path: str, config: Mapping[str, Any], methods: Sequence[str], device: str) -> None:  # noqa: B027  # optional
        """Refuse a model that these methods cannot run on in this engine, though they can in others.

        Args:
            path: The checkpoint.
            config: The contents of its ``config.json``.
            methods: Names of the methods.
            device: Where it is to run.

        Raises:
            ModelError: They cannot.
        """

    def check_rules(  # noqa: B027  # optional
        self, methods: "Sequence[Method]", path: str, config: Mapping[str, Any], kv_dtype: str
    ) -> None:
        """Refuse what could be seen only once the weights are loaded and an engine is built for each method in turn.

        Args:
            methods: What is to run, with its parameters.
            path: The checkpoint.
            config: The contents of its ``config.json``.
            kv_dtype: What the cache is to keep keys and values in.

        Raises:
            EngineError: The cache cannot keep keys and values of this model so.
            MethodError: The rule of a method goes by what this model has not.
        """

    def check_installed(self) -> None:  # noqa: B027  # optional
        """Refuse a machine that lacks what the engine runs on.

        Raises:
            EngineError: A package is missing, or has a version that is not supported.
        """

    def explain_method(self, method: str) -> str | None:
        """Why the engine does not run a method, in words for the user; None if it does."""
        engine = needed_engine(method)
        if engine in (None, self.name):
            return None
        return f"{method} runs in the {engine} engine, not in {self.name}: leave --engine {self.name} out"

    def explain_kv_dtype(self, kv_dtype: str, methods: Sequence[str]) -> str | None:
        """Why the cache of these methods cannot keep keys and values so, in words for the user; None if it can."""
        if kv_dtype in self.kv_dtypes:
            return None
        return (
            f"the {self.name} engine keeps its cache as {', '.join(self.kv_dtypes)}, not as {kv_dtype}: leave "
            f"--engine {self.name} or --kv-dtype out"
        )

    def entry_bytes(self, shape: "Shape", method: str, dtype: str, kv_dtype: str) -> int:
        """Bytes of one (key, value) pair, summed over layers and KV heads, as the engine keeps it for a method."""
        return shape.entry_bytes(dtype, kv_dtype)

    def versions(self) -> dict[str, str]:
        """Installed versions of the packages that decide what the engine generates."""
        return {package: version(package) for package in self.packages}

    def load_weights(self, spec: EngineSpec) -> Any:
        """What engines on one checkpoint share; called only if there are ``shared_weights``.

        Raises:
            ModelError: The checkpoint cannot be loaded.
        """
        raise AssertionError(f"engines of {self.name} share no weights")

    def process_key(self, spec: EngineSpec) -> Hashable:
        """Name for the process that an engine runs in: one engine of a key runs the methods of all (`Engine.switch`).

        None if an engine is built for each method, which is cheap where weights are shared.

        Args:
            spec: What one of them runs; ``methods`` is not looked at.
        """
        return None

    def start_note(self, spec: EngineSpec) -> str | None:
        """What is to be said in a plan of how an engine is started, in a line for the user; None if nothing is."""
        return None

    @abstractmethod
    def build(self, spec: EngineSpec, weights: Any) -> "Engine":
        """The engine.

        Args:
            spec: What it runs.
            weights: What `load_weights` gave for this checkpoint, device and dtype; None if nothing is shared.

        Raises:
            EngineError: It does not start.
            MethodError: The method cannot run on this model.
            ModelError: The model cannot be loaded or does not run here.
        """
