"""The tutorial for Python: its code runs as it stands, in one process, and shows what it says."""

import re

import pytest
from repository import ROOT

import hyperscale as hs

pytestmark = pytest.mark.e2e
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names that the page's blocks leave behind, and its folder."""
    folder = tmp_path_factory.mktemp("page")
    blocks = BLOCK.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
    assert len(blocks) == 10
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec"), names)
    return folder, names


def test_the_page_runs_and_its_run_is_the_command_lines(page):
    folder, names = page
    results = names["results"]
    assert results.finished
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert {"vanilla", "dms"} == set(results.chains["method"])
    # What the terminal shows of the same folder.
    import pandas as pd

    stored = pd.read_csv(folder / "results" / "first" / "points.csv")
    shown = results.points.sort_values(["method", "L", "W"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(
        shown, stored.sort_values(["method", "L", "W"]).reset_index(drop=True), check_dtype=False, check_exact=False
    )
    assert names["count"].chains == names["watched"].n_chains - 1 > 0
    assert set(names["planned"]["method"]) == {"vanilla", "tova"}


def test_the_plan_of_a_run_is_repeated_and_a_folder_keeps_its_settings(page):
    folder, names = page
    first, watched = folder / "results" / "first", folder / "results" / "watched"
    again = {"model": "mini", "task": "mini_aime", "budget": "tokens=512", "limit": 1, "progress": False}
    assert hs.run(**again, out=watched, plan=watched).chains.equals(names["watched"].chains)
    with pytest.raises(hs.errors.ResultsError, match="it plans dms 8×, which this one lacks"):
        hs.run(**again, out=folder / "other", plan=first)
    with pytest.raises(hs.errors.ResultsError, match="limit"):
        hs.run(names["config"], out=first, limit=2, progress=False)
    assert hs.load(first).chains.equals(names["results"].chains)
