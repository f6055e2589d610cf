"""The engine that ``hyperscale run --engine vllm`` uses.

`provider` says what it can run, `engine` generates, `engine_args` works out vLLM's arguments, `start` and `process_end`
start vLLM and notice its end, `logits_processor` draws the tokens on the CPU.
"""
