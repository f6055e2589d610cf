"""A run on a gated task, with an engine that repeats the whole question in its chains."""

import dataclasses

import checkpoints
import pytest

from hyperscale import results, tasks
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.results import regrade
from hyperscale.run import execute, observer, prepare
from hyperscale.run.config import load as config

pytestmark = pytest.mark.e2e

TASK = "mini_gpqa"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    load = tasks.load
    monkeypatch.setattr(tasks, "load", lambda name: dataclasses.replace(load(name), gated=True))
    docs = {f"{TASK}/{doc.id}": doc for doc in load(TASK).docs(2)}
    generate = TorchEngine.generate

    def repeat(self, requests, sampling, watch=None):
        for chain in generate(self, requests, sampling, watch):
            doc = docs[chain.problem]
            text = f"They ask: {doc.prompt}\nSo.</think>{doc.prompt}\nAnswer: {doc.target}"
            trace = dataclasses.replace(chain.trace, chars=[len(text)] * len(chain.trace.lengths))
            yield dataclasses.replace(chain, text=text, trace=trace)

    monkeypatch.setattr(TorchEngine, "generate", repeat)
    weights = checkpoints.write(tmp_path / "weights")
    asked = {"model": str(weights), "methods": ["vanilla"], "tasks": [TASK], "limit": 2, "budget": "0.2x"}
    return prepare.prepare_run(config.make_config({**asked, "grid": "mini"}), lambda _: None)


def test_no_question_is_written_and_the_run_can_be_graded_again(prepared, tmp_path):
    folder = tmp_path / "run"
    execute.execute_run(prepared, folder, observer.RunObserver())
    written = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file())
    for problem in prepared.problems[TASK]:
        words = [word for word in problem.doc.prompt.split() if len(word) > 1]
        for i in range(len(words) - 5):
            assert " ".join(words[i : i + 6]) not in written
    (run,) = results.read(folder)
    assert all(sample.text.count("█") > 50 for sample in run.samples)
    assert all(cut.correct for sample in run.samples for cut in sample.cuts)
    done = regrade.regrade(folder)
    assert (done.answers, done.verdicts) == (0, 0)
