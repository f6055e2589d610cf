"""Model families that run in vLLM, and the class of each."""

FAMILIES = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}


def architecture(family: str, *, ragged: bool = True) -> str:
    """The name of a model class of the plugin's, for ``hf_overrides={"architectures": [...]}``.

    Args:
        family: A key of `FAMILIES`.
        ragged: Ours with per-head lists; else vLLM's own, which only never draws unused rows of the vocabulary.
    """
    return f"{'Hyperscale' if ragged else 'Trimmed'}{FAMILIES[family]}ForCausalLM"
