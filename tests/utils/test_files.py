"""Files that survive power cuts: the contents reach the disk before the name, the name before the call returns."""

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from hyperscale.utils.files import append_whole, take_lock, try_writing, write_atomic, write_folder


def test_contents_and_name_are_on_the_disk(tmp_path, monkeypatch):
    kinds, sync = [], os.fsync

    def record(descriptor):
        kinds.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_atomic(tmp_path / "points.csv", "a,b\n")
    assert kinds == ["file", "folder"]
    assert (tmp_path / "points.csv").read_text() == "a,b\n"


def test_a_device_is_written_and_not_replaced(tmp_path):
    """A report may go to /dev/stdout or a pipe: a file in its place would take it away from everyone."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(tmp_path / "pipe", "a report\n")
    assert os.read(reader, 100) == b"a report\n"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_link_and_the_mode_of_a_file_stay(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "report.html"
    target.write_text("old")
    target.chmod(0o600)
    (tmp_path / "link").symlink_to(target)
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_names_as_long_as_a_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    write_atomic(path, "{}")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_writers_of_one_file_come_one_after_the_other(tmp_path):
    path = tmp_path / "points.csv"
    texts = [bytes([ord("a") + i]) * 300_000 for i in range(4)]
    children = []
    for text in texts:
        child = os.fork()
        if not child:
            try:
                for _ in range(20):
                    write_atomic(path, (text[i : i + 1000] for i in range(0, len(text), 1000)))
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    while not path.exists():
        time.sleep(0.001)
    for _ in range(200):
        assert path.read_bytes() in texts
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(texts)
    assert [p.name for p in tmp_path.iterdir()] == ["points.csv"]


def test_what_is_appended_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    append_whole(path, b"first\n")
    write, left = os.write, [2]

    def fails(descriptor, data):
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:3])

    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(OSError, match="No space"):
        append_whole(path, b"second\n")
    assert path.read_bytes() == b"first\n"


def test_whether_a_folder_can_be_written_in_is_found_without_leaving_anything(tmp_path):
    try_writing(tmp_path / "new" / "newer")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    try_writing(tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(OSError):
            try_writing(folder)


def test_a_folder_appears_with_all_of_its_files_or_not_at_all(tmp_path):
    def fill(folder, text):
        (folder / "inner").mkdir()
        for name in ("config.json", "inner/weights"):
            (folder / name).write_text(text)

    def fail():
        with write_folder(tmp_path / "dms8") as folder:
            fill(folder, "half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []
    for text in ("old", "new"):
        with write_folder(tmp_path / "dms8") as folder:
            assert not list(folder.iterdir())
            fill(folder, text)
        assert (tmp_path / "dms8" / "inner" / "weights").read_text() == text
        assert [path.name for path in tmp_path.iterdir()] == ["dms8"]


def test_who_opened_a_lock_that_is_removed_takes_the_new_one(tmp_path, monkeypatch):
    """Else one holds a file without a name, and another one its successor."""
    path, flock = tmp_path / ".lock", fcntl.flock

    def remove_first(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with take_lock(path), pytest.raises(BlockingIOError):
        take_lock(path)
