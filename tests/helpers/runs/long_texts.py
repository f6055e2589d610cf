"""Chains whose texts hold what breaks pages, for reports that are opened in a browser."""

from dataclasses import replace

from report_runs import HOSTILE

PROBLEMS = 12
MULTILINE = "<b>first</b>\n  second 😀 & third\n"
#: A chain's text as a page shows it, without its marks.
TEXT = "text => [...text.children].filter(e => e.className != 'cut').map(e => e.textContent).join('')"


def texts(line, i):
    """A text with what breaks pages, and its cut positions; problem p3's chains hold the hostile one."""
    thought = f"{i} {HOSTILE if line.problem == 'p3' else MULTILINE} "
    text = f"{thought}{'so ' * 200}</think>The answer is {line.whole.answer}."
    chars = [*(len(thought) + 30 * n for n in range(len(line.cuts) - 1)), len(text)]
    cuts = tuple(replace(cut, chars=n) for cut, n in zip(line.cuts, chars, strict=True))
    return replace(line, text=text, cuts=cuts)


def held(line):
    """28 layers of 4 heads: all in the first head, and of the others what the layer's number has in percent."""
    full = line.prompt_tokens + line.tokens - 1
    return tuple((full, *[round(full * layer / 100)] * 3) for layer in range(28))
