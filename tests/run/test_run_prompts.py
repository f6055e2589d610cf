"""Prompts of whole runs: their date, settings and templates, as they are planned, stored, resumed and refused."""

import json

import commandline
import pytest
import scripted

from hyperscale import tasks
from hyperscale.results.manifest import RUN_FILE, SAMPLES
from hyperscale.results.sample_file import read_samples

TARGET = tasks.load("mini_aime").docs(1)[0].target
SCRIPT = ["So ", f"\\boxed{{{TARGET}}}"]
DATED = "{{ 'Today: ' + strftime_now('%d %b %Y') + '. ' }}" + scripted.TEMPLATE
SWITCH = scripted.TEMPLATE + "{% if enable_thinking | default(true) %}<think>{% else %}<think></think>{% endif %}"


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


@pytest.fixture
def model(tmp_path):
    def write(template, **more):
        return scripted.write(tmp_path / "model", SCRIPT, template=template, **more)

    return write


OPTIONS = ("--task", "mini_aime", "--limit", "2", "--grid", "mini", "--budget", "all", "--length", "16")


def options(weights, *more, out="made"):
    return ("run", "--model", weights, *OPTIONS, "--temperature", "0", "--predict", "closed", "--out", out, *more)


def samples(folder):
    return list(read_samples(folder / SAMPLES))


def test_a_run_that_is_resumed_on_another_day_asks_as_before(model, call, tmp_path):
    weights = model(DATED)
    assert call(*options(weights))[0] == 0
    path, description = tmp_path / "made" / SAMPLES, tmp_path / "made" / RUN_FILE
    before, lines = samples(tmp_path / "made"), path.read_bytes().splitlines(keepends=True)
    # The run began forty days ago, and was killed in the middle.
    info = json.loads(description.read_text())
    info["date"] = "2026-01-02T03:04:05"
    info.pop("prompts")
    description.write_text(json.dumps(info))
    path.write_bytes(b"")
    assert call(*options(weights))[0] == 0
    old = samples(tmp_path / "made")
    assert {sample.prompt_hash for sample in old}.isdisjoint(sample.prompt_hash for sample in before)
    assert {sample.message_hash for sample in old} == {sample.message_hash for sample in before}
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    assert call(*options(weights))[0] == 0
    again = samples(tmp_path / "made")
    assert {s.key: s.prompt_hash for s in again} == {s.key: s.prompt_hash for s in old}
    assert len(lines) == len(again)
    assert call("score", "made")[0] == 0


def test_a_template_that_changed_is_another_run(model, call, tmp_path):
    assert call(*options(model(scripted.TEMPLATE)))[0] == 0
    (tmp_path / "model" / "chat_template.jinja").write_text("Please: " + scripted.TEMPLATE)
    commandline.fails(call(*options(tmp_path / "model")), "holds a run with another configuration (prompts.mini_aime")


def test_folders_of_before_are_resumed_and_graded(model, call, tmp_path):
    """They say nothing of prompts, dates, marks and what a prompt opened."""
    weights = model(scripted.TEMPLATE + "<think>", after=["<think>"])
    assert call(*options(weights))[0] == 0
    description, path = tmp_path / "made" / RUN_FILE, tmp_path / "made" / SAMPLES
    info = json.loads(description.read_text())
    for key in ("date", "prompts", "prompt_format"):
        del info[key]
    for key in ("system_prompt", "template_args", "chat_template"):
        del info["config"][key]
    description.write_text(json.dumps(info))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["prompt_hash"] = line.pop("message_hash")
        assert "opened" not in line  # that it is <think> is what older files mean
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    assert call(*options(weights))[0] == 0
    assert len(samples(tmp_path / "made")) == len(lines)
    code, out, _ = call("score", "made")
    assert code == 0
    assert "0 have another answer" in out


def test_old_chains_of_a_model_that_does_not_think_are_pointed_out(model, call, tmp_path):
    weights = model(scripted.TEMPLATE)
    assert "earlier version" not in call(*options(weights))[1]
    assert "earlier version" not in call(*options(weights))[1]
    path = tmp_path / "made" / SAMPLES
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["prompt_hash"] = line.pop("message_hash")
        del line["opened"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "note: chains of an earlier version" in call(*options(weights))[1]


def test_a_system_prompt_and_template_arguments(model, call, tmp_path):
    weights = model(SWITCH, after=["<think>", "</think>"])
    assert call(*options(weights))[0] == 0
    assert {cut.answer for s in samples(tmp_path / "made") for cut in s.cuts} == {None}  # nothing closes the thinking
    args = ("--template-arg", "enable_thinking=false", "--system-prompt", "Be brief.")
    assert call(*options(weights, *args, out="off"))[0] == 0
    assert {s.whole.answer for s in samples(tmp_path / "off")} == {TARGET}
    assert {s.opened for s in samples(tmp_path / "off")} == {""}
    config = json.loads((tmp_path / "off" / RUN_FILE).read_text())["config"]
    assert (config["template_args"], config["system_prompt"]) == ({"enable_thinking": False}, "Be brief.")
    extra = samples(tmp_path / "off")[0].prompt_tokens - samples(tmp_path / "made")[0].prompt_tokens
    assert extra == len("Be brief.") + 2  # its turn, and the end of thinking
    # The same from a file, and other ones are another run.
    settings = tmp_path / "run.yaml"
    settings.write_text("template_arg: {enable_thinking: false}\nsystem_prompt: Be brief.\n")
    assert call(*options(weights, "--config", settings, out="off"))[0] == 0
    commandline.fails(call(*options(weights, *args[:2], out="off")), "another configuration", "system_prompt")
    commandline.fails(call(*options(weights, out="off")), "template_args.enable_thinking was false, now null")
    assert call(*options(weights, "--template-arg", "enable_thinking=False", *args[2:], out="off"))[0] == 0


def test_a_base_model_is_asked_in_plain_text_and_the_run_says_so(model, call, tmp_path):
    weights = model(None, after=["\n"])
    code, out, _ = call(*options(weights, "--dry-run"))
    assert code == 0
    assert "prompts are plain text" in out
    code, out, _ = call(*options(weights))
    assert code == 0
    assert "note: prompts are plain text" in out
    assert json.loads((tmp_path / "made" / RUN_FILE).read_text())["prompt_format"] == "plain"
    assert {s.whole.correct for s in samples(tmp_path / "made") if s.problem.endswith("-0-0")} == {True}
    for more in ([], ["--dry-run"]):
        out = call(*options(weights, "--json", *more, out="events"))[1]
        (planned,) = [e for e in map(json.loads, out.splitlines()) if e["event"] == "planned"]
        assert planned["prompts"] == "plain"
    # Asked for, of a model that has a template.
    weights = model(scripted.TEMPLATE, after=["\n"])
    code, out, _ = call(*options(weights, "--chat-template", "none", out="asked"))
    assert code == 0
    assert "as --chat-template asks for" in out


# What stands here for a switch; templates take any text as true.
THINKING = "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<think>{% endif %}"


@pytest.mark.parametrize(
    ("template", "more", "texts"),
    [
        ("{{ raise_exception('no user!') }}", (), ("chat template fails", "no user!", "--chat-template")),
        ("{% if %}", (), ("chat template fails", "--chat-template")),
        ({"rag": "a", "tool_use": "b"}, (), ("several chat templates (rag, tool_use)", "--chat-template")),
        (scripted.TEMPLATE, ("--chat-template", "rag"), ("'rag' is neither a template of this model (default)",)),
        (scripted.TEMPLATE, ("--template-arg", "enable_thinking=false"), ("no argument 'enable_thinking'",)),
        (THINKING, ("--template-arg", "enable_thinking=no"), ("write enable_thinking=true or enable_thinking=false",)),
        (THINKING, ("--template-arg", "enable_thinking=FALSE"), ("write enable_thinking=true",)),
        (THINKING, ("--template-arg", "enable_thinking="), ("write enable_thinking=true",)),
        (scripted.TEMPLATE, ("--template-arg", "tokenize=false"), ("tokenize is set by hyperscale",)),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", ("--system-prompt", "Be brief."),
         ("leaves the system prompt out",)),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_used_are_one_line_and_an_event(model, call, tmp_path, template, more, texts):
    weights = model(template)
    commandline.fails(call(*options(weights, *more)), *texts)
    commandline.fails(call(*options(weights, *more, "--dry-run")), *texts)
    code, out, _ = call(*options(weights, *more, "--json"))
    last = json.loads(out.splitlines()[-1])
    assert (code, last["event"]) == (2, "failed")
    assert all(text in last["message"] for text in texts)
    assert not (tmp_path / "made").exists()


def test_an_argument_without_a_value(call):
    said = "write name=value, e.g. enable_thinking=false"
    commandline.fails(call(*options("mini", "--template-arg", "enable_thinking")), said)
    twice = ("--template-arg", "a=1", "--template-arg", "a=2")
    commandline.fails(call(*options("mini", *twice)), "--template-arg gives a twice: 1 and 2")


def test_one_of_several_templates_by_name(model, call, tmp_path):
    weights = model({"rag": "{{ messages[9] }}", "plain": scripted.TEMPLATE})
    assert call(*options(weights, "--chat-template", "plain"))[0] == 0
    assert {s.whole.answer for s in samples(tmp_path / "made")} == {TARGET}
