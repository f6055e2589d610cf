r"""Generates problems of the AIME shape: a lagged recurrence modulo 1000, answered by an integer in ``\boxed{}``.

``f(n) = m f(n-1) + l f(n // k) mod 1000`` with f(0) given and some later values overridden in the prompt; f(N) is
asked for. The chain has one line per n. Each needs the line above, a line that lies half or two thirds of the chain
back, and the prompt; one slip spoils every later value. The chain's length is set by N, the level.

Training documents carry slips as text written by people does: in a few lines one digit of the result is wrong, and
the chain goes on from it. So a model sampled from makes such slips as well, chains disagree, and voting can mend it.
"""

from random import Random

from hyperscale.mini.problems.worked_problem import WorkedProblem
from hyperscale.mini.vocab import DIGIT, ID, NODE

#: Range of N at each level.
LEVELS = ((10, 23), (24, 42), (43, 62), (63, 81), (82, 99))
_F, _M, _L, _MOD, _AT = (ID[piece] for piece in ("f(n)=", "*f(n-1)+", "*f(n//", ") mod 1000 with", " f("))
_IS, _COMMA, _FIND, _STOP = (ID[piece] for piece in (")=", ",", ". Find f(", ")."))
_COLON, _EQ, _SEMI, _PLUS, _BANG, _NL = (ID[piece] for piece in (":", "=", ";", "+", "!", "\n"))
#: Share of lines with a slip in training documents.
SLIPS = 0.03
_THREE = [[DIGIT[v // 100], DIGIT[v // 10 % 10], DIGIT[v % 10]] for v in range(1000)]


def _slip(rng: Random, value: int) -> int:
    """The value with one digit changed."""
    unit = (1, 10, 100)[rng.randrange(3)]
    digit: int = value // unit % 10
    return value + (rng.choice([d for d in range(10) if d != digit]) - digit) * unit


def generate(rng: Random, level: int | None = None) -> WorkedProblem:
    """One problem and a chain, slips included; the answer is the right one. A random level if none is given."""
    level = level or rng.randint(1, len(LEVELS))
    last = rng.randint(*LEVELS[level - 1])
    m, lag, k = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 3)
    overrides = {0: rng.randrange(1000)}
    for n in sorted(rng.sample(range(1, last), rng.randint(0, 1 + last // 16))):
        overrides[n] = rng.randrange(1000)
    prompt = [_F, DIGIT[m], _M, DIGIT[lag], _L, DIGIT[k], _MOD]
    for n, value in overrides.items():
        prompt += [_AT, NODE[n], _IS, *_THREE[value], _COMMA]
    prompt[-1] = _FIND
    prompt += [NODE[last], _STOP]

    f = [overrides[0]]  # the values that the chain computes, slips and their consequences included
    right = [overrides[0]]  # the true ones
    chain: list[int] = []
    for n in range(1, last + 1):
        if n in overrides:
            f.append(overrides[n])
            right.append(overrides[n])
            chain += [_NL, NODE[n], _BANG, *_THREE[overrides[n]]]
            continue
        back = n // k
        first, second = m * f[-1] % 1000, lag * f[back] % 1000
        f.append((first + second) % 1000)
        right.append((m * right[-1] + lag * right[back]) % 1000)
        if rng.random() < SLIPS:
            f[-1] = _slip(rng, f[-1])
        chain += [_NL, NODE[n], _COLON, NODE[back], _EQ, *_THREE[f[back]], _SEMI]
        chain += [*_THREE[first], _PLUS, *_THREE[second], _EQ, *_THREE[f[-1]]]
    chain.append(_NL)
    reply = [ID["The answer is "], ID["\\boxed{"], *_THREE[f[-1]], ID["}"], ID["."]]
    return WorkedProblem(prompt, chain, reply, str(right[-1]), level)
