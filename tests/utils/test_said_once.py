"""Lines that several processes of one command say once."""

from hyperscale.utils.said_once import FOLDER, says_first


def test_a_line_is_said_once_and_another_too(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert [says_first(line) for line in ("error: a", "error: b", "error: a", "\udc80")] == [True, True, False, True]


def test_it_is_always_said_where_nothing_can_be_noted(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    assert says_first("error: a")
    assert says_first("error: a")
    monkeypatch.setenv(FOLDER, str(tmp_path / "gone"))
    assert says_first("error: a")
    assert says_first("error: a")
