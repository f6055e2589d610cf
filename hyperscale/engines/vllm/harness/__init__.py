"""The engine that `hyperscale run --engine vllm` uses."""
