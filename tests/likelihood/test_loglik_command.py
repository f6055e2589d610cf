"""``hyperscale loglik`` as a user meets it: its tables, its files, and the other commands beside them."""

import json

import architectures
import pandas as pd
import pytest
from commandline import caller, fails
from run_folders import write_run
from synthetic_samples import chains


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    architectures.write(tmp_path / "model", "llama")
    (tmp_path / "text.txt").write_text("A text that is long enough for several documents of twenty tokens. " * 5)
    return caller(monkeypatch, capsys, tmp_path)


COMMAND = ("loglik", "--model", "model", "--method", "vanilla,tova,window", "--cr", "2,4", "--length", "24")


def test_tables_and_files(call, tmp_path):
    code, out, err = call(*COMMAND, "text.txt")
    assert (code, err) == (0, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "13 documents"
    assert "nats a token: model, 13 documents, 23 tokens of each scored" in lines
    rows = {tuple(line.split()[:2]) for line in lines}
    assert {("vanilla", "1"), ("tova", "2"), ("tova", "4"), ("window", "2"), ("window", "4")} <= rows
    folder = tmp_path / "results" / "loglik" / "model__vanilla+tova+window__cr-2,4__24"
    assert lines[-1].startswith(f"wrote {folder.relative_to(tmp_path)}: likelihood.json, ")
    summary = json.loads((folder / "likelihood.json").read_text())
    arms, positions = (pd.read_csv(folder / f"{name}.csv") for name in ("likelihood", "positions"))
    assert len(summary["arms"]) == len(arms) == 5
    assert len(positions) == 5 * 23
    # The tables say one thing: what the positions and the documents hold is what the arms are means of.
    by_arm = positions.groupby(["method", "CR"], sort=False)["nats"].mean().to_numpy()
    assert arms["nats"].to_numpy() == pytest.approx(by_arm)
    documents = pd.read_csv(folder / "documents.csv")
    above = (documents["nats"] - documents["full_nats"]).groupby([documents["method"], documents["CR"]], sort=False)
    assert arms["above_full"].to_numpy() == pytest.approx(above.mean().to_numpy())
    assert (arms["above_full_low"] <= arms["above_full"]).all()
    pages = (folder / "likelihood.md").read_text().splitlines()
    assert [f"{row:.3f}" for row in arms["nats"]] == [line.split(" | ")[2] for line in pages if line.count("[") == 2]
    assert (folder / "likelihood.png").read_bytes().startswith(b"\x89PNG")


def test_other_commands_pass_its_folder_over(call, tmp_path):
    sampled = chains("vanilla", 1, problems=12, width=4)
    write_run(tmp_path / "results" / "run", sampled, planned={"vanilla": 48}, mtime=1e9)
    before = call("runs")
    assert call(*COMMAND, "text.txt")[0] == 0
    assert call(*COMMAND, "--out", "results/text", "text.txt")[0] == 0
    assert call("runs") == before
    assert call("show", "results")[0] == 0
    fails(call("show", "results/text"), "results/text holds no run")
    fails(call(*COMMAND, "--out", "results/run", "text.txt"), "--out results/run is the folder of a run")


def test_a_line_of_json(call):
    code, out, err = call(*COMMAND, "--json", "--documents", "3", "text.txt")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    values = json.loads(out)
    assert values["documents"] == 3
    assert values["arms"][0]["method"] == "vanilla"
    assert values["arms"][0]["kl_low"] is None  # too few documents


def test_mistakes_are_a_line(call):
    fails(call(*COMMAND, "none.txt"), "no file or folder none.txt")
    fails(call(*COMMAND, "--prompt-tokens", "24", "text.txt"), "--prompt-tokens 24 leaves nothing to score")
    fails(call("loglik", "--model", "model"), "Missing argument")
