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
    """Write a configuration and a tokenizer that has a word for every row of the vocabulary; no weights.

    A text becomes its bytes. transformers reads the tokenizer of a Qwen2 model as byte-level BPE whatever it is, and
    gives it an end of texts if it has none.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, PreTrainedTokenizerFast

    AutoConfig.for_model(
        model_type, architectures=[f"{model_type.capitalize()}ForCausalLM"], eos_token_id=None, **sizes
    ).save_pretrained(folder)
    # The last row is the end: random weights draw it once in as many tokens.
    end, size = "<|endoftext|>", sizes["vocab_size"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"t{i}" for i in range(len(alphabet), size - 1)), end]
    tokenizer = Tokenizer(models.BPE(dict(zip(words, range(size), strict=True)), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
