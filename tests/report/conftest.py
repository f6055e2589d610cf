"""Chains of a report, its page, and a browser without a network that opens it.

Needs the package playwright and a Chromium (``apt-get install chromium``, or ``playwright install chromium``).
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from long_texts import PROBLEMS, held, texts
from report_runs import HOSTILE, run
from synthetic_samples import chains

from hyperscale import report, tasks
from hyperscale.tasks.task import prompt_hash

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def lines():
    found = chains("vanilla", 1, problems=PROBLEMS, width=4)
    for cr in (4, 8):
        found += chains("dms", cr, problems=PROBLEMS, width=4, skill=0.1)
    found = [replace(line, kept=held(line)) for line in found]
    found += chains("window", 8, problems=PROBLEMS, width=4, task="mini_lcb", skill=-0.3)
    doc = tasks.load("mini_aime").docs(1)[0]
    found += [replace(line, problem=doc.id, prompt_hash=prompt_hash(doc.prompt)) for line in found[:2]]
    return [texts(line, i) for i, line in enumerate(found)]


@pytest.fixture(scope="module")
def address(lines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    path.write_text(report.render_report([run(folder / "demo", lines, limit=1)], f"demo {HOSTILE}"), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium():
    driver = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with driver.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("needs a Chromium")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Open the page; at the end nothing may have failed, asked the network, or run what a text says."""
    problems, opened = [], []

    def call(at="", page_at=address, **options):
        context = chromium.new_context(offline=True, **options)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text))
        page.on("request", lambda request: problems.append(request.url) if request.url[:5] != "file:" else None)
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(page_at + at)
        page.wait_for_selector("#chains .problems button")
        opened.append(page)
        return page

    yield call
    for page in opened:
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.locator("#failure").is_hidden()
        assert page.locator("img, iframe").count() == 0
        page.context.close()
    assert problems == []
