"""The gate on real runs of the built-in model: twenty reruns with other seeds stay green, planted regressions do not.

About a quarter of an hour on one core. Everything goes through the commands that a user has.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hyperscale import mini, results
from hyperscale.results import regrade
from hyperscale.scoring.graders.code import CodeGrader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

WEIGHTS = Path(mini.__file__).parent / "weights"
OPTIONS = (
    *("--method", "vanilla,dms", "--cr", "8", "--task", "mini_lcb", "--limit", "24"),
    *("--budget", "tokens=1024", "--length", "256,512"),
)
RERUNS = range(1, 21)


def hyperscale(*arguments):
    """Run the command; gives (exit code, stdout)."""
    done = subprocess.run(
        [sys.executable, "-m", "hyperscale.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def one_seed(folder, seed, out):
    """The part of a run that is the run of one seed."""
    out.mkdir()
    info = json.loads((folder / results.RUN_FILE).read_text())
    info["config"]["seeds"] = info["seeds"] = [seed]
    (out / results.RUN_FILE).write_text(json.dumps(info))
    with (folder / results.SAMPLES).open() as lines, (out / results.SAMPLES).open("w") as part:
        part.writelines(line for line in lines if json.loads(line)["seed"] == seed)
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder for each seed, and the baseline made of seed 0."""
    root = tmp_path_factory.mktemp("reruns")
    seeds = ",".join(map(str, (0, *RERUNS)))
    assert hyperscale("run", "--model", WEIGHTS, *OPTIONS, "--seed", seeds, "--out", root / "all")[0] == 0
    made = {seed: one_seed(root / "all", seed, root / f"seed{seed}") for seed in (0, *RERUNS)}
    assert hyperscale("gate", made[0], "--write-baseline", root / "baseline.json")[0] == 0
    return {**made, "baseline": root / "baseline.json"}


def test_twenty_reruns_stay_green(runs):
    verdicts = {seed: hyperscale("gate", runs[seed], "--baseline", runs["baseline"]) for seed in RERUNS}
    assert {seed: out for seed, (code, out) in verdicts.items() if code != 0} == {}
    assert all("seeds was [0], now" in out for _, out in verdicts.values())


def test_half_the_window_turns_it_red(runs, tmp_path):
    """DMS evicts a token 8 steps after it was stored rather than the 16 that its gates were trained with."""
    model = shutil.copytree(WEIGHTS, tmp_path / "half")
    path = model / "dms8" / "config.json"
    config = json.loads(path.read_text())
    config["dms_window_size"] //= 2
    path.write_text(json.dumps(config))
    assert hyperscale("run", "--model", model, *OPTIONS, "--seed", "1", "--out", tmp_path / "run")[0] == 0
    code, out = hyperscale("gate", tmp_path / "run", "--baseline", runs["baseline"])
    assert code == 1
    fell = [line.split() for line in out.splitlines() if line.endswith(" fell")]
    assert {line[1] for line in fell} == {"dms"}
    assert any("margin," in line for line in fell)


def test_a_broken_grader_turns_it_red(runs, tmp_path, monkeypatch):
    """One that loses the programs whose length is odd."""
    extract = CodeGrader.extract

    def broken(self, text, **more):
        program = extract(self, text, **more)
        return program if program is None or len(program) % 2 == 0 else None

    monkeypatch.setattr(CodeGrader, "extract", broken)
    folder = shutil.copytree(runs[1], tmp_path / "run")
    changed = regrade.regrade(folder)
    assert 0 < changed.answers < changed.chains
    assert hyperscale("gate", folder, "--baseline", runs["baseline"])[0] == 1
