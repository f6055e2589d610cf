"""Whatever kills a run, the same command finishes it: nothing lost, nothing twice, the same points bit for bit."""

import csv
import json
import os
import random
import signal
import time

import checkpoints
import killed_runs
import pytest

from hyperscale import results
from hyperscale.planning.plan_file import PLAN_FILE
from hyperscale.results.sample_file import read_samples
from hyperscale.run import pilot

pytestmark = pytest.mark.e2e

CLOCK = ("seconds",)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(8,))


def command(weights, folder, **changes):
    """A run with a pilot, of two methods on one task, some of whose chains end early."""
    options = {"model": weights, "method": "vanilla,dms", "task": "mini_aime", "grid": "ci", "length": "16,32,64"}
    options |= {"budget": "2x", "limit": 4, "predict": "pilot", "batch-size": 3, "out": folder / "run"} | changes
    return ["run", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    """The folder of an unbroken run, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("whole")
    code, said = killed_runs.finish(command(weights, folder), folder / "log")  # the first one also loads the libraries
    assert code == 0, said
    started = time.monotonic()
    code, said = killed_runs.finish(command(weights, folder / "timed"), folder / "log")
    assert code == 0, said
    same(folder / "timed" / "run", folder / "run")
    return folder / "run", time.monotonic() - started


def timeless(value):
    """Contents of JSON without wall-clock fields."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if name not in CLOCK}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def lines(path):
    return sorted(json.dumps(timeless(json.loads(line))) for line in path.read_bytes().splitlines())


def table(path):
    """The bytes of every cell of a CSV file, without wall-clock columns."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: cell for name, cell in row.items() if name not in CLOCK} for row in rows]


def same(folder, whole):
    """A finished run's folder holds what an unbroken one's does."""
    for part in (folder, folder / pilot.FOLDER):
        at = whole / part.relative_to(folder)
        assert (part / results.SAMPLES).read_bytes().endswith(b"\n")
        assert lines(part / results.SAMPLES) == lines(at / results.SAMPLES)
        found, expected = (json.loads((place / results.RUN_FILE).read_text()) for place in (part, at))
        # The date is that of the start, which templates are given for the present.
        assert timeless(found) | {"date": ""} == expected | {"date": ""}
        assert sorted(path.name for path in part.iterdir()) == sorted(path.name for path in at.iterdir())
    keys = [sample.key for sample in read_samples(folder / results.SAMPLES)]
    assert len(set(keys)) == len(keys)
    plans = [timeless(json.loads((each / PLAN_FILE).read_text())) for each in (folder, whole)]
    # Why it is this engine: a folder that was begun has chosen it already.
    assert all(plan.pop("engine").startswith("torch: ") for plan in plans)
    assert plans[0] == plans[1]
    assert table(folder / results.POINTS) == table(whole / results.POINTS)


def test_the_run_has_all_that_can_break(whole):
    folder, _ = whole
    samples = [json.loads(line) for line in (folder / results.SAMPLES).read_bytes().splitlines()]
    piloted = (folder / pilot.FOLDER / results.SAMPLES).read_bytes().splitlines()
    assert len(piloted) == 2 * 4
    assert len(samples) > len(piloted)
    assert {s["method"] for s in samples} == {"vanilla", "dms"}
    assert {s["finish"] for s in samples} == {"stop", "length"}


def survive(weights, whole, folder, deaths):
    """Kill a run at one operation on the disk after another, until one process finishes; returns the kills."""
    count = 0
    for death in (*deaths, None):
        code, said = killed_runs.finish(command(weights, folder), folder / "log", death)
        if code == 0:
            break
        assert (code, death is None) == (-signal.SIGKILL, False), said
        count += 1
    same(folder / "run", whole)
    return count


@pytest.mark.parametrize("after", [False, True])
def test_killed_where_it_writes(weights, whole, tmp_path, after):
    steps = (1, 4, 7, 17) if after else (3, 6, 12, 24)
    assert survive(weights, whole[0], tmp_path, [(step, after) for step in steps]) == len(steps)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_operation_on_the_disk(weights, whole, tmp_path, after):
    """The first process dies at its first operation, the second at its second, …: all of a run's are reached."""
    assert survive(weights, whole[0], tmp_path, [(step, after) for step in range(1, 500)]) >= 10


@pytest.mark.slow
def test_killed_at_random_moments(weights, whole, tmp_path):
    """At least 30 times, by the clock; a run that finishes in spite of it makes place for the next."""
    rng, count, runs = random.Random(4), 0, 0
    stages = set()
    while count < 30:
        folder = tmp_path / f"{runs}"
        folder.mkdir()
        runs += 1
        while True:
            process = killed_runs.start(command(weights, folder), folder / "log")
            process.join(rng.uniform(0, 1.1) * whole[1])
            if process.exitcode is None:
                process.kill()
                process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, (folder / "log").read_text()
            count += 1
            stages.add(stage(folder / "run"))
        same(folder / "run", whole[0])
    assert len(stages) > 1, stages


def stage(folder):
    """The last thing of a run that was begun."""
    for name in (results.POINTS, results.SAMPLES, PLAN_FILE, pilot.FOLDER, results.RUN_FILE):
        path = folder / name
        if path.exists() and (path.is_dir() or path.stat().st_size):
            return name
    return None


def test_a_truncated_last_line_costs_one_chain(weights, whole, tmp_path):
    assert killed_runs.finish(command(weights, tmp_path), tmp_path / "log")[0] == 0
    path = tmp_path / "run" / results.SAMPLES
    os.truncate(path, path.stat().st_size - 9)
    (tmp_path / "run" / results.POINTS).unlink()
    code, said = killed_runs.finish(command(weights, tmp_path), tmp_path / "log")
    assert code == 0, said
    assert "finished chains: resuming" in said
    same(tmp_path / "run", whole[0])


@pytest.mark.parametrize("file", [f"{pilot.FOLDER}/{results.SAMPLES}", results.SAMPLES])
def test_a_second_process_is_refused_and_the_first_goes_on(weights, whole, tmp_path, file):
    """In the pilot and in the run."""
    path = tmp_path / "run" / file
    first = killed_runs.start(command(weights, tmp_path), tmp_path / "first", stop_at=path)
    killed_runs.wait_until_stopped(first)
    try:
        assert path.read_bytes().endswith(b"\n")
        code, said = killed_runs.finish(command(weights, tmp_path), tmp_path / "second")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert (code, said.splitlines()[-1][:43]) == (2, "error: another process is writing to " + str(tmp_path)[:6])
    first.join(500)
    assert first.exitcode == 0, (tmp_path / "first").read_text()
    same(tmp_path / "run", whole[0])


def test_a_changed_configuration_is_refused_and_leaves_no_trace(weights, whole, tmp_path):
    folder = whole[0]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for change, said in (
        ({"temperature": 0.3}, "temperature was 0.6, now 0.3"),
        ({"limit": 5}, "limit was 4, now 5"),
        ({"budget": "3x"}, 'budget was "2x", now "3x"'),
    ):
        code, text = killed_runs.finish(command(weights, folder.parent, **change), tmp_path / "log")
        assert code == 2
        assert "holds a run with another configuration" in text
        assert said in text.splitlines()[-1]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_full_disk(weights, whole, tmp_path):
    """A real one of some KiB, which gets room again and again until the run fits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    sizes = [8, 16, 24, 32, 48, 64, 96, 128, 2048]
    code, said = killed_runs.on_a_small_disk(
        command(weights, disk), str(disk), str(tmp_path / "run"), tmp_path / "log", sizes
    )
    if code == killed_runs.NO_MOUNT:
        pytest.skip("no file system can be mounted here")
    assert code == 0, said
    full = [line for line in said.splitlines() if "No space left on device" in line]
    assert len(full) >= 3, said
    assert all(line.startswith("error: cannot write ") for line in full)
    assert "Traceback" not in said
    same(tmp_path / "run", whole[0])


def test_a_limit_on_the_size_of_files(weights, whole, tmp_path):
    """Stands for a full disk where none can be mounted."""
    for most in (6000, 10000, None):
        process = killed_runs.start(command(weights, tmp_path), tmp_path / "log", most_bytes=most)
        process.join(500)
        said = (tmp_path / "log").read_text()
        if most is None:
            assert process.exitcode == 0, said
        else:
            assert process.exitcode == 2, said
            assert "File too large" in said
            assert "finished chains are kept" in said or "make room" in said
    same(tmp_path / "run", whole[0])
