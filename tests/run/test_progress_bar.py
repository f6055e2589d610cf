"""The bar that ``hyperscale.run`` shows on stderr: an arm's chains, from those that it has to all of them."""

import re

from synthetic_samples import chains

from hyperscale.methods.arm import Arm
from hyperscale.run.observer import ArmSize
from hyperscale.run.progress.bar import ProgressBar

LINES = chains("dms", 8, problems=2, width=4)
ARM = Arm("dms", 8.0)


def test_a_bar_counts_the_chains_of_each_arm(capsys):
    bar = ProgressBar()
    bar.on_pilot(ARM, 0, 2)
    bar.on_pilot(ARM, 2, 2)
    bar.on_note("costs are shared")
    bar.on_arm_start(ARM, LINES[:3], ArmSize(8, 16384, 8))
    for line in LINES[3:]:
        bar.on_chain(ARM, None, line)
    bar.on_arm_end(ARM)
    bar.on_chain(ARM, None, LINES[0])  # of no arm: nothing to count it on
    bar.close()
    out, err = capsys.readouterr()
    assert out == ""
    shown = re.findall(r"(pilot of )?dms 8×: +(\d+)%\|[^|]*\| (\d+)/(\d+)", err)
    assert shown[0] == ("pilot of ", "0", "0", "2")
    assert ("pilot of ", "100", "2", "2") in shown
    assert next(entry for entry in shown if not entry[0]) == ("", "38", "3", "8")
    assert shown[-1] == ("", "100", "8", "8")
    assert "note: costs are shared" in err


def test_a_pilot_is_one_bar(capsys):
    bar = ProgressBar()
    for done in range(3):
        bar.on_pilot(ARM, done, 2)
    bar.close()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_that_fails_leaves_no_bar_open(capsys):
    bar = ProgressBar()
    bar.on_arm_start(ARM, [], ArmSize(8, 16384, 8))
    bar.on_chain(ARM, None, LINES[0])
    bar.close()
    bar.close()
    _, err = capsys.readouterr()
    assert err.endswith("\n")
    assert "1/8" in err.splitlines()[-1]
