"""Rows of JSONL and Parquet files, and the places that errors name."""

import pyarrow
import pytest
from pyarrow import parquet

from hyperscale.errors import RetrofitError, TaskError
from hyperscale.utils.row_files import list_data_files, read_rows


def test_rows_know_where_they_stand(tmp_path):
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(b'\xef\xbb\xbf{"x": 1}\n\n  \n{"x": 2}\n')  # a byte order mark, and lines without a row
    assert [tuple(row) for row in read_rows(lines, TaskError)] == [
        (f"{lines} line 1", {"x": 1}),
        (f"{lines} line 4", {"x": 2}),
    ]
    table = tmp_path / "b.parquet"
    parquet.write_table(pyarrow.table({"x": list(range(300)), "y": ["t"] * 300}), table)
    rows = list(read_rows(table, TaskError))
    assert rows[299] == (f"{table} row 300", {"x": 299, "y": "t"})


def test_of_a_parquet_file_one_column_may_be_read(tmp_path):
    table = tmp_path / "b.parquet"
    parquet.write_table(pyarrow.table({"x": [1], "y": ["t"]}), table)
    assert next(iter(read_rows(table, TaskError, "y"))).row == {"y": "t"}
    # A column that is not there restricts nothing, so that a message can name those that are.
    assert next(iter(read_rows(table, TaskError, "z"))).row == {"x": 1, "y": "t"}


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.jsonl", b'{"x": 1}\n{\n', "a.jsonl line 2 is not JSON"),
        ("a.jsonl", b'{"x": 1}\n[1]\n', "a.jsonl line 2 is not a JSON object"),
        ("a.jsonl", b"\xff\xfe", "a.jsonl cannot be read"),
        ("a.parquet", b"PAR1", "a.parquet is not a readable Parquet file"),
    ],
)
def test_a_malformed_file_is_an_error_of_the_callers_type(name, contents, message, tmp_path):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(RetrofitError, match=message):
        list(read_rows(tmp_path / name, RetrofitError))


def test_a_folder_lists_its_files_of_the_right_kinds_in_order(tmp_path):
    for name in ("b.jsonl", "a.parquet", "c.md"):
        (tmp_path / name).touch()
    kinds = (".jsonl", ".parquet")
    assert [file.name for file in list_data_files(tmp_path, kinds, TaskError)] == ["a.parquet", "b.jsonl"]
    with pytest.raises(TaskError, match=r"c\.md is not a \.jsonl or \.parquet file"):
        list_data_files(tmp_path / "c.md", kinds, TaskError)
    with pytest.raises(TaskError, match="no file or folder"):
        list_data_files(tmp_path / "d.jsonl", kinds, TaskError)
