"""What of vLLM has to be there before a run begins."""

import pytest

from hyperscale.engines.vllm import versions
from hyperscale.errors import EngineError


@pytest.mark.parametrize("value", ["", "foo", "foo,bar"])
def test_the_plugin_must_not_be_left_out(monkeypatch, value):
    monkeypatch.setenv("VLLM_PLUGINS", value)
    with pytest.raises(EngineError, match="leaves out the plugin hyperscale"):
        versions.check_plugin()


def test_the_package_must_be_installed_for_vllm_to_find_it(monkeypatch):
    for value in (None, "foo,hyperscale"):
        monkeypatch.delenv("VLLM_PLUGINS", raising=False)
        if value is not None:
            monkeypatch.setenv("VLLM_PLUGINS", value)
        versions.check_plugin()  # as it is here
    monkeypatch.setattr(versions, "_PLUGIN", "other")
    monkeypatch.delenv("VLLM_PLUGINS")
    with pytest.raises(EngineError, match="not installed here"):
        versions.check_plugin()
