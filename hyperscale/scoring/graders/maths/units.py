r"""Splits an answer into a value and its unit, and compares words: ``864\text{inches}^{2}`` is 864, square inches.

The input is plain LaTeX (see `latex`). A unit is what may be left out without changing the value. Words that
change it are none: ``5\text{million}`` is 5,000,000, and ``5\text{squared}``, ``\text{not}5`` and ``\text{July}20`` are
phrases, which equal only the same words.
"""

import re
from fractions import Fraction
from typing import NamedTuple

# Names of units: all names of a row are one unit. Then its dimension, and its size in the dimension's first unit.
_UNITS: tuple[tuple[str, str, Fraction], ...] = tuple(
    (names, dimension, Fraction(size))
    for names, dimension, size in (
        ("m meter metre meters metres", "length", "1"),
        ("cm centimeter centimetre centimeters centimetres", "length", "1/100"),
        ("mm millimeter millimetre millimeters millimetres", "length", "1/1000"),
        ("km kilometer kilometre kilometers kilometres", "length", "1000"),
        ("in inch inches", "length", "127/5000"),
        ("ft foot feet", "length", "381/1250"),
        ("yd yard yards yds", "length", "1143/1250"),
        ("mi mile miles", "length", "201168/125"),
        ("s sec secs second seconds", "time", "1"),
        ("min mins minute minutes", "time", "60"),
        ("h hr hrs hour hours", "time", "3600"),
        ("d day days", "time", "86400"),
        ("week weeks wk wks", "time", "604800"),
        ("month months mo", "month", "1"),
        ("year years yr yrs", "month", "12"),
        ("g gram grams gm", "mass", "1"),
        ("kg kilogram kilograms kgs", "mass", "1000"),
        ("mg milligram milligrams", "mass", "1/1000"),
        ("lb lbs pound pounds", "mass", "45359237/100000"),
        ("oz ounce ounces", "mass", "45359237/1600000"),
        ("l liter litre liters litres", "volume", "1"),
        ("ml milliliter millilitre milliliters millilitres", "volume", "1/1000"),
        ("dollar dollars usd bucks", "dollar", "1"),
        ("cent cents", "dollar", "1/100"),
        ("euro euros eur", "euro", "1"),
        ("sterling gbp", "sterling", "1"),
        ("yen jpy", "yen", "1"),
        ("degree degrees deg", "angle", "1"),
        ("radian radians rad rads", "radian", "1"),
        ("mph miles/hour mile/hour mi/h mi/hr", "mph", "1"),
        ("km/h kph kmh kilometers/hour km/hr", "kph", "1"),
        ("unit units", "", "1"),
    )
)
_KNOWN = {name: (row[0].split()[0], row[1], row[2]) for row in _UNITS for name in row[0].split()}

_SCALES = {
    "hundred": Fraction(100), "thousand": Fraction(1000), "million": Fraction(10**6), "billion": Fraction(10**9),
    "trillion": Fraction(10**12), "dozen": Fraction(12), "dozens": Fraction(12), "tenth": Fraction(1, 10),
    "tenths": Fraction(1, 10), "hundredth": Fraction(1, 100), "hundredths": Fraction(1, 100),
    "thousandth": Fraction(1, 1000), "thousandths": Fraction(1, 1000), "half": Fraction(1, 2),
    "halves": Fraction(1, 2), "third": Fraction(1, 3), "thirds": Fraction(1, 3), "fourths": Fraction(1, 4),
    "fifths": Fraction(1, 5), "sixths": Fraction(1, 6), "eighths": Fraction(1, 8), "ninths": Fraction(1, 9),
    "sevenths": Fraction(1, 7), "millionths": Fraction(1, 10**6), "lakh": Fraction(10**5), "crore": Fraction(10**7),
    "bn": Fraction(10**9), "mln": Fraction(10**6), "mio": Fraction(10**6),
    "hundreds": Fraction(100), "thousands": Fraction(1000), "millions": Fraction(10**6), "billions": Fraction(10**9),
}  # fmt: skip

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
# Words that change what a number says, so that none of them stands in a unit.
_CHANGES = frozenset(
    f"{_NUMBER_WORDS} not no non none nor neither never without except but minus negative plus positive less more "
    "fewer greater least most below above under over about around approximately nearly almost between through "
    "to from until or and either if when where unless mod modulo base log ln sin cos tan sqrt root squared cubed "
    "square cube factorial power raised choose gross score pair pairs couple double triple twice thrice half quarter "
    "quarters tens ones permille permil ppm bps infinity infinite pi am pm bc ad bce ce north south east west noon "
    "midnight january february march april may june july august september october november december jan feb mar apr "
    "jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat "
    "sun wrong incorrect false unknown undefined maybe possibly i e x y z n k j remainder otherwise cannot "
    "before after past o'clock oclock imaginary i.e e.g mega giga kilo rd nd".split()
) | frozenset(_SCALES)

# Words in front of a value that only announce it.
_LABEL = re.compile(
    r"\\text\{(?:so |thus |therefore |hence )?(?:the |my |our |its )?"
    r"(?:final |correct |exact |total |required |simplified )*"
    r"(?:answer|solution|result|value|total|sum|area|perimeter|volume|length|width|height|distance|probability"
    r"|option|choice|number|product|difference|ratio|slope|radius|diameter|rs|rs\.|inr|usd|us|ans|ans\.)"
    r"(?: is| are| equals| of)?(?: option| choice)?\}[:=]?",
    re.IGNORECASE,
)
# Words behind it that a letter stands for any integer.
_DOMAIN = re.compile(
    r"(?<=.)(?:[,;]\(?|\(|[,;]?\(?\\text\{(?:for|where|with)(?: any| all| some| every| each| an)?\})(?:\\forall ?)?"
    r"[a-z](?:\\in ?\\mathbb\{Z\}|\\text\{(?:is|being) an(?:y)? integer\})\)?$"
    r"|(?<=.)[,;]?\(?\\text\{(?:for|where) (?:(?:any|all|some|every|each|an) )?integers?\}[a-z]\)?$"
)
_CHOICE = re.compile(r"\(\\text\{[A-J]\}\)(?=[^,;\s)])|\\text\{[A-J]\.\}(?=.)")
_SIGN = re.compile(r"\\text\{(minus|negative)\}", re.IGNORECASE)
_CURRENCY = {r"\$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "¢": "cent", "₹": "rupee"}
_CURRENCY_SIGN = r"(?:\\\$|[€£¥¢₹])"
_POWER = r"(?:\^\{-?[1-9]\})?"
_TAIL = re.compile(
    rf"^(?P<value>.*?[^+\-=<>,;(/^_{{])(?P<unit>%(?:\\text\{{of[^{{}}]*\}})?|°(?:\\text\{{[^{{}}]*\}})?[CFK]?|{_CURRENCY_SIGN}"
    rf"|(?:(?:\\cdot ?|/|\.)?\\text\{{[^{{}}]*\}}{_POWER}\.?)+)$",
    re.DOTALL,
)

_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()
_PHRASES = {  # said in many ways
    "nosolution": "none", "nosolutions": "none", "norealsolution": "none", "norealsolutions": "none",
    "nosolutionexists": "none", "nosuchnumber": "none", "emptyset": "none", "theemptyset": "none", "none": "none",
    "doesnotexist": "dne", "dne": "dne", "undefined": "dne",
    "allrealnumbers": "reals", "allreals": "reals", "realnumbers": "reals", "therealnumbers": "reals",
    "mathbbr": "reals",
}  # fmt: skip


class Quantity(NamedTuple):
    """A value with what stands behind it.

    Attributes:
        value: Plain LaTeX without the unit.
        unit: Canonical name, ``%``, or an empty text.
        dimension: Units of one dimension can be converted; empty if unknown.
        size: The unit's size in its dimension.
    """

    value: str
    unit: str = ""
    dimension: str = ""
    size: Fraction = Fraction(1)


def drop_label(text: str) -> str:
    """An answer without the words or the letter of a choice around it, and with signs in place of their words."""
    text = re.sub(r"^\\(?:therefore|Rightarrow|implies|Longrightarrow|iff|to)(?![A-Za-z]) ?", "", text)
    text = _SIGN.sub("-", text, count=1) if _SIGN.match(text) else text
    for pattern in (_LABEL, _CHOICE):
        match = pattern.match(text)
        if match and match.end() < len(text):
            text = text[match.end() :].strip()
    return _DOMAIN.sub("", text)


def split_unit(text: str) -> Quantity:
    """Value and unit of a plain answer; the whole text as the value where there is no unit."""
    value, unit, dimension, size = text, "", "", Fraction(1)
    sign = re.match(r"[+-]?", value)
    start = sign.group() if sign else ""
    for mark, name in _CURRENCY.items():
        rest = value[len(start) :]
        if rest.startswith(mark) and len(rest) > len(mark):
            value = start + rest[len(mark) :].lstrip("+").strip()
            unit, dimension, size = _known(name)
            break
    for _ in range(4):
        match = _TAIL.match(value)
        if match is None:
            break
        tail, rest = match.group("unit"), match.group("value").strip()
        if tail.startswith("°") and _TRIGONOMETRIC.search(rest):
            break  # of the function's argument
        if rest.startswith(r"\text{") or not rest:
            break
        words = _unit_words(tail)
        if words is None:
            break
        if len(words) == 1 and not rest[-1].isalnum() and rest[-1] not in ")}%!|°" + "⦄]":
            break
        if words and words[0] in _SCALES:
            if len(words) == 1 or _is_unit(words[1:]):
                scale = _SCALES[words[0]]
                value = rf"({rest})\cdot (\frac{{{scale.numerator}}}{{{scale.denominator}}})"
                if len(words) > 1 and not unit:
                    unit, dimension, size = _known(" ".join(words[1:]))
            break
        if words == ["of"] or not _is_unit(words):
            break
        value = rest
        name, new_dimension, new_size = _known(" ".join(words))
        if not unit:
            unit, dimension, size = name, new_dimension, new_size
    return Quantity(value, unit, dimension, size)


def _unit_words(tail: str) -> list[str] | None:
    """Lower-case words of what stands behind a value, scripts attached: ``['square', 'cm']`` is ``['cm^2']``."""
    tail = tail.replace("%", r"\text{%}").replace("°", r"\text{degrees}")
    for mark, name in _CURRENCY.items():
        tail = tail.replace(mark, rf"\text{{{name}}}")
    text = re.sub(r"\^\{(-?[1-9])\}", r"^\1", tail)
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).replace(r"\cdot", " ")
    text = re.sub(r"\s+\^", "^", text)
    text = text.lower().replace("a.m", "am").replace("p.m", "pm").replace("’", "'")
    text = re.sub(r"\.(?=\s|\^|$)", "", text).replace(",", " ")
    text = re.sub(r"\bper\b|/", " / ", text)
    words = text.split()
    out: list[str] = []
    power = ""
    for word in words:
        if word in ("square", "sq", "squared"):
            power = "^2"
            if word == "squared" and out:
                out[-1] += "^2"
                power = ""
        elif word in ("cubic", "cu", "cubed"):
            power = "^3"
            if word == "cubed" and out:
                out[-1] += "^3"
                power = ""
        elif word in ("percent", "pct", "percentage"):
            out.append("%")
        else:
            out.append(word + power)
            power = ""
    if power:
        out.append("squared")  # of nothing
    return out


def _is_unit(words: list[str]) -> bool:
    """Whether words behind a value leave it as it is."""
    if words[:1] == ["degrees"] and words[1:] in (["c"], ["f"], ["k"], ["celsius"], ["fahrenheit"]):
        return True
    if words == ["%"] or words in (["th"], ["st"], ["nd"], ["rd"]):
        return True
    if len(words) == 2 and words[0] in ("ordered", "unordered", "distinct") and words[1] in ("pair", "pairs"):
        return True
    for word in words:
        bare = re.sub(r"\^-?[1-9]$", "", word)
        if (
            bare in _KNOWN
            or bare == "/"
            or (bare in ("c", "f", "n", "j", "w", "v", "a", "k", "pa", "hz") and len(words) == 1)
        ):
            continue
        if bare in _CHANGES or not re.fullmatch(r"[a-z][a-z'\-]*", bare) or (len(bare) == 1 and bare != "a"):
            return False
        if "-" in bare and bare.split("-")[0] in _CHANGES:
            return False
        if re.fullmatch(r"(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|hundred|[a-z]+teen|[a-z]+tie)ths?", bare):
            return False
    return True


def _known(name: str) -> tuple[str, str, Fraction]:
    """Canonical name, dimension and size of a unit."""
    if name in ("th", "st", "nd", "rd"):
        return "", "", Fraction(1)
    joined = name.replace(" / ", "/").replace(" ", " ")
    if joined in _KNOWN:
        return _KNOWN[joined] if _KNOWN[joined][0] != "unit" else ("", "", Fraction(1))
    match = re.fullmatch(r"([a-z]+)\^(-?[1-9])", joined)
    if match and match.group(1) in _KNOWN:
        known, dimension, size = _KNOWN[match.group(1)]
        if known == "unit":
            return "", "", Fraction(1)
        power = int(match.group(2))
        return f"{known}^{power}", f"{dimension}^{power}", size**power
    parts = [_singular(_KNOWN[word][0] if word in _KNOWN else word) for word in re.split(r"([ /])", joined)]
    return "".join(parts), "", Fraction(1)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def has_words(text: str) -> bool:
    """Whether a plain answer holds words, or numbers side by side, so that it is compared by its words."""
    return re.search(r"\\text\{|[0-9.] [0-9.]|[0-9)]_\{|\\\$|\\ldots", text) is not None


def phrase(text: str) -> str:
    """What a plain answer says by the letter: no case, no spaces, no full stops, one order of day and month."""
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    text = text.replace("\\$", " dollars ").replace("°", " degrees ").replace("%", " percent ")
    text = re.sub(
        r"\ba\.?\s?m\b\.?", "am", re.sub(r"\bp\.?\s?m\b\.?", "pm", text, flags=re.IGNORECASE), flags=re.IGNORECASE
    )
    words = re.findall(r"[A-Za-z'’\-]+|[0-9]+(?:\.[0-9]+)?|\\[A-Za-z]+|\S", text)
    single: list[str] = [word for word in words if word not in ("(", ")", ".", "{", "}")]
    if len(single) == 1 and len(single[0]) == 1:
        return single[0]  # the letter of a choice, or a variable
    words = [word.lower().strip(".'") for word in words if word not in (".", ",")]
    words = [re.sub(r"^(?:the|a|an)$", "", word) for word in words] if len(words) > 1 else words
    words = _in_order([word for word in words if word])
    words = [_KNOWN[word][0] if word in _KNOWN and any(w[0].isdigit() for w in words) else word for word in words]
    joined = re.sub(r"(?<=[0-9])\0(?=[0-9.])", " ", "\0".join(words)).replace("\0", "")
    return _PHRASES.get(re.sub(r"[^a-z]", "", joined), joined)


def _in_order(words: list[str]) -> list[str]:
    """Dates with the month first: ``20 June`` and ``June 20th`` are ``june 20``."""
    short = {month[:3]: month for month in _MONTHS} | {"sept": "september"}
    words = [short.get(word, word) for word in words]
    if any(word in _MONTHS for word in words):
        words = [word for word in words if word not in ("of", "th", "st", "nd", "rd")]
        for i in range(len(words) - 1):
            if words[i].isdigit() and words[i + 1] in _MONTHS:
                words[i], words[i + 1] = words[i + 1], words[i]
    return words
