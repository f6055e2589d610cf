"""Folders that workers start in: gone when their process ends, however it ends, and nobody else's are touched."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from repository import ROOT

from hyperscale.scoring.sandbox import folders

START = """
import sys, time
from hyperscale.scoring.sandbox.pool import CodeRunner
from hyperscale.scoring.sandbox.program import Program
runner = CodeRunner(sandbox="none", workers=1)
outcomes = runner.run_many([Program(sys.argv[1], ((1,),))])
print(outcomes[0][0].status, flush=True)
if len(sys.argv) > 2: time.sleep(60)
runner.close()
"""
PLAIN = "def f(x): return x"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where temporary folders go, of its own for this test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def start(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        text=True,
    )
    assert process.stdout.readline() == "ok\n"
    return process


def end(process):
    process.stdout.close()
    process.wait()


def ours(place):
    return {path.name for path in place.iterdir() if path.name.startswith(folders.PREFIX)}


def test_what_a_killed_process_left_is_removed_at_the_next_start(place):
    killed = start(PLAIN, "wait")
    (left,) = ours(place)
    killed.send_signal(signal.SIGKILL)
    end(killed)
    (place / left / "file").write_text("of a program")
    alive = start(PLAIN, "wait")
    try:
        (kept,) = ours(place)
        assert kept != left
        end(start(PLAIN))  # a third process leaves the second one's alone, and nothing of its own
        assert ours(place) == {kept}
    finally:
        alive.kill()
        end(alive)


def test_only_our_own_folders_are_removed(place):
    (place / "hyperscale-other").mkdir()
    (place / "other").mkdir()
    (place / "other" / "file").write_text("kept")
    (place / f"{folders.PREFIX}link").symlink_to(place / "other")
    (place / f"{folders.PREFIX}file").write_text("no folder")
    if os.getuid() == 0:
        (place / f"{folders.PREFIX}theirs").mkdir()
        os.chown(place / f"{folders.PREFIX}theirs", 12345, 12345)
    before = sorted(place.rglob("*"))
    (place / f"{folders.PREFIX}left").mkdir()
    folders.remove_leftovers.__wrapped__()
    assert sorted(place.rglob("*")) == before


def test_folders_that_programs_closed_or_nested_are_removed(place):
    source = """
import os
def f(x):
    os.symlink("/", "root"); os.makedirs("a/b/c"); open("a/b/c/file", "w").write("x")
    os.chmod("a/b", 0); os.chmod("a", 0); os.mkdir("deep"); os.chdir("deep")
    for _ in range(1100): os.mkdir("d" * 9); os.chdir("d" * 9)
    return x
"""
    mode = place.stat().st_mode
    end(start(source))
    assert ours(place) == set()
    assert place.stat().st_mode == mode


def test_a_link_in_place_of_the_folder_is_not_followed(place):
    other = place / "other"
    other.mkdir(mode=0o755)
    (other / "file").write_text("kept")
    source = f"""
import os
def f(x):
    here = os.getcwd()
    os.rmdir(here)
    os.symlink({str(other)!r}, here)
    return x
"""
    end(start(source))
    assert (other / "file").read_text() == "kept"
    assert other.stat().st_mode & 0o777 == 0o755
    assert ours(place) == set()


def test_a_folder_in_use_is_locked_until_it_is_removed(place):
    folder = folders.WorkerFolder()
    folders.remove_leftovers.__wrapped__()
    assert folder.path.is_dir()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert list(place.iterdir()) == []


def test_threads_that_start_workers_at_once_keep_their_folders(place):
    """One may take another's folder, made but not locked yet, for a leftover: then the other makes a new one."""
    code = "from hyperscale.scoring.sandbox import folders\nimport threading\nmade = []\n"
    code += "def make():\n    folders.remove_leftovers.__wrapped__()\n    made.append(folders.WorkerFolder())\n"
    code += "for _ in range(20):\n    threads = [threading.Thread(target=make) for _ in range(8)]\n"
    code += "    [t.start() for t in threads]\n    [t.join() for t in threads]\n"
    code += "print(len({f.path for f in made}), sum(f.path.is_dir() for f in made))\n[f.remove() for f in made]\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["160", "160"]
    assert list(Path(place).iterdir()) == []
