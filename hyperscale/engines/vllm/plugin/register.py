"""The plugin's entry point: called by vLLM in every one of its processes, any number of times."""

from hyperscale.engines.families import FAMILIES
from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.families import architecture

"""``model_type`` of the checkpoints that the plugin runs, and how vLLM's classes are called."""


def register() -> None:
    """Tell vLLM of the models, the cache spec, the backend and the connector.

    Raises:
        EngineError: This is a version of vLLM that nobody has tried.
    """
    versions.check()
    from vllm.model_executor.models import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.kv_cache_spec_registry import _REGISTRY_KVCACHESPEC_LIST, KVCacheSpecRegistry

    from hyperscale.engines.vllm.plugin import parent_watch, scheduler_hook, startup
    from hyperscale.engines.vllm.scheduler.cache_spec import RaggedManager, RaggedSpec

    for family, name in FAMILIES.items():
        for ragged in (True, False):
            mine = architecture(family, ragged=ragged)
            ModelRegistry.register_model(mine, f"hyperscale.engines.vllm.model.models:{mine}")
        MODELS_CONFIG_MAP[architecture(family)] = startup.Ragged
        MODELS_CONFIG_MAP.setdefault(f"{name}ForCausalLM", startup.Gated)
    if FullAttentionSpec not in _REGISTRY_KVCACHESPEC_LIST:
        # vLLM registers its own specs when it first looks, but only if there are none at all.
        register_all_kvcache_specs(None)
    KVCacheSpecRegistry.register(RaggedSpec, RaggedManager)
    scheduler_hook.install()
    parent_watch.end_with_parent()
