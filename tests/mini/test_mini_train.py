"""The parser of the built-in model's recipe; what the recipe makes is tested with the retrofit."""

import pytest

from hyperscale.mini.train import OPTIONS, SHIPPED, main, parser
from hyperscale.retrofit.settings import Recipe


def test_options_of_the_retrofit_come_from_its_settings():
    options = {action.dest: action for action in parser()._actions}
    for name in OPTIONS:
        assert options[name].help == Recipe.model_fields[name].description
        assert options[name].default == getattr(SHIPPED, name)
    assert options["hard_steps"].default == (200, 900, 700)
    assert list(options["method"].choices) == ["dms", "dmc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps-per-unit", "-1"), "--steps-per-unit must be more than 0, got -1.0"),
        (("--hard-steps", "1", "-2", "3"), "--hard-steps must be at least 0, got -2"),
        (("--method", "dmx"), "invalid choice: 'dmx'"),
    ],
)
def test_a_value_that_makes_no_sense_is_told_before_anything_is_trained(options, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        main(["--out", str(tmp_path / "out"), *options])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
