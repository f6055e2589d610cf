"""On GPUs only: the command goes on where it was ended, to the bit; two GPUs learn what one does."""

import json
import os
import subprocess
import sys

import pytest
import torch
from repository import ROOT
from safetensors.torch import load_file
from signalled_retrofit import SIGNALLED

from hyperscale.mini import WEIGHTS
from hyperscale.retrofit.reporting.metrics_file import read_metrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TEXT = "The search goes on from here, and each step names what it found before it turns back. "
OPTIONS = {
    "--model": "mini", "--data": "texts.jsonl", "--cr": "2,3", "--steps-per-unit": 16, "--hard-steps": 4,
    "--window": 16, "--length": 512, "--rows": 2, "--accumulate": 2, "--gate-lr": 0.01, "--device": "cuda",
}  # fmt: skip


def retrofit(folder, out, *flags, end_after=None, **changes):
    """The command in a process of its own; ended by SIGTERM in the middle of a step if one is named."""
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": f"{TEXT * 40}{i}"}) + "\n" for i in range(60)))
    given = OPTIONS | {"--out": out} | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    program = [sys.executable, *(["-m", "hyperscale.cli"] if end_after is None else ["-c", SIGNALLED, str(end_after)])]
    ended = subprocess.run(
        [*program, "retrofit", *(str(part) for pair in given.items() for part in pair), *flags],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == (0 if end_after is None else 2), ended.stderr
    return ended


@pytest.mark.parametrize("changes", [{}, {"recipe": "adapters", "hard_steps": 0}, {"weights": "bfloat16"}], ids=str)
def test_a_killed_command_goes_on_bit_for_bit(tmp_path, changes):
    """Compiled layers, kernels and CUDA graphs of steps are made anew in each process, and give the same numbers."""
    retrofit(tmp_path, "whole", **changes)
    for steps in (10, 24):  # in the first ratio, and past its checkpoint
        assert "the same command goes on" in retrofit(tmp_path, "broken", end_after=steps, **changes).stderr
    assert "going on after" in retrofit(tmp_path, "broken", **changes).stdout
    for name in ("dms2", "dms3"):
        expected, found = (load_file(tmp_path / out / name / "model.safetensors") for out in ("whole", "broken"))
        assert expected.keys() == found.keys()
        apart = [key for key, value in expected.items() if not torch.equal(value, found[key])]
        assert not apart, name


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("changes", [{}, {"recipe": "adapters", "hard_steps": 0}], ids=str)
def test_two_gpus_learn_what_one_does(tmp_path, changes):
    """But for rounding to bfloat16, whose effect a third training shows: one GPU, launched step by step."""
    runs = {"one": [], "two": ["--gpus", "2"], "launched": ["--no-cuda-graphs"]}
    for name, flags in runs.items():
        retrofit(tmp_path, name, *flags, cr=2, **changes)
    logs = {name: read_metrics(tmp_path / name) for name in runs}
    assert [line["step"] for line in logs["two"]] == [line["step"] for line in logs["one"]]
    assert logs["two"][0]["kl"] == pytest.approx(logs["one"][0]["kl"], rel=1e-2)
    records = {name: json.loads((tmp_path / name / "training.json").read_text())["dms"][0] for name in runs}
    assert records["two"]["tokens"] == records["one"]["tokens"]
    assert records["two"]["alpha"] == pytest.approx(records["one"]["alpha"], abs=0.02)
    assert records["two"]["kl_hard"] == pytest.approx(records["one"]["kl_hard"], rel=0.1)
    before = load_file(WEIGHTS / "base" / "model.safetensors")
    made = {name: load_file(tmp_path / name / "dms2" / "model.safetensors") for name in runs}

    def norm(name, other, keys):
        start = {key: torch.zeros(()) for key in keys} if other is None else other
        return sum((made[name][key].float() - start[key].float()).square().sum().item() for key in keys) ** 0.5

    gates = {key for key in made["one"] if ".dms_proj_alpha." in key}  # they begin at zero
    for keys, start in ((gates, None), (before.keys() if not changes else set(), before)):
        moved, apart, rounding = (
            norm("one", start, keys),
            norm("two", made["one"], keys),
            norm("one", made["launched"], keys),
        )
        assert bool(moved) == bool(keys)
        assert apart <= max(0.1 * moved, 2 * rounding), (moved, apart, rounding)
