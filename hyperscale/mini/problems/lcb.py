"""Generates problems of the LiveCodeBench shape: two list operations that explain three examples, as a program.

The chain first tabulates every allowed step on the first example, then tries ordered pairs: first steps in random
order and, for each, second steps in random order. Each try reads the first step's row of the table, by then far
back, and counts the places where its result agrees with the example; full agreement is checked on the other two
examples. The program is judged by hidden tests on lists of other lengths.
"""

from collections.abc import Callable
from itertools import accumulate
from random import Random

from hyperscale.mini.problems.worked_problem import WorkedProblem
from hyperscale.mini.vocab import DIGIT, ID, STEPS

Digits = tuple[int, ...]

FUNCTIONS: dict[str, Callable[[Digits], Digits]] = {
    "rev": lambda x: x[::-1],
    "srt": lambda x: tuple(sorted(x)),
    "dsc": lambda x: tuple(sorted(x))[::-1],
    "inc": lambda x: tuple([(d + 1) % 10 for d in x]),
    "dec": lambda x: tuple([(d - 1) % 10 for d in x]),
    "neg": lambda x: tuple([9 - d for d in x]),
    "dbl": lambda x: tuple([d * 2 % 10 for d in x]),
    "tri": lambda x: tuple([d * 3 % 10 for d in x]),
    "sqr": lambda x: tuple([d * d % 10 for d in x]),
    "rol": lambda x: x[1:] + x[:1],
    "ror": lambda x: x[-1:] + x[:-1],
    "swp": lambda x: x[len(x) // 2 :] + x[: len(x) // 2],
    "sub": lambda x: tuple([(d - i) % 10 for i, d in enumerate(x)]),
    "evn": lambda x: x[::2] + x[1::2],
    "cum": lambda x: tuple([s % 10 for s in accumulate(x)]),
    "idx": lambda x: tuple([(d + i) % 10 for i, d in enumerate(x)]),
    "dif": lambda x: tuple([(d - c) % 10 for c, d in zip((0, *x), x, strict=False)]),
    "mir": lambda x: tuple([(d + c) % 10 for c, d in zip(x[::-1], x, strict=True)]),
    "hig": lambda x: tuple(accumulate(x, max)),
    "low": lambda x: tuple(accumulate(x, min)),
}
assert FUNCTIONS.keys() == STEPS.keys()

#: Number of allowed steps at each level.
LEVELS = ((5, 7), (8, 10), (11, 13), (14, 16), (17, 19))
#: Length of the examples.
LENGTH = 6
_NAME = {name: ID[f" {name}"] for name in STEPS}
_FIND, _COLON, _ARROW, _COMMA, _STOP = (ID[piece] for piece in ("Find two steps of", ":", ">", ",", "."))
_EQ, _NL = (ID[piece] for piece in ("=", "\n"))
_COUNT = [ID[f" {count}"] for count in range(LENGTH + 1)]
_CODE = {name: [ID["    x = "], *(ID[piece] for piece in pieces), _NL] for name, pieces in STEPS.items()}


def _digits(x: Digits) -> list[int]:
    return [DIGIT[d] for d in x]


def _random_list(rng: Random, length: int) -> Digits:
    return tuple(rng.choices(range(10), k=length))


def _agreement(result: Digits, expected: Digits) -> int:
    """The token for the number of places in which two lists agree."""
    return _COUNT[sum(a == b for a, b in zip(result, expected, strict=True))]


def _problem(rng: Random, level: int) -> tuple[list[str], list[Digits], tuple[str, str]]:
    """Allowed steps, three inputs, and a pair of steps that no other allowed pair imitates on the three."""
    while True:
        # Drawn anew each time: some small sets have no pair without a rival.
        names = rng.sample(list(STEPS), rng.randint(*LEVELS[level - 1]))
        inputs = [_random_list(rng, LENGTH) for _ in range(3)]
        table = {name: FUNCTIONS[name](inputs[0]) for name in names}
        results: dict[Digits, list[tuple[str, str]]] = {}
        for a in names:
            for b in names:
                results.setdefault(FUNCTIONS[b](table[a]), []).append((a, b))
        for _ in range(8):
            pair = (rng.choice(names), rng.choice(names))
            target = FUNCTIONS[pair[1]](table[pair[0]])
            outputs = [run(pair, x) for x in inputs[1:]]
            rivals = [p for p in results[target] if p != pair and [run(p, x) for x in inputs[1:]] == outputs]
            if not rivals:
                return names, inputs, pair


def run(pair: tuple[str, str], x: Digits) -> Digits:
    """Apply two steps to a list."""
    return FUNCTIONS[pair[1]](FUNCTIONS[pair[0]](x))


def generate(rng: Random, level: int | None = None) -> WorkedProblem:
    """One problem and its chain; a random level if none is given."""
    level = level or rng.randint(1, len(LEVELS))
    names, inputs, pair = _problem(rng, level)
    outputs = [run(pair, x) for x in inputs]
    prompt = [_FIND, *(_NAME[name] for name in names), _COLON]
    for x, y in zip(inputs, outputs, strict=True):
        prompt += [*_digits(x), _ARROW, *_digits(y), _COMMA]
    prompt[-1] = _STOP

    tests = []
    for _ in range(8):
        x = _random_list(rng, rng.randint(3, 9))
        tests.append({"input": list(x), "output": list(run(pair, x))})

    # The table: every step on the first example.
    chain: list[int] = []
    for name in rng.sample(names, len(names)):
        chain += [_NL, _NAME[name], _EQ, *_digits(FUNCTIONS[name](inputs[0]))]
    # The search, lazily: the order of second steps is drawn anew for each first step that is reached.
    pairs = ((a, b) for a in rng.sample(names, len(names)) for b in rng.sample(names, len(names)))
    for candidate in pairs:
        result = run(candidate, inputs[0])
        chain += [_NL, _NAME[candidate[0]], _NAME[candidate[1]], _EQ, *_digits(result), _agreement(result, outputs[0])]
        if result != outputs[0]:
            continue
        # The pair explains the first example; the other two decide.
        hit = True
        for x, y in zip(inputs[1:], outputs[1:], strict=True):
            first = FUNCTIONS[candidate[0]](x)
            last = FUNCTIONS[candidate[1]](first)
            chain += [_ARROW, *_digits(first), _EQ, *_digits(last), _agreement(last, y)]
            if last != y:
                hit = False
                break
        if hit:
            break
    chain.append(_NL)
    reply = [ID["```python\n"], ID["def f(x):\n"], *_CODE[pair[0]], *_CODE[pair[1]], ID["    return x\n"], ID["```"]]
    return WorkedProblem(prompt, chain, reply, " ".join(pair), level, tests)
