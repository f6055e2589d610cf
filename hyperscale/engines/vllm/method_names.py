"""Names the methods that run in vLLM: the one list of them, beside the classes in `worker.methods.registry`."""

from hyperscale.methods.names import VANILLA

EXPIRING = ("dms", "dmc", "window", "random")
"""Methods that the plugin runs by expiries of its own; window and random with pinned prompts."""

HOSTED = ("streaming", "tova", "h2o", "snapkv", "rkv", "keydiff", "knorm", "triattention", "quest")
"""Methods that the plugin runs by their own `State`; so do window and random where their prompts are not pinned."""

RUNNABLE = (VANILLA, *EXPIRING, *HOSTED)
"""Methods that ``hyperscale run --engine vllm`` takes; vanilla is vLLM's own model, attention and cache."""

OPTION_VALUES = ("none", *EXPIRING, *HOSTED, "hashed")
"""Values of the option ``method``: "none" evicts nothing, "hashed" is for measurements of speed."""
