"""Triton kernels for CUDA: ``decode_*`` for requests that process one token in a step, ``chunk`` for several tokens.

A decode step runs `decode_update` (evict, write, allocate, count) and then `decode_attention`, `decode_fa3`, or where
lists are few `decode.balanced_attention`, and at its end `decode.step_report`; with
methods that have a state, `page_bounds` (appends) and `page_choice` (what is read) instead of the first or
`victim_choice` (what leaves next) after them.
What chunks run stands in `chunk`. `arguments` holds what they are given, `common` the parts that they share.

Notation: N entries of a page, D head_dim, G query heads of a KV head. A program's `list_` is (slot * layers + layer) *
heads + head, its number in the tables. Requests are found by their first superblock: slot 0 is padding, whose programs
touch no table.
"""
