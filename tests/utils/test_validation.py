"""Data that users write, checked: every fault is told in our words, with its place."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from hyperscale.errors import BudgetError, ConfigError
from hyperscale.utils.validation import suggestion, validate
from hyperscale.utils.yaml_files import read_yaml


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    share: float = Field(0.5, gt=0, lt=1)


class Shelf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    widths: tuple[int, ...] = Field((1,), min_length=1)
    kind: Literal["tall", "wide", "deep"] = "tall"
    inner: Inner = Inner()
    level: int = Field(0, ge=0, le=9)

    @field_validator("name")
    @classmethod
    def _short(cls, value):
        if len(value) > 5:
            raise ValueError("is longer than a label")
        return value


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "name is missing"),
        ({"name": 3}, "name must be text, got 3"),
        ({"name": "a", "widths": ["x"]}, "widths.0 must be a whole number, got 'x'"),
        ({"name": "a", "widths": [1, 2.5]}, "widths.1 must be a whole number, got 2.5"),
        ({"name": "a", "widths": []}, "widths has too few entries (at least 1), got []"),
        ({"name": "a", "widths": 3}, "widths must be a list, got 3"),
        ({"name": "a", "kind": "low"}, "kind must be 'tall', 'wide' or 'deep', got 'low'"),
        ({"name": "a", "inner": 2}, "inner must be a mapping, got 2"),
        ({"name": "a", "inner": {"share": 1}}, "inner.share must be less than 1, got 1"),
        ({"name": "a", "level": 10}, "level must be at most 9, got 10"),
        ({"name": "a", "levl": 1}, "levl is unknown: did you mean 'level'?"),
        ({"name": "abcdef"}, "name is longer than a label, got 'abcdef'"),
        ([1], "must be a mapping, got [1]"),
    ],
)
def test_faults_in_words(values, text):
    with pytest.raises(BudgetError) as error:
        validate(Shelf, values, BudgetError, "shelf.yaml", "see the others")
    assert str(error.value) == f"shelf.yaml: {text}{'' if text.endswith('?') else ':'} see the others"


def test_what_fits_becomes_the_model():
    assert validate(Shelf, {"name": "a", "widths": [1, 2]}, ConfigError).widths == (1, 2)


def test_a_long_value_is_cut():
    with pytest.raises(ConfigError) as error:
        validate(Shelf, {"name": "x" * 1000}, ConfigError)
    assert len(str(error.value)) < 120


def test_a_name_far_from_all_is_answered_with_all():
    assert suggestion("xyz", ["level", "kind"]) == ": choose from kind, level"
    assert suggestion("xyz", [f"level {number}" for number in range(10**4)]) == ""


def test_yaml_remembers_lines(tmp_path):
    path = tmp_path / "shelf.yaml"
    path.write_text("# a shelf\nname: a\nwidths:\n  - 1\n  - many\ninner: {share: 2}\n")
    file = read_yaml(path, ConfigError, "write a shelf")
    assert file.values == {"name": "a", "widths": [1, "many"], "inner": {"share": 2}}
    assert file.place(("widths", 1)) == f"{path}, line 5"
    assert file.place(("inner", "share")) == f"{path}, line 6"
    assert file.place(("widths", 7)) == f"{path}, line 3"
    assert file.place(("nowhere",)) == str(path)
    with pytest.raises(ConfigError, match=r"line 5: widths\.1 must be a whole number, got 'many'"):
        validate(Shelf, file.values, ConfigError, file.place)


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        ("a: 1\nb: 2\na: 3\n", "shelf.yaml, line 3: 'a' stands in line 1 too"),
        ("a: {b: 1, b: 2}\n", "line 1: 'b' stands in line 1 too"),
        ("a: [1\nb: 2\n", "shelf.yaml, line 2 ("),
        ("- a\n", "shelf.yaml is not a mapping: write a shelf"),
        ("", "is not a mapping"),
        ("a: !!python/none\n", "cannot read"),
    ],
)
def test_yaml_that_is_refused(tmp_path, contents, text):
    (tmp_path / "shelf.yaml").write_text(contents)
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "shelf.yaml", ConfigError, "write a shelf")
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_dates_stay_text(tmp_path):
    (tmp_path / "dates.yaml").write_text("start: 2024-08-01\nend: 2024-13-45\n")
    file = read_yaml(tmp_path / "dates.yaml", ConfigError, "write dates")
    assert file.values == {"start": "2024-08-01", "end": "2024-13-45"}


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml \(No such file or directory\): write a shelf"):
        read_yaml(tmp_path / "none.yaml", ConfigError, "write a shelf")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        read_yaml(tmp_path / "latin.yaml", ConfigError, "write a shelf")
