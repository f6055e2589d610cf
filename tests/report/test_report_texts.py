"""Texts of a report in a real browser: in a folder beside the page, served, missing, and left out."""

import threading
from dataclasses import replace

import pytest
from long_texts import TEXT
from report_runs import run
from synthetic_samples import write_samples

from hyperscale import report
from hyperscale.report.html.serve import ReportServer
from hyperscale.tasks.task import prompt_hash

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def with_folder(lines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several texts") / "runs & more #1"
    folder.mkdir()
    (folder / "run.json").write_text('{"schema": 2, "config": {"model": "mini"}}')
    write_samples(folder / "samples.jsonl", lines)
    return report.write_report(folder, folder / "a page.html", text_mib=0.001)


def test_texts_in_a_folder_are_loaded_when_a_chain_is_opened(visit, lines, with_folder):
    page = visit(page_at=with_folder.as_uri())
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    assert "Texts are in the folder a page.texts" in page.locator("#omissions").inner_text()
    page.locator("#chains .problems button", has_text="p3 mini_aime").click()
    mine = [line for line in lines if (line.task, line.problem, line.method) == ("mini_aime", "p3", "vanilla")]
    page.evaluate(
        "[...document.querySelectorAll('#chains .chain')].slice(0, 2).forEach(chain => { chain.open = true })"
    )
    for i in range(2):
        text = page.locator("#chains .chain").nth(i).locator(".text")
        text.locator(".said").wait_for()
        assert text.evaluate(TEXT) == mine[i].text
    assert len(asked) == 1  # both are in the problem's file, which is loaded once for both
    page.locator("#chains .chain summary").nth(2).press("Enter")
    page.locator("#chains .chain").nth(2).locator(".said").wait_for()
    assert asked == [asked[0]] * 2
    assert page.locator("head script").count() == 0


def test_a_served_page_loads_its_texts(chromium, with_folder):
    with ReportServer(with_folder, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.new_page()
        page.goto(server.url)
        page.locator("#chains .chain summary").first.click()
        page.locator("#chains .text .said").first.wait_for()
        page.close()
        server.shutdown()


def test_a_page_without_its_folder_says_what_it_needs(chromium, with_folder, tmp_path):
    alone = tmp_path / "alone.html"
    alone.write_bytes(with_folder.read_bytes())
    page = chromium.new_page()
    page.goto(alone.as_uri())
    page.locator("#chains .chain summary").first.click()
    text = page.locator("#chains .text").first
    text.get_by_text("needs the folder a page.texts beside it").wait_for()
    page.close()


def test_what_is_left_out_is_said(visit, lines, tmp_path):
    path = tmp_path / "small.html"
    noise = "".join(prompt_hash(str(i)) for i in range(200))  # which compresses to half at best
    lines = [replace(line, text=noise) for line in lines[:3]]
    path.write_text(report.render_report([run(tmp_path / "small", lines)], "small", text_mib=0.002), encoding="utf-8")
    page = visit(page_at=path.as_uri())
    note = page.locator("#omissions").inner_text()
    assert "only the beginning and the end are here" in note
    page.locator("#chains .chain summary").first.click()
    assert "characters left out" in page.locator(".text .cut").first.inner_text()
    path.write_text(report.render_report([run(tmp_path / "small", lines)], "small", text_mib=0), encoding="utf-8")
    page = visit(page_at=path.as_uri())
    assert "Texts are left out" in page.locator("#omissions").inner_text()
    page.locator("#chains .chain summary").first.click()
    assert page.locator(".text").first.inner_text() == "left out"
