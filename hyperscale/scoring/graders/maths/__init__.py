r"""Whether two mathematical answers are one, as models and data sets write them.

- `unicode_signs` and `latex` write an answer in plain LaTeX, in which what only looks different is the same text.
- `structure` takes a plain answer apart; `equality` compares the parts of two (`Comparison`).
- `rationals` reads numbers exactly; `units` splits off units and compares words.
- `expressions` compares single expressions by math-verify and SymPy: in a process of its own (`worker`) with limits and
  guards, which `process` keeps.

docs/graders.md states the rules.
"""
