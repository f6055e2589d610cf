"""How commands end when the process is disturbed: by signals, streams, the environment, limits, or a defect of ours."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from processes import ends_in_a_line, run_command
from repository import ROOT

pytestmark = pytest.mark.e2e

# Says when signals are taken: until then they are Python's own. Under nohup the tests would hand an ignored SIGHUP on.
SIGNALLED = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from hyperscale.cli import main
take = main._take_signals
def taken():
    take()
    print("ready", flush=True)
main._take_signals = taken
main.main()
"""
MOMENTS = (0, 0.02, 0.1, 0.3, 0.5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_is_one_line(tmp_path, number, moment):
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED, "run", "--out", tmp_path / "run", "--budget", "all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(moment)
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, err) == (2, "interrupted: finished chains are kept; the same command resumes\n")


CALLBACK = """
class Thing: pass
def go():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: hit())
    del thing
"""
CAUGHT = """
def go():
    try: hit()
    except BaseException: time.sleep(0.3)
"""
CLEANED = """
def go():
    try: hit()
    finally:
        time.sleep(0.5)
        print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("program", "out"), [(CALLBACK, ""), (CAUGHT, ""), (CLEANED, "cleaned up\n")])
def test_a_signal_that_somebody_drops_is_not_lost(number, program, out):
    """Python drops what is raised in the callback of a weak reference, and modules catch everything while they load."""
    program = f"""
import os, signal, time, weakref
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from hyperscale.cli import main
def hit(): os.kill(os.getpid(), {int(number)})
{program}
def run():
    go()
    time.sleep(20)
    return 0
main._run = run
main.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "score"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, out)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("interrupted: ")


def test_nohup_stays(tmp_path):
    """A hangup that was to be ignored is."""
    program = SIGNALLED.replace("SIG_DFL", "SIG_IGN")
    process = subprocess.Popen(
        [sys.executable, "-c", program, "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert "mini" in out


COMMANDS = [("models",), ("methods",), ("--help",), ("--version",), ("run", "--dry-run", "--limit", "1", "--json")]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_an_output_that_takes_nothing_is_one_line(arguments):
    ends_in_a_line(run_command(*arguments, after=">/dev/full"), "No space left on device")
    ends_in_a_line(run_command(*arguments, after=">&-"), "the standard output is closed")
    code, out, err = run_command(*arguments, after=">&- 2>&- <&-")
    assert (code, out, err) == (2, "", "")


def test_a_reader_that_leaves_is_one_line():
    for arguments in (("methods",), ("run", "--dry-run", "--json")):
        _, out, err = run_command(*arguments, after="| true; echo code ${PIPESTATUS[0]}", shell="bash")
        assert out in ("code 2\n", "code 0\n")  # all of it may have been taken before the reader left
        assert err in ("", "error: nobody reads the output any more (broken pipe): finished work is kept\n")
    code, _, err = run_command("run", "--dry-run", before="exec 1> >(exec 0<&-); wait $!;", shell="bash")
    assert (code, err) == (2, "error: nobody reads the output any more (broken pipe): finished work is kept\n")


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1:strict", marks=pytest.mark.slow)])
def test_a_terminal_without_unicode_is_written_to_plainly(tmp_path, encoding):
    code, out, err = run_command("run", "--dry-run", "--limit", "1", PYTHONIOENCODING=encoding)
    assert (code, err) == (0, "")
    assert "planning" in out
    code, out, _ = run_command("run", "--dry-run", "--json", "--limit", "1", PYTHONIOENCODING=encoding)
    assert code == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["stage", "planned"]
    folder = tmp_path / "Läufe ×8 日本"
    code, out, err = run_command("plot", folder, PYTHONIOENCODING=encoding)
    ends_in_a_line((code, out, err), "no folder")


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LANG": "xx_YY.ISO-8859-1"}])
@pytest.mark.parametrize("utf8", [None, "0"])
def test_a_locale_without_unicode_is_written_to_plainly(locale, utf8):
    names = {"PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": utf8, "LC_ALL": None, "LANG": None, "PYTHONIOENCODING": None}
    code, out, err = run_command("methods", **{**names, **locale})
    assert (code, err) == (0, "")
    assert "vanilla" in out


@pytest.mark.parametrize("kib", [60_000, 100_000, 600_000])
def test_little_address_space_is_one_line(kib):
    """numpy's OpenBLAS calls exit(1) where it cannot start: to a script that is the gate's verdict."""
    for command in ("gate", "models"):
        ends_in_a_line(run_command(command, before=f"ulimit -v {kib}"), "ulimit -v", "2,048 MiB")


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    for command in ("run", "gate"):
        ends_in_a_line(
            run_command(command, before=f"mkdir {tmp_path}/x; cd {tmp_path}/x; rmdir {tmp_path}/x"), "folder"
        )


def test_a_defect_of_ours_is_not_the_gates_verdict(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import hyperscale.results\nhyperscale.results.read = lambda _: 1 / 0\n")
    path = f"{tmp_path}:{ROOT}"
    result = run_command("gate", tmp_path, "--write-baseline", "b.json", PYTHONPATH=path)
    ends_in_a_line(result, "unforeseen ZeroDivisionError (division by zero)", "HYPERSCALE_TRACEBACK=1")
    code, _, err = run_command("plot", tmp_path, PYTHONPATH=path, HYPERSCALE_TRACEBACK="1")
    assert code == 2
    assert "Traceback" in err
    assert "in <lambda>" in err


def test_the_environment_stops_nothing(tmp_path):
    values = {"MPLBACKEND": "nonsense", "HOME": None, "TMPDIR": "/nowhere", "COLUMNS": "x", "TERM": "x"}
    code, _, err = run_command(
        *("run", "--limit", "2", "--budget", "1x", "--length", "256", "--task", "mini_aime", "--out", tmp_path / "r"),
        **values,
    )
    assert (code, err) == (0, "")
    code, out, err = run_command("plot", tmp_path / "r", "--axis", "kv_reads", **values)
    assert (code, err) == (0, "")
    assert "accuracy-kv_reads.png" in out


WRAPPED = """
import os, signal, sys
from hyperscale.cli import app, main

def wrap(**_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    except BaseException as error:
        raise ValueError(f"a library's own words: {error!r}") from None

app.app = wrap
main.main()
"""


def test_a_signal_that_a_library_takes_for_its_own_failure_is_that_line_too():
    done = subprocess.run(
        [sys.executable, "-c", WRAPPED, "run"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stderr == "interrupted: finished chains are kept; the same command resumes\n"
