"""Write the tables of settings in the documentation, from the models that declare them.

Usage: python benchmarks/settings_table.py
"""

from pathlib import Path

from pydantic import BaseModel

from hyperscale.retrofit.settings import RetrofitSettings
from hyperscale.run.config.schema import RunConfig
from hyperscale.utils.settings import Setting, settings_of

DOCS = Path(__file__).parent.parent / "docs"
TABLES: list[tuple[str, str, type[BaseModel]]] = [
    ("settings.md", "run", RunConfig),
    ("retrofit.md", "retrofit", RetrofitSettings),
]
"""Page, name of the table in its marks, model."""


def main() -> None:
    """Replace what lies between the marks of each page."""
    for page, name, schema in TABLES:
        path = DOCS / page
        path.write_text(with_table(path.read_text(encoding="utf-8"), name, schema), encoding="utf-8")


def with_table(text: str, name: str, schema: type[BaseModel]) -> str:
    """A page's text with the settings of a model as its table of that name."""
    start, end = f"<!-- settings: {name} -->\n", "<!-- /settings -->"
    before, rest = text.split(start)
    rows = ["| setting | value | default | what it is |", "|---|---|---|---|", *map(_row, settings_of(schema))]
    return before + start + "\n".join(rows) + "\n" + end + rest.split(end, 1)[1]


def _row(setting: Setting) -> str:
    value = ", ".join(f"`{choice}`" for choice in setting.choices) or _value(setting)
    default = "required" if setting.required else setting.default or "·"
    about = " ".join(filter(None, (setting.description.removesuffix(".") + ".", setting.details)))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{setting.key}`", value, default, about)) + " |"


def _value(setting: Setting) -> str:
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    one = words[setting.type]
    forms = {
        "list": f"list: {one}",
        "pairs": "text by name",
        "typed pairs": "values by name",
        "nested": "values by name and parameter",
    }
    return forms.get(setting.form, one)


if __name__ == "__main__":
    main()
