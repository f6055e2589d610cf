"""Settings are written once: options, YAML keys and the documentation come from the fields of a model."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

from hyperscale.cli.options import with_options
from hyperscale.errors import ConfigError
from hyperscale.run.config.schema import RunConfig
from hyperscale.utils.settings import find_field, setting, settings_of


class Recipe(BaseModel):
    data: Path = setting(..., "What to read.")
    ratios: tuple[float, ...] = setting((8.0,), "Ratios, e.g. 2,4.", option="cr")
    names: tuple[str, ...] = setting((), "Names.", option="name")
    rate: float | None = setting(None, "Learning rate.", unset="by size")
    steps: int = setting(150, "Steps.", ge=1)
    kind: Literal["near", "far"] = setting("near", "Where it lies.")
    everything: bool = setting(False, "Count all.", option="all-tokens")
    pinned: bool | None = setting(None, "Never let it go.")
    graphs: bool = setting(True, "Record steps.")
    texts: dict[str, str] = setting({}, "Texts by name.", option="text")
    params: dict[str, dict[str, object]] = setting({}, "Parameters.", option="param", example="a.b=1")


@pytest.fixture
def call():
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    seen = []

    @app.command()
    @with_options(Recipe)
    def bake(settings: dict[str, object], out: Annotated[str, typer.Option(help="Where to.")] = "here") -> None:
        """Bake."""
        seen.append((settings, out))

    def invoke(*arguments):
        seen.clear()
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
        return result, seen

    return invoke


def test_only_what_was_given_arrives(call):
    _, seen = call("--data", "x.jsonl")
    assert seen == [({"data": Path("x.jsonl")}, "here")]


def test_every_form(call):
    result, seen = call(
        *("--data", "x", "--cr", "2,4.5", "--name", "a,b", "--rate", "1e-3", "--steps", "7", "--kind", "far"),
        *("--all-tokens", "--no-pinned", "--no-graphs", "--text", "a=b", "--text", "c"),
        *("--param", "a.b=1", "--out", "there"),
    )
    assert result.exit_code == 0, result.output
    assert seen == [
        (
            {
                "data": Path("x"),
                "ratios": [2.0, 4.5],
                "names": ["a", "b"],
                "rate": 1e-3,
                "steps": 7,
                "kind": "far",
                "everything": True,
                "pinned": False,
                "graphs": False,
                "texts": {"a": "b", "": "c"},
                "params": {"a": {"b": 1}},
            },
            "there",
        )
    ]


def test_the_help_is_the_fields_description(call):
    text = call("--help")[0].output
    for line in (
        "--data <path>",
        "What to read.",
        "--cr <float,…>",
        "Ratios, e.g. 2,4. [8]",
        "Learning rate. [by size]",
        "Steps. [150]",
        "Where it lies: near or far. [near]",
        "--all-tokens",
        "--pinned / --no-pinned",
        "--graphs / --no-graphs",
        "Parameters; repeatable.",
        "--out",
    ):
        assert line in text
    assert call()[0].exit_code == 2  # --data is required


def test_a_command_shows_all_settings_of_a_run():
    from hyperscale.cli.main import app

    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "80"}).output
    words = "".join(text.split())
    for each in settings_of(RunConfig):
        assert f"{each.option} " in text
        assert "".join(each.help.split()) in words  # whole, wherever it is wrapped
    assert max(map(len, text.splitlines())) <= 80


def test_every_setting_says_what_it_is():
    for each in settings_of(RunConfig):
        assert each.description, each.field
        assert each.form != "nested" or each.example, each.field


def test_keys_and_fields():
    assert find_field(RunConfig, "method") == find_field(RunConfig, "methods") == "methods"
    assert find_field(RunConfig, "method-param") == find_field(RunConfig, "params") == "params"
    assert find_field(RunConfig, "batch-size") == "batch_size"
    with pytest.raises(ConfigError, match=r"run.yaml, line 3: unknown setting 'metod': did you mean 'method'\?"):
        find_field(RunConfig, "metod", "run.yaml, line 3")


def test_the_documentation_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import settings_table

    for page, name, schema in settings_table.TABLES:
        text = (settings_table.DOCS / page).read_text()
        mended = settings_table.with_table(text, name, schema)
        assert text == mended, "docs differ from the settings: run `python benchmarks/settings_table.py`"


def test_the_help_is_in_groups_and_the_list_of_commands_is_whole():
    from hyperscale.cli.app import app

    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "80"}).output
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith((" ", "Usage"))]
    assert headings[:2] == ["Model, methods and budget:", "Tasks:"]
    assert headings[-3:] == ["Plan:", "Settings file and output:", "Options:"]
    # An option of the command itself stands with the settings of its group.
    plan = text[text.index("\nPlan:") : text.index("\nSettings file")]
    assert [line.split()[0] for line in plan.splitlines() if line.startswith("  --")] == [
        "--predict",
        "--dry-run",
        "--gpu",
        "--gpu-price",
        "--plan",
    ]
    commands = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert "..." not in commands.split("Commands:")[1]
    assert max(map(len, commands.splitlines())) <= 80


@pytest.mark.parametrize("command", ["models", "tasks", "budgets"])
def test_lists_keep_to_the_width_and_are_a_line_each_in_a_pipe(command, monkeypatch):
    from hyperscale.cli.main import app

    monkeypatch.delenv("COLUMNS", raising=False)
    whole = CliRunner().invoke(app, [command]).output
    narrow = CliRunner().invoke(app, [command], env={"COLUMNS": "80"}).output
    assert max(map(len, whole.splitlines())) > 80 >= max(map(len, narrow.splitlines()))
    assert narrow.split() == whole.split()  # the same words
