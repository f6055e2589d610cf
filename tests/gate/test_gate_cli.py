"""``hyperscale gate`` as a user and as a CI system meet it: exit codes, the table, JUnit, Markdown, the action."""

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import commandline
import pytest
import yaml
from repository import ROOT
from rich.console import Console
from synthetic_samples import chains, write_samples

from hyperscale import gate, results
from hyperscale.cli import main
from hyperscale.gate import reports

pytestmark = pytest.mark.e2e

ACTION = ROOT / ".github" / "actions" / "gate" / "action.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "gate.yml"
ARMS = (("vanilla", 1.0), ("dms", 8.0))


def write(folder, seed, skill=0.0, problems=40):
    """A run folder with synthetic chains."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": 2, "config": {"temperature": 0.8}}))
    samples = []
    for method, CR in ARMS:
        shift = skill if method == "dms" else 0.0
        samples += chains(method, CR, problems=problems, width=4, skill=shift, seed=seed)
    write_samples(folder / "samples.jsonl", samples)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Results: a baseline, a rerun with another seed, and one with a worse method."""
    root = tmp_path_factory.mktemp("gate")
    made = {name: write(root / name, *rest) for name, *rest in (("old", 0), ("rerun", 1), ("worse", 1, -0.5))}
    gate.write_baseline(gate.record_runs(results.read(made["old"])), root / "baseline.json")
    return {**made, "baseline": root / "baseline.json"}


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the entry point with arguments; gives (exit code, stdout, stderr)."""
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hyperscale", "gate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main.main()
        return stop.value.code, *capsys.readouterr()

    return run


def test_a_rerun_passes_with_a_table(call, folders):
    code, out, err = call(folders["rerun"], "--baseline", folders["baseline"])
    assert (code, err) == (0, "")
    assert "margin, kv_reads, log2" in out
    assert "passed: none of 24 accuracies and 4 margins fell" in out
    shown = [line for line in out.splitlines() if line.endswith(" ok")]
    assert len(shown) == 6, "a point for each method, and the margins"
    _, out, _ = call(folders["rerun"], "--baseline", folders["baseline"], "--all")
    assert len([line for line in out.splitlines() if line.endswith(" ok")]) == 28


def test_a_fall_exits_with_1_and_names_what_fell(call, folders):
    code, out, err = call(folders["worse"], "--baseline", folders["baseline"])
    assert (code, err) == (1, "")
    assert "FAILED" in out
    fell = [line.split() for line in out.splitlines() if line.endswith(" fell")]
    assert {line[1] for line in fell} == {"dms"}
    assert call(folders["worse"], "--baseline", folders["baseline"], "--tolerance", "99")[0] == 0


def test_a_baseline_is_made_and_holds_what_it_came_from(call, folders, tmp_path):
    code, out, err = call(folders["old"], "--write-baseline", tmp_path / "made.json")
    assert (code, err) == (0, "")
    assert "mini_aime (40 problems, 24 points)" in out
    assert (tmp_path / "made.json").read_bytes() == folders["baseline"].read_bytes()
    assert call(folders["old"], "--baseline", tmp_path / "made.json", "--tolerance", "0")[0] == 0


def test_broken_input_exits_with_2_and_one_line(call, folders, tmp_path):
    good = ("--baseline", folders["baseline"])
    commandline.fails(call(folders["old"]), "--write-baseline")
    commandline.fails(call(folders["old"], *good, "--write-baseline", tmp_path / "b"), "pass --baseline FILE")
    commandline.fails(call(tmp_path / "none", *good), "no folder")
    commandline.fails(call(folders["old"], "--baseline", tmp_path / "none.json"), "cannot read the baseline")
    commandline.fails(call(folders["old"], "--baseline", folders["old"]), "cannot read the baseline")
    commandline.fails(call(folders["old"], "--baseline", folders["old"] / "run.json"), "is not a baseline")
    commandline.fails(call(folders["old"], *good, "--tolerance", "nan"), "tolerance")
    commandline.fails(call(folders["old"], *good, "--confidence", "much"), "--confidence")
    commandline.fails(call(folders["old"], *good, "--junit", folders["baseline"] / "x.xml"), "cannot write the report")
    other = write(tmp_path / "other", 0, problems=39)
    commandline.fails(call(other, *good), "1 are missing")
    lines = (other / "samples.jsonl").read_text().splitlines(keepends=True)
    (other / "samples.jsonl").write_text("".join(lines[:-1]))
    commandline.fails(call(other, *good), "finish the run")
    (other / "samples.jsonl").write_text("nonsense\n")
    commandline.fails(call(other, *good), "line 1 is corrupt")


def test_no_output_replaces_what_is_read(call, folders, tmp_path):
    folder = write(tmp_path / "run", 0)
    old = {path: path.read_bytes() for path in (*folder.iterdir(), folders["baseline"])}
    link = tmp_path / "link"
    link.symlink_to(folder / "samples.jsonl")
    for path in (folder / "samples.jsonl", folder / "run.json", link, folders["baseline"]):
        for option in ("--junit", "--summary"):
            code, _, err = call(folder, "--baseline", folders["baseline"], option, path)
            assert (code, err.count("\n")) == (2, 1)
            assert f"{option} {path} would replace" in err
        if path != folders["baseline"]:
            code, _, err = call(folder, "--write-baseline", path)
            assert (code, err.count("\n")) == (2, 1)
    assert {path: path.read_bytes() for path in old} == old
    assert call(folder, "--write-baseline", tmp_path / "b.json")[0] == 0
    assert call(folder, "--write-baseline", tmp_path / "b.json")[0] == 0, "a baseline is replaced by a newer one"


@pytest.mark.parametrize(
    ("pattern", "new", "fault"),
    [
        ('"format":1', '"format":1,"format":1', "the key 'format' stands twice"),
        (r'"kv_reads":\[[0-9.]+', '"kv_reads":[1e300', "kv_reads.0 must be at most"),
    ],
)
def test_a_baseline_with_a_key_twice_or_absurd_numbers_is_refused(call, folders, tmp_path, pattern, new, fault):
    (tmp_path / "b.json").write_text(re.sub(pattern, new, folders["baseline"].read_text(), count=1))
    code, _, err = call(folders["rerun"], "--baseline", tmp_path / "b.json")
    assert (code, err.count("\n")) == (2, 1)
    assert fault in err


def test_junit_has_a_case_for_each_quantity(call, folders, tmp_path):
    for name, failures in (("rerun", False), ("worse", True)):
        call(folders[name], "--baseline", folders["baseline"], "--junit", tmp_path / "deep" / "gate.xml")
        root = ElementTree.parse(tmp_path / "deep" / "gate.xml").getroot()
        (suite,) = root
        cases = suite.findall("testcase")
        failed = [case for case in cases if case.find("failure") is not None]
        assert len(cases) == int(root.get("tests")) == 28
        assert len({(case.get("classname"), case.get("name")) for case in cases}) == 28
        assert len(failed) == int(root.get("failures"))
        assert bool(failed) == failures
        assert {case.get("classname") for case in failed} <= {"mini.mini_aime.dms"}
        assert all("in the baseline, now" in case.find("failure").get("message") for case in failed)


def test_the_summary_is_appended_and_is_a_table(call, folders, tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("earlier\n")
    call(folders["worse"], "--baseline", folders["baseline"], "--summary", path)
    text = path.read_text()
    assert text.startswith("earlier\n### hyperscale gate: ❌ FAILED")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "**fell**" in text
    assert "seeds was" in text


def test_reports_say_why_there_was_no_comparison(call, folders, tmp_path):
    xml, md = tmp_path / "gate.xml", tmp_path / "gate.md"
    commandline.fails(
        call(tmp_path / "none", "--baseline", folders["baseline"], "--junit", xml, "--summary", md), "no folder"
    )
    (case,) = ElementTree.parse(xml).getroot().iter("testcase")
    assert "no folder" in case.find("error").get("message")
    assert "cannot compare" in md.read_text()


def test_reports_survive_strange_names():
    text = reports.markdown_error("a|b <script> *c*\n`d`")
    assert "\\|" in text
    assert "<script" not in text.replace("\\<", "")
    root = ElementTree.fromstring(reports.junit_error("bell \x07 & <tag> \ud800"))
    assert root.find(".//error").get("message") == "bell ? & <tag> ?"


def steps(path):
    return yaml.safe_load(path.read_text())["runs"]["steps"]


@pytest.mark.parametrize(("name", "expected"), [("rerun", 0), ("worse", 1), ("missing", 2)])
def test_the_action_s_step_does_what_it_says(folders, tmp_path, name, expected):
    """Its script as the runner would run it, with the inputs in the environment."""
    (step,) = [step for step in steps(ACTION) if step.get("id") == "gate"]
    assert "${{" not in step["run"], "inputs reach a script through the environment, never through its text"
    values = {
        "RESULTS": str(folders.get(name, tmp_path / "missing")),
        "BASELINE": str(folders["baseline"]),
        "TOLERANCE": "2",
        "CONFIDENCE": "99",
        "JUNIT": str(tmp_path / "a b" / "gate.xml"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    assert values.keys() - {"PATH", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"} == step["env"].keys()
    script = tmp_path / "step.sh"
    script.write_text(step["run"])
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
        cwd=ROOT,
        env={**os.environ, **values},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    assert (tmp_path / "a b" / "gate.xml").is_file()
    assert "hyperscale gate" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "output").read_text() == f"exit-code={expected}\n"


def test_the_action_s_inputs_are_used_and_described():
    action = yaml.safe_load(ACTION.read_text())
    assert action["runs"]["using"] == "composite"
    text = json.dumps(action["runs"])
    for name, entry in action["inputs"].items():
        assert f"inputs.{name}" in text
        assert entry["description"]
    assert all("shell" in step for step in steps(ACTION) if "run" in step)


def test_the_workflow_uses_the_action_and_its_options_exist():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    uses = [step for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    (used,) = [step for step in uses if step["uses"] == "./.github/actions/gate"]
    assert used["with"].keys() <= yaml.safe_load(ACTION.read_text())["inputs"].keys()
    assert workflow["permissions"] == {"contents": "read"}


def test_the_workflow_s_baseline_holds_the_points_of_its_plan():
    """And the plan depends on the command alone, not on how long the chains of a pilot are."""
    workflow = yaml.safe_load(WORKFLOW.read_text())
    (given,) = [
        step["with"]
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if "with" in step and "run" in step["with"]
    ]
    assert given["run"] in (ROOT / "docs" / "gate.md").read_text()
    words = given["run"].split()
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options["--predict"] == "closed"
    most, lengths = int(options["--budget"].removeprefix("tokens=")), map(int, options["--length"].split(","))
    planned = {(L, W) for L in lengths for W in (1, 2, 4, 8) if most >= W * L}
    baseline = gate.read_baseline(ROOT / given["baseline"])
    assert {arm.method for arm in baseline.arms} == set(options["--method"].split(","))
    assert {arm.task for arm in baseline.arms} == {"mini_aime", "mini_gpqa", "mini_lcb"}
    for arm in baseline.arms:
        assert len(baseline.tasks[arm.task].problems) == int(options["--limit"])
        assert {(cut.L, width) for cut in arm.cuts for width in cut.accuracy} == planned


def test_the_action_generates_with_the_options_given(tmp_path):
    (step,) = [step for step in steps(ACTION) if step["name"] == "generate"]
    options = "--model mini --method vanilla,dms --cr 8 --limit 3 --dry-run"
    values = {
        "OPTIONS": options,
        "RESULTS": str(tmp_path / "a b"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    assert values.keys() - {"PATH"} == step["env"].keys()
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", step["run"]],
        env={**os.environ, **values},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "dms 8×" in done.stdout


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_keeps_its_numbers_in_a_narrow_terminal(folders, width):
    found = gate.compare(gate.read_baseline(folders["baseline"]), gate.record_runs(results.read(folders["rerun"])))
    out = StringIO()
    reports.print_comparison(found, Console(file=out, width=width, markup=False))
    assert "…" not in out.getvalue()
    assert out.getvalue().count("[") >= 6
