"""A model of a real shape with random weights in vLLM, its provider and its folder: for measurements of speed."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.engines.provider import EngineSpec
from hyperscale.engines.vllm.harness.provider import VllmProvider

if TYPE_CHECKING:
    from hyperscale.engines.vllm.harness.engine import VllmEngine


@dataclass
class DummyWeights(VllmProvider):
    """Starts vLLM with random weights.

    Attributes:
        options: The plugin's, over those of the method, as ``{"method": "hashed"}``; None for the method's own.
    """

    options: dict[str, Any] | None = None

    def build(self, spec: EngineSpec, weights: Any) -> "VllmEngine":
        """See `EngineProvider.build`."""
        from hyperscale.engines.vllm.harness.engine import VllmEngine

        return VllmEngine(
            spec.checkpoint,
            spec.method,
            batch_size=spec.batch_size,
            device=spec.device,
            dtype=spec.dtype,
            gpu_memory=spec.gpu_memory,
            max_tokens=spec.max_tokens,
            compilation="none" if spec.compilation == "auto" else spec.compilation,
            tensor_parallel=spec.tensor_parallel,
            load_format="dummy",
            **({} if self.options is None else {"options": self.options}),
        )


def write_folder(folder: Path, model_type: str, sizes: dict[str, Any]) -> None:
    """Write a configuration and a tokenizer that has a word for every row of the vocabulary; no weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, PreTrainedTokenizerFast

    AutoConfig.for_model(
        model_type, architectures=[f"{model_type.capitalize()}ForCausalLM"], eos_token_id=None, **sizes
    ).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(sizes["vocab_size"])}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    end = f"t{sizes['vocab_size'] - 1}"  # random weights draw it once in as many tokens
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=end).save_pretrained(folder)
