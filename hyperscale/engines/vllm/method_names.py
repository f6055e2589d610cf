"""Names the methods that run in vLLM: the one list of them, beside the classes in `worker.methods.registry`."""

from hyperscale.methods.names import VANILLA

EVICTING = ("dms", "window", "random")
"""Methods of `hyperscale.methods` that the plugin runs."""

RUNNABLE = (VANILLA, *EVICTING)
"""Methods that ``hyperscale run --engine vllm`` takes; vanilla is vLLM's own model, attention and cache."""

OPTION_VALUES = ("none", *EVICTING, "hashed")
"""Values of the option ``method``: "none" evicts nothing, "hashed" is for measurements of speed."""
