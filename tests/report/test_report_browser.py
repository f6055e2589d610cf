"""The report in a real browser without a network, as a reader meets it: with a mouse, with keys alone, on a phone."""

import itertools
from dataclasses import replace

import pytest
from long_texts import PROBLEMS, TEXT
from report_runs import HOSTILE, run
from synthetic_samples import chains, points, sample

from hyperscale import report, tasks
from hyperscale.tasks.task import prompt_hash

pytestmark = pytest.mark.e2e

PHONE = {"width": 360, "height": 740}
FOCUS = "(e => [e.closest('section')?.id, e.className || e.tagName])(document.activeElement)"
WIDE = """[...document.querySelectorAll('body *')].filter(
    e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .skip, svg')).length"""


def column(page, section, number):
    return page.locator(f"{section} tbody tr td:nth-child({number})").all_inner_texts()


def test_the_answer_stands_above_the_frontiers(visit):
    page = visit()
    assert page.locator("#answer h3").all_inner_texts()[0] == "mini_aime, vanilla on 13 problems, dms on 12 problems"
    assert page.locator("#answer p").nth(1).inner_text().startswith("Measured at best: vanilla (the full cache) ")


def test_hovering_tells_the_point_and_the_frontiers(visit):
    page = visit()
    assert page.locator("#frontiers figure").count() == 2
    stage = page.locator(".stage").first
    tip = page.locator(".tip").first
    assert tip.is_hidden()
    spot = page.locator(".stage").first.locator(".kept").first
    spot.hover(force=True)
    assert "on the frontier" in tip.inner_text()
    assert "% of 1" in tip.inner_text()
    assert {"vanilla", "dms"} <= set(tip.inner_text().split())
    box = stage.bounding_box()
    assert tip.bounding_box()["y"] >= box["y"] + box["height"] - 20 or tip.bounding_box()["y"] < box["y"]
    page.mouse.move(1, 1)
    assert tip.is_hidden()


def test_arrow_keys_walk_along_the_points(visit):
    page = visit()
    page.locator(".stage").first.focus()
    said = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
        said.append(page.locator(".tip .spot").first.inner_text())
    assert said[0] == said[2] != said[1]
    page.keyboard.press("Escape")
    assert page.locator(".tip").first.is_hidden()


def test_a_heat_map_tells_what_each_head_keeps(visit, tmp_path):
    page = visit()
    heads = page.locator("#heads")
    assert heads.locator("figcaption").all_inner_texts()[0].startswith("vanilla, ")
    assert heads.locator("figure").count() == 3  # none for the task whose engine did not tell
    stage = heads.locator(".heat").nth(1)
    box = stage.locator("svg").bounding_box()
    stage.hover(position={"x": box["width"] * 10.5 / 28, "y": box["height"] * 2.5 / 4})
    told = heads.locator("output").nth(1)
    assert told.inner_text().startswith("layer 10, head 2: 10 %")
    stage.focus()
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert told.inner_text().startswith("layer 9, head 0: 100 %")
    heads.locator("summary").nth(1).click()
    row = heads.locator("table").nth(1).locator("tr").nth(11)
    assert row.locator("th, td").all_inner_texts() == ["10", "100 %", "10 %", "10 %", "10 %"]
    silent = tmp_path / "silent.html"
    silent.write_text(report.render_report([run(tmp_path / "silent", [sample()])], "none"), encoding="utf-8")
    page = visit(page_at=silent.as_uri())
    assert page.locator("#heads").is_hidden()
    assert page.get_by_role("link", name="Layers").count() == 0


def test_the_share_of_prompts_that_methods_keep_is_drawn_for_each_length(visit, tmp_path):
    page = visit()
    assert page.locator("#retained").is_hidden()  # no context task
    assert page.get_by_role("link", name="Retained").count() == 0
    found = [
        replace(line, task=f"vt@{context}", prefill_kv=line.prompt_tokens / line.CR)
        for context in (512, 1024)
        for method, cr in (("vanilla", 1), ("tova", 2), ("tova", 8))
        for line in chains(method, cr, problems=PROBLEMS, width=2)
    ]
    path = tmp_path / "shares.html"
    path.write_text(report.render_report([run(tmp_path / "r", found)], "r"), encoding="utf-8")
    page = visit(page_at=path.as_uri(), viewport=PHONE)
    section = page.locator("#retained")
    assert [text.split(" tokens")[0] for text in section.locator("figcaption").all_inner_texts()] == [
        "vt, 512",
        "vt, 1,024",
    ]
    assert section.locator("figure").first.locator(".kept").count() == 3
    section.locator(".stage").nth(1).focus()
    read = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        read.append(section.locator(".tip").nth(1).inner_text())
    for text, (name, share) in zip(
        read, (("tova 1-2K-8", "12.5"), ("tova 1-2K-2", "50"), ("vanilla 1-2K-1", "100")), strict=True
    ):
        assert name in text
        assert f"At {share} % of the prompt's entries" in text
    page.keyboard.press("Enter")
    assert page.locator("#chosen h3").inner_text().split() == ["vanilla", "1-2K-1", "on", "vt@1024"]
    page.get_by_role("checkbox", name="tova").uncheck()
    assert section.locator("figure").first.locator(".kept").count() == 1
    assert page.evaluate(WIDE) == 0


def test_a_point_tells_what_it_is_and_the_command_that_made_it(visit):
    page = visit()
    command = "hyperscale run --model mini --limit 1"
    spot = page.locator(".stage").first.locator(".kept").first
    spot.hover(force=True)
    tip = page.locator(".tip").first
    assert command in tip.inner_text()
    assert "1 × 256 tokens, CR" in tip.inner_text()
    spot.click(force=True)
    card = page.locator("#chosen")
    by_mouse = card.inner_text()
    assert tip.is_hidden()
    assert card.locator(".command").inner_text() == command
    card.get_by_role("button", name="Close").click()
    assert card.is_hidden()
    page.locator(".stage").first.focus()
    for key in ("ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert card.inner_text() == by_mouse
    page.locator("#points tbody tr").nth(3).click()
    assert card.locator("h3").inner_text().split()[1] == column(page, "#points", 3)[3]


def test_two_points_show_the_problems_and_chains_on_which_they_part(visit, lines):
    page = visit()
    compare = page.locator("#compare")
    shares = {}
    for method, cr, L in (("vanilla", 1, 512), ("dms", 4, 2048)):
        wanted = ("mini_aime", method, cr, 1, L)
        (point,) = [p for p in points(lines) if (p.series.task, p.series.method, p.series.CR, p.W, p.L) == wanted]
        shares[method] = dict(zip(point.problems, point.accuracy, strict=True))
    right = {m: {p for p, share in of.items() if share > 0.5 and p in shares["dms"]} for m, of in shares.items()}
    compare.get_by_label("A", exact=True).select_option(label="vanilla 1-512-1")
    compare.get_by_label("B", exact=True).select_option(label="dms 1-2K-4")
    for outcome, expected in {
        "only A right": right["vanilla"] - right["dms"],
        "only B right": right["dms"] - right["vanilla"],
        "both right": right["dms"] & right["vanilla"],
        "one right, the other wrong": right["dms"] ^ right["vanilla"],
    }.items():
        compare.get_by_label("Outcome").select_option(label=outcome)
        assert set(compare.locator(".problems .id").all_inner_texts()) == expected
    assert right["dms"] - right["vanilla"]
    compare.locator(".problems button").first.press("Enter")
    problem = compare.locator(".problems [aria-current] .id").inner_text()
    for side, (method, cr, L) in enumerate((("vanilla", 1, 512), ("dms", 4, 2048))):
        cuts = [
            next((cut for cut in line.cuts if cut.L == L), line.whole)
            for line in lines
            if (line.task, line.problem, line.method, line.CR) == ("mini_aime", problem, method, cr)
        ]
        verdicts = ["truncated" if c.answer is None else "right" if c.correct else "wrong" for c in cuts]
        told = compare.locator(".side").nth(side).locator(".verdict").all_inner_texts()
        assert [text.split()[1] for text in told] == verdicts
    compare.locator(".chain summary").last.press("Enter")
    page.wait_for_selector("#compare .text .said")
    compare.get_by_role("button", name="Swap").click()
    compare.get_by_label("Outcome").select_option(label="only A right")
    assert set(compare.locator(".problems .id").all_inner_texts()) == right["dms"] - right["vanilla"]


def test_a_chosen_point_is_compared_from_its_card(visit):
    page = visit()
    page.locator("#points tbody tr", has_text="1-512-8").filter(has_text="dms").first.click()
    page.get_by_role("button", name="as B").click()
    b = page.locator("#compare").get_by_label("B", exact=True)
    assert b.evaluate("e => e.selectedOptions[0].textContent") == "dms 1-512-8"
    assert b.evaluate("e => e === document.activeElement")


def test_a_link_shows_the_same_view(visit):
    page = visit()
    page.get_by_role("radio", name="tokens").check(force=True)
    page.get_by_role("checkbox", name="window").uncheck()
    page.locator("#points tbody tr").nth(2).click()
    page.locator("#points select").nth(1).select_option("dms")
    page.locator("#points input[type=search]").fill("2K")
    page.locator("#points").get_by_role("button", name="accuracy %").click()
    page.locator("#margins select").select_option("dms")
    page.locator("#compare").get_by_label("A", exact=True).select_option(label="dms 2-1K-8")
    page.locator("#compare").get_by_label("Outcome").select_option(label="all problems")
    page.locator("#compare .problems button").nth(4).click()
    page.locator("#chains").get_by_label("Verdict").select_option("wrong")
    page.get_by_label("methods disagree").check()
    page.locator("#chains .problems button").nth(1).click()
    view = """() => [...document.querySelectorAll('#frontiers, #chosen, #margins, #points, #compare, #chains')]
        .map(e => e.innerText).concat([...document.querySelectorAll('input, select')].map(e => [e.value, e.checked]))"""
    page.wait_for_url(lambda url: "problem=" in url)
    shown, fragment = page.evaluate(view), page.evaluate("location.hash")
    again = visit(fragment)
    assert again.evaluate(view) == shown
    assert "axis=tokens" in fragment
    plain = visit()
    before = plain.evaluate(view)
    assert before != shown
    plain.evaluate("f => { location.hash = f }", fragment)
    plain.wait_for_selector("#chosen h3")
    assert plain.evaluate(view) == shown
    plain.get_by_role("link", name="Points").click()  # a section's name is no view
    assert plain.evaluate(view) == shown
    plain.evaluate("f => { location.hash = f }", "axis=no-such-axis&method=nobody&point=nowhere")
    plain.wait_for_selector("#chosen", state="hidden")
    assert plain.evaluate(view) == before


def test_the_cost_axis_holds_for_frontiers_and_margins_and_methods_can_be_hidden(visit):
    page = visit()
    ticks, costs = page.locator(".stage").first.inner_text(), column(page, "#margins", 6)
    page.get_by_role("radio", name="peak_bytes").check(force=True)
    assert "peak KV per problem (bytes)" in page.locator("#frontiers .axis-title").inner_text()
    assert "KiB" in page.locator(".stage").first.inner_text()
    assert page.locator(".stage").first.inner_text() != ticks
    assert column(page, "#margins", 6) != costs
    assert column(page, "#margins", 2) == [" dms"]
    page.get_by_role("checkbox", name="dms").uncheck()
    assert column(page, "#margins", 2) == []
    assert " dms" not in column(page, "#points", 2)


def test_margins_have_intervals_and_can_be_turned_round(visit):
    page = visit()
    (there,) = column(page, "#margins", 4)
    page.locator("#margins select").select_option("dms")
    (back,) = column(page, "#margins", 4)
    turned = str.maketrans("+−", "−+")
    value, low, high = there.replace("[", "").replace("]", "").replace(",", "").split()
    assert back.translate(turned) == f"{value} [{high}, {low}]"


def test_points_sort_and_filter(visit, lines):
    page = visit()
    assert page.locator("#points tbody tr").count() > 30
    page.locator("#points select").first.select_option("mini_lcb")
    assert set(column(page, "#points", 1)) == {"mini_lcb"}
    page.locator("#points").get_by_role("button", name="accuracy %").press("Enter")
    values = [float(text.split()[0]) for text in column(page, "#points", 4)]
    assert values == sorted(values, reverse=True)
    assert page.locator("#points th[aria-sort=descending]").inner_text().startswith("accuracy %")
    page.get_by_role("checkbox", name="on the kv_reads frontier").check()
    assert 0 < page.locator("#points tbody tr").count() < len(values)
    page.locator("#points input[type=search]").fill("no such point")
    assert page.locator("#points .count").inner_text().startswith("0 of ")


def test_a_chain_shows_its_answer_its_costs_and_its_text_to_the_letter(visit, lines):
    page = visit()
    page.locator("#chains .problems button", has_text="p3 mini_aime").click()
    mine = [line for line in lines if (line.task, line.problem, line.method) == ("mini_aime", "p3", "vanilla")]
    chain = page.locator("#chains .chain").first
    assert f"{mine[0].tokens:,} of 2K tokens" in chain.inner_text()
    chain.locator("summary").press("Enter")
    page.wait_for_selector(".text .said")
    shown = chain.locator(".text").evaluate(TEXT)
    assert shown == mine[0].text
    assert chain.locator(".said").inner_text() == f"The answer is {mine[0].whole.answer}."
    cuts = chain.locator(".cut").all_inner_texts()
    assert cuts == [f"{cut.tokens} tokens" for cut in mine[0].cuts[:-1]]
    assert chain.locator(".cuts tbody tr").count() == len(mine[0].cuts)


def test_chains_filter_by_verdict_method_and_disagreement(visit, lines):
    page = visit()
    count = page.locator("#chains > .filters .count")

    def chosen(keep):
        part = [line for line in lines if keep(line)]
        return f"{len({(s.task, s.problem) for s in part})} problems, {len(part)} chains"

    verdict = page.get_by_label("Verdict")
    assert count.inner_text() == chosen(lambda _: True)
    verdict.select_option("truncated")
    assert count.inner_text() == chosen(lambda s: s.finish == "length" and s.whole.answer is None)
    verdict.select_option("wrong")
    wrong = chosen(lambda s: s.whole.answer is not None and not s.whole.correct)
    assert count.inner_text() == wrong
    assert {text.split()[1] for text in page.locator("#chains .detail .verdict").all_inner_texts()} == {"wrong"}
    page.locator("#chains").get_by_label("Method", exact=True).select_option("window 8×")
    assert count.inner_text() == chosen(
        lambda s: s.method == "window" and s.whole.answer is not None and not s.whole.correct
    )
    page.locator("#chains").get_by_label("Method", exact=True).select_option("all methods")
    verdict.select_option("any verdict")
    page.get_by_label("methods disagree").check()
    few = page.locator("#chains .problems button")
    assert 0 < few.count() < PROBLEMS
    assert few.count() == page.locator("#chains .problems mark").count()
    page.locator("#chains input[type=search]").fill("no such problem")
    assert page.locator("#chains .detail").inner_text() == "No chain passes the filters."


def test_a_wrong_program_tells_the_test_that_it_fails(visit, tmp_path):
    doc = tasks.load("mini_lcb").docs(1)[0]
    wrong = f"def f(x):\n    return {HOSTILE!r}"
    line = sample(doc.id, task="mini_lcb", prompt_hash=prompt_hash(doc.prompt), answer=wrong, text=wrong)
    path = tmp_path / "programs.html"
    path.write_text(report.render_report([run(tmp_path / "r", [line], limit=1)], "r"), encoding="utf-8")
    page = visit(page_at=path.as_uri(), viewport=PHONE)
    page.locator("#chains .chain summary").first.press("Enter")
    failed = page.locator("#chains .failed")
    assert failed.locator("b").inner_text() == f"Fails test 1 of {len(doc.target)}: another output"
    assert failed.locator("dd").last.text_content() == HOSTILE
    assert failed.locator("dt").all_inner_texts() == ["input", "expected", "got"]
    assert page.evaluate(WIDE) == 0


def test_questions_and_links_to_a_problem(visit):
    doc = tasks.load("mini_aime").docs(1)[0]
    page = visit(f"#mini_aime%2F{doc.id}")
    assert page.locator("#chains .detail h3").inner_text() == f"mini_aime / {doc.id}"
    assert page.locator("#chains .question pre").text_content() == doc.prompt
    assert doc.target in page.locator("#chains .detail").inner_text()
    page.locator("#chains .problems button").nth(2).click()
    page.wait_for_url(lambda url: "#problem=" in url)
    again = visit(page.evaluate("location.hash"))
    assert again.locator("#chains .detail h3").inner_text() == page.locator("#chains .detail h3").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(visit, scheme):
    page = visit(viewport=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    page.locator("#chains .problems button").nth(1).tap()
    page.locator("#chains .chain summary").first.tap()
    page.wait_for_selector(".text .said")
    page.locator(".stage").first.tap()
    assert page.locator(".tip").first.is_visible()
    page.locator(".stage").first.locator(".kept").first.tap(force=True)
    assert page.locator("#chosen h3").is_visible()
    page.locator("#compare").get_by_label("Outcome").select_option(label="all problems")
    page.locator("#compare .problems button").nth(1).tap()
    for side in range(2):
        page.locator("#compare .side").nth(side).locator("summary").first.tap()
        page.locator("#compare .side").nth(side).locator(".text .said").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(WIDE) == 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 800}])
def test_long_names_of_runs_leave_room_for_answers_and_costs(visit, tmp_path, viewport):
    names = [f"mini-vanilla+dms-peak_kv=4Ki-mini_aime-cr4,8-n{n}-pinned-c24816" for n in (3, 24)]
    made = [run(tmp_path / name, chains("dms", 8, problems=3, width=2, seed=n)) for n, name in enumerate(names)]
    path = tmp_path / "several.html"
    path.write_text(report.render_report(made, "several"), encoding="utf-8")
    page = visit(page_at=path.as_uri(), viewport=viewport)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(WIDE) == 0
    boxes = [
        part.bounding_box() for part in page.locator("#chains .chain").first.locator(".who, .answer, .costs").all()
    ]
    assert len(boxes) == 3
    for one, other in itertools.combinations(boxes, 2):
        beside = one["x"] + one["width"] <= other["x"] + 1
        assert beside or one["y"] + one["height"] <= other["y"] + 1
    assert boxes[1]["width"] > 30


def test_the_keyboard_alone_reaches_everything(visit):
    page = visit()
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        where = page.evaluate(FOCUS)
        reached.add(tuple(where))
        if where == ["chains", "text"]:
            break
        if where[1] == "SUMMARY" and where[0] == "chains":
            page.keyboard.press("Enter")
    above = {("frontiers", "stage"), ("frontiers", "INPUT"), ("margins", "SELECT"), ("points", "scroll")}
    assert above | {("points", "BUTTON"), ("heads", "heat"), ("heads", "SUMMARY")} <= reached
    assert {("compare", kind) for kind in ("SELECT", "BUTTON", "act", "SUMMARY")} <= reached
    assert {("chains", kind) for kind in ("SELECT", "BUTTON", "SUMMARY", "text")} <= reached


def test_the_smallest_runs_have_a_page(visit, tmp_path):
    for name, lines in {
        "no reads": [sample(tokens=1)],
        "one chain": [sample()],
        "nothing answered": [sample(answer=None)],
    }.items():
        path = tmp_path / f"{name}.html"
        path.write_text(report.render_report([run(tmp_path / name, lines)], name), encoding="utf-8")
        page = visit(page_at=path.as_uri())
        assert page.locator("#chains .problems button").count() == 1
        assert page.locator("#points tbody tr").count() >= 1
        assert "no task here has two methods" in page.locator("#margins").inner_text()
