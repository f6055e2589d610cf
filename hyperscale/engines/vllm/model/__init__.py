"""vLLM's models with our attention.

`models` holds the families, `self_attention` DMS's gates, `layer` the attention layer and the one cache of all layers.
"""
