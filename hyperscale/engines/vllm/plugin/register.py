"""Registers the plugin: vLLM calls this in every one of its processes, any number of times."""

from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.families import FAMILIES, architecture


def register() -> None:
    """Tell vLLM of the models, the cache spec, the backend and the connector.

    Raises:
        EngineError: This is a version of vLLM that has not been tried.
    """
    versions.check()
    from vllm.model_executor.models import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.kv_cache_spec_registry import _REGISTRY_KVCACHESPEC_LIST, KVCacheSpecRegistry

    from hyperscale.engines.vllm.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.plugin import configure, parent_watch
    from hyperscale.engines.vllm.scheduler import output_hook
    from hyperscale.engines.vllm.scheduler.manager import RaggedManager

    for family, name in FAMILIES.items():
        for is_ragged in (True, False):  # our class, and vLLM's with masked rows of the vocabulary
            class_name = architecture(family, ragged=is_ragged)
            ModelRegistry.register_model(class_name, f"hyperscale.engines.vllm.model.models:{class_name}")
        MODELS_CONFIG_MAP[architecture(family)] = configure.ConfigureRagged
        MODELS_CONFIG_MAP.setdefault(f"{name}ForCausalLM", configure.RedirectGated)
    trimmed = {architecture(family, ragged=False) for family in FAMILIES}
    for class_name in set(ModelRegistry.get_supported_archs()) - trimmed:
        MODELS_CONFIG_MAP[class_name] = configure.with_refusal(MODELS_CONFIG_MAP.get(class_name))
    if FullAttentionSpec not in _REGISTRY_KVCACHESPEC_LIST:
        # vLLM registers its own specs when it first looks, but only if there are none at all.
        register_all_kvcache_specs(None)
    KVCacheSpecRegistry.register(RaggedSpec, RaggedManager)
    output_hook.wrap_update_from_output()
    parent_watch.end_with_parent()
