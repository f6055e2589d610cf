"""Measures the likelihood of texts: the full cache first, then each method at each ratio."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale import methods, models
from hyperscale.engines import registry
from hyperscale.engines.devices import check_device, device_kind
from hyperscale.engines.provider import EngineSpec
from hyperscale.errors import ConfigError, ModelError
from hyperscale.likelihood.documents import cut_documents
from hyperscale.likelihood.settings import LikelihoodSettings
from hyperscale.methods.arm import Arm
from hyperscale.methods.names import VANILLA
from hyperscale.models.context import context_limit

if TYPE_CHECKING:
    from hyperscale.likelihood.frames import Likelihood
    from hyperscale.methods.core.base import Method
    from hyperscale.models import Checkpoint


class Watcher:
    """Told how a measurement goes; a subclass shows it."""

    def on_documents(self, chosen: int, found: int, short: int) -> None:
        """The texts were cut: documents chosen, documents found, texts that were too short."""

    def on_unknown(self, share: float) -> None:
        """The tokenizer has no token for this share of the texts, and puts the same one in the place of it all."""

    def on_stored(self, count: int) -> None:
        """So many methods and ratios were found in the folder, measured before."""

    def on_arm(self, name: str, tokens: int) -> None:
        """A method begins, with so many tokens to score."""

    def on_tokens(self, count: int) -> None:
        """So many tokens were scored."""


def measure(
    files: Sequence[Path],
    settings: LikelihoodSettings,
    watcher: Watcher | None = None,
    folder: Path | None = None,
) -> "Likelihood":
    """Score texts with the full cache and under every method.

    Every method is held against the full cache of the original model. So of a retrofit, whose weights were trained, the
    difference is of compression and training together.

    Args:
        files: Texts, see `cut_documents`.
        settings: What else is to be known.
        watcher: Told how it goes.
        folder: Where each method's scores are stored as soon as they are there, and found again: of a measurement that
            was stopped, or of one with other methods or ratios, only what is missing is computed. None stores nothing.

    Raises:
        HyperscaleError: Anything named does not exist or fit together, or the model cannot be run.
    """
    watcher = watcher or Watcher()
    settings = _place(settings)
    model = models.add_revision(settings.model, settings.revision)
    provider = registry.get(registry.REFERENCE)
    provider.check(settings.methods, steering=False, kv_dtype="auto")
    arms = _make_arms(settings, model)
    provider.check_methods([method for _, method, _ in arms], settings.device)
    base = models.resolve(model, VANILLA, 1)
    for path in dict.fromkeys([base.path, *(checkpoint.path for _, _, checkpoint in arms)]):
        models.require(path, model)

    def spec(path: str, method: "Method") -> EngineSpec:
        size = settings.batch_size or models.find(model).batch_size
        size = min(size, len(chosen.chosen)) if chosen else size
        return EngineSpec(path, method, batch_size=size, device=settings.device, dtype=settings.dtype)

    chosen = None
    loaded = base.path
    network, tokenizer = provider.load_weights(spec(base.path, methods.create(VANILLA, cr=1)))
    chosen = cut_documents(files, tokenizer, length=settings.length, documents=settings.documents, seed=settings.seed)
    watcher.on_documents(len(chosen.chosen), chosen.found, chosen.short)
    if chosen.unknown:
        watcher.on_unknown(chosen.unknown)
    _check_room(settings, network, len(tokenizer))
    # Only now: they import torch.
    from hyperscale.likelihood.frames import Likelihood
    from hyperscale.likelihood.full_cache import FullCache
    from hyperscale.likelihood.scoring import score_documents
    from hyperscale.likelihood.stored_scores import StoredScores, hash_documents

    common = {
        "full": models.identify_weights(base.path),
        "documents": hash_documents(chosen.chosen),
        "versions": provider.versions(),
        **settings.model_dump(mode="json", include={"length", "prompt_tokens", "seed", "device", "dtype"}),
    }
    identities = {
        arm: {
            **common,
            "method": str(arm),
            "params": dict(method.params()),
            "weights": models.identify_weights(checkpoint.path),
        }
        for arm, method, checkpoint in arms
    }
    store = None if folder is None else StoredScores(folder)
    stored = {} if store is None else {arm: store.load(identity) for arm, identity in identities.items()}
    scores = {arm: found for arm, found in stored.items() if found is not None}
    if scores:
        watcher.on_stored(len(scores))
    reference = None
    for arm, method, checkpoint in arms:
        if arm in scores:
            continue
        if reference is None:
            watcher.on_arm("full cache", 0)
            reference = FullCache(network, chosen.chosen)
        if checkpoint.path != loaded:
            network = None  # goes before the next one comes
            network, tokenizer = provider.load_weights(spec(checkpoint.path, method))
            loaded = checkpoint.path
            if network.lm_head.weight.shape[0] != reference.vocabulary:
                raise ModelError(
                    f"{checkpoint.path} predicts {network.lm_head.weight.shape[0]:,} tokens and the original model "
                    f"{reference.vocabulary:,}: their distributions cannot be compared"
                )
        engine: Any = provider.build(spec(checkpoint.path, method), (network, tokenizer))
        watcher.on_arm(str(arm), len(chosen.chosen) * (settings.length - settings.prompt_tokens))
        scores[arm] = score_documents(
            engine, chosen.chosen, reference, settings.prompt_tokens, watcher.on_tokens, seed=settings.seed
        )
        engine.close()
        if store is not None:
            store.store(identities[arm], scores[arm])
    return Likelihood(
        settings=settings,
        files=tuple(map(str, files)),
        documents_chosen=tuple(document.name for document in chosen.chosen),
        params={arm: method.params() for arm, method, _ in arms},
        versions=provider.versions(),
        full_nats=next(iter(scores.values())).full_nats,
        scores={arm: scores[arm] for arm, _, _ in arms},
    )


def _place(settings: LikelihoodSettings) -> LikelihoodSettings:
    """Settings with a device and a type of this machine in the place of "auto"."""
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "float32" if device_kind(device) == "cpu" else "bfloat16"
    return settings.model_copy(update={"device": device, "dtype": dtype})


def _make_arms(settings: LikelihoodSettings, model: str) -> "list[tuple[Arm, Method, Checkpoint]]":
    """Every method at every ratio, with the checkpoint that it runs on.

    Raises:
        HyperscaleError: There is no such method, ratio or checkpoint.
    """
    if foreign := sorted(set(settings.params) - set(settings.methods)):
        raise ConfigError(f"--method-param {foreign[0]}: it is none of --method {','.join(settings.methods)}")
    arms = []
    for name in settings.methods:
        params = settings.params.get(name, {})
        if "cr" in params:
            raise ConfigError(f"--method-param {name}.cr: compression ratios are set by --cr for all methods")
        budget = params.get("budget")
        if settings.rule != "own" and "rule" in methods.parameters(name) and budget is None:
            params = {"rule": settings.rule, **params}
        ratios = (1.0,) if name == VANILLA or budget is not None else settings.crs
        for cr in ratios:
            method = methods.create(name, cr=cr, **params)
            arm = Arm(name, cr, kv_budget=budget or 0, length_invariant=method.length_invariant)
            arms.append((arm, method, models.resolve(model, name, cr)))
    return arms


def _check_room(settings: LikelihoodSettings, network: Any, words: int) -> None:
    """Refuse documents that the model has no room for, and a tokenizer that is another model's."""
    context = context_limit(network.config.to_dict())
    # The last token is scored and never processed.
    if context is not None and settings.length - 1 > context:
        raise ConfigError(
            f"--length {settings.length:,} is beyond the model's context of {context:,} tokens: choose a smaller one"
        )
    if words > network.config.vocab_size:
        raise ModelError(
            f"the tokenizer has {words:,} tokens and the model's embedding {network.config.vocab_size:,} rows: it is "
            "another model's"
        )
