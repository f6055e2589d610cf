"""Model families that the engines run."""

FAMILIES = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}
"""Values of ``model_type``, with the beginning of their classes' names in vLLM. Every engine runs all of them: a new
family also needs its classes in `hyperscale.engines.vllm.model.models`."""
