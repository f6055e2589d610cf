"""Tasks that are scored by likelihood: lm-eval's choices and tokens, what does not apply, and what is refused."""

import json
import random
import re
from types import SimpleNamespace

import commandline
import numpy as np
import pytest
import yaml

from hyperscale import models, tasks
from hyperscale.engines import registry
from hyperscale.errors import ConfigError, ResultsError, TaskError, VerificationError
from hyperscale.kv.trace import dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.methods.registry import create
from hyperscale.models.prompts import PromptFormat
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.results import grading
from hyperscale.results.points import make_points
from hyperscale.results.samples import ScoredOption
from hyperscale.run import verification
from hyperscale.run.prompting import encode_options, scored_length
from hyperscale.scoring.graders.integer import IntegerGrader
from hyperscale.scoring.graders.likelihood import GREEDY, METRICS, LikelihoodGrader
from hyperscale.tasks.own_check import check_file
from hyperscale.utils.hub import load_tokenizer

ROWS = [
    {"q": "Edges: n31: n99. Start n31. Which can be reached?", "options": [" n99", " n01 n02", " n03"], "right": 0},
    {"q": "Edges: n05: n07. Start n05. Which can be reached?", "options": [" n08", " n07"], "right": 1},
]
CHOICE = {
    "task": "own_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl", "train": "rows.jsonl"}},
    "test_split": "test",
    "fewshot_split": "train",
    "fewshot_config": {"sampler": "first_n"},
    "num_fewshot": 1,
    "target_delimiter": "",
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": "options",
    "doc_to_target": "right",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


def write(folder, drop=(), rows=ROWS, **changes):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "own.yaml"
    values = {key: value for key, value in {**CHOICE, **changes}.items() if key not in drop}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def option(text="x", logprob=-1.0, **more):
    values = {"prompt_tokens": 10, "tokens": 3, "greedy": False, "kv_reads": 20.0, "peak_kv": 12.0, **more}
    return ScoredOption(text=text, logprob=logprob, **values)


def sample(options, task="own_choice", **more):
    from hyperscale.results.samples import Cut, Sample

    cut = Cut(L=8, tokens=6, kv_reads=40.0, peak_kv=12.0, logprob=-2.0, inserted=0, answer="0", correct=True, chars=0)
    values = {
        **{"model": "m", "method": "vanilla", "CR": 1.0, "length_invariant": True, "params": {}, "engine": "torch"},
        **{"dtype": "float32", "kv_dtype": "float32", "task": task, "task_version": "1", "problem": "0", "level": None},
        **{"prompt_hash": "", "seed": 0, "chain": 0, "L": 8, "prompt_tokens": 10, "finish": "stop", "seconds": 1.0},
        **{"kv_entry_bytes": 2, "text": "", "cuts": (cut,), "options": tuple(options)},
    }
    return Sample(**{**values, **more})


def test_choices_are_those_of_lm_eval(tmp_path):
    """Random log-probabilities, ties among them, through lm-eval's own `process_results`."""
    from lm_eval.api.task import ConfigurableTask

    write(tmp_path)
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS]
    files = {split: str(tmp_path / "rows.jsonl") for split in ("test", "train")}
    theirs = ConfigurableTask(config={**CHOICE, "metric_list": metrics, "dataset_kwargs": {"data_files": files}})
    rng, right = random.Random(3), dict.fromkeys(METRICS, 0)
    for _ in range(300):
        texts = ["".join(rng.choices("aé本 ", k=rng.randint(1, 5))) for _ in range(rng.randint(1, 5))]
        logprobs = [rng.choice([-1.0, -2.0, -3.5, -0.25 * rng.randint(1, 40)]) for _ in texts]
        doc = {"q": "q", "options": texts, "right": rng.randrange(len(texts) + 1)}  # the last is none of them
        found = theirs.process_results(doc, [(logprob, False) for logprob in logprobs])
        target = [str(doc["right"])] if doc["right"] < len(texts) else []
        options = [option(text, logprob) for text, logprob in zip(texts, logprobs, strict=True)]
        for metric in METRICS:
            grader = LikelihoodGrader(metric)
            correct = grader.correct(grader.choose(options), target)
            assert correct == bool(found[metric]), (metric, texts, logprobs)
            right[metric] += correct
    assert min(right.values()) > 50
    assert len(set(right.values())) > 1


def test_tokens_of_contexts_and_options_are_those_of_lm_eval():
    from lm_eval.api.model import TemplateLM

    tokenizer = load_tokenizer(models.resolve("mini", "vanilla", 1.0).path)
    ours = PromptFormat(tokenizer, template="none")
    model = SimpleNamespace(
        backend="causal",
        tok_encode=lambda text: tokenizer.encode(text, add_special_tokens=not text.startswith("<|user|>")),
    )
    rng = random.Random(5)
    pieces = ["Answer:", " n01", " n02", "1", "23", " A", " B)", "\n", "The answer is "]
    split = 0
    for _ in range(300):
        context = "".join(rng.choices(pieces, k=rng.randint(1, 4)))
        continuation = "".join(rng.choices(pieces, k=rng.randint(1, 3)))
        if not context.rstrip():
            continue
        theirs = TemplateLM._encode_pair(model, context, continuation)
        assert ours.encode_pair(context, continuation) == tuple(map(tuple, theirs))
        split += context != context.rstrip()
    assert split > 20  # whose last blank goes over to the option


def test_a_task_has_its_problems_as_lm_eval_makes_them(tmp_path):
    task = tasks.load(str(write(tmp_path)))
    assert (task.is_likelihood, task.strategy, task.greedy) == (True, "likelihood", True)
    assert task.new_grader().metric == "acc"  # the first
    first, second = task.docs()
    assert first.prompt == f"{ROWS[0]['q']} n99\n\n{ROWS[0]['q']}"  # the first of the other split
    assert [entry.continuation for entry in second.options] == [" n08", " n07"]
    assert (first.target, second.target) == (["0"], ["1"])
    none = task.with_parameters(num_fewshot="0", metric="acc_norm")
    assert none.docs()[0].prompt == ROWS[0]["q"]
    assert none.new_grader().metric == "acc_norm"
    for values, message in (
        ({"metric": "bleu"}, "metric of own_choice is one of acc, acc_norm, acc_bytes, not 'bleu'"),
        ({"num_fewshot": "-1"}, "num_fewshot of own_choice is a number of examples"),
        ({"fewshot_as_multiturn": "maybe"}, "is true or false"),
        ({"shots": 1}, "has no parameter 'shots'; it has: num_fewshot, fewshot_as_multiturn, metric"),
    ):
        with pytest.raises(TaskError, match=re.escape(message)):
            task.with_parameters(**values)
    report = check_file(write(tmp_path))
    assert not report.mistakes, report.text
    assert "0 right ' n99'" in report.text


def test_options_in_contexts_and_texts_alone(tmp_path):
    """Each option in a context of its own, as WinoGrande has it; and one text, right if greedy decoding gives it."""
    rows = [{"q": "n01", "options": ["a n03", "b n04"], "right": 1}]
    helpers = "def text(doc):\n    return doc['right']\n\n\ndef target(doc):\n    return ' reached'\n"
    (tmp_path / "helpers.py").write_text(helpers)
    path = write(tmp_path, rows=rows, num_fewshot=0)
    text = path.read_text().replace("'{{q}}'", "!function helpers.text")
    path.write_text(text.replace("doc_to_target: right", "doc_to_target: !function helpers.target"))
    (doc,) = tasks.load(str(path)).docs()
    assert [(entry.context, entry.continuation) for entry in doc.options] == [
        ("a n03", " reached"),
        ("b n04", " reached"),
    ]
    assert doc.target == ["1"]
    metrics = [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        CHOICE["metric_list"][0],
    ]
    changes = {"output_type": "loglikelihood", "doc_to_target": " n99", "metric_list": metrics}
    task = tasks.load(str(write(tmp_path, drop=("doc_to_choice",), num_fewshot=0, **changes)))
    (entry,) = task.docs()[0].options
    assert (entry.context, entry.continuation) == (ROWS[0]["q"], " n99")
    grader = task.new_grader()
    assert grader.metric == GREEDY
    for greedy in (True, False):
        assert grader.correct(grader.choose([option(greedy=greedy)]), task.docs()[0].target) is greedy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [64]}, "has lengths, which is for generated answers"),
        ({"grader": "contains"}, "has grader, which is for generated answers"),
        ({"gated": True}, "has gated, which would black out the options"),
        ({"metric": "acc_bytes"}, "has metric 'acc_bytes', which is none of its metric_list"),
        ({"metric_list": [{"metric": "f1"}]}, "metric_list has f1, and none of acc, acc_norm and acc_bytes"),
        ({"output_type": "generate_until", "metric_list": None, "metric": "acc"}, "has metric, which chooses one of"),
        ({"output_type": "loglikelihood_rolling"}, "output_type is the likelihood of whole texts"),
        ({"doc_to_choice": None}, "has no doc_to_choice"),
        ({"doc_to_choice": ["", "b"]}, "lm-eval cannot make the task|none of them empty"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused(tmp_path, changes, message):
    report = check_file(write(tmp_path, **changes))
    assert any(re.search(message, mistake) for mistake in report.mistakes), report.text


def test_no_value_is_more_than_a_typed_error(tmp_path):
    """Any key with any value, and any row: a task with problems, or a `TaskError`."""
    rng = random.Random(11)
    values = [None, 0, -1, 2.5, True, "", "x", "{{q}}", "{{", "{{none}}", [], ["a"], [["a"]], [None], {}, {"a": 1}]
    values += [[{}], [{"metric": None}], [{"metric": ["acc"]}], [{"metric": "acc", "x": 1}], ["", "b"], [1, 2]]
    outcomes = {"made": 0, "refused": 0}
    for _ in range(250):
        changes = {rng.choice(list(CHOICE)): rng.choice(values)}
        rows = [dict(row) for row in ROWS]
        if rng.random() < 0.4:
            changes = {}
            rows[rng.randrange(2)][rng.choice(["q", "options", "right"])] = rng.choice(values[:14])
        try:
            task = tasks.load(str(write(tmp_path, rows=rows, **changes)))
            docs = task.docs()
        except TaskError:
            outcomes["refused"] += 1
            continue
        outcomes["made"] += 1
        if task.is_likelihood:
            assert all(doc.options and all(option.text for option in doc.options) for doc in docs)
    assert min(outcomes.values()) > 40, outcomes


def test_votes_do_not_apply(run, tmp_path):
    path = write(tmp_path)
    command = ["run", "--model", "mini", "--task", path, "--dry-run"]
    commandline.fails(run(*command, "--vote", "majority"), "own_choice is scored by likelihood", "nothing votes")
    code, out, _ = run(*command, "--budget", "8x", "--json")
    assert code == 0
    assert {point["W"] for point in json.loads(out.splitlines()[-1])["points"]} == {1}
    (point,) = make_points([sample([option(), option()])], vote="pass@k", strategy_of_task={"own_choice": "majority"})
    assert (point.vote, point.W, point.L, point.row()["accuracy"]) == ("likelihood", 1, 8, 100.0)


def test_vllm_refuses_what_it_cannot_feed(tmp_path):
    provider = registry.get("vllm")
    with pytest.raises(ConfigError, match=r"own_choice is scored by the likelihood of given texts, which the vllm"):
        provider.check(["vanilla"], steering=False, kv_dtype="auto", likelihood="own_choice")
    for name in ("torch", "kvpress"):
        assert registry.get(name).scores_texts


def test_costs_of_options_are_those_of_their_tokens():
    chains = [option(kv_reads=23.0), option(prompt_tokens=4, tokens=1, kv_reads=0.0, peak_kv=4.0)]
    (point,) = make_points([sample(chains)], strategy_of_task={"own_choice": "majority"})
    assert point.realised_cr == pytest.approx((10 + 1 + 10 + 2) / 40)  # of a full cache: two steps of the first
    rule = create("window", cr=4)
    held = rule.allowance(10, 3, 3)
    method = Arm("window", 4.0)
    verification.check(method, rule, sample([option(peak_kv=held, kv_reads=2.0 * held)], method="window"), 0)
    for more in ({"peak_kv": 2.0 * held}, {"kv_reads": 4.0 * held}):
        with pytest.raises(VerificationError, match="did not compress as asked"):
            verification.check(method, rule, sample([option(**{"peak_kv": held, **more})], method="window"), 0)
    with pytest.raises(ResultsError, match="was scored by likelihood, and integer grades it now"):
        grading.extract_answers(IntegerGrader(), sample(chains))


def test_contexts_that_do_not_fit_lose_their_beginnings(tmp_path):
    """As `HyperscaleLM` has it: the last token is scored and never processed."""
    docs = tasks.load(str(write(tmp_path))).docs()
    prompt_format = PromptFormat(load_tokenizer(models.resolve("mini", "vanilla", 1.0).path), template="none")
    whole, note = encode_options(docs, prompt_format, None)
    assert note is None
    most = max(len(ids) + len(scored) - 1 for pairs in whole for ids, scored in pairs)
    assert encode_options(docs, prompt_format, most) == (whole, None)
    cut, note = encode_options(docs, prompt_format, 4)
    assert note == "5 of 5 contexts do not fit the model's 4 tokens: they are cut from the left"
    for pairs, others in zip(cut, whole, strict=True):
        for (ids, scored), (context, same) in zip(pairs, others, strict=True):
            assert scored == same
            assert ids == context[-(5 - len(scored)) :]
    with pytest.raises(TaskError, match=r"row 1 of test: an option of 2 tokens does not fit the model's context of 1"):
        encode_options(docs, prompt_format, 1)


def test_plans_count_the_reads_of_each_option():
    """Options of one token have none; else the closed form is what a full cache reads for them."""
    for prompt, tokens, count in ((50, 1, 4), (50, 8, 4), (7, 3, 2), (300, 16, 1)):
        shape = TaskShape("t", prompt, tokens * count, (tokens * count,), options=count)
        costs = Costs.predict(shape, 1, tokens * count, 1.0, 10)
        assert costs.kv_reads == count * dense_reads(prompt, tokens)
        assert costs.peak_kv == prompt + tokens - 1


def test_the_length_of_a_task_holds_all_options():
    rng = np.random.default_rng(0)
    for tokens in rng.integers(1, 5000, size=(200, 3)).tolist():
        L = scored_length(tokens)
        assert L >= max(tokens) > L // 2
    assert (scored_length([]), scored_length([1]), scored_length([64])) == (1, 1, 64)
