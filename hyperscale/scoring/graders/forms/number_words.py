"""Tells words beside a number that leave it as it is, a unit or a label, from words that change it.

``42 apples`` and ``area: 42`` are 42; ``42 thousand``, ``42 percent``, ``not 42``, ``about 42`` and ``log 42`` are not.
"""

import re
from typing import Literal

# What a word does to the number beside it: nothing, its sign, or anything else.
Effect = Literal["none", "sign", "other"]

_SIGNS = {"negative", "minus"}
_CHANGES = {
    word
    for words in (
        # other numbers, multiples and parts
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety dozen dozens gross score",
        "scores half halves quarter quarters third thirds fourth fourths fifth fifths sixth sixths seventh sevenths",
        "eighth eighths ninth ninths tenth tenths twelfth twelfths lakh lakhs crore crores grand myriad mil mio mln mn",
        "bn mrd percent percentage pct permille permil ppm ppb bps double twice triple thrice quadruple",
        # not this number, or more than one
        "not no non isn't never neither nor none without except unequal wrong incorrect false unknown undefined",
        "or and to through until versus vs either both respectively",
        # a number near it, or on one side of it
        "about approximately approx around roughly nearly almost circa ca close near more less greater fewer smaller",
        "larger bigger least most over under above below between up exceeds maybe perhaps",
        # what is computed with it
        "plus times divided over choose mod modulo squared cubed factorial point dot power root sqrt log ln lg exp sin",
        "cos tan cot sec csc sinh cosh tanh arcsin arccos arctan gcd lcm max min sup inf lim det abs floor ceil sgn",
        "base binary octal hexadecimal hex",
    )
    for word in words.split()
}
_POWERS_OF_TEN = re.compile(r"(?:tens?|hundreds?|thousands?|[a-z]*illions?|[a-z]*illiards?)(?:ths?)?")
_UNIT_LETTERS = set("msghLlNJWVCF")

#: Words that are units also where no command says that they are words.
BARE_UNITS = re.compile(
    r"(?:square|sq|cubic|cu)?\s*(?:(?:[kc]?m|mi|ft)/(?:hr?|s)|[km]ph|degrees?|deg|radians?|rad|[cdkmn]m|inch(?:es)?|feet"
    r"|foot|ft|yards?|miles?|"
    r"(?:centi|milli|kilo)?met(?:er|re)s?|[km]g|(?:kilo)?grams?|lbs?|pounds?|hours?|hrs?|minutes?|mins?|seconds?|secs?|"
    r"days?|weeks?|months?|years?|dollars?|euros?|cents?|units?|ways?|people|students?|points?|square|solutions?|integers?"
    r"|numbers|triangles?|values|digits|primes|factors|divisors|zeros|roots|terms|sides|vertices|edges|faces|steps|coins"
    r"|(?:ordered )?(?:pairs|triples|tuples)|arrangements|permutations|combinations|subsets|paths|sequences|functions)"
)


def effect_of(word: str) -> Effect:
    """What a word of at least two letters does to the number beside it."""
    word = word.lower().replace("\u2019", "'")
    if word in _SIGNS:
        return "sign"
    parts = re.split("[-']", word)
    changes = word in _CHANGES or any(part in _CHANGES or _POWERS_OF_TEN.fullmatch(part) for part in parts)
    return "other" if changes else "none"


def is_unit_letter(letter: str) -> bool:
    """Whether a single letter in upright type is a unit (m, s, g) and no variable (i, x, n)."""
    return letter in _UNIT_LETTERS
