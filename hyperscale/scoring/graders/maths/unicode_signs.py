r"""Writes Unicode mathematics as LaTeX: ``2√3 ≤ x²`` becomes ``2\sqrt{3} \le x^{2}``."""

import re
import unicodedata

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣʸᵃᵇᶜᵈᵉᵏᵐᵗ", "0123456789+-=()nixyabcdekmt", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₙₖₘ", "0123456789+-=()aeoxnkm", strict=True))
_SCRIPTS = (("^", _SUPERSCRIPTS), ("_", _SUBSCRIPTS))

_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma "
    "sigma tau upsilon phi chi psi omega"
)
_GREEK = _GREEK_NAMES.split()
_CAPITALS = {"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma"}
_CAPITALS |= {"Φ": "Phi", "Ψ": "Psi", "Ω": "Omega"}

_SYMBOLS = {
    "∞": "infty", "≤": "le", "≦": "le", "⩽": "le", "≥": "ge", "≧": "ge", "⩾": "ge", "≠": "ne", "≈": "approx",
    "≡": "equiv", "·": "cdot", "⋅": "cdot", "∙": "cdot", "•": "cdot", "×": "times", "✕": "times", "⨯": "times",
    "÷": "div", "±": "pm", "∓": "mp", "∪": "cup", "∩": "cap", "∈": "in", "∉": "notin", "∖": "setminus",
    "∅": "emptyset", "⌀": "emptyset", "∠": "angle", "∡": "angle", "△": "triangle", "→": "to", "⇒": "Rightarrow",
    "⟨": "langle", "⟩": "rangle", "〈": "langle", "〉": "rangle", "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil",
    "⌉": "rceil", "∑": "sum", "∏": "prod", "∫": "int", "∂": "partial", "∧": "land", "∨": "lor", "⊂": "subset",
    "⊆": "subseteq", "∣": "mid", "∥": "parallel", "⊥": "perp", "…": "ldots", "⋯": "cdots", "ϕ": "phi", "ϵ": "epsilon",
    "‖": "Vert", "ϑ": "theta", "∝": "propto",
}  # fmt: skip
_PLAIN = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "―": "-", "﹣": "-", "－": "-",
    "、": ",", "，": ",", "。": ".", "．": ".", "；": ";", "：": ":", "∶": ":", "（": "(", "）": ")", "［": "[",
    "］": "]", "【": "[", "】": "]", "｛": r"\{", "｝": r"\}", "｜": "|", "＜": "<", "＞": ">", "＝": "=", "＋": "+",
    "／": "/", "⁄": "/", "∕": "/", "＊": "*", "∗": "*", "％": r"\%", "＄": r"\$", "￥": "¥", "￠": "¢", "￡": "£",
    "º": "°", "˚": "°", "℃": r"°\text{C}", "℉": r"°\text{F}", "′": "'", "’": "'", "‘": "'", "″": "''",
    "“": '"', "”": '"', "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}",
    "ℂ": r"\mathbb{C}", "\u2062": "", "\u2061": "", "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "",
    "\ufeff": "", "\u200e": "", "\u200f": "", "\ufe0f": "",
}  # fmt: skip
_TABLE = str.maketrans(
    _PLAIN
    | {sign: f"\\{name} " for sign, name in (_SYMBOLS | _CAPITALS).items()}
    | {chr(0x3B1 + i): f"\\{name} " for i, name in enumerate(_GREEK)}
)
_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
# A root reaches over a bracket, a number or one letter.
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|([0-9]+(?:\.[0-9]+)?|[A-Za-z])|(?=\{))")
_OVERLINED = re.compile("((?:[0-9]\u0305)+|(?:[0-9]\u0304)+)")
_DOTTED = re.compile("([0-9])\u0307")


def write_as_latex(text: str) -> str:
    """The text in ASCII where its signs have a LaTeX command or an ASCII form; other signs stay."""
    if text.isascii():
        return text
    text = _OVERLINED.sub(lambda match: f"\\overline{{{re.sub('[^0-9]', '', match.group())}}}", text)
    text = _DOTTED.sub(r"\\dot{\1}", text)
    for mark, table in _SCRIPTS:
        signs = "".join(table)
        run = re.compile(f"[{re.escape(signs)}]+")
        text = run.sub(lambda match, t=table, m=mark: f"{m}{{{''.join(t[c] for c in match.group())}}}", text)  # type: ignore[misc]
    # Full-width digits and letters, and mathematical alphabets, have their plain form; so do fractions such as ½.
    text = "".join(_simple_form(character) for character in text)
    text = _ROOT.sub(
        lambda match: (
            _ROOTS[match.group(1)] + ("" if match.group(0)[-1] in _ROOTS else f"{{{match.group(2) or match.group(3)}}}")
        ),
        text,
    )
    for sign, command in _ROOTS.items():
        text = text.replace(sign, command)
    return text.translate(_TABLE)


def _simple_form(character: str) -> str:
    if character.isascii() or character in _PLAIN or character in _SYMBOLS:
        return character
    form = unicodedata.normalize("NFKC", character)
    if "\u2044" in form:  # the fraction slash
        numerator, _, denominator = form.partition("\u2044")
        return f"\\frac{{{numerator}}}{{{denominator}}}" if numerator and denominator else form
    if form.isspace():
        return " "
    return form if len(form) == 1 else character
