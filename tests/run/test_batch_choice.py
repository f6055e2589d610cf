"""How many chains decode together where the user names no number."""

import io
import json
import re
from contextlib import suppress
from types import SimpleNamespace

import checkpoints
import pytest
import torch
from rich.console import Console

import hyperscale
from hyperscale.cli.display import plan_tables
from hyperscale.cli.display.json_events import JsonObserver
from hyperscale.engines.vllm import versions
from hyperscale.models.shape import Shape
from hyperscale.planning.roofline import GIB, find_gpu
from hyperscale.run import batch_choice, dry_run, execute, planned_run, prepare
from hyperscale.run.config import load
from hyperscale.run.engines.processes import spec_of
from hyperscale.run.observer import RunObserver

LARGE = {"model": "qwen-r1-32b", "methods": ["vanilla", "window"], "crs": [8], "tasks": ["math500"], "budget": "paper"}


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    """A vLLM for CUDA, as far as the choice looks at it, and no GPU."""
    monkeypatch.setattr(versions, "installed", lambda: versions.KNOWN[-1])
    monkeypatch.setattr(versions, "is_for_cpu", lambda: False)
    monkeypatch.setattr(planned_run, "local_gpu", lambda device: None)


@pytest.fixture
def h200(monkeypatch):
    """A machine with H200s, as far as a plan looks at it."""

    def install(count=1, memory=139.8, name="NVIDIA H200"):
        size = int(memory * GIB)
        properties = SimpleNamespace(total_memory=size)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (size, size))

    return install


def planned(gpu="h200", **changes):
    return dry_run.plan_dry_run(load.make_config({**LARGE, "device": "cuda", **changes}), gpu)


def fitting(run, L):
    """Chains of the compressed method that fit, worked out by hand."""
    (arm,) = (arm for arm in run.arms if arm.method != "vanilla")
    (point,) = (p for p in run.plan.points if (p.arm, p.L, p.W) == (arm, L, 1))
    weights = 2 * run.roofline.shape.parameters
    return int((run.gpu.memory * run.config.gpu_memory - weights) // point.costs.peak_bytes)


def test_as_many_as_the_cache_has_room_for():
    run = planned()
    most = fitting(run, 8192)
    assert most > fitting(run, 16384) > 64
    assert run.config.batch_size == most - most % 8 == 248
    assert run.config.batch_choice == (
        f"248 chains together: the cache has room for {most} of window 8× at L=8,192 (--batch-size)"
    )
    # The figure that the plan names to those who ask for few.
    few = planned(batch_size=64)
    assert few.config.batch_size == 64
    assert few.config.batch_choice == "64 chains together (set for this run)"
    longer = planned(lengths=[16384])
    assert longer.config.batch_size == fitting(longer, 16384) // 8 * 8


@pytest.mark.parametrize(
    ("changes", "size", "reason"),
    [
        ({"tensor_parallel": 2}, 256, "the most unless more are asked for; the cache has room for 7"),
        ({"gpus": 4, "tensor_parallel": 2, "limit": 50}, 200, "a method has 200 at a time; the cache has room for 7"),
        ({"gpu_memory": 0.7}, 144, "the cache has room for 145"),
        ({"limit": 12}, 96, "a method has 96 at a time"),
        ({"limit": 13, "grid": "one", "budget": "all"}, 64, "the default; a method has 13 at a time"),
        ({"methods": ["vanilla"]}, 64, "the default; the cache has room for 31 of vanilla at L=8,192"),
        ({"methods": ["window", "quest"]}, 64, "the default; the cache has room for 31 of quest 8× at L=8,192"),
        ({"kv_dtype": "fp8", "methods": ["window"], "lengths": [16384]}, 248, "the cache has room for 25"),
        ({"gpu": "80GiB"}, 64, "the default; the cache has room for 4"),
        ({"gpu": "140GiB"}, 248, "the cache has room for 25"),  # without a speed
        ({"gpu": None}, 64, "the default, as the memory of the GPU is not known here"),
    ],
)
def test_bounds(changes, size, reason):
    run = planned(**changes)
    assert run.config.engine == "vllm"
    assert (run.config.batch_size, reason in run.config.batch_choice) == (size, True), run.config.batch_choice
    assert ("in each engine" in run.config.batch_choice) == (run.placement.engines > 1)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"engine": "torch"}, 64),
        ({"engine": "torch", "batch_size": 5}, 5),
        ({"device": "cpu"}, 64),
        ({"device": "cpu", "engine": "vllm"}, 64),
        ({"model": "mini", "tasks": [], "engine": "torch", "budget": "mini"}, 128),
    ],
)
def test_elsewhere_it_is_the_models(changes, size):
    config = planned(**changes).config
    assert (config.batch_size, config.batch_choice) == (size, "")


def test_weights_of_unknown_size(monkeypatch):
    monkeypatch.setattr(dry_run, "shape_of", lambda model, path: Shape(64, 8, 128))
    config = planned().config
    assert (config.batch_size, config.batch_choice.partition(": ")[2]) == (
        64,
        "the default, as the size of the weights is not known here (--batch-size)",
    )


def test_the_bound_is_a_number_that_vllm_records():
    assert batch_choice.MOST_CHOSEN % batch_choice._GRAPH_STEP == 0


def test_seconds_are_those_of_the_batch_that_was_chosen():
    """A chain shares the GPU with the others, so its seconds depend on how many there are."""
    chosen, few = planned(lengths=[8192]), planned(lengths=[8192], batch_size=64)
    for run in (chosen, few):
        point = next(p for p in run.plan.points if p.arm.method == "window" and (p.W, p.L) == (1, 8192))
        assert point.costs.seconds == pytest.approx(
            run.roofline.chain_seconds(point.chain_costs, run.config.batch_size)
        )
    totals = [sum(duration.seconds for duration in run.durations.values()) for run in (chosen, few)]
    assert totals[0] < totals[1]


def shown(run):
    console = Console(file=io.StringIO(), width=200)
    plan_tables.print_plan(run, console)
    plan_tables.print_roofline(run, console)
    return console.file.getvalue()


def test_the_plan_says_how_many_and_why(tmp_path):
    run = planned()
    assert f"\nBatch: {run.config.batch_choice}\n" in (text := shown(run))
    assert "\n248 chains share the GPU (--batch-size)" in text
    assert "More fit" not in text
    assert "Batch:" not in shown(planned(engine="torch"))
    # Those who ask for few are told of the figure that would have been chosen.
    assert f"with --batch-size {fitting(run, 8192)} window" in shown(planned(batch_size=64))
    # More than the bound is named where it would be faster and there are chains for it.
    assert "with --batch-size 512 window" in shown(planned(tensor_parallel=2))
    assert "More fit" not in shown(planned(tensor_parallel=2, limit=10))
    JsonObserver(events := io.StringIO()).on_plan(run, tmp_path)
    event = json.loads(events.getvalue())
    assert (event["batch_size"], event["batch_choice"]) == (248, run.config.batch_choice)


def test_it_is_no_other_run():
    chosen, few = planned().config, planned(batch_size=64).config
    assert chosen.batch_size != few.batch_size
    assert chosen.compared() == few.compared()


def test_files_and_the_python_interface_have_it_too(tmp_path):
    lines = "model: qwen-r1-32b", "method: vanilla,window", "cr: 8", "task: math500", "budget: paper"
    (tmp_path / "run.yaml").write_text("".join(f"{line}\n" for line in lines))
    from_file = load.load_config({"device": "cuda"}, tmp_path / "run.yaml")
    assert dry_run.plan_dry_run(from_file, "h200").config.batch_size == 248
    (tmp_path / "run.yaml").write_text("batch_size: 40\nmodel: qwen-r1-32b\ntask: math500\n")
    from_file = load.load_config({"device": "cuda"}, tmp_path / "run.yaml")
    assert dry_run.plan_dry_run(from_file, "h200").config.batch_size == 40
    frames = [
        hyperscale.plan(**{**LARGE, "device": "cuda", "batch_size": size}, gpu="h200", out=tmp_path / "run")
        for size in (None, 248, 64)
    ]
    assert frames[0].equals(frames[1])
    assert not frames[0].equals(frames[2])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"))


def prepared(weights, folder=None, **changes):
    values = {"model": str(weights), "methods": ["vanilla", "window"], "crs": [8], "tasks": ["mini_aime"]}
    asked = load.make_config({**values, "grid": "mini", "budget": "all", **changes})
    return prepare.prepare_run(asked, lambda text: None, folder)


@pytest.mark.parametrize(
    ("count", "changes", "engines", "size"),
    [
        (1, {"limit": 17}, 1, 136),
        (1, {"limit": 100}, 1, 256),
        (2, {"limit": 17}, 2, 72),  # half of the chains each
        (2, {"limit": 17, "batch_size": 9}, 2, 9),
        (1, {"limit": 1}, 1, 64),
    ],
)
def test_a_run_takes_the_gpu_that_is_there(h200, monkeypatch, weights, count, changes, engines, size):
    monkeypatch.undo()
    monkeypatch.setattr(versions, "installed", lambda: versions.KNOWN[-1])
    monkeypatch.setattr(versions, "is_for_cpu", lambda: False)
    h200(count)
    run = prepared(weights, **changes)
    assert (run.config.device, run.config.engine, run.placement.engines) == ("cuda", "vllm", engines)
    assert run.config.batch_size == size
    assert {spec_of(run, arm)[1].batch_size for arm in run.arms} == {size}
    assert run.chains_in_flight == size * engines
    assert re.match(rf"{size} chains together( in each engine)?[: ]", run.config.batch_choice)


def test_a_gpu_of_unknown_name_has_a_memory(h200, monkeypatch, weights):
    monkeypatch.setattr(planned_run, "local_gpu", lambda device: find_gpu("48GiB"))
    h200(name="Abacus 9")
    run = prepared(weights, limit=17)
    assert run.roofline is None
    assert run.config.batch_size == 136


def test_a_run_records_what_it_used(weights, tmp_path):
    """Another number goes on with the same folder, and both stand there."""
    folder, recorded = tmp_path / "run", []
    for size, limit_of_chains in ((5, 1), (5, 3), (3, None), (7, None)):
        observer = Stopping(limit_of_chains)
        run = prepared(weights, folder, device="cpu", limit=3, lengths=[8], batch_size=size)
        with suppress(InterruptedError):
            execute.execute_run(run, folder, observer)
        recorded.append(json.loads((folder / "run.json").read_text()).get("batch_sizes"))
    assert recorded == [[5], [5], [5, 3], [5, 3]]  # the last had nothing to generate


class Stopping(RunObserver):
    """Ends a run after some chains."""

    def __init__(self, count):
        self.left = count

    def on_chain(self, arm, problem, sample):
        if self.left is not None:
            self.left -= 1
            if not self.left:
                raise InterruptedError
