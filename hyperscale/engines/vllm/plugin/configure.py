"""Changes vLLM's configuration before anything is loaded: sets what the plugin needs, refuses what it cannot do."""

import copy
import logging
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from vllm.config import CompilationConfig
from vllm.model_executor.models.config import VerifyAndUpdateConfig

from hyperscale.engines.families.names import explain_absent
from hyperscale.engines.vllm import devices
from hyperscale.engines.vllm.arms import read_arms
from hyperscale.engines.vllm.families import FAMILIES, architecture
from hyperscale.engines.vllm.options import ARMS, KEY, PAGE_TOKENS, with_own_parameters
from hyperscale.engines.vllm.plugin.refusals import CONNECTOR, FULL_GRAPHS_REASON, list_refusals
from hyperscale.errors import EngineError
from hyperscale.methods.core.dms_config import has_gates
from hyperscale.models.gate_files import complete_config

CONNECTOR_MODULE = "hyperscale.engines.vllm.plugin.connector"
OPERATOR = "vllm::hyperscale_attention"
MERGE_OPERATOR = "vllm::hyperscale_merge"


class ConfigureRagged(VerifyAndUpdateConfig):
    """For the plugin's own model classes."""

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """See the module.

        Raises:
            EngineError: Something was asked for that the plugin cannot do.
        """
        _complete(vllm_config.model_config)
        _leave_out_full_graphs(vllm_config)
        _take_over_fp8(vllm_config)
        if devices.current_device() == "cuda":
            _host_random(vllm_config)
        arms = read_arms(vllm_config.additional_config, vllm_config.model_config.hf_config)
        cache = vllm_config.cache_config
        cache.enable_prefix_caching = False
        if not getattr(cache, "user_specified_block_size", False):
            # vLLM's default on the CPU is four times that, too coarse for superblocks of every layer and head.
            cache.block_size, cache.user_specified_block_size = PAGE_TOKENS, True
        for reason in (reason for options in arms for reason in list_refusals(vllm_config, options)):
            raise EngineError(f"the hyperscale plugin refuses to start: {reason}")
        if vllm_config.kv_transfer_config is None:
            from vllm.config import KVTransferConfig

            vllm_config.kv_transfer_config = KVTransferConfig(
                kv_connector=CONNECTOR, kv_connector_module_path=CONNECTOR_MODULE, kv_role="kv_both"
            )
        # Attention asks Python which requests there are, so CUDA graphs end before it and begin after it. The list that
        # vLLM splits at by default is copied from its class later on; one that the user gave is there already.
        for ops in (CompilationConfig._attention_ops, vllm_config.compilation_config.splitting_ops):
            if ops is not None:
                ops += [operator for operator in (OPERATOR, MERGE_OPERATOR) if operator not in ops]


def _take_over_fp8(vllm_config: Any) -> None:
    """Make vLLM's ``--kv-cache-dtype fp8`` the plugin's option: its pages are quantised by its own kernels.

    To vLLM's layers the cache is then an ordinary one; they would look for one scale a layer, and quantise queries.
    """
    if vllm_config.cache_config.cache_dtype not in ("fp8", "fp8_e4m3"):
        return
    additional = vllm_config.additional_config
    additional = (
        copy.copy(additional) if isinstance(additional, MutableMapping) else {}
    )  # whose class may have its own hash
    given = additional.get(KEY, {})
    if isinstance(given, Mapping):  # it is refused otherwise
        values = {**given, "kv_dtype": "fp8"}
        if isinstance(arms := given.get(ARMS), list | tuple):  # which share the cache
            values[ARMS] = [{**arm, "kv_dtype": "fp8"} if isinstance(arm, Mapping) else arm for arm in arms]
        additional[KEY] = values
    vllm_config.additional_config = additional
    vllm_config.cache_config.cache_dtype = "auto"


def _host_random(vllm_config: Any) -> None:
    """Run random by its own state, with the same settings: its expiries are drawn on the host, for the CPU."""
    additional = vllm_config.additional_config
    given = additional.get(KEY) if isinstance(additional, Mapping) else None
    if not isinstance(given, Mapping):
        return
    values = with_own_parameters(given)
    if isinstance(arms := given.get(ARMS), list | tuple):
        values[ARMS] = [with_own_parameters(arm) if isinstance(arm, Mapping) else arm for arm in arms]
    vllm_config.additional_config = copy.copy(additional)  # of whatever kind it is
    vllm_config.additional_config[KEY] = values


def _leave_out_full_graphs(vllm_config: Any) -> None:
    """With data parallelism, put ``full_graphs: false`` where all processes read it, unless the user has said."""
    additional = {} if vllm_config.additional_config is None else vllm_config.additional_config
    given = additional.get(KEY, {}) if isinstance(additional, Mapping) else None
    if vllm_config.parallel_config.data_parallel_size == 1 or not isinstance(given, Mapping):
        return
    defaults = {"full_graphs": False}
    values = {**defaults, **given}
    if isinstance(arms := given.get(ARMS), list | tuple):
        values[ARMS] = [{**defaults, **arm} if isinstance(arm, Mapping) else arm for arm in arms]
    vllm_config.additional_config = copy.copy(additional)  # of whatever kind it is
    vllm_config.additional_config[KEY] = values
    logging.getLogger("vllm.hyperscale").info(
        "hyperscale: with data parallelism, %s, attention is left out of CUDA graphs", FULL_GRAPHS_REASON
    )


def _complete(model_config: Any) -> None:
    """Read what the checkpoint's files say of its gates, beside its ``config.json`` too, into its configuration."""
    # Offline, vLLM puts the hub's cached folder in the place of the id, and leaves the revision as it was.
    path, revision = model_config.model, getattr(model_config, "revision", None)
    complete_config(model_config.hf_config, f"{path}@{revision}" if revision and not Path(path).is_dir() else path)


class RefuseOptions(VerifyAndUpdateConfig):
    """For stock model classes that have none of the plugin's in their place."""

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Leave a model alone, unless options of the plugin were given: stock vLLM would run, and compress nothing.

        Raises:
            EngineError: They were.
        """
        if not _has_options(vllm_config):
            return
        family = getattr(vllm_config.model_config.hf_config, "model_type", "")
        reason = explain_absent(family, "the hyperscale plugin") or (
            f"{vllm_config.model_config.architecture} is no class that it has one for"
        )
        raise EngineError(f"the hyperscale plugin refuses to start: {reason}: leave its options out")


class RedirectGated(VerifyAndUpdateConfig):
    """For stock model classes: with DMS gates, or with options of the plugin, its own class runs instead."""

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Send a checkpoint to the plugin's class that has gates or was given options; leave any other alone.

        Raises:
            EngineError: Options were given for a family that has no class in the plugin.
        """
        config = vllm_config.model_config.hf_config
        family = getattr(config, "model_type", "")
        if family not in FAMILIES:
            RefuseOptions.verify_and_update_config(vllm_config)
            return
        _complete(vllm_config.model_config)
        if not (has_gates(config) or _has_options(vllm_config)):
            return
        config.architectures = [architecture(family)]
        ConfigureRagged.verify_and_update_config(vllm_config)


def with_refusal(config: type[VerifyAndUpdateConfig] | None) -> type[VerifyAndUpdateConfig]:
    """The configuration of a model class that refuses options of the plugin where it is no class of ours.

    Args:
        config: The one that the class has, vLLM's own or what this has returned before; None if it has none.
    """
    if config is None:
        return RefuseOptions
    if issubclass(config, ConfigureRagged | RedirectGated | RefuseOptions):
        return config

    class RefuseOptionsFirst(config, RefuseOptions):  # type: ignore[misc, valid-type]
        @classmethod
        def verify_and_update_config(cls, vllm_config: Any) -> None:
            """See `RefuseOptions`; then what vLLM does."""
            RefuseOptions.verify_and_update_config(vllm_config)
            super().verify_and_update_config(vllm_config)

    return RefuseOptionsFirst


def _has_options(vllm_config: Any) -> bool:
    additional = vllm_config.additional_config
    return isinstance(additional, Mapping) and KEY in additional
