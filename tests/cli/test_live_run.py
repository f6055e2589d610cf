"""What a run shows, in a terminal and in a pipe, while it really runs a tiny random checkpoint."""

import dataclasses
import io
import re

import checkpoints
import pytest
from rich.console import Console
from synthetic_samples import sample, with_whole

from hyperscale import models
from hyperscale.cli.display import table_format
from hyperscale.cli.display.live_run import ConsoleObserver
from hyperscale.results.store import Store
from hyperscale.run import chain_runner, execute, prepare
from hyperscale.run.config import load
from hyperscale.run.engines.cache import EngineCache
from hyperscale.run.observer import ArmSize
from hyperscale.run.progress.arm_progress import ArmProgress
from hyperscale.utils import quantities

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    weights = checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(8,))
    values = {"model": str(weights), "methods": ["vanilla", "dms"], "tasks": ["mini_aime", "mini_lcb"], "grid": "mini"}
    return prepare.prepare_run(load.make_config({**values, "budget": "0.2x", "limit": 2}), lambda text: None)


def show(run, folder, *, terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None, legacy_windows=False)
    display = ConsoleObserver(console)
    try:
        execute.execute_run(run, folder, display)
    finally:
        display.close()
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_is_shown_from_plan_to_margins(run, tmp_path, terminal):
    text = show(run, tmp_path, terminal=terminal)
    place = 0
    for part in (
        "Plan",
        "chains to generate",
        "writing to",
        "vanilla",
        "dms 8×",
        "Frontiers by kv_reads",
        "Margins over",
    ):
        place = text.index(part, place)
    chains = sum(len(run.plan.chains(arm, "mini_aime")) * 4 for arm in run.methods if arm.method == "dms")
    assert f"{chains}/{chains}" in text
    assert ("━" in text.split("writing to")[1].split("Frontiers")[0]) == terminal
    assert ("\x1b" in text) == terminal
    again = show(run, tmp_path, terminal=terminal)
    assert "finished chains: resuming" in " ".join(again.split())  # wherever the line was wrapped
    assert again[again.index("Frontiers") :] == text[text.index("Frontiers") :]


def test_small_models_show_a_first_chain_of_each_method_and_keep_it(run, tmp_path, monkeypatch):
    find = models.find
    monkeypatch.setattr(models, "find", lambda name: dataclasses.replace(find(name), demonstrate=True))
    text = show(run, tmp_path / "a", terminal=False)
    first = run.problems["mini_aime"][0]
    start = " ".join(first.doc.prompt.split())[:60]
    shown = re.split(r"(?m)^vanilla: 1/\d+ chains$", text)[0]  # the chain shown is not generated again
    assert shown.index("chains to generate") < shown.index(start)
    assert shown.count("KV reads") == 2
    assert "fewer reads than a full cache" in shown
    assert text.count("finished chains") == 0
    monkeypatch.setattr(models, "find", find)
    show(run, tmp_path / "b", terminal=False)
    lines = [(tmp_path / name / "samples.jsonl").read_text().count("\n") for name in "ab"]
    assert lines[0] == lines[1]
    assert "KV reads" not in show(run, tmp_path / "a", terminal=False)
    assert "would hold" not in text  # nothing moves in a pipe


def test_a_terminal_shows_a_first_chain_as_it_is_decoded(run, tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None, legacy_windows=False)
    display = ConsoleObserver(console)
    with Store(tmp_path / "run", run.info()) as store:
        chain_runner.ChainRunner(run, store, display, EngineCache()).demonstrate()
        display.close()
        assert len(store) == 2
        chains = {sample.method: sample for sample in store.samples()}
    text = console.file.getvalue()
    for method in ("vanilla", "dms 8×"):
        full = len(next(iter(run.problems.values()))[0].prompt_ids)
        assert f"{method} · 1 tokens · " in text
        assert f"KV entries live, a full cache would hold {full}" in text
    assert chains["vanilla"].text.split()[0] in text
    assert text.count("problem ") >= 1
    assert text.rindex("would hold") < text.rindex("KV reads · peak")


def test_running_figures(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("hyperscale.run.progress.arm_progress.time.monotonic", lambda: now[0])
    tally = ArmProgress(ArmSize(chains=4, max_tokens=400, batch_size=2))
    assert str(tally) == "2 chains running"
    chain = with_whole(sample(tokens=50, prompt_tokens=25, seconds=5.0), kv_reads=245.0)
    tally.add(chain, new=True)  # a full cache reads 49·25 + 49·50/2 = 2450
    now[0] += 5
    # Two chains in flight at 10 tokens/s each; three to go of 1/4·50 + 3/4·100 tokens.
    assert str(tally) == "realised CR 10.0 · 20 tokens/s · about 0:13 left"
    assert tally.describe(40) == "20 tokens/s · about 0:13 left"
    assert tally.describe(16) == "about 0:13 left"
    assert tally.describe(10) == "0:13 left"
    assert tally.describe(5) == ""
    short = with_whole(sample(tokens=50, prompt_tokens=0, seconds=5.0), kv_reads=245.0, correct=False)
    for _ in range(3):
        tally.add(short, new=True)
    now[0] += 75
    assert str(tally) == "realised CR 6.2 · 2.5 tokens/s in 1:20"
    now[0] += 4000
    assert str(tally) == "realised CR 6.2 · 0.049 tokens/s in 1:08:00"  # slow, but not 0
    old = ArmProgress(ArmSize(chains=1, max_tokens=100, batch_size=2))
    old.add(chain, new=False)
    assert "tokens/s" not in str(old)
    empty = ArmProgress(ArmSize(chains=2, max_tokens=100, batch_size=2))
    empty.add(with_whole(sample(tokens=1), tokens=0, kv_reads=0.0))
    assert "tokens/s" not in str(empty)


def chains_of(problem, right_at, **more):
    """A chain for each entry: at which of 256, 512 and 1024 its answer is right, if it is cut there."""
    return [
        sample(
            problem, chain, tokens=2000, L=1024, answers=["1" if L in right else None for L in (256, 512, 1024)], **more
        )
        for chain, right in enumerate(right_at)
    ]


def test_right_answers_are_counted_at_each_l_over_finished_problems():
    at = {("mini_aime", L): 2 for L in (256, 512, 1024)}
    size = ArmSize(chains=4, max_tokens=4096, batch_size=4, chains_at=at)
    vanilla = ArmProgress(size)
    first, second = (chains_of(f"p{p}", right) for p, right in enumerate([({512, 1024}, {1024}), ((), ())]))
    vanilla.add(first[0])
    assert "right at" not in str(vanilla)  # one of its two chains: not finished
    vanilla.add(first[1])
    assert str(vanilla).startswith("right at L 256/512/1024: 0/50/100 % of 1 problem · ")
    for chain in second:
        vanilla.add(chain)
    assert str(vanilla).startswith("right at L 256/512/1024: 0/25/50 % of 2 problems · ")
    # Another arm that has only the first problem is held against vanilla on that one, not on both.
    dms = ArmProgress(ArmSize(4, 4096, 4, at | {("mini_aime", 2048): 9}), reference=("vanilla", vanilla))
    for chain in chains_of("p0", ({256, 512, 1024}, {1024}), method="dms", CR=8.0):
        dms.add(chain)
    assert str(dms).startswith("right at L 256/512/1024: 50/50/100 % of 1 problem (vanilla 0/50/100) · ")
    assert dms.figures().right_at[1] == (512, 1, 0.5, 0.5)
    assert re.fullmatch(r"100 % of 1 right at L 1024 · \d+:\d\d left", dms.describe(45))
    # A problem that vanilla has not finished: nothing to compare with.
    for chain in chains_of("p2", ((), ()), method="dms", CR=8.0):
        dms.add(chain)
    assert "(vanilla" not in str(dms)


def test_chains_of_a_rule_that_depends_on_l_count_at_their_own_l():
    at = {("mini_aime", L): 1 for L in (512, 1024)}
    tova = ArmProgress(ArmSize(2, 1536, 2, at))
    tova.add(sample(method="tova", CR=8.0, tokens=300, L=1024, length_invariant=False))
    assert str(tova).startswith("right at L 1024: 100 % of 1 problem · ")
    tova.add(sample(method="tova", CR=8.0, tokens=300, L=512, answer="2", length_invariant=False))
    assert str(tova).startswith("right at L 512/1024: 0/100 % of 1 problem · ")


def test_an_accuracy_without_an_error():
    assert table_format.format_accuracy(50.0, 1.26) == "50.0 ± 1.3"
    assert table_format.format_accuracy(50.0, 0.04) == "50.0 ± <0.1"
    assert table_format.format_accuracy(100.0, float("nan")) == "100.0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(
            (0, "0"),
            (3, "3"),
            (3.0, "3"),
            (0.4213, "0.421"),
            (0.1, "0.1"),
            (9.87654, "9.88"),
            (9.999, "10"),
            (12.3, "12"),
        ),
        *((950.4, "950"), (9999, "9,999"), (12345, "12.3K"), (4.561e6, "4.56M"), (2**33, "8.59G"), (3e12, "3T")),
    ],
)
def test_quantities(value, text):
    assert quantities.format_quantity(value) == text
