"""Measures the report of many long chains: its size, the time to write it, and the time to open it in a browser.

The chains are made up: words drawn by frequency, which compress about as well as a model's text, of which a few hundred
are shared by all chains. Opening is timed in Chromium without a network: until the problems are listed, then until the
text of a chain stands there.

    python benchmarks/report_size.py --chains 10000 --tokens 32768
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from hyperscale import report
from hyperscale.report.html.text_folder import TextFolder
from hyperscale.results.folder import Run

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "helpers" / "runs"))
from synthetic_samples import chains as make_chains

WIDTH = 8  # chains of a problem
CHARACTERS = 3.5  # of a token
DISTINCT = 256  # texts


def main() -> None:
    """Write a report, open it, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--opens", type=int, default=5)
    options = parser.parse_args()
    arms = (("vanilla", 1), ("dms", 8))
    problems = options.chains // (WIDTH * len(arms))
    texts = make_texts(int(options.tokens * CHARACTERS))
    samples = []
    for method, cr in arms:
        samples += make_chains(method, cr, problems=problems, width=WIDTH, skill=0.05 * cr)
    samples = [replace(sample, text=texts[i % len(texts)]) for i, sample in enumerate(samples)]
    characters = sum(len(sample.text) for sample in samples)
    print(f"{len(samples):,} chains of {problems:,} problems, {characters / 2**20:,.0f} MiB of texts")
    with tempfile.TemporaryDirectory() as name:
        page, folder = Path(name) / "report.html", TextFolder(Path(name) / "report.html")
        start = time.perf_counter()
        run = Run(Path(name), {"schema": 2, "config": {"model": "mini"}}, samples)
        page.write_text(report.render_report([run], "many", texts=folder), encoding="utf-8")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"written in {time.perf_counter() - start:.1f} s, peak memory {peak:,.0f} MiB")
        print(
            f"page {page.stat().st_size / 2**20:.2f} MiB, texts {folder.size / 2**20:,.1f} MiB in {len(folder.files)}"
        )
        measure(page, options.opens)


def make_texts(characters: int) -> list[str]:
    """Distinct texts of so many characters, of words whose frequencies fall as in natural language."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = np.array(["".join(rng.choice(letters, n)) for n in rng.integers(1, 10, 8000)])
    weights = 1 / np.arange(1, len(words) + 1)
    return [
        " ".join(rng.choice(words, characters // 5, p=weights / weights.sum()))[:characters]
        + "</think>The answer is 1."
        for _ in range(DISTINCT)
    ]


def measure(path: Path, opens: int) -> None:
    """Print the median times to open the page, to filter its problems, and to show a text."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    times: dict[str, list[float]] = {"open": [], "filter": [], "compare": [], "text": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for _ in range(opens):
            page = browser.new_context(offline=True).new_page()
            clock = time.perf_counter()

            def lap(name: str) -> None:
                nonlocal clock
                times[name].append(time.perf_counter() - clock)
                clock = time.perf_counter()

            page.goto(path.as_uri())
            page.locator("#chains .problems button").first.wait_for()
            lap("open")
            page.locator("#chains").get_by_label("Verdict").select_option("wrong")
            page.locator("#chains .detail .verdict").first.wait_for()
            lap("filter")
            page.locator("#compare").get_by_label("Outcome").select_option(label="all problems")
            page.locator("#compare .side .verdict").first.wait_for()
            lap("compare")
            page.locator("#chains .chain summary").first.click()
            page.locator("#chains .text .said").first.wait_for()
            lap("text")
            page.context.close()
        browser.close()
    for name, seconds in times.items():
        print(f"{name}: median {np.median(seconds):.2f} s of {len(seconds)}")


if __name__ == "__main__":
    main()
