r"""Tables of LaTeX: what commands, environments and bare words mean to the maths grader, and which say nothing."""

OPEN, CLOSE, ROW = "⦃", "⦄", "¶"
"""Single signs for the braces of a set and the end of a matrix row, in plain LaTeX (see `latex`)."""


def _commands(*lines: str) -> frozenset[str]:
    return frozenset(rf"\{name}" for name in " ".join(lines).split())


SPACES = _commands(
    ", ; : > quad qquad enspace thinspace space medspace thickspace nobreakspace",
) | {"\\ ", "\\\n", "\\\t", "~"}

BRACKET_SIZES = _commands("left right middle")
IGNORED = (
    {"$"}
    | BRACKET_SIZES
    | _commands(
        "! ( ) [ ] limits nolimits negthinspace",
        "big bigl bigr bigm Big Bigl Bigr Bigm bigg biggl biggr biggm Bigg Biggl Biggr Biggm",
        "displaystyle textstyle scriptstyle scriptscriptstyle strut mathstrut hfill",
        "allowbreak nonumber notag hline centering noindent relax null",
        "tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge",
    )
)
"""Commands that only say how something looks."""

WORD_FONTS = _commands(
    "text textrm textup textnormal textbf textit textsf texttt textsl textsc emph mbox",
    "hbox mathrm mathsf mathtt operatorname operatorname* textmd rm bf it sf tt",
)
LETTER_FONTS = _commands(
    "mathbf boldsymbol bm pmb mathit mathcal mathscr mathfrak mathnormal symbf symbfit mathbfit bold"
)
DROPPED_ARGUMENT = _commands("tag hspace vspace hspace* phantom hphantom vphantom label")
TRANSPARENT = _commands(
    "boxed fbox mathop mathbin mathrel mathord mathopen mathclose mathpunct mathinner underline ensuremath smash",
    "mathstrut underbrace overbrace framebox bbox",
)
"""Commands whose argument is all there is to them."""

ACCENTS = {name: name for name in _commands("overline dot vec hat tilde widehat overrightarrow ddot mathbb")} | {
    r"\bar": r"\overline",
    r"\Bbb": r"\mathbb",
}
WITH_ARGUMENT = WORD_FONTS | LETTER_FONTS | DROPPED_ARGUMENT | TRANSPARENT | ACCENTS.keys() | {r"\pmod"}
"""Commands of one argument."""

DECLARATIONS = _commands("rm bf it sf tt sl bfseries itshape mit")
"""Fonts of all that follows."""

FRACTIONS = _commands("frac dfrac tfrac cfrac sfrac nicefrac ffrac")
BINOMIALS = _commands("binom dbinom tbinom")
SAME = {
    "leq": "le", "leqslant": "le", "leqq": "le", "geq": "ge", "geqslant": "ge", "geqq": "ge", "neq": "ne",
    "times": "cdot", "ast": "cdot", "star": "cdot", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots",
    "dotsb": "ldots", "dotso": "ldots", "varnothing": "emptyset", "empty": "emptyset", "infin": "infty",
    "wedge": "land", "vee": "lor", "imath": "i", "tfrac": "frac", "backslash": "setminus",
    "smallsetminus": "setminus", "bigcup": "cup", "bigcap": "cap", "varphi": "phi", "varepsilon": "epsilon",
    "vartheta": "theta", "rightarrow": "to", "mid": "|", "colon": ":", "isin": "in", "thickapprox": "approx",
    "arccosh": "operatorname{arccosh}", "pounds": "£", "tg": "tan", "ctg": "cot", "arctg": "arctan", "cosec": "csc",
}  # fmt: skip
"""Names of commands, without the backslash, by other names of the same."""

SIGNS = {
    r"\{": OPEN, r"\}": CLOSE, r"\lbrace": OPEN, r"\rbrace": CLOSE, r"\lbrack": "[", r"\rbrack": "]",
    r"\lparen": "(", r"\rparen": ")", r"\vert": "|", r"\lvert": "|", r"\rvert": "|", r"\|": "|", r"\Vert": "|",
    r"\lVert": "|", r"\rVert": "|", r"\mid": "|", r"\colon": ":", r"\lt": "<", r"\gt": ">", r"\%": "%", r"\degree": "°",
    r"\prime": "'", r"\&": r"\text{and}", r"\_": "_", r"\#": "#", r"\/": "", r"\-": "", r"\slash": "/",
    r"\textdegree": "°", r"\imath": "i", r"\jmath": "j", "*": r"\cdot ", r"\euro": "€", r"\pounds": "£",
    r"\texteuro": "€", r"\textdollar": r"\$", r"\R": r"\mathbb{R}", r"\Z": r"\mathbb{Z}", r"\N": r"\mathbb{N}",
    r"\Q": r"\mathbb{Q}", r"\C": r"\mathbb{C}", r"\reals": r"\mathbb{R}", r"\I": "i", r"\cr": ROW,
    r"\neg": r"\text{not}", r"\lnot": r"\text{not}",
    r"\tabularnewline": ROW, r"\newline": ROW, r"\lg": r"\log_{10}", r"\mathellipsis": r"\ldots ",
}  # fmt: skip
"""What commands without an argument are written as."""

MATRICES = frozenset(["matrix", "pmatrix", "bmatrix", "smallmatrix", "array", "Bmatrix", "psmallmatrix"])
ALIGNED = frozenset(["aligned", "align", "align*", "gathered", "gather", "gather*", "split", "equation", "equation*"])

_FUNCTION_NAMES = (
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot log ln lg exp gcd lcm max "
    "min det deg dim ker arg sup inf lim sqrt Re Im sgn tr"
)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_COMMAND_NAMES = "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan log ln exp gcd max min"
BARE_COMMANDS = frozenset(_COMMAND_NAMES.split())
"""Functions that are commands where they stand as bare letters, too."""

PLAIN_WORDS = {"infinity": r"\infty ", "inf": r"\infty ", "pi": r"\pi ", "and": r"\text{and}", "or": r"\text{or}"}
NAMED_BASES = {
    rf"\text{{{name}}}": str(base)
    for name, base in {
        "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
        "eleven": 11, "twelve": 12, "sixteen": 16,
    }.items()
}  # fmt: skip
"""Bases of numbers that are written as words."""

VARIABLES = frozenset("iexyznkabjtrpq")
"""Letters that are no units: in text, too, they are variables or constants."""

# Longer lists of units are in `units`.
_PROSE_WORDS = (
    "cm mm km kg mg ml ft yd lb lbs oz mph kph hr hrs min mins sec secs inch inches foot feet yard yards "
    "mile miles meter meters metre metres centimeter centimeters centimetre centimetres kilometer "
    "kilometers gram grams kilogram kilograms liter liters litre litres second seconds minute minutes "
    "hour hours day days week weeks month months year years dollar dollars cent cents euro euros pound "
    "pounds degree degrees radian radians percent pct percentage answer unit units square sq cubic cu per am pm "
    "million billion trillion thousand hundred dozen not minus negative plus january february march april may june "
    "july august september october november december monday tuesday wednesday thursday friday saturday sunday "
    "people students apples ways times points solution solutions integer integers numbers triangle triangles values "
    "digits primes factors divisors zeros roots terms sides vertices edges faces steps coins marbles balls cards books "
    "boys girls men women children committees arrangements permutations combinations subsets triples tuples paths "
    "routes games teams words letters lines circles sequences functions polynomials rectangles"
)
PROSE = frozenset(_PROSE_WORDS.split())
"""Words that are prose where they stand without ``\\text``."""
