"""Names the classes that run a model family in vLLM."""

from hyperscale.engines.families import FAMILIES


def architecture(family: str, *, ragged: bool = True) -> str:
    """The name of a model class of the plugin's, for ``hf_overrides={"architectures": [...]}``.

    Args:
        family: A key of `FAMILIES`.
        ragged: Our class with per-head lists; else vLLM's own, changed only so that it never draws unused rows of the
            vocabulary.
    """
    return f"{'Hyperscale' if ragged else 'Trimmed'}{FAMILIES[family]}ForCausalLM"
