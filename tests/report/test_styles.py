"""Colours and markers of methods."""

from importlib.resources import files

from hyperscale import methods
from hyperscale.methods.names import ORDER
from hyperscale.report.plots.styles import SPARE_MARKERS, STYLES, assign_dashes, assign_styles, series_name


def test_known_methods_have_their_own_style_and_the_legend_its_order():
    assert assign_styles(["dms", "vanilla"]) == {"vanilla": ("#000000", "o"), "dms": ("#D55E00", "s")}
    assert list(assign_styles(["dms", "vanilla"])) == ["vanilla", "dms"]


def test_every_registered_method_has_a_style_of_its_own():
    assert set(methods.available()) <= set(STYLES), "add the new method to STYLES in hyperscale/report/plots/styles.py"
    assert len(set(STYLES.values())) == len(STYLES)
    # Markers survive print in grey: two that share one are seldom beside each other.
    shared = [name for name, (_, marker) in STYLES.items() if [m for _, m in STYLES.values()].count(marker) > 1]
    assert shared == ["dmc", "triattention"]


def test_the_report_can_draw_every_marker():
    script = (files("hyperscale") / "report" / "html" / "web" / "base.js").read_text(encoding="utf-8")
    shapes = script.partition("SHAPES = {")[2].partition("};")[0]
    drawn = {line.split(":")[0].strip(' "') for line in shapes.splitlines() if ":" in line}
    assert {marker for _, marker in STYLES.values()} | set(SPARE_MARKERS) == drawn


def test_every_registered_method_has_a_place_in_the_order():
    assert set(methods.available()) <= set(ORDER), "add the new method to ORDER in hyperscale/methods/names.py"


def test_many_methods_have_styles_of_their_own():
    names = [*(f"m{i}" for i in range(12)), *STYLES]
    assert len(set(assign_styles(names).values())) == len(names)


def test_a_method_keeps_its_style_beside_other_models():
    assert series_name("dms", "a", False) == "dms"
    assert series_name("dms", "a", True) == "dms (a)"
    made = assign_styles(["dms (b)", "dms (a)", "vanilla (b)", "other (a)"])
    assert made["vanilla (b)"] == STYLES["vanilla"]
    assert made["dms (a)"] == STYLES["dms"]
    assert len(set(made.values())) == 4


def test_more_than_there_are_still_have_one():
    assert len(assign_styles(f"m{i}" for i in range(80))) == 80


def test_lines_of_one_colour_differ_by_their_dashes():
    styles = assign_styles(STYLES)
    dashes = assign_dashes(styles)
    assert (dashes["tova"], dashes["knorm"]) == ("-", "--")  # one colour
    assert len({(styles[name][0], dashes[name]) for name in styles}) == len(styles)
