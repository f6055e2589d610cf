"""Parameters of methods from the command line and from a file, and the list that says which there are."""

import checkpoints
import commandline
import pytest
from repository import ROOT

from hyperscale import methods, results
from hyperscale.cli import arguments
from hyperscale.errors import ConfigError, MethodError
from hyperscale.run.config import load, resolve


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(8,))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


def options(weights, *more):
    base = ("run", "--model", weights, "--task", "mini_aime", "--grid", "mini", "--budget", "0.2x", "--limit", "1")
    return (*base, "--cr", "4", *more)


def stored(folder):
    (found,) = results.read(folder)
    return found.info["config"]["params"], {s.method: s.params for s in found.samples}


@pytest.mark.e2e
def test_parameters_reach_the_method_with_their_types(run, weights, tmp_path):
    more = ("--method", "window,tova", "--method-param", "window.recent=3", "--method-param", "tova.per=head")
    code, _, err = run(*options(weights, *more, "--method-param", "tova.pin_prompt=true", "--out", "made"))
    assert (code, err) == (0, "")
    asked, used = stored(tmp_path / "made")
    assert asked == {"window": {"recent": 3}, "tova": {"per": "head", "pin_prompt": True}}
    assert used["window"] == {"cr": 4, "rule": "proportional", "recent": 3, "pin_prompt": True}
    assert (used["tova"]["per"], used["tova"]["pin_prompt"]) == ("head", True)


@pytest.mark.e2e
def test_pinning_is_for_every_method_that_has_it(run, weights, tmp_path):
    more = ("--method", "vanilla,window,tova")
    for option, pinned in (("--pin-prompt", True), ("--no-pin-prompt", False)):
        code, _, err = run(*options(weights, *more, option, "--out", option[2:]))
        assert (code, err) == (0, "")
        asked, used = stored(tmp_path / option[2:])
        assert asked == {"window": {"pin_prompt": pinned}, "tova": {"pin_prompt": pinned}}
        assert [used[name]["pin_prompt"] for name in ("window", "tova")] == [pinned, pinned]
        assert used["vanilla"] == {"cr": 1}
    one, other = (results.read(tmp_path / name)[0].samples for name in ("pin-prompt", "no-pin-prompt"))
    reads = [[[cut.kv_reads for cut in s.cuts] for s in samples if s.method == "tova"] for samples in (one, other)]
    assert reads[0] != reads[1]
    commandline.fails(
        run(*options(weights, *more, "--pin-prompt", "--out", "no-pin-prompt")), "pin_prompt was false, now true"
    )


def test_options_go_over_the_file_parameter_by_parameter(run, weights, tmp_path):
    (tmp_path / "run.yaml").write_text("params: {window: {recent: 5, rule: fixed}, random: {recent: 7}}\n")
    more = ("--method", "window,random", "--config", "run.yaml", "--method-param", "window.recent=2", "--dry-run")
    assert run(*options(weights, *more))[0] == 0
    found = load.load_config({"params": {"window": {"recent": 2}}, "limit": 3, "budget": None}, tmp_path / "run.yaml")
    assert found.params == {"window": {"recent": 2, "rule": "fixed"}, "random": {"recent": 7}}
    assert (found.limit, found.budget) == (3, "8x")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--method-param", "window.recent=0"), "keep at least 1 recent entry"),
        (("--method-param", "window.recent=few"), "recent of window must be a whole number, not 'few'"),
        (("--method", "snapkv", "--method-param", "snapkv.kernel=3.0"), "kernel of snapkv must be a whole number"),
        (
            ("--method-param", "window.sink=4"),
            "has no parameter 'sink'; it has: cr, rule, recent, pin",
        ),
        (("--method-param", "window.rule=sideways"), "rule of window must be"),
        (("--method-param", "window.pin_prompt=yes"), "pin_prompt of window must be true or false, not 'yes'"),
        (
            ("--method-param", "window.cr=3"),
            "window.cr: compression ratios are set by --cr for all methods",
        ),
        (("--method-param", "tova.per=head"), "'tova' is no method of this run (window)"),
        (("--method-param", "recent=4"), "write name.parameter=value, e.g. window.recent=32"),
        (("--method-param", "window.recent"), "write name.parameter=value"),
        (("--method-param", "window.recent=1", "--method-param", "window.recent=2"), "window.recent twice: 1 and 2"),
        (("--pin-prompt", "--method-param", "window.pin_prompt=false"), "--pin-prompt says otherwise"),
        (("--no-pin-prompt", "--method-param", "window.pin_prompt=true"), "--no-pin-prompt says otherwise"),
        (("--method", "dms,vanilla", "--pin-prompt"), "--pin-prompt: no method of this run (dms, vanilla) pins"),
        (("--method", "zip", "--pin-prompt"), "unknown method 'zip'"),
        (("--task-param", "mini_aime"), "write name.parameter=value, e.g. livecodebench.end_date=2024-12-31"),
    ],
)
def test_mistakes(run, weights, more, text):
    method = () if "--method" in more else ("--method", "window")
    commandline.fails(run(*options(weights, *method, *more, "--dry-run")), text)


def test_texts_are_numbers_and_truths_where_they_can_be():
    texts = ["a.b=1", "a.c=1e-3", "a.d=true", "a.e=head", "a.f=[1]", "b.g=x=y", "b.h="]
    found = arguments.typed("--method-param", texts, "x.y=1")
    assert found == {"a": {"b": 1, "c": 0.001, "d": True, "e": "head", "f": "[1]"}, "b": {"g": "x=y", "h": ""}}
    assert arguments.typed("--method-param", None, "x.y=1") is None
    with pytest.raises(ConfigError, match=r"write name\.parameter=value"):
        arguments.nested("--task-param", [".a=1"], "x.y=1")


def test_the_same_setting_by_either_way_is_the_same_run():
    values = {"model": "mini", "methods": ["window"], "crs": [4], "budget": "1x"}
    one = resolve.resolve_config(load.make_config({**values, "pin_prompt": False}))
    other = resolve.resolve_config(load.make_config({**values, "params": {"window": {"pin_prompt": False}}}))
    assert one.compared() == other.compared()
    assert load.make_config({**values, "pin_prompt": False}).folder_name() == "mini-window-1x-cr4-unpinned"


def test_the_list_says_what_each_method_is(run):
    code, out, err = run("methods")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    for name in methods.available():
        (at,) = [i for i, line in enumerate(lines) if line.split()[:1] == [name]]
        about = methods.describe(name)
        assert lines[at].split()[1] == about.kind
        end = next((i for i in range(at + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
        flat = " ".join(" ".join(lines[at:end]).split())
        assert " ".join(about.source.split()[-2:]) in flat
        assert all(f"{key}=" in flat for key in about.params)
    assert methods.describe("dms").needs == ("a dms checkpoint",)
    assert methods.describe("tova").needs == ("attention",)
    assert not methods.describe("tova").length_invariant


@pytest.mark.parametrize("name", sorted(methods.available()))
def test_one_method_is_shown_with_its_rule(run, name):
    code, out, err = run("methods", name)
    assert (code, err) == (0, "")
    about = methods.describe(name)
    assert out.startswith(f"{name}: {about.summary}\n")
    assert about.rule in out
    assert about.source in out
    for key in about.params:
        assert f"{key}=" in out


def test_an_unknown_method_is_not_shown(run):
    commandline.fails(run("methods", "zip"), "unknown method 'zip'; known methods: vanilla, dms")
    with pytest.raises(MethodError):
        methods.parameters("zip")


def test_the_documentation_lists_the_methods_as_they_are(run):
    document = ROOT / "docs" / "methods.md"
    after = document.read_text(encoding="utf-8").split("<!-- methods -->\n```text\n")[1]
    listed = after.split("```\n<!-- /methods -->")[0]
    same = listed.splitlines() == [line.rstrip() for line in run("methods")[1].splitlines()]
    assert same, "the list in docs/methods.md is out of date; write it anew: python benchmarks/method_list.py"


@pytest.mark.parametrize("name", sorted(methods.available()))
def test_a_method_explains_its_parameters(name):
    rule, _, section = methods.describe(name).rule.partition("\n\nParameters:\n")
    assert rule
    assert "Parameters:" not in rule
    explained = [line.strip().partition(":")[0] for line in section.splitlines() if not line.startswith(" " * 8)]
    assert explained == methods.parameters(name)
