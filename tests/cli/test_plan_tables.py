"""What `hyperscale run --dry-run` says of a plan."""

import io
import re

import pytest
from rich.console import Console

from hyperscale.cli.display import plan_tables
from hyperscale.cli.display.console import PIPE_WIDTH, make_console
from hyperscale.errors import BudgetError
from hyperscale.planning import plan_file
from hyperscale.planning.measured_costs import EarlierRun
from hyperscale.run import dry_run, planned_run
from hyperscale.run.config import load


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(planned_run, "local_gpu", lambda device: None)


def shown(gpu=None, **values):
    asked = load.make_config({"model": "qwen3-8b", "methods": ["vanilla", "dms"], "tasks": ["aime24"], **values})
    expected = dry_run.plan_dry_run(asked, gpu)
    console = Console(file=io.StringIO(), width=140)
    plan_tables.print_plan(expected, console)
    plan_tables.print_roofline(expected, console)
    return expected, console.file.getvalue()


def test_the_papers_grid_says_what_one_pass_saves():
    expected, text = shown(budget="paper")
    assert len(expected.plan.points) == 2 * 12
    assert (
        "One pass serves all points. Generating every point separately would take 3.3 to 5.6 times the tokens" in text
    )
    assert text.count("closed form") == 2
    assert "roofline" not in text  # no GPU here that is known


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (["vanilla", "dms"], "One pass serves all points."),
        (["tova"], "tova runs once per L."),
        (["tova", "h2o"], "tova, h2o run once per L."),
        (["vanilla", "tova"], "tova runs once per L; one pass serves all points of the other methods."),
    ],
)
def test_methods_that_run_once_per_length_are_named(methods, sentence):
    _, text = shown(budget="paper", methods=methods, crs=[8])
    assert f"\n{sentence} Generating every point separately" in text


def test_one_factor_is_said_where_both_are_the_same():
    _, text = shown(methods=["vanilla"], grid="paper", lengths=[8192], budget="1x")
    assert "would take 1.0 times the tokens" in text


def test_a_budget_is_given_with_the_base_point_that_it_counts():
    assert "budget 4x = " in (text := shown(budget="4x")[1])
    assert "(base point: 1 vanilla chain of 8,192 tokens)" in text
    assert "aime24: 1 problem, prompts" in shown(budget="4x", limit=1)[1]
    assert "; budget 268M kv_reads\n" in shown(budget="kv_reads=2^28")[1]


def test_a_plan_of_more_than_a_day_says_so():
    run, text = shown("h200", budget="paper", model="qwen-r1-32b", tasks=["math500"])
    total = sum(duration.seconds for duration in run.durations.values())
    assert total > 86_400
    assert f"Warning: that is more than a day of one device, {total / 86_400:.1f} days." in text
    assert "roofline of H200" in text
    short = shown("h200", budget="paper", model="qwen-r1-32b", limit=2, lengths=[8192])[1]
    assert "Warning" not in short
    assert re.search("; at least [0-9.]+ (minutes|hours)", short)  # a roofline is a bound
    assert "how long that takes is not known" in shown(budget="paper")[1]


def test_a_plan_tells_what_it_costs():
    run, text = shown("h200", budget="paper", model="qwen-r1-32b", tasks=["math500"])
    assert "an hour of one GPU" not in text
    console = Console(file=io.StringIO(), width=200)
    plan_tables.print_plan(run, console, 2.5)
    (cost,) = re.findall(r", ([0-9,.]+) at 2.5 an hour of one GPU", console.file.getvalue())
    hours = sum(duration.seconds for duration in run.durations.values()) / 3600
    assert float(cost.replace(",", "")) == pytest.approx(2.5 * hours, rel=0.01)


@pytest.mark.parametrize("width", [50, 64, 80, 100])
def test_a_plan_is_whole_at_any_width(width):
    """Columns are left out, never letters of a cell."""
    run = dry_run.plan_dry_run(load.make_config({"model": "qwen3-8b", "tasks": ["livecodebench"]}), "h200")
    console = Console(file=io.StringIO(), width=width)
    plan_tables.print_plan(run, console)
    plan_tables.print_memory(run, console)
    plan_tables.print_roofline(run, console)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert ("left out at" in text) == (width < 80)


@pytest.mark.parametrize("gpu", ["h100", "H200", "a100", "b200"])
def test_a_gpu_turns_points_into_seconds(gpu):
    expected, text = shown(gpu, budget="paper")
    assert f"At best on {expected.gpu.name}, bfloat16" in text
    rows = [line.split() for line in text.split("At best")[1].splitlines() if line.startswith("aime24")]
    assert len(rows) == 2 * 3
    for row, points in zip(rows, [p for p in expected.plan.points if p.W == 8], strict=True):
        *_, length, width, _, _, chain, point, bound = row
        assert (int(length), int(width), bound) == (points.L, 8, "memory")
        assert float(chain.replace(",", "")) == pytest.approx(points.chain_costs.seconds, abs=0.06)
        assert float(point.replace(",", "")) == pytest.approx(8 * points.chain_costs.seconds, abs=0.06)


def test_more_chains_that_fit_are_named_where_they_are_faster():
    run, text = shown("h200", budget="paper")
    (found,) = re.findall(r"with --batch-size (\d+) (dms .*?) makes ([\d.]+) times the tokens/s at L=([\d,]+)", text)
    most, method, gain, L = int(found[0]), found[1], float(found[2]), int(found[3].replace(",", ""))
    (row,) = (line.split() for line in text.split("At best")[1].splitlines() if f" {L} " in line and method in line)
    assert most == min(int(row[-5].replace(",", "")), 512)
    assert most > run.config.batch_size
    # As the table itself has it with that number.
    more = shown("h200", budget="paper", batch_size=most)[1]
    (faster,) = (line.split() for line in more.split("At best")[1].splitlines() if f" {L} " in line and method in line)
    numbers = [float(cells[-4].rstrip("KM")) * (1e3 if cells[-4].endswith("K") else 1) for cells in (row, faster)]
    assert numbers[1] / numbers[0] == pytest.approx(gain, rel=0.05)
    assert "More fit" not in more


def test_a_faster_gpu_fits_more_into_the_same_seconds():
    plans = {gpu: shown(gpu, budget="seconds=600")[0].plan for gpu in ("a100", "h100", "b200")}
    counts = [len(plans[gpu].points) for gpu in ("a100", "h100", "b200")]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    for plan in plans.values():
        assert all(p.costs.seconds <= 600 for p in plan.points)
        # Compression buys width or length where a GPU is bound by memory.
        assert sum(p.arm.method == "dms" for p in plan.points) > sum(p.arm.method == "vanilla" for p in plan.points)


def test_seconds_without_a_gpu_are_refused():
    with pytest.raises(BudgetError, match="plan for a GPU with --dry-run --gpu"):
        shown(budget="seconds=600")
    with pytest.raises(BudgetError, match="the memory of the GPU holds no chain"):
        shown("l4", model="qwen-r1-32b", methods=["vanilla"], budget="seconds=600")


def test_a_repeated_plan_names_its_own_origin(tmp_path):
    asked = load.make_config({"model": "qwen3-8b", "methods": ["vanilla"], "tasks": ["aime24"], "budget": "4x"})
    own = dry_run.plan_dry_run(asked)
    assert "a plan made before" not in shown(methods=["vanilla"], budget="4x")[1]
    plan_file.save(own.plan, tmp_path, [EarlierRun("the-other-run", "0" * 16, "1" * 16, 7)])
    again = dry_run.plan_dry_run(asked, repeated=tmp_path)
    assert again.plan.points == own.plan.points
    console = Console(file=io.StringIO(), width=140)
    plan_tables.print_plan(again, console)
    assert (
        "Points and predictions are those of a plan made before: of this folder, or of --plan"
        in console.file.getvalue()
    )
    assert "predicted from 7 chains of the-other-run" in console.file.getvalue()


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("x", PIPE_WIDTH), (None, PIPE_WIDTH)])
def test_a_pipe_is_as_wide_as_columns_says(monkeypatch, capsys, columns, width):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert make_console().width == width
