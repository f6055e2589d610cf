r"""Forms in which answers stand in a text: where they are found, and how they are read without computing anything.

- `boxes`: the box an answer stands in (``\boxed{...}`` and its kin).
- `fenced_blocks`: blocks of code, as Markdown has them and as models write them.
- `integers`: ways of writing an integer; `number_words`: words beside a number that leave it as it is, or change it.
"""
