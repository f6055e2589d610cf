"""Whole runs of checkpoints that write what models of each family write: answers, verdicts, cuts and scores."""

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
