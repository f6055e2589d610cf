"""The benchmark of vLLM: its table, what it refuses, and timing by what comes out of an engine's own process."""

from types import SimpleNamespace

import pytest
import vllm_throughput
from vllm_session import Session

INSIDE = {
    "requests": 4,
    "waiting": 2,
    "fill_s": 1.0,
    "ms_per_step": 10.0,
    "median_ms": 9.5,
    "tokens_per_s": 400.0,
    "kv_gib": 3.25,
    "attention_gb_per_s": 4100.0,
    "core_ms_per_step": 8.0,
    "core_idle_ms": 0.5,
    "gaps_ms": 0.25,
    "preemptions": 7,
    "where": {"gemm": 4.0},
    "core_parts_ms": {"schedule": 0.75},
}
OUTSIDE = {"requests": 8, "waiting": 0, "fill_s": 2.0, "ms_per_step": 20.0, "median_ms": 19.0, "tokens_per_s": 640.0}


class Engine:
    """Prefills one prompt a step while at most ``room`` requests run, and gives every running one a token.

    ``ahead`` is how many steps more the core has worked for when the first output is asked for.
    """

    def __init__(self, room=100, pause=(), ahead=0):
        self.room, self.pause, self.ahead, self.steps = room, pause, ahead, 0
        self.engine_core = SimpleNamespace(outputs_queue=SimpleNamespace(empty=lambda: self.steps >= self.ahead))
        self.waiting, self.running, self.aborted = [], {}, []
        self.vllm_config = SimpleNamespace(parallel_config=SimpleNamespace(tensor_parallel_size=1))

    def abort_request(self, names):
        self.aborted += names
        self.waiting = [request for request in self.waiting if request[0] not in names]
        self.running = {name: left for name, left in self.running.items() if name not in names}

    def has_unfinished_requests(self):
        return bool(self.waiting or self.running)

    def step(self):
        self.steps += 1
        if self.steps % 3 == 0:  # nothing has come out
            return []
        if self.waiting and len(self.running) < self.room:
            name, tokens = self.waiting.pop(0)
            self.running[name] = tokens
        outputs = []
        for name in list(self.running):
            if self.steps > 20 and name in self.pause:
                continue
            self.running[name] -= 1
            is_last = not self.running[name]
            outputs.append(SimpleNamespace(request_id=name, finished=is_last, outputs=[SimpleNamespace(token_ids=[1])]))
            if is_last:
                del self.running[name]
        return outputs


class FakeSession(Session):
    """Adds requests without vLLM."""

    def add(self, prompt, new, logprobs=None):
        self.count += 1
        self.engine.waiting.append((str(self.count), new))
        return str(self.count)


def cells(table):
    head, *lines = table.splitlines()
    starts = [head.index(name) for name in ("engine", "requests", "ms/step", "median", "core ", "core idle", "gaps")]
    starts += [
        head.index(name) for name in ("tokens/s", "KV GiB", "attention", "preempted", "fill", "prefill", "where")
    ]
    ends = [*starts[1:], None]
    return [[line[start:end].strip() for start, end in zip(starts, ends, strict=True)] for line in lines]


def test_the_table_has_a_dash_for_what_is_not_seen_in_another_process():
    inside = {"own_process": False, "prefill_tokens_per_s": 5000.0, "chains": INSIDE}
    outside = {"own_process": True, "prefill_tokens_per_s": 6000.0, "chains": {**OUTSIDE, "paused": 0}}
    outside["best"] = {**OUTSIDE, "paused": 3}
    old = {"prefill_tokens_per_s": 5000.0, "chains": INSIDE}  # of files from before there was a choice
    engines = {"ours": inside, "stock": outside, "old": old, "prefill": {"prefill_tokens_per_s": 1.0}}
    numbers = ["10.00", "9.50", "8.00", "0.50", "0.25", "400.00", "3.25", "4100.00", "7", "1.0", "5000"]
    seen = ["20.00", "19.00", "-", "-", "-", "640.00", "-", "-", "-", "2.0", "6000"]
    note = "the core in a process of its own"
    assert cells(vllm_throughput.table({"engines": engines})) == [
        ["ours", "4", *numbers, "gemm 4.00; core: schedule 0.75"],
        ["stock", "8 (all)", *seen, note],
        ["stock", "8 (all)", *seen, f"{note}; 3 requests paused"],
        ["old", "4", *numbers, "gemm 4.00; core: schedule 0.75"],
    ]


def test_decode_is_timed_by_what_comes_out():
    session = FakeSession(Engine(), own_process=True)
    found = session.decode_by_outputs(4, 10, 20, 8)
    assert (found["requests"], found["outputs"], found["paused"]) == (4, 20, 0)
    assert found["ms_per_step"] * found["tokens_per_s"] == pytest.approx(1e3 * 4)
    assert found["median_ms"] <= max(found["slowest_ms"])
    assert session.engine.aborted == ["1", "2", "3", "4"]
    assert not session.engine.has_unfinished_requests()
    assert session.decode_by_outputs(2, 10, 5, 8)["outputs"] == 5


def test_what_the_core_did_before_is_not_timed():
    session = FakeSession(Engine(ahead=60), own_process=True)
    assert session.decode_by_outputs(4, 10, 20, 8)["outputs"] == 20
    assert session.engine.steps >= 60 + 20 + 9  # a third of them without outputs


def test_requests_that_stand_still_meanwhile_are_told():
    session = FakeSession(Engine(pause=("2", "3")), own_process=True)
    assert session.decode_by_outputs(4, 10, 20, 8)["paused"] == 2


def test_requests_that_do_not_run_at_once_are_not_timed():
    session = FakeSession(Engine(room=3), own_process=True)
    with pytest.raises(RuntimeError, match="one of 4 requests ended before all ran at once: offer fewer"):
        session.decode_by_outputs(4, 10, 20, 8)


@pytest.mark.parametrize("options", [["--answers", "3"], ["--host"]])
def test_nothing_looks_into_a_core_in_its_own_process(monkeypatch, capsys, options):
    monkeypatch.setattr("sys.argv", ["vllm_throughput.py", "--toy", "--own-process", *options])
    with pytest.raises(SystemExit):
        vllm_throughput.main()
    assert f"{options[0]} looks into the engine's core" in capsys.readouterr().err


def test_the_other_process_must_find_the_plugin(monkeypatch, capsys):
    monkeypatch.setattr(vllm_throughput, "entry_points", lambda **_: ())
    asked = []
    monkeypatch.setattr(vllm_throughput, "run", asked.append)
    command = ["vllm_throughput.py", "--toy", "--own-process", "--engines"]
    monkeypatch.setattr("sys.argv", [*command, "stock,ours:fp8"])
    with pytest.raises(SystemExit):
        vllm_throughput.main()
    assert "needs the package installed" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*command, "stock,stock:fp8"])
    vllm_throughput.main()
    assert asked[0].most == 0
