"""Whole runs of checkpoints that write what models of each family write: answers, verdicts, cuts and scores."""

import json

import commandline
import pytest
import scripted

from hyperscale import tasks
from hyperscale.results import regrade
from hyperscale.results.manifest import SAMPLES
from hyperscale.results.sample_file import read_samples
from hyperscale.run import prepare
from hyperscale.run.config.load import make_config
from hyperscale.run.execute import execute_run
from hyperscale.run.observer import RunObserver


@pytest.fixture
def run_command(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


TARGET = tasks.load("mini_aime").docs(1)[0].target
RIGHT = f"The answer is \\boxed{{{TARGET}}}."
WRONG = "Perhaps \\boxed{-1}? "


def run(folder, model, **settings):
    """The samples and points of a run on the first problem of mini_aime."""
    asked = {"model": str(model), "tasks": ["mini_aime"], "limit": 1, "budget": "all", "predict": "closed"}
    config = make_config(asked | {"lengths": [4, 64], "grid": "mini", "temperature": 0} | settings)
    points = execute_run(prepare.prepare_run(config, lambda text: None, folder), folder, RunObserver())
    return list(read_samples(folder / SAMPLES)), points


#: Pieces that a model writes, one token each, and its chat template.
SCRIPTS = {
    "does not think": ([WRONG, "No. ", RIGHT], scripted.TEMPLATE),
    "a base model": ([WRONG, "No. ", RIGHT], None),
    "the prompt opens it": ([WRONG, "</think>", RIGHT], scripted.TEMPLATE + "<think>"),
    "the model opens it": (["<think>", WRONG, "</think>", RIGHT], scripted.TEMPLATE),
    "the prompt closes it": ([WRONG, "No. ", RIGHT], scripted.TEMPLATE + "<think></think>"),
    "Magistral": (["[THINK]", WRONG, "[/THINK]", RIGHT], scripted.TEMPLATE),
    "marks of its own": (["<|think_start|>", WRONG, "<|think_end|>", RIGHT], scripted.TEMPLATE),
}


@pytest.mark.parametrize("special", [True, False], ids=["special tokens", "plain tokens"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_right_answer_is_right_whatever_the_model_writes_around_it(tmp_path, name, special):
    script, template = SCRIPTS[name]
    marks = [piece for piece in script if piece[0] in "<["]
    after = ["\n"] if template is None else [scripted.TURN, "<think>", "</think>"]
    if "</think>" in script:
        after.remove("</think>")
    if "<think>" in script:
        after.remove("<think>")
    model = scripted.write(tmp_path / "model", script, after=after, template=template, special=marks if special else ())
    (sample, *_), points = run(tmp_path / "run", model)
    assert sample.text == "".join(script)
    assert (sample.whole.answer, sample.whole.correct) == (str(TARGET), True)
    assert {point.row()["accuracy"] for point in points if point.L == 64} == {100.0}
    # Verdicts from the stored chains alone are the same, and cuts too.
    answers = [cut.answer for cut in sample.cuts]
    regrade.regrade(tmp_path / "run")
    (again, *_) = read_samples(tmp_path / "run" / SAMPLES)
    assert [cut.answer for cut in again.cuts] == answers
    assert again.opened == ("<think>" if name == "the prompt opens it" else "")


RAMBLING = ["Let ", "me ", "see ", "what ", "there ", "is ", "to ", "be ", "done."]


def forced(folder, model, **settings):
    """The text and verdict of the answer that is forced after four tokens, and the text of the chain up to there."""
    (sample, *_), _ = run(folder, model, force_answer=4, **settings)
    cut = sample.cut_at(4)
    assert cut.forced.answer == str(TARGET)
    assert cut.forced.correct
    return sample.text[: cut.chars], cut.forced


@pytest.mark.parametrize("template", [scripted.TEMPLATE, None, scripted.TEMPLATE + "<think></think>"])
def test_a_model_that_does_not_think_answers_behind_the_tasks_cue(tmp_path, template):
    after = [scripted.TURN, "\n", "<think>", "</think>"]
    model = scripted.write(
        tmp_path / "model", RAMBLING, after=after, template=template, jumps={"{": f"{TARGET}}}", f"{TARGET}}}": "."}
    )
    before, answer = forced(tmp_path / "run", model)
    assert before == "Let me see what "
    assert answer.text.startswith(f"\n\n\\boxed{{{TARGET}}}.")
    assert (answer.inserted, answer.tokens) == (len("\n\n\\boxed{"), 4 + len("\n\n\\boxed{") + 4)


TAGS = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>"]
#: Marks that are tokens, what the prompt and the model open, what is inserted and in how many tokens, the last of them.
CLOSINGS = {
    "of several tokens": ([], "<think> ", [], "</think>", len("</think>"), ">"),
    "of one": (["<think>", "</think>"], "<think> ", [], "</think>", 1, "</think>"),
    "Magistral": (["[/THINK]"], "", ["[THINK]"], "[/THINK]", 1, "[/THINK]"),
    "of the tokenizer's own": (["<|think_end|>"], "", ["<|think_start|>"], "<|think_end|>", 1, "<|think_end|>"),
    "gpt-oss": (
        TAGS,
        "<|channel|>analysis<|message|> ",
        [],
        "assistant<|channel|>final<|message|>",
        len(TAGS) + len("assistantfinal"),
        "<|message|>",
    ),
    "Sky-T1": (
        ["<|end_of_thought|>", "<|begin_of_solution|>"],
        "",
        ["<|begin_of_thought|>"],
        "<|end_of_thought|>\n\n",
        len("..\n\n"),
        "<|begin_of_solution|>",
    ),
}


@pytest.mark.parametrize("special", [True, False], ids=["special tokens", "plain tokens"])
@pytest.mark.parametrize("name", CLOSINGS)
def test_an_open_thinking_is_closed_by_its_own_mark(tmp_path, name, special):
    tokens, tail, opening, inserted, count, last = CLOSINGS[name]
    model = scripted.write(
        tmp_path / "model",
        [*opening, *RAMBLING],
        after=[scripted.TURN, " "],
        template=scripted.TEMPLATE + f"{{{{ '{tail}' }}}}",
        special=[*tokens, *opening] if special else (),
        jumps=dict.fromkeys(tokens, "?") | {last: RIGHT, RIGHT: scripted.END},
    )
    before, answer = forced(tmp_path / "run", model)
    assert before == "".join([*opening, *RAMBLING][:4])
    if special:  # the others leave no text
        assert answer.text == inserted + RIGHT
    assert (answer.finish, answer.inserted, answer.tokens) == ("stop", count, 4 + count + 2)


def test_the_end_of_a_text_without_thinking_is_put_off(tmp_path):
    model = scripted.write(tmp_path / "model", [WRONG], jumps={"t": RIGHT, RIGHT: scripted.END})
    (sample, *_), _ = run(tmp_path / "run", model, extend=1)
    assert sample.text == f"{WRONG}Wait{RIGHT}"
    assert sample.whole.correct
    assert sample.whole.inserted == len("Wait")


def test_a_thinking_that_ends_in_several_tokens_is_opened_again(tmp_path):
    closing = "</think>"
    spelled = dict(zip(closing, [*closing[1:], RIGHT], strict=True))
    model = scripted.write(
        tmp_path / "model",
        ["Hm. "],
        after=[scripted.TURN, "\n"],
        template=scripted.TEMPLATE + "{{ '<think>\n' }}",
        jumps=spelled | {"Hm. ": "<", "!": "So ", "So ": "<", RIGHT: scripted.END},
    )
    (sample, *_), _ = run(tmp_path / "run", model, extend=1, extend_word="Oh!")
    assert sample.text == f"Hm. </think><think>Oh!So </think>{RIGHT}"
    assert sample.whole.correct
    assert sample.whole.inserted == len("<think>Oh!")
    (plain, *_), _ = run(tmp_path / "plain", model)
    assert plain.text == f"Hm. </think>{RIGHT}"


CHATTER = ["I ", "think ", "about ", "something ", "else."]


@pytest.mark.parametrize(
    ("script", "shares", "said"),
    [
        (CHATTER, (0, 100), "at L = 64, 0% of the chains were cut off before an answer and 100% ended without one"),
        (["<think>", *CHATTER], (0, 100), "100% ended without one"),
        (["round ", "and "], (100, 0), "100% of the chains were cut off before an answer and 0% ended without one"),
        ([*CHATTER, RIGHT], (0, 0), None),
    ],
)
def test_a_run_says_that_most_chains_have_no_answer(tmp_path, run_command, script, shares, said):
    jumps = {"and ": "round "} if "and " in script else {}
    model = scripted.write(tmp_path / "model", script, jumps=jumps)
    asked = ["--model", str(model), "--task", "mini_aime", "--limit", "2", "--budget", "all", "--grid", "mini"]
    asked += ["--length", "64", "--temperature", "0", "--predict", "closed", "--out", str(tmp_path / "run")]
    code, out, _ = run_command("run", *asked)
    assert code == 0
    row = next(line for line in out.splitlines() if "vanilla  1-64-1" in line or "vanilla  1-4-1" in line)
    assert said is None or row.split()[-5:-3] == [str(share) for share in shares]
    notes = [line for line in out.splitlines() if line.startswith("note: mini_aime, vanilla: ")]
    assert len(notes) == bool(said)
    assert said is None or said in notes[0]
    points = (tmp_path / "run" / "points.csv").read_text().splitlines()
    assert ",truncated,no_answer" in points[0]
    code, out, _ = run_command("score", str(tmp_path / "run"))
    assert (said is None) or said in out
    asked[-1] = str(tmp_path / "events")
    code, out, _ = run_command("run", *asked, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [note for note in events[-1]["notes"] if said is None or said in note] == events[-1]["notes"][: bool(said)]
