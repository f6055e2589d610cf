"""Choosing a strategy for finished runs, and reward models: tiny random ones, and one whose scores are known."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from synthetic_samples import forced_answer, sample
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from hyperscale import results, tasks
from hyperscale.errors import ConfigError, ModelError, ResultsError
from hyperscale.mini.vocab import PADDED_SIZE, build_tokenizer
from hyperscale.results import regrade, revote
from hyperscale.results.manifest import POINTS, RUN_FILE, SAMPLES, read_date
from hyperscale.results.store import Store
from hyperscale.scoring.voting import reward_models

MAIN = "from hyperscale.cli.main import main; main()"
INFO = {"config": {"model": "mini", "limit": 3}, "tasks": {"mini_aime": "1.0"}}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
SIZES = {**SMALL, "intermediate_size": 48, "vocab_size": PADDED_SIZE, "max_position_embeddings": 512}


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A tiny random reward model in the built-in vocabulary."""
    folder = tmp_path_factory.mktemp("judges") / "judge"
    torch.manual_seed(0)
    LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=1, pad_token_id=0)).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def text(number):
    return rf"so</think>The answer is \boxed{{{number}}}."


def write(folder, force_answers=False):
    """Three problems with four chains; chain c's answer is c more than the target."""
    with Store(folder, INFO) as store:
        for doc in tasks.load("mini_aime").docs(3):
            for chain in range(4):
                store.append(chain_of(doc, chain, force_answers))
        store.write_points()


def chain_of(doc, chain, force_answers):
    answer, right = str(int(doc.target) + chain), chain == 0
    said = text(answer)
    costs = {"tokens": 260, "logprob": -260.0 + chain, "seconds": 0.1, "kv_reads": 9.0, "peak_kv": 9.0}
    forced = {256: forced_answer(256, answer, correct=right, text=said[2:], **costs)} if force_answers else None
    line = sample(
        doc.id,
        chain,
        tokens=300,
        answer=answer,
        right=right,
        text=said,
        logprobs=[-250.0, -300.0 + chain],
        forced=forced,
        prompt_hash=tasks.prompt_hash(doc.prompt),
    )
    first, whole = line.cuts
    return replace(line, cuts=(replace(first, chars=2), replace(whole, chars=len(said))))


def accuracy(folder, W=4, L=2048):
    table = pd.read_csv(folder / POINTS)
    (row,) = table[(table.W == W) & (table.L == L)].itertuples()
    return row.accuracy, row.vote


def reference(folder, prompt, said):
    """The model's output for one conversation, by transformers' own pipeline of calls."""
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": said}]
    rendered = build_tokenizer().apply_chat_template(messages, tokenize=False)
    ids = build_tokenizer()(rendered, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        return float(model(ids).logits[0, 0])


def test_a_run_is_given_other_strategies_and_its_own_again(tmp_path):
    write(tmp_path)
    chains = (tmp_path / SAMPLES).read_bytes()
    revote.revote(tmp_path, "task")
    first = (tmp_path / POINTS).read_bytes()
    for vote, wanted in (
        ("pass@k", (100, "pass@k")),
        ("mean@k", (25, "mean@k")),
        ("pass@all", (100, "pass@all")),
        ("best-of-n", (0, "best-of-n:logprob")),
    ):
        points = revote.revote(tmp_path, vote)
        assert accuracy(tmp_path) == wanted
        assert {point.vote for point in points} == {wanted[1]}
        (run,) = results.read(tmp_path)
        assert run.vote == wanted[1]
        with Store(tmp_path, INFO) as store:  # a resumed run goes on with it
            assert {point.vote for point in store.write_points()} == {wanted[1]}
    revote.revote(tmp_path, "task")
    assert (tmp_path / POINTS).read_bytes() == first
    assert (tmp_path / SAMPLES).read_bytes() == chains
    assert "vote" not in json.loads((tmp_path / RUN_FILE).read_text())


def test_a_chain_added_later_has_the_runs_vote(tmp_path):
    write(tmp_path)
    revote.revote(tmp_path, "mean@k")
    with Store(tmp_path, INFO) as store:
        store.append(sample("another"))
        assert {point.vote for point in store.write_points()} == {"mean@k"}
    assert b'"vote"' not in (tmp_path / SAMPLES).read_bytes()


def test_a_reward_models_template_that_fails_is_one_line(tmp_path, judge):
    broken = shutil.copytree(judge, tmp_path / "broken")
    (broken / "chat_template.jinja").write_text("{{ raise_exception('no!') }}")
    with pytest.raises(ModelError, match=r"chat template fails: no! \(choose another model with --scorer\)"):
        reward_models.RewardModel(str(broken)).score("a", "b")


def test_a_reward_model_scores_every_answer_and_chooses_by_it(tmp_path, judge):
    write(tmp_path, force_answers=True)
    steps = []
    revote.revote(tmp_path, "best-of-n", str(judge), step=lambda *done: steps.append(done))
    assert steps[-1] == (12, 12)
    (run,) = results.read(tmp_path)
    docs = {doc.id: doc for doc in tasks.load("mini_aime").docs(3)}
    best = dict.fromkeys(docs, (-1e9, None))
    for line in run.samples:
        wanted = reference(judge, docs[line.problem].prompt, line.text)
        first, whole = line.cuts
        assert first.scores == {}  # the first cut has no answer
        score = whole.scores["judge"]
        assert score == pytest.approx(wanted, abs=1e-5)
        assert first.forced.scores["judge"] == score  # the same text
        best[line.problem] = max(best[line.problem], (score, line.chain))
    wanted = 100 * sum(chain == 0 for _, chain in best.values()) / 3
    for L in (256, 2048):
        assert accuracy(tmp_path, L=L) == (pytest.approx(wanted), "best-of-n:judge")
    assert len({score for score, _ in best.values()}) == 3
    revote.revote(tmp_path, "majority")
    revote.revote(tmp_path, "best-of-n:judge")  # the scores are still there
    assert accuracy(tmp_path)[1] == "best-of-n:judge"
    regrade.regrade(tmp_path)  # and stay
    assert accuracy(tmp_path)[1] == "best-of-n:judge"


def test_two_outputs_and_long_texts(tmp_path):
    torch.manual_seed(1)
    model = LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=2, pad_token_id=0)).eval()
    model.save_pretrained(tmp_path / "two")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "two")
    said = text(7) * 100
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode(f"f(n)=\n\n{said}")[-512:]])).logits[0]
    wanted = float(logits[1] - logits[0])
    assert reward_models.RewardModel(str(tmp_path / "two")).score("f(n)=", said) == pytest.approx(wanted, abs=1e-5)


def test_regrading_grades_forced_answers(tmp_path):
    write(tmp_path, force_answers=True)

    def nonsense(line):
        first, whole = line.cuts
        return replace(line, cuts=(replace(first, forced=replace(first.forced, answer="0", correct=True)), whole))

    with Store(tmp_path, INFO) as store:
        store.replace(map(nonsense, store.samples()))
    done = regrade.regrade(tmp_path)
    assert (done.answers, done.verdicts) == (12, 9)
    (run,) = results.read(tmp_path)
    for line in run.samples:
        (forced,) = line.forced_answers
        assert forced.answer == line.whole.answer
        assert forced.correct == (line.chain == 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokens", None), ("text", 3), ("answer", 3), ("correct", "yes"), ("kv_reads", -1), ("finish", "soon"), ("at", 1)],
)
def test_corrupt_forced_answers_are_refused(tmp_path, name, value):
    write(tmp_path, force_answers=True)
    lines = (tmp_path / SAMPLES).read_text().splitlines(keepends=True)
    line = json.loads(lines[0])
    line["cuts"][0]["forced"][name] = value
    (tmp_path / SAMPLES).write_text(json.dumps(line) + "\n" + "".join(lines[1:]))
    with pytest.raises(ResultsError, match=rf"line 1 is corrupt \(cuts\.0\.forced\.{name} "):
        results.read(tmp_path)


def test_what_cannot_be_used_is_refused_and_changes_nothing(tmp_path, judge):
    write(tmp_path / "run")
    # The day that a run without one began is kept whenever its description is written.
    info = json.loads((tmp_path / "run" / RUN_FILE).read_text()) | {"date": read_date(tmp_path / "run").isoformat()}
    (tmp_path / "run" / RUN_FILE).write_text(json.dumps(info))
    before = [(tmp_path / "run" / name).read_bytes() for name in (RUN_FILE, SAMPLES, POINTS)]
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(tmp_path / "writer")
    LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=5)).save_pretrained(tmp_path / "five")
    for folder in ("writer", "five"):
        build_tokenizer().save_pretrained(tmp_path / folder)
    (tmp_path / "empty").mkdir()
    for vote, scorer, error, said in (
        ("luck", None, ConfigError, "--vote: unknown strategy 'luck'.*majority, .*best-of-n, or task for each task's"),
        ("likelihood", None, ConfigError, "only tasks scored by likelihood"),
        ("majority", str(judge), ConfigError, "--scorer goes with --vote best-of-n"),
        ("task", "logprob", ConfigError, "--scorer goes with --vote best-of-n"),
        ("best-of-n:judge", None, ResultsError, "no score by judge"),
        ("best-of-n", str(tmp_path / "absent"), ModelError, "no scorer"),
        ("best-of-n", str(tmp_path / "empty"), ModelError, "holds no config.json"),
        ("best-of-n", str(tmp_path / "five"), ModelError, "5 outputs"),
        ("best-of-n", str(tmp_path / "writer"), ModelError, "no reward model, it lacks score.weight|2 outputs"),
    ):
        with pytest.raises(error, match=said):
            revote.revote(tmp_path / "run", vote, scorer)
        assert [json.loads((tmp_path / "run" / RUN_FILE).read_bytes())] == [json.loads(before[0])]
        assert [(tmp_path / "run" / name).read_bytes() for name in (SAMPLES, POINTS)] == before[1:]


@pytest.mark.e2e
def test_the_command(tmp_path, judge):
    write(tmp_path / "run")

    def run(*args):
        command = [sys.executable, "-c", MAIN, "score", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(str(tmp_path / "run"), "--vote", "best-of-n", "--scorer", str(judge))
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 points with the strategy best-of-n:judge; rebuilt points.csv" in done.stdout
    assert accuracy(tmp_path / "run")[1] == "best-of-n:judge"
    for args, said in (
        (("--vote", "luck"), "unknown strategy"),
        (("--scorer", "logprob"), "--vote best-of-n"),
        (("--vote", "mean@k", "--sandbox", "none"), "nothing is graded"),
        (("--vote", "majority", "--device", "cuda"), "--vote best-of-n --scorer PATH"),
        (("--vote", "best-of-n", "--scorer", "logprob", "--device", "cpu"), "--vote best-of-n --scorer PATH"),
    ):
        done = run(str(tmp_path / "run"), *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_reward_model_with_tensors_that_its_class_does_not_have(tmp_path, judge):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(judge, tmp_path / "scaled")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight_scale"] = torch.ones(1)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    write(tmp_path / "run")
    with pytest.raises(ModelError, match=r"no place for: model.layers.0.self_attn.q_proj.weight_scale"):
        revote.revote(tmp_path / "run", "best-of-n", str(folder))
