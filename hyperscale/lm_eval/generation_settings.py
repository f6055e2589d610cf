"""Reads what a task or ``--gen_kwargs`` asks of generation: each setting is applied or refused, by its name."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from hyperscale import models
from hyperscale.engines.base import Sampling
from hyperscale.engines.sampling import check_sampling
from hyperscale.errors import ConfigError, EngineError
from hyperscale.lm_eval.model_arguments import read_number

MAX_NEW_TOKENS = 256  # where a task does not say, as in lm-eval's own models
# Settings of generation that are applied, by the names that tasks and --gen_kwargs have for them.
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SHAPES: dict[str, type] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repetition_penalty": float,
}
_APPLIED = ("until", *_LENGTHS, "do_sample", *_SHAPES, "seed")
# Those of other models of lm-eval's that may stand in a task at a value that changes nothing.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "n": (1,),
    "best_of": (1,),
    "early_stopping": (False,),
    "length_penalty": (1,),
    "diversity_penalty": (0,),
    "no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "use_cache": (True, False),
    "skip_special_tokens": (True,),
    "return_dict_in_generate": (False,),
    "output_scores": (False,),
}


def read_settings(
    gen_kwargs: Mapping[str, Any], *, model: str, max_length: int, seed: int, marks: tuple[str, str] | None
) -> tuple[Sampling, int]:
    """Sampling and L of a request for text.

    As in lm-eval, tokens are drawn if ``do_sample`` or a temperature above 0 asks for it; a task that asks for it
    without a temperature gets the model's own sampling.

    Args:
        gen_kwargs: The settings.
        model: Name of the model.
        max_length: Most tokens of a prompt and what follows it.
        seed: Seed of the noise, where the settings have none.
        marks: Opening and closing of the model's thinking.

    Raises:
        ConfigError: A setting is unknown or not supported, or has a value without a meaning.
    """
    given = {name: value for name, value in gen_kwargs.items() if value is not None}
    for name, value in given.items():
        if name not in _APPLIED and value not in _WITHOUT_EFFECT.get(name, ()):
            raise ConfigError(_explain_unsupported(name, value))
    shape = {name: read_number(name, given[name], kind) for name, kind in _SHAPES.items() if name in given}
    if shape.get("top_k") == -1:  # another way of saying that all are kept
        shape["top_k"] = 0
    try:
        check_sampling(Sampling(**shape))
    except EngineError as error:
        raise ConfigError(f"{error}, in a task or --gen_kwargs") from None
    lengths = {name: read_number(name, given[name], int) for name in _LENGTHS if name in given}
    draws = given.get("do_sample", shape.get("temperature", 0) > 0)
    if not isinstance(draws, bool):
        raise ConfigError(f"do_sample={draws!r} of a task or --gen_kwargs must be true or false")
    if draws and "temperature" not in shape:
        own = models.find_default_sampling(models.find(model))
        shape = {**own.values, **shape}
    # What lm-eval makes of several names for a length, and of contradictions, with what it says of them.
    normal: dict[str, Any] = dict(
        normalize_gen_kwargs({**given, **shape, **lengths, "do_sample": draws}, MAX_NEW_TOKENS)
    )
    L = int(normal["max_gen_toks"])
    if L < 1:
        raise ConfigError(f"max_gen_toks={L} of a task or --gen_kwargs must be at least 1")
    if max_length <= L:
        raise ConfigError(
            f"max_gen_toks={L} leaves no room for a prompt in max_length={max_length}: choose fewer with "
            "--gen_kwargs max_gen_toks=N, or another max_length in --model_args if the model's context allows it"
        )
    shape["temperature"] = shape["temperature"] if draws else 0.0
    sampling = Sampling(
        **shape,
        stop=_stop_strings(given.get("until")),
        stop_in_answer=True,
        seed=read_number("seed", given.get("seed", seed), int),
        marks=marks,
    )
    return sampling, L


def _explain_unsupported(name: str, value: Any) -> str:
    """Why a setting of generation is refused."""
    if name == "max_length":
        return (
            f"max_length={value!r} of a task or --gen_kwargs counts the prompt as well: say with max_gen_toks how much "
            "to generate"
        )
    reason = "is not supported" if name in _WITHOUT_EFFECT else "is unknown"
    return (
        f"{name}={value!r} of a task or --gen_kwargs {reason}: hyperscale draws token by token and takes "
        f"{', '.join(_APPLIED)}"
    )


def _stop_strings(until: Any) -> tuple[str, ...]:
    """Stop strings as a task gives them: a text or several; empty ones stop nothing.

    Raises:
        ConfigError: They are something else.
    """
    texts = [until] if isinstance(until, str) else until or ()
    if not isinstance(texts, Sequence) or not all(isinstance(text, str | None) for text in texts):
        raise ConfigError(f"until={until!r} of a task or --gen_kwargs must be a text or a list of texts")
    return tuple(dict.fromkeys(text for text in texts if text))
