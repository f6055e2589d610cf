"""A training that several processes share gives what one gives, but for rounding; here two of them, on the CPU."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import held_by_gloo
import pytest
import sharded_training
import torch
from checkpoints import SMALL
from safetensors.torch import load_file

from hyperscale.errors import RetrofitError
from hyperscale.mini.model import build_model, save_model
from hyperscale.retrofit.parallel import ranks
from hyperscale.retrofit.parallel.ranks import Ranks, join_ranks
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.trainer import Retrofit
from hyperscale.utils.files import take_lock

pytestmark = pytest.mark.e2e

RECIPE = {"crs": (2.0, 3.0), "steps_per_unit": 8, "hard_steps": (3,), "window": 4, "accumulate": 4, "gate_lr": 1e-2}
LORA = {**RECIPE, "train": "lora", "lora_rank": 4, "lr": 3e-3}
GATES = {**RECIPE, "hard_steps": (0,), "train": "gates"}


def run_ranks(count, *arguments):
    """Run a script in so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr


def share(tmp_path, recipe, dtype="float32", frugal=True, count=2):
    """What so many processes make of a recipe."""
    out = tmp_path / f"{count}.pt"
    run_ranks(count, sharded_training.__file__, out, json.dumps(recipe), dtype, str(frugal))
    return torch.load(out, weights_only=False)


def test_processes_that_are_done_end_well_while_gloo_holds_tensors():
    run_ranks(2, held_by_gloo.__file__)


def test_processes_wait_for_hours_for_the_one_that_writes(monkeypatch):
    """torch's own timeout, minutes, would end a training while a large checkpoint is written."""
    begin = torch.distributed.init_process_group

    def begin_alone(backend, **given):
        begin(backend, store=torch.distributed.HashStore(), rank=0, world_size=1, **given)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", begin_alone)
    join_ranks("cpu")
    try:
        for group, long in ((torch.distributed.group.WORLD, False), (ranks._waiting, True)):
            timeout = group._get_backend(torch.device("cpu")).options._timeout
            assert (timeout >= timedelta(hours=2)) == long
        ranks.wait_for_all()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("recipe", "frugal"),
    [
        pytest.param(RECIPE, True, id="all"),
        pytest.param(RECIPE, False, id="all at once", marks=pytest.mark.slow),
        pytest.param(GATES, True, id="gates", marks=pytest.mark.slow),  # low-rank updates leave weights alone too
        pytest.param(LORA, True, id="lora"),
    ],
)
def test_two_processes_train_as_one(tmp_path, recipe, frugal):
    start = sharded_training.build_model(0, **sharded_training.SMALL, initializer_range=0.06).state_dict()
    alone = sharded_training.train(Recipe(**recipe), Ranks(), torch.float32, frugal)
    shared = share(tmp_path, recipe, frugal=frugal)
    assert len(alone) == len(shared) == 2
    for (log, tokens, check, state), (other_log, other_tokens, other_check, other_state), close in zip(
        alone, shared, (1e-3, 0.1), strict=True
    ):
        assert tokens == other_tokens
        assert other_check == pytest.approx(check, rel=close)
        assert [entry["step"] for entry in log] == [entry["step"] for entry in other_log]
        assert other_log[0]["kl"] == pytest.approx(log[0]["kl"], rel=1e-4)
        assert state.keys() == other_state.keys()
    # Rounding grows: weights that differ by 1e-7 at the start are as far apart at the second checkpoint as these.
    state, other_state = alone[0][3], shared[0][3]
    # Of low-rank updates those start at zero that are not drawn.
    start |= {name: torch.zeros(()) for name in state if ".lora_B." in name}
    for name in start.keys() & state.keys():
        moved = (state[name] - start[name]).norm()
        assert (state[name] - other_state[name]).norm() <= 0.01 * moved, name
    first, second = (made[3] for made in shared)
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved
    assert recipe is RECIPE or all("dms_proj_alpha." in name or ".lora_" in name for name in moved)
    assert recipe is not LORA or any(".lora_B." in name for name in moved)


def test_bfloat16_weights_are_sharded_too(tmp_path):
    """Stochastic rounding draws in each process, so only what is learned is alike."""
    alone = sharded_training.train(Recipe(**RECIPE), Ranks(), torch.bfloat16)
    shared = share(tmp_path, RECIPE, "bfloat16")
    for made, other in zip(alone, shared, strict=True):
        assert other[2] == pytest.approx(made[2], rel=0.2, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accumulate": 3}, "--accumulate 3 batches a step do not divide among 2 GPUs"),
        ({"gate": "borrowed"}, "several GPUs train gates with a projection of their own"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes, reason):
    with pytest.raises(RetrofitError, match=reason):
        Retrofit(
            sharded_training.build_model(0, **sharded_training.SMALL),
            Recipe(**{**RECIPE, **changes}),
            ranks=Ranks(0, 2),
        )


TEXT = "The search goes on from here, and each step names what it found before it turns back. "
COMMAND = [
    "--model",
    "base",
    "--data",
    "text.jsonl",
    "--device",
    "cpu",
    "--cr",
    "2",
    "--window",
    "16",
    "--length",
    "128",
]
COMMAND += ["--steps-per-unit", "6", "--hard-steps", "2", "--accumulate", "2", "--gate-lr", "0.01"]


def retrofit(folder, *more, before=(), launcher=(), own_group=False, **environment):
    """The command in a process of its own."""
    if not (folder / "base").exists():
        # Its embedding and output layer are two tensors, so that processes read their parts of the file alone.
        save_model(build_model(0, **SMALL, initializer_range=0.06, tie_word_embeddings=False), folder / "base")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": f"{TEXT * 12}{i}"}) + "\n" for i in range(60)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **environment}
    command = [*before, sys.executable, *launcher, "-m", "hyperscale.cli", "retrofit", *COMMAND, *more]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=own_group,
    )


def checkpoint(folder):
    """Weights and record of a retrofit's checkpoint."""
    record = json.loads((folder / "training.json").read_text())
    assert record["finished"]
    return load_file(folder / "dms2" / "model.safetensors"), record["dms"][0]


@pytest.mark.slow
def test_the_command_shares_a_training_on_one_machine_and_over_two(tmp_path):
    """``--gpus 2``, and ``torchrun`` as on two nodes; a checkpoint is whole and that of one process."""
    alone = retrofit(tmp_path, "--out", "one")
    shared = retrofit(tmp_path, "--out", "two", "--gpus", "2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = []
    for node in range(2):
        launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1"]
        launcher += ["--master-addr", "127.0.0.1", "--master-port", port]
        nodes.append(retrofit(tmp_path, "--out", "nodes", "--gpus", "2", launcher=launcher))
    # Low-rank updates start alike in every process, and are merged.
    updates = ["--recipe", "lora", "--lora-rank", "4", "--lr", "0.003"]
    lora = [retrofit(tmp_path, "--out", f"lora{count}", "--gpus", count, *updates) for count in ("1", "2")]
    tied = retrofit(tmp_path, "--out", "tied", "--gpus", "2", "--model", "mini")  # each process loads all of it
    outputs = []
    for process in (alone, shared, *nodes, tied, *lora):
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        outputs.append(out)
    assert [out.count("run it:") for out in outputs] == [1, 1, 0, 0, 1, 1, 1]
    assert [out.count("training takes about") for out in outputs] == [1, 1, 1, 0, 1, 1, 1]
    assert [out.count("wrote") for out in outputs] == [2, 2, 2, 0, 2, 2, 2]
    for first, name in (("one", "two"), ("one", "nodes"), ("lora1", "lora2")):
        weights, made = checkpoint(tmp_path / first)
        other_weights, other = checkpoint(tmp_path / name)
        assert other["kl_hard"] == pytest.approx(made["kl_hard"], rel=1e-3)
        assert (other["tokens"], other["alpha"]) == (made["tokens"], pytest.approx(made["alpha"], abs=1e-3))
        assert weights.keys() == other_weights.keys()
        for key, value in weights.items():
            assert torch.allclose(value.float(), other_weights[key].float(), rtol=0.02, atol=2e-3), key


@pytest.mark.parametrize(
    ("more", "launcher", "reason"),
    [
        (["--gpus", "3"], [], "--accumulate 2 batches a step do not divide among 3 GPUs"),
        (
            ["--gpus", "1"],
            ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
            "torchrun has started 2 processes, and --gpus is 1: pass --gpus 2",
        ),
    ],
)
def test_numbers_of_processes_that_do_not_fit(tmp_path, more, launcher, reason):
    process = retrofit(tmp_path, "--out", "out", *more, launcher=launcher)
    _, err = process.communicate(timeout=300)
    assert process.returncode
    assert reason in " ".join(err.split())


def test_of_processes_that_torchrun_starts_one_writes_the_texts(tmp_path):
    """Else each writes all of them into one file, and the training is refused when it goes on."""
    (tmp_path / "prompts.txt").write_text("Go on.\nWhy?\nAnd then?\n")
    own = ("--data", "self", "--prompts", "prompts.txt", "--own-tokens", "2000", "--model", "mini", "--gpus", "2")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = retrofit(tmp_path, "--out", "out", *own, launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    lines = (tmp_path / "out" / "data" / "self.jsonl").read_text().splitlines()
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert len(lines) == record["data"]["entries"]
    assert 2000 <= sum(len(json.loads(line)["ids"]) for line in lines) < 2000 + 16 * 128
    assert out.count("in the torch engine") == 1
    # What cannot be had is one line, and ends both.
    (tmp_path / "prompts.txt").write_text("")
    process = retrofit(tmp_path, "--out", "none", *own, launcher=launcher)
    _, err = process.communicate(timeout=300)
    assert process.returncode
    assert "prompts.txt holds no prompts" in err


def test_a_refused_checkpoint_ends_a_shared_training_in_lines(tmp_path):
    """Not in tracebacks of `torchrun`, nor before the first process has drawn its picture."""
    process = retrofit(tmp_path, "--out", "out", "--gpus", "2", "--gate-lr", "1e-9")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert err.count("error: ") == 2  # why, said once, and that they ended
    assert err.splitlines()[-1].startswith("error: the 2 processes of the training ended early")
    assert "saves less than asked" in err
    assert (tmp_path / "out" / "training.png").exists()
    assert (tmp_path / "out" / "refused-dms2" / "README.md").exists()


@pytest.mark.slow
def test_a_shared_training_that_is_ended_goes_on_bit_for_bit(tmp_path):
    """By SIGTERM to the command, and by SIGKILL of one of its processes; the state is that of all of them."""
    options = ("--gpus", "2", "--save-minutes", "0", "--steps-per-unit", "14", "--cr", "2,3")
    unbroken = retrofit(tmp_path, "--out", "unbroken", *options)
    _, err = unbroken.communicate(timeout=300)
    assert unbroken.returncode == 0, err
    out = tmp_path / "broken"
    for least, kill in ((4, signal.SIGTERM), (14, signal.SIGKILL)):
        process = retrofit(tmp_path, "--out", "broken", *options)
        while process.poll() is None and steps_kept(out) < least:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()
        if kill == signal.SIGTERM:
            process.send_signal(kill)
        else:
            os.kill(worker_of(process.pid), kill)
        process.communicate(timeout=300)
        assert process.returncode
        assert steps_kept(out) >= least
        assert not (out / "dms3").exists()
    last = retrofit(tmp_path, "--out", "broken", *options)
    _, err = last.communicate(timeout=300)
    assert last.returncode == 0, err
    for name in ("dms2", "dms3"):
        files = [tmp_path / folder / name / "model.safetensors" for folder in ("unbroken", "broken")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(out.glob("state*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_whole_group_comes_once(tmp_path, number):
    """As from a terminal: one that came twice would end the processes at once, without their state."""
    process = retrofit(tmp_path, "--out", "out", "--gpus", "2", "--steps-per-unit", "200", own_group=True)
    wait_for_a_step(process, tmp_path / "out")
    os.killpg(process.pid, number)
    process.communicate(timeout=300)
    assert process.returncode
    assert steps_kept(tmp_path / "out") > 0


@pytest.mark.slow
def test_a_training_under_nohup_outlives_its_terminal(tmp_path):
    """SIGHUP ends neither the command nor ``torchrun`` nor one of the processes."""
    process = retrofit(tmp_path, "--out", "out", "--gpus", "2", "--steps-per-unit", "20", before=("nohup",))
    wait_for_a_step(process, tmp_path / "out")
    worker = worker_of(process.pid)
    for pid in (worker, parent_of(worker), process.pid):
        os.kill(pid, signal.SIGHUP)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    checkpoint(tmp_path / "out")


@pytest.mark.slow
def test_a_training_whose_command_is_killed_holds_its_folder_until_it_has_ended(tmp_path):
    """It ends with its state, as by SIGTERM; the same command given again does not write beside it before."""
    command = ("--out", "out", "--gpus", "2", "--steps-per-unit", "200")
    process = retrofit(tmp_path, *command)
    wait_for_a_step(process, tmp_path / "out")
    slow = worker_of(process.pid)
    os.kill(slow, signal.SIGSTOP)
    try:
        process.kill()
        process.wait()
        again = retrofit(tmp_path, *command)
        _, err = again.communicate(timeout=300)
    finally:
        os.kill(slow, signal.SIGCONT)
    process.communicate(timeout=300)  # returns when all who write to its pipes have ended
    assert again.returncode == 2
    assert err.startswith("error: another retrofit is writing to out: wait for it or end it, or pass another --out")
    assert err.count("\n") == 1
    assert steps_kept(tmp_path / "out") > 0


def test_a_folder_that_is_held_is_refused_in_every_process(tmp_path):
    (tmp_path / "out").mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with take_lock(tmp_path / "out" / ".lock"):
        process = retrofit(tmp_path, "--out", "out", "--gpus", "2", launcher=launcher)
        _, err = process.communicate(timeout=300)
    assert process.returncode
    assert "unforeseen" not in err
    assert "error: another retrofit is writing to out" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_state_that_takes_longer_than_torchrun_waits_by_itself_is_kept(tmp_path):
    process = retrofit(tmp_path, "--out", "out", "--gpus", "2", "--steps-per-unit", "200")
    wait_for_a_step(process, tmp_path / "out")
    slow = worker_of(process.pid)
    os.kill(slow, signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    time.sleep(35)
    os.kill(slow, signal.SIGCONT)
    process.communicate(timeout=300)
    assert steps_kept(tmp_path / "out") > 0


def wait_for_a_step(process, out):
    """Return once a step has been reported."""
    metrics = out / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)


def steps_kept(out):
    """The last step of which the parts of both processes are there."""
    steps = [{int(path.name.split("-")[1]) for path in out.glob(f"state-*-{rank}of2.pt")} for rank in range(2)]
    return max(set.intersection(*steps), default=0)


def parent_of(pid):
    """The process that has started one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def worker_of(pid):
    """A process of a training that a command has started through ``torchrun``."""
    children = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(parent_of(folder.name), []).append(int(folder.name))
        except OSError:
            continue
    (launcher,) = children[pid]
    return next(
        worker for worker in children[launcher] if "RANK=1" in Path(f"/proc/{worker}/environ").read_text().split("\0")
    )
