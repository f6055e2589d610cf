"""The pilot on tiny checkpoints: its chains are the run's own, the plan that it makes stays, and a dry run has none."""

import hashlib
import io
import json
import shutil
import sys

import checkpoints
import pytest
from rich.console import Console
from stored_chains import stored_chains

from hyperscale import results
from hyperscale.cli import main
from hyperscale.cli.display import plan_tables
from hyperscale.errors import BudgetError, ConfigError, ResultsError
from hyperscale.planning import measured_costs
from hyperscale.planning.plan_file import PLAN_FILE
from hyperscale.results.store import Store
from hyperscale.run import dry_run, execute, pilot, prepare
from hyperscale.run.config import load
from hyperscale.run.observer import RunObserver

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(8,))


def make(weights, **changes):
    values = {"model": str(weights), "methods": ["vanilla", "dms"], "crs": [8], "tasks": ["mini_aime"], "grid": "ci"}
    return load.make_config({**values, "lengths": [32, 64, 128], "budget": "7.5x", "limit": 24, **changes})


def prepare_run(asked, folder=None):
    return prepare.prepare_run(asked, lambda text: None, folder)


def go(asked, folder, observer=None):
    """Run to the end; returns the run with its final plan."""
    watch, plans = observer or RunObserver(), []
    watch.on_plan = lambda run, folder: plans.append(run)
    execute.execute_run(prepare_run(asked, folder), folder, watch)
    return plans[0]


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return go(make(weights), folder), folder


def test_few_chains_of_each_arm_spread_over_the_problems(weights):
    run = prepare_run(make(weights))
    found = pilot.pilot_chains(run)
    assert list(found) == list(run.methods)
    for arm, wanted in found.items():
        assert [chain.problem for chain in wanted] == run.problems["mini_aime"][::3]
        assert {(chain.chain, chain.L) for chain in wanted} == {run.plan.chains(arm, "mini_aime")[0]}


def test_a_pilot_that_is_asked_for_has_the_lengths_of_the_plan_without_one(weights):
    """As `auto` has: chains that end before the shortest L would say nothing of the longer ones."""
    auto = pilot.pilot_chains(prepare_run(make(weights)))
    asked = pilot.pilot_chains(prepare_run(make(weights, predict="pilot")))
    assert asked == auto
    assert {chain.L for wanted in asked.values() for chain in wanted} != {32}


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"limit": 23}, 0),  # too small for a pilot
        ({"budget": "all"}, 0),  # nothing to decide
        ({"predict": "closed"}, 0),
        ({"predict": "earlier"}, 0),
        ({"predict": "pilot", "limit": 3}, 3),
        ({"predict": "pilot", "budget": "all"}, 8),
        ({"budget": "seconds=9", "batch_size": 12}, 12),  # the whole batch
        ({"budget": "seconds=9", "batch_size": 12, "limit": 5}, 12),  # of several chains a problem, where these are few
    ],
)
def test_when_there_is_a_pilot(weights, changes, count):
    found = pilot.pilot_chains(prepare_run(make(weights, **changes)))
    assert {len(wanted) for wanted in found.values()} == ({count} if count else set())


def test_the_plan_is_made_from_the_pilot_and_kept(whole, weights):
    run, folder = whole
    assert {point.source for point in run.plan.points} == {measured_costs.PILOT}
    raw = json.loads((folder / PLAN_FILE).read_text())
    assert len(raw["points"]) == len(run.plan.points)
    # Many chains end early, so that longer ones fit than the closed form allows.
    closed = prepare_run(make(weights, predict="closed")).plan
    (vanilla, _) = run.methods
    assert (closed.chains(vanilla, "mini_aime")[0], run.plan.chains(vanilla, "mini_aime")[0]) == ((0, 64), (0, 128))


def test_chains_of_the_pilot_are_the_runs_own(whole):
    run, folder = whole
    piloted, stored = stored_chains(folder / pilot.FOLDER), stored_chains(folder)
    assert len(piloted) == 2 * pilot.PROBLEMS
    same = [
        key for key in piloted if (piloted[key].text, piloted[key].finish) == (stored[key].text, stored[key].finish)
    ]
    assert all(piloted[key].with_maximum(stored[key].L) == stored[key] for key in same)
    # Only those that another L cut off are generated again.
    assert set(piloted) - set(same) == {
        key for key, s in piloted.items() if s.finish == "length" and s.L != stored[key].L
    }
    assert len(same) >= len(piloted) // 2
    wanted = {(arm.method, c): n for arm in run.methods for c, n in run.plan.chains(arm, "mini_aime")}
    assert {key: s.L for key, s in stored.items()} == {key: wanted[key[2], key[5]] for key in stored}


def test_the_same_chains_as_without_a_pilot(whole, weights, tmp_path):
    run, folder = whole
    plain = prepare_run(make(weights)).replanned(run.predictor)
    execute.execute_run(plain, tmp_path / "run", RunObserver())
    assert not (tmp_path / "run" / pilot.FOLDER).exists()
    assert stored_chains(tmp_path / "run") == stored_chains(folder)


class Killed(BaseException):
    pass


def test_a_pilot_that_is_killed_resumes(whole, weights, tmp_path, monkeypatch):
    append, left, folder = Store.append, [0], tmp_path / "run"

    def dying(self, sample):
        append(self, sample)
        left[0] -= 1
        if not left[0]:
            raise Killed

    for after in (3, 7, 9, 20):  # in the pilot of one arm and the other, among adopted chains, in the run
        left[0] = after
        monkeypatch.setattr(Store, "append", dying)
        with pytest.raises(Killed):
            go(make(weights), folder)
        monkeypatch.setattr(Store, "append", append)
    run = go(make(weights), folder)
    assert stored_chains(folder) == stored_chains(whole[1])
    assert [str(point) for point in run.plan.points] == [str(point) for point in whole[0].plan.points]
    assert {point.source for point in run.plan.points} == {measured_costs.PILOT}
    assert len((folder / pilot.FOLDER / results.SAMPLES).read_text().splitlines()) == 2 * pilot.PROBLEMS


def test_a_folders_plan_outlives_new_evidence(whole, weights, tmp_path):
    asked = make(weights, predict="closed", limit=2)
    first = go(asked, tmp_path / "run")
    other = prepare_run(asked).replanned(whole[0].predictor)
    assert other.plan != first.plan
    before = stored_chains(tmp_path / "run")
    execute.execute_run(other, tmp_path / "run", RunObserver())
    assert stored_chains(tmp_path / "run") == before
    (tmp_path / "run" / PLAN_FILE).write_text("{")
    with pytest.raises(ResultsError, match="is unreadable"):
        go(asked, tmp_path / "run")


def test_earlier_runs_spare_the_pilot(whole, weights):
    _, folder = whole
    run = prepare_run(make(weights, budget="1x"), folder.parent / "next")
    assert {point.source for point in run.plan.points} == {measured_costs.EARLIER}
    assert pilot.pilot_chains(run) == {}
    expected = dry_run.plan_dry_run(make(weights, budget="1x"), folder=folder.parent / "next")
    assert expected.plan == run.plan
    assert {p.source for p in dry_run.plan_dry_run(make(weights, budget="1x"), folder=folder).plan.points} == {
        "closed form"
    }


def test_the_plan_names_the_runs_that_it_was_made_from(whole, weights, tmp_path):
    """The same command plans otherwise once more runs lie beside it: what it was made from must be on record."""
    plans = []

    class Plans(RunObserver):
        def on_plan(self, run, folder):
            plans.append(run)

    _, folder = whole
    shutil.copytree(folder, tmp_path / "first")
    asked = make(weights, budget="1x")
    execute.execute_run(prepare_run(asked, tmp_path / "next"), tmp_path / "next", Plans())
    plan = json.loads((tmp_path / "next" / PLAN_FILE).read_text())
    (entry,) = plan["earlier_runs"]
    assert entry["folder"] == "first"
    assert entry["chains"] <= len(results.read(folder)[0].samples)
    for part, name in (("run", results.RUN_FILE), ("samples", results.SAMPLES)):
        assert hashlib.sha256((tmp_path / "first" / name).read_bytes()).hexdigest().startswith(entry[part])
    assert [run._asdict() for run in plans[0].earlier_runs] == [entry]
    text = shown(plans[0])
    assert f"Costs are predicted from {entry['chains']} chains of first, as plan.json records" in text
    assert "measured pace" in text  # the chains were timed here
    execute.execute_run(prepare_run(asked, tmp_path / "next"), tmp_path / "next", Plans())
    assert plans[1].earlier_runs == plans[0].earlier_runs  # a resumed run names them too
    shutil.copytree(folder, tmp_path / "second")
    more = prepare_run(asked, tmp_path / "third")
    names = [run.folder for run in measured_costs.earlier_runs(more.predictor.measured, more.predictor.measured)]
    assert names == ["first", "next", "second"]


def test_a_plan_is_repeated_exactly_whatever_lies_beside_the_run(whole, weights, tmp_path):
    _, folder = whole
    shutil.copytree(folder, tmp_path / "first")
    asked = make(weights, budget="1x")
    first = go(asked, tmp_path / "one")
    shutil.rmtree(tmp_path / "first")
    (tmp_path / "one").rename(tmp_path / "elsewhere")
    other = go(asked, tmp_path / "alone" / "two")
    assert other.plan.points != first.plan.points
    for named in (tmp_path / "elsewhere", tmp_path / "elsewhere" / PLAN_FILE):
        again = prepare.prepare_run(asked, lambda text: None, tmp_path / "again" / "three", named)
        assert again.plan.points == first.plan.points
        assert dry_run.plan_dry_run(asked, repeated=named).plan.points == first.plan.points
    execute.execute_run(again, tmp_path / "again" / "three", RunObserver())
    plans = [
        json.loads((path / PLAN_FILE).read_text()) for path in (tmp_path / "elsewhere", tmp_path / "again" / "three")
    ]
    assert plans[0] == plans[1]
    assert [run["folder"] for run in plans[1]["earlier_runs"]] == ["first"]
    assert plans[1]["chains"] == again.chains_by_arm
    (run,) = results.read(tmp_path / "again" / "three")
    assert len(run.samples) == sum(plans[1]["chains"].values())
    # It is not taken for a run that has another one, or for which it has no point.
    with pytest.raises(ConfigError, match="was started with another plan"):
        prepare.prepare_run(asked, lambda text: None, tmp_path / "alone" / "two", tmp_path / "elsewhere")
    for changes, message in (
        ({"methods": ["vanilla"]}, "it plans dms 8×, which this one lacks: give --method"),
        ({"methods": ["vanilla", "dms", "window"]}, r"has no point of window 8×: leave these out"),
        ({"tasks": ["mini_lcb"]}, "made for the tasks mini_aime, and this run has mini_lcb"),
        ({"budget": "peak_kv=100"}, "made for the axis kv_reads, and this run has peak_kv"),
        ({"lengths": [128]}, r"has points of mini_aime at L=32, and this run has none: give --length as that run"),
        ({"budget": "2x"}, r"was made for [\d,]+ in kv_reads on mini_aime, and the budget 2x is [\d,]+: give --budget"),
        ({"budget": "all"}, r"and the budget all is no ceiling: give --budget"),
    ):
        with pytest.raises(ResultsError, match=message):
            prepare.prepare_run(
                make(weights, **{"budget": "1x", **changes}), lambda text: None, None, tmp_path / "elsewhere"
            )
    with pytest.raises(ResultsError, match="there is no such file; pass the plan"):
        prepare.prepare_run(asked, lambda text: None, None, tmp_path / "nowhere")


def shown(run):
    """A plan as the console shows it."""
    console = Console(file=io.StringIO(), width=140)
    plan_tables.print_plan(run, console)
    return console.file.getvalue()


def test_a_dry_run_generates_nothing(weights, tmp_path):
    dry_run.plan_dry_run(make(weights), folder=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_seconds_of_this_machine(weights, tmp_path):
    asked = make(weights, budget="seconds=1000", methods=["vanilla"], batch_size=8)
    assert prepare_run(asked).plan.points == ()  # nothing is known before a pilot
    with pytest.raises(BudgetError, match="cannot be planned"):
        prepare_run(make(weights, budget="seconds=1000", predict="closed"))
    run = go(asked, tmp_path / "b")
    assert all(0 < point.costs.seconds < 1000 for point in run.plan.points)
    with pytest.raises(BudgetError, match="the cheapest point is 1-"):
        go(make(weights, budget="seconds=0.000001", methods=["vanilla"], batch_size=8), tmp_path / "c")


def test_the_command_shows_pilot_plan_and_what_became_of_it(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    options = {"--model": weights, "--task": "mini_aime", "--grid": "ci", "--budget": "7.5x", "--limit": 24}
    options |= {"--length": "32,64", "--out": tmp_path / "run"}
    monkeypatch.setattr(sys, "argv", ["hyperscale", "run", *(str(part) for pair in options.items() for part in pair)])
    text = ""
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main.main()
        assert stop.value.code == 0
        before, text = text, capsys.readouterr().out
        place = 0
        for part in ("Plan", "predicted by", "One pass", "writing to", "Frontiers", "Predicted and measured", "budget"):
            place = text.index(part, place)
        assert ("pilot of vanilla: 8 chains" in text) == (not before)  # the second time all is there
    assert text[text.index("Predicted and measured") :] == before[before.index("Predicted and measured") :]
