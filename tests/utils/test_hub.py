"""What transformers raises for a checkpoint that cannot be used comes as one typed error of one line."""

import pytest

from hyperscale.errors import ConfigError, ModelError
from hyperscale.utils.hub import load_config, load_tokenizer, model_errors


def test_any_error_becomes_one_line():
    with pytest.raises(ModelError, match=r"^cannot load x: first$") as caught, model_errors("cannot load x"):
        raise RuntimeError("\nfirst\nsecond")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_errors_of_ours_pass():
    with pytest.raises(ConfigError, match=r"^as it is$"), model_errors("cannot load x"):
        raise ConfigError("as it is")


@pytest.mark.parametrize("load", [load_config, load_tokenizer])
def test_folders_that_hold_no_model(tmp_path, load):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=rf"^cannot load the (configuration|tokenizer) of {tmp_path}: ") as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)
