"""Values of settings as YAML and programs have them: truth values, NumPy's numbers, ranges, paths."""

import json

import numpy as np
import pytest

from hyperscale.errors import ConfigError
from hyperscale.run.config import load


def test_truth_values_are_no_numbers_of_a_list(tmp_path):
    """YAML takes ``no`` for one: a run without a seed is not one with seed 0."""
    path = tmp_path / "c.yaml"
    for text in ("seed: no", "seed: [no]", "cr: [yes, 4]", "length: true", "limit: true"):
        path.write_text(f"{text}\n")
        with pytest.raises(ConfigError, match=r"c\.yaml, line 1: .* must be no truth value"):
            load.load_config({}, path)
    with pytest.raises(ConfigError, match="--cr must be no truth value"):
        load.make_config({"cr": True})


def test_values_of_a_program_are_those_of_a_file(tmp_path):
    params = {"window": {"recent": np.int64(32)}, "random": {"recent": np.arange(2), "share": np.float64(0.5)}}
    found = load.make_config(
        {
            "cr": np.array([4, 8]),
            "seed": range(3),
            "length": {64, 128},
            "limit": np.int64(3),
            "include": [tmp_path],
            "data": {"mini_aime": tmp_path / "x.jsonl"},
            "method_param": params,
        }
    )
    assert (found.crs, found.seeds, sorted(found.lengths), found.limit) == ((4, 8), (0, 1, 2), [64, 128], 3)
    assert (found.include, found.data) == ((str(tmp_path),), {"mini_aime": str(tmp_path / "x.jsonl")})
    assert found.params == {"window": {"recent": 32}, "random": {"recent": [0, 1], "share": 0.5}}
    assert json.loads(json.dumps(found.params)) == found.params
    assert found.folder_name()
    for name in ("method_param", "task_param"):
        with pytest.raises(ConfigError, match=rf"--{name.replace('_', '-')} must hold numbers, texts, truth values"):
            load.make_config({name: {"window": {"recent": object()}}})
