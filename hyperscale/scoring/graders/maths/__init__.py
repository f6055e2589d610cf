r"""Whether two mathematical answers are one, as models and data sets write them.

- `unicode_signs` and `latex` write an answer in plain LaTeX, in which what only looks different is the same text.
- `equality` takes two plain answers apart and compares the parts (`Comparison`).
- `rationals` reads numbers exactly; `units` splits off units and compares words.
- `process` and `worker` compare single expressions by math-verify and SymPy, in a process of its own with limits.

docs/graders.md states the rules.
"""
