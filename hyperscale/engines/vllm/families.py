"""Names the classes that run a model family in vLLM."""

from hyperscale.engines.families.names import FAMILIES as ALL_FAMILIES
from hyperscale.engines.families.names import IN_EVERY_ENGINE

FAMILIES = {family: ALL_FAMILIES[family] for family in IN_EVERY_ENGINE}
"""Values of ``model_type`` that have classes in `hyperscale.engines.vllm.model.models`, with the beginning of their
names."""


def architecture(family: str, *, ragged: bool = True) -> str:
    """The name of a model class of the plugin's, for ``hf_overrides={"architectures": [...]}``.

    Args:
        family: A key of `FAMILIES`.
        ragged: Our class with per-head lists; else vLLM's own, changed only so that it never draws unused rows of the
            vocabulary.
    """
    return f"{'Hyperscale' if ragged else 'Trimmed'}{FAMILIES[family]}ForCausalLM"
