"""The queue of measurements: what may run beside what, what is run again, and that the shipped list is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from repository import ROOT

PROGRAM = ROOT / "benchmarks" / "gpu_queue.py"
#: Notes when it ran and on which cards, for as long as it is told to, and until those have begun that it is to meet.
NOTE = """
import json, os, sys, time
begun, (name, seconds, *others) = time.time(), sys.argv[1:]
open(name + ".begun", "w").close()
while time.time() < begun + 60 and not all(os.path.exists(other + ".begun") for other in others):
    time.sleep(0.01)
time.sleep(float(seconds))
json.dump([begun, time.time(), os.environ["CUDA_VISIBLE_DEVICES"]], open(name + ".json", "w"))
"""


def run(folder, jobs, *options):
    (folder / "note.py").write_text(NOTE)
    (folder / "jobs.yaml").write_text(yaml.safe_dump(jobs), encoding="utf-8")
    command = [sys.executable, PROGRAM, folder / "jobs.yaml", "--out", folder / "out", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def job(name, seconds=0.7, meets=(), **more):
    others = " ".join(f"{{out}}/{other}" for other in meets)
    return {"name": name, "command": f"{sys.executable} {{out}}/../note.py {{out}}/{name} {seconds} {others}", **more}


def spans(folder):
    found = {}
    for file in (folder / "out").glob("*.json"):
        begun, ended, cards = json.loads(file.read_text())
        found[file.stem] = begun, ended, set(cards.split(","))
    return found


def overlaps(one, other):
    return one[0] < other[1] and other[0] < one[1]


@pytest.mark.parametrize("gpus", [1, 2])
def test_timings_have_a_card_to_themselves(tmp_path, gpus):
    meets = ["beside-2"] if gpus == 2 else []
    beside = [job("beside-1", meets=meets), job("beside-2"), job("beside-3")]
    timing = [job("timing-1", alone=True), job("timing-2", alone=True)]
    jobs = [beside[0], timing[0], beside[1], timing[1], beside[2]]
    done = run(tmp_path, jobs, "--gpus", str(gpus))
    assert done.returncode == 0, done.stdout + done.stderr
    found = spans(tmp_path)
    assert len(found) == 5
    for name in ("timing-1", "timing-2"):
        for other in found.keys() - {name}:
            assert not (overlaps(found[name], found[other]) and found[name][2] & found[other][2]), (name, other)
    if gpus == 2:  # the first card is kept for timings while one waits
        assert overlaps(found["beside-1"], found["beside-2"])
        assert found["beside-1"][2] == {"1"}


def test_timings_that_can_never_begin_keep_no_card(tmp_path):
    """One wants more cards than there are, one comes after a job that fails, one after that."""
    jobs = [
        job("too-many", alone=True, gpus=3),
        {"name": "fails", "command": "false", "alone": True},
        job("after-it", alone=True, after=["fails"]),
        job("after-that", alone=True, after=["after-it"]),
        *(job(f"beside-{n}", share=4, meets=[f"beside-{1 - n}"]) for n in range(2)),
    ]
    done = run(tmp_path, jobs, "--gpus", "2")
    assert "not done: too-many, fails, after-it, after-that" in done.stdout
    found = spans(tmp_path)
    assert overlaps(found["beside-0"], found["beside-1"])
    assert {"0", "1"} == found["beside-0"][2] | found["beside-1"][2]


def test_a_job_that_wants_all_cards_is_not_kept_waiting(tmp_path):
    jobs = [job("long", 1.5), job("all", alone=True, gpus=2), *(job(f"short-{n}") for n in range(3))]
    assert run(tmp_path, jobs, "--gpus", "2").returncode == 0
    found = spans(tmp_path)
    assert found["all"][2] == {"0", "1"}
    assert not any(overlaps(found["all"], found[name]) for name in found.keys() - {"all"})
    assert all(found[f"short-{n}"][0] > found["all"][1] for n in range(3))


def test_what_wants_all_cards_takes_those_kept_for_timings_too(tmp_path):
    """Side by side with others, before a timing that stands behind it."""
    jobs = [job("before", meets=["both"]), job("both", gpus=2), job("timing", alone=True)]
    assert run(tmp_path, jobs, "--gpus", "2", "--timing", "1").returncode == 0
    found = spans(tmp_path)
    assert found["both"][2] == {"0", "1"}
    assert overlaps(found["both"], found["before"])
    assert found["timing"][0] > found["both"][1]


def test_files_that_something_else_brings_are_waited_for_and_told(tmp_path):
    jobs = [{"name": "later", "command": "true", "files": [str(tmp_path / "brought")]}]
    # Brought once the queue has looked, which its status tells.
    bring = f"until test -e {tmp_path}/out/status.txt; do sleep 0.1; done; touch {tmp_path}/brought"
    with subprocess.Popen(["timeout", "100", "bash", "-c", bring]):
        done = run(tmp_path, jobs, "--gpus", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"later waits for {tmp_path / 'brought'}" in done.stdout
    jobs[0] |= {"name": "never", "files": [str(tmp_path / "absent")]}
    done = run(tmp_path, jobs, "--gpus", "1", "--patience", "0.02")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"never waits for {tmp_path / 'absent'}", "not done: never"]


def test_the_same_command_goes_on(tmp_path):
    flag = tmp_path / "flag"
    jobs = [job("first"), {"name": "needs-flag", "command": f"test -e {flag}"}, job("last", after=["needs-flag"])]
    done = run(tmp_path, jobs)
    assert done.returncode == 1
    assert "not done: needs-flag, last" in done.stdout
    before = spans(tmp_path)["first"]
    flag.touch()
    assert run(tmp_path, jobs).returncode == 0
    assert spans(tmp_path)["first"] == before
    assert spans(tmp_path)["last"][0] > before[1]


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    jobs = [{"name": "endless", "command": "sleep 1000 & echo $! > {out}/pid; wait", "minutes": 0.05}]
    done = run(tmp_path, jobs)
    assert "endless: ended with -9" in done.stdout
    pid = (tmp_path / "out" / "pid").read_text().strip()
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_what_cannot_be_used_is_told(tmp_path):
    done = run(tmp_path, [{"name": "a", "command": "true", "cards": 1}])
    assert done.returncode != 0
    assert "cards" in done.stderr
    done = run(tmp_path, [job("a")], "--only", "b")
    assert "has no job b" in done.stderr


def test_the_shipped_list(tmp_path):
    """Every job is one, waits for jobs that there are, and calls programs that there are."""
    listed = yaml.safe_load((ROOT / "benchmarks" / "gpu_queue.yaml").read_text(encoding="utf-8"))
    names = [each["name"] for each in listed]
    assert len(set(names)) == len(names)
    for each in listed:
        assert set(each.get("after", [])) <= set(names)
        for word in each["command"].split():
            if word.startswith(("benchmarks/", "tests/")):
                assert (ROOT / word).exists(), word
    done = run(tmp_path, listed, "--list", "--set", "smollm2=model")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(listed)
    assert len(run(tmp_path, listed, "--list").stdout.splitlines()) < len(listed)
