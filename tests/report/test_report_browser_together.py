"""The report in a real browser where runs, caches, lengths and tasks of unlike kinds stand together."""

from dataclasses import replace

import pytest
from report_runs import run
from synthetic_samples import chains, sample

from hyperscale import report

pytestmark = pytest.mark.e2e

COLOUR = "node => getComputedStyle(node.querySelector('.swatch')).color"


@pytest.fixture
def show(visit, tmp_path):
    """Open the page of some runs, each a name and its chains."""

    def call(*, at="", **runs):
        path = tmp_path / "together.html"
        made = [run(tmp_path / name, lines) for name, lines in runs.items()]
        path.write_text(report.render_report(made, "together"), encoding="utf-8")
        return visit(at, page_at=path.as_uri())

    return call


def test_chains_over_caches_of_several_types_have_the_names_and_colours_of_their_frontiers(show):
    lines = {
        kv_dtype: chains("vanilla", 1, problems=3, width=2, kv_dtype=kv_dtype)
        + [line for cr in (2, 4, 8) for line in chains("dms", cr, problems=3, width=2, kv_dtype=kv_dtype)]
        for kv_dtype in ("float32", "int8", "fp8")
    }
    page = show(**lines)
    legend = page.locator("#frontiers .legend label").filter(has=page.locator(".swatch"))
    colours = dict(zip(legend.all_inner_texts(), legend.evaluate_all(f"labels => labels.map({COLOUR})"), strict=True))
    assert list(colours) == ["vanilla", "vanilla fp8", "vanilla int8", "dms", "dms fp8", "dms int8"]
    # The list unites the ratios of a method, and not its caches.
    tallies = page.locator("#chains .problems button").first.locator(".tally")
    assert [text.rsplit(" ", 2)[0].strip() for text in tallies.all_inner_texts()] == list(colours)
    assert tallies.evaluate_all(f"tallies => tallies.map({COLOUR})") == list(colours.values())
    told = page.locator("#chains .detail .who").all_inner_texts()
    assert {text.split(" chain ")[0].strip() for text in told} >= {"vanilla, float32", "dms fp8 2×, fp8"}
    # Without a plain cache beside them, too.
    page = show(int8=lines["int8"], fp8=lines["fp8"])
    page.locator("#compare").get_by_label("Outcome").select_option(label="all problems")
    assert page.locator("#compare .side h4").first.inner_text().startswith("A  vanilla fp8 ")


def test_a_point_shows_the_chains_of_its_own_length_where_the_rule_depends_on_it(show):
    lines = [
        sample(f"p{p}", c, "quest", 4.0, answer, L=L, length_invariant=False)  # 300 tokens, fewer than either L
        for L, answer in ((512, "2"), (1024, "1"))
        for p in range(2)
        for c in range(2)
    ]
    page = show(demo=lines)
    compare = page.locator("#compare")
    compare.get_by_label("A", exact=True).select_option(label="quest 1-512-4")
    compare.get_by_label("B", exact=True).select_option(label="quest 1-1K-4")
    assert compare.locator("output").inner_text().startswith("only A right 0, only B right 2,")
    verdicts = [side.locator(".verdict").all_inner_texts() for side in compare.locator(".side").all()]
    assert verdicts == [["✗ wrong"] * 2, ["✓ right"] * 2]


def test_points_of_few_problems_stand_inside_their_panel(show):
    page = show(
        whole=[sample(f"p{p}", L=512, tokens=600 if p % 2 else 260) for p in range(20)],
        brief=[sample(f"p{p}", tokens=1900) for p in range(5)],
        at="#axis=tokens",
    )
    stage = page.locator("#frontiers .stage")
    frame = stage.bounding_box()
    marks = [mark.bounding_box() for mark in stage.locator(".faint, .kept").all()]
    assert len(marks) > 5
    for mark in marks:
        assert frame["x"] < mark["x"]
        assert mark["x"] + mark["width"] < frame["x"] + frame["width"]


def test_the_address_chooses_the_task_of_the_heat_maps(show):
    lines = [
        replace(sample(f"p{p}", method="dms", CR=4.0, task=task), kept=((held, held), (held, held)))
        for task, held in (("mini_aime", 10), ("mini_lcb", 100))
        for p in range(3)
    ]
    page = show(demo=lines)
    told = page.locator("#heads .heat-map output")
    first = told.inner_text()
    page.locator("#heads select").select_option("mini_lcb")
    second = told.inner_text()
    assert first != second
    for address, expected in (("#problem=", first), ("#heads-task=mini_lcb", second)):
        page.evaluate("address => { location.hash = address }", address)
        shows = "text => document.querySelector('#heads .heat-map output').innerText === text"
        page.wait_for_function(shows, arg=expected)


def test_two_methods_that_share_no_task_have_no_margin(show):
    page = show(demo=chains("vanilla", 1, problems=2) + chains("window", 8, problems=2, task="mini_lcb"))
    assert "no task here has two methods" in page.locator("#margins").inner_text()
