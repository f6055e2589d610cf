"""The model in memory, and the engine of an arm around it."""

from typing import TYPE_CHECKING, Any

from hyperscale.planning.arms import Arm
from hyperscale.run.prepare import PreparedRun

if TYPE_CHECKING:
    from hyperscale.engines.base import Engine
    from hyperscale.engines.vllm.harness.engine import VllmEngine


class Weights:
    """The model in memory: one at a time, kept from the pilot to the run and from one arm to the next."""

    def __init__(self) -> None:
        self._path, self._loaded = "", None
        self._vllm: tuple[Arm, VllmEngine] | None = None

    def engine(self, run: PreparedRun, arm: Arm) -> "Engine":
        """What generates an arm's chains.

        Raises:
            HyperscaleError: The model cannot be loaded, or the engine does not start.
        """
        config, path, method = run.config, run.checkpoints[arm].path, run.methods[arm]
        if config.engine == "vllm":
            return self._in_vllm(run, arm)
        from hyperscale.engines.kvpress.engine import KVPressEngine
        from hyperscale.engines.torch.engine import TorchEngine
        from hyperscale.methods.kvpress.method import KVPress

        model, tokenizer = self._get(path, config.device, config.dtype)
        if isinstance(method, KVPress):
            return KVPressEngine(model, tokenizer, method)
        return TorchEngine(
            model,
            tokenizer,
            method,
            batch_size=config.batch_size or 1,
            device=config.device,
            kv_dtype=config.kv_dtype,
        )

    def _get(self, path: str, device: str, dtype: str) -> Any:
        """Model and tokenizer of a checkpoint."""
        if self._path != path:
            self._path, self._loaded = "", None  # the old weights leave before the new ones come
            self._loaded = _load(path, device, dtype)
            self._path = path
        return self._loaded

    def _in_vllm(self, run: PreparedRun, arm: Arm) -> "VllmEngine":
        """The vLLM engine with the weights and the method of an arm; it holds them itself."""
        from hyperscale.engines.vllm.harness.engine import VllmEngine

        if self._vllm is None or self._vllm[0] != arm:
            self.close()
            config = run.config
            engine = VllmEngine(
                run.checkpoints[arm].path,
                run.methods[arm],
                batch_size=config.batch_size or 1,
                device=config.device,
                dtype=config.dtype,
                gpu_memory=config.gpu_memory,
                longest=run.longest,
            )
            self._vllm = arm, engine
        return self._vllm[1]

    def close(self) -> None:
        """Stop vLLM, if it runs."""
        if self._vllm is not None:
            self._vllm[1].close()
            self._vllm = None


def _load(path: str, device: str, dtype: str) -> Any:
    import torch

    from hyperscale.engines.loading import load_model

    return load_model(path, device=device, dtype=getattr(torch, dtype))
