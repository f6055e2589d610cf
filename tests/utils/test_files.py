"""Files that survive power cuts: the contents reach the disk before the name, the name before the call returns."""

import os
import stat

from hyperscale.utils.files import write_atomic


def test_contents_and_name_are_on_the_disk(tmp_path, monkeypatch):
    kinds, sync = [], os.fsync

    def record(descriptor):
        kinds.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_atomic(tmp_path / "points.csv", "a,b\n")
    assert kinds == ["file", "folder"]
    assert (tmp_path / "points.csv").read_text() == "a,b\n"
