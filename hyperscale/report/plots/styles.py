"""Gives each method its colour and marker, the same in pictures and in reports."""

from collections.abc import Iterable

from hyperscale.methods.names import rank

Style = tuple[str, str]  # colour, marker
# Okabe and Ito's colours, which readers with any colour vision tell apart, and a marker each, which survives print in
# grey; vanilla is always the black circle. Their yellow, illegible on white, is replaced by Tol's wine.
STYLES: dict[str, Style] = {
    "vanilla": ("#000000", "o"),
    "dms": ("#D55E00", "s"),
    "window": ("#0072B2", "^"),
    "random": ("#009E73", "D"),
    "quest": ("#CC79A7", "v"),
    "tova": ("#56B4E9", "P"),
    "h2o": ("#E69F00", "X"),
    "dmc": ("#7F7F7F", "<"),
    "streaming": ("#882255", ">"),
    "keydiff": ("#CC79A7", "d"),
    "knorm": ("#56B4E9", "h"),
    "triattention": ("#E69F00", "<"),
    "snapkv": ("#7F7F7F", "p"),
    "rkv": ("#882255", "*"),
}
SPARE_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#882255")
SPARE_MARKERS = ("P", "X", "<", ">", "v")
# Five colours and five markers make 25 pairs; neighbours differ in both.
_SPARE = [(SPARE_COLOURS[i % 5], SPARE_MARKERS[(i + i // 5) % 5]) for i in range(25)]


def series_name(method: str, model: str, with_model: bool) -> str:
    """The name of a method's frontier in legends; with its model where there are several."""
    return f"{method} ({model})" if with_model else method


def assign_styles(names: Iterable[str]) -> dict[str, Style]:
    """Style of each frontier by its `series_name`, in the order of a legend.

    The first model that has a method gets the method's style, further ones, and methods without one, what is spare.
    """
    styles: dict[str, Style] = {}
    spare = iter([pair for pair in _SPARE if pair not in STYLES.values()] * 2)
    for name in sorted(set(names), key=rank):
        style = STYLES.get(name.split(" (")[0])
        styles[name] = style if style and style not in styles.values() else next(spare, _SPARE[0])
    return styles


def assign_dashes(styles: dict[str, Style]) -> dict[str, str]:
    """How the line of each is drawn, by its `series_name`.

    There are fewer colours than methods: the second line of a colour is dashed, further ones are dotted.
    """
    colours = [colour for colour, _ in styles.values()]
    return {name: ("-", "--", ":")[min(colours[:place].count(colours[place]), 2)] for place, name in enumerate(styles)}


AXES = {
    "kv_reads": "KV reads per problem (cache entries)",
    "peak_kv": "peak KV per problem (cache entries)",
    "peak_bytes": "peak KV per problem (bytes)",
    "tokens": "generated tokens per problem",
    "seconds": "time in the batch per problem (seconds)",
    "read_bytes": "KV reads per problem (bytes)",
}
