"""Runs lm-eval's tasks with a compressed KV cache: hyperscale as a model of lm-eval.

``python -m hyperscale.lm_eval --model hyperscale --model_args model=llama-3.2-1b-dms,method=dms,cr=8 --tasks gsm8k`` is
lm-eval's own command with this model registered: lm-eval finds models of other packages only after they are imported.
In Python, ``import hyperscale.lm_eval`` before ``lm_eval.simple_evaluate(model="hyperscale", …)`` does the same.

The compression is in force in both kinds of request. A generated token and a scored one go through the same cache: the
context is prefilled under the method, then the continuation is fed token by token.

What a task or ``--gen_kwargs`` asks for is applied or refused, by name. Stop strings of a task apply to the answer, not
to a thinking in front of it.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from hyperscale import methods, models
from hyperscale.engines import registry
from hyperscale.engines.base import Chain, Request, Sampling
from hyperscale.engines.detokenize import end_ids
from hyperscale.engines.devices import check_device, device_kind
from hyperscale.engines.provider import EngineSpec
from hyperscale.engines.sampling import check_sampling
from hyperscale.errors import ConfigError, EngineError, HyperscaleError
from hyperscale.kv.formats import AUTO
from hyperscale.models import thinking
from hyperscale.models.context import context_limit
from hyperscale.models.prompts import apply_template, choose_template
from hyperscale.utils.hub import silence_transformers

MAX_NEW_TOKENS = 256  # where a task does not say, as in lm-eval's own models
AUTO_BATCH = 64

_logger = logging.getLogger("lm_eval.models.hyperscale")  # what lm-eval shows, this shows
_MODEL_ARGS = "in --model_args"
_MARK_CHARS = 100  # of a prompt's end: any mark of thinking is shorter
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


@register_model("hyperscale")
class HyperscaleLM(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """A checkpoint with a KV-compression method in force."""

    def __init__(
        self,
        model: str = "mini",
        method: str = "vanilla",
        cr: float | None = None,
        *,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str = "auto",
        kv_dtype: str = AUTO,
        max_length: int | None = None,
        seed: int = 0,
        enable_thinking: bool | None = None,
        think_end_token: str | None = None,
        revision: str | None = None,
        **params: Any,
    ) -> None:
        """Load a model; the arguments are ``--model_args`` and lm-eval's own.

        Args:
            model: Name (`hyperscale models`), local folder or hub id.
            method: KV-compression method.
            cr: Nominal compression ratio; the only one that the model's checkpoints offer if None. A
                ``budget`` in tokens among the parameters takes its place.
            batch_size: Chains that decode together; "auto" is 64. It changes no result.
            max_batch_size: Most that "auto" may be.
            device: cpu, cuda or cuda:N; CUDA where there is one if None.
            dtype: float32, bfloat16 or float16; float32 on the CPU and bfloat16 on CUDA if "auto".
            kv_dtype: What the cache is kept in: the model's type if "auto", fp8, int8 or int4.
            max_length: Most tokens of context and continuation together; the model's own if None.
            seed: Seed of the sampling noise.
            enable_thinking: Given to the chat template, if not None.
            think_end_token: Texts are given to lm-eval without what stands up to the last of it, as by lm-eval's own
                models; the whole text if None.
            revision: Branch, tag or commit of a hub id.
            **params: The method's own parameters.

        Raises:
            HyperscaleError: Anything named does not exist or fit together.
        """
        super().__init__()
        import torch

        silence_transformers()  # its loader reports our gates as tensors that it does not expect

        # lm-eval asks for cuda:0 by default.
        if device is None or (str(device) in ("cuda", "cuda:0") and not torch.cuda.is_available()):
            device = "cuda" if torch.cuda.is_available() else "cpu"
        check_device(str(device))
        if dtype == "auto":
            dtype = "float32" if device_kind(str(device)) == "cpu" else "bfloat16"
        if "pretrained" in params:
            raise ConfigError("say the model with model=NAME in --model_args, not with pretrained=NAME")
        if think_end_token is not None and not isinstance(think_end_token, str):
            raise ConfigError(f"think_end_token={think_end_token!r} in --model_args must be a text, e.g. </think>")
        if enable_thinking is not None and not isinstance(enable_thinking, bool):
            raise ConfigError(f"enable_thinking={enable_thinking!r} in --model_args must be true or false")
        methods.parameters(method)  # before its ratio is asked for: there may be no such method
        model = models.add_revision(model, revision)
        ratio = _choose_ratio(model, method, cr, params)
        compression = methods.create(method, cr=ratio, **params)
        checkpoint = models.resolve(model, method, ratio)
        models.require(checkpoint.path, model)
        self.batch_size = _read_batch_size(batch_size, max_batch_size)
        spec = EngineSpec(
            checkpoint.path,
            compression,
            batch_size=self.batch_size,
            device=str(device),
            dtype=dtype,
            kv_dtype=kv_dtype,
        )
        provider = registry.get(registry.REFERENCE)  # it scores forced tokens, which likelihoods need
        network, self.tokenizer = provider.load_weights(spec)
        if enable_thinking is not None and "enable_thinking" not in (choose_template(self.tokenizer) or ""):
            raise ConfigError(
                f"the chat template of {model} has no argument enable_thinking: leave it out of --model_args"
            )
        self._engine = provider.build(spec, (network, self.tokenizer))
        self._device = torch.device(str(device))
        self._seed = _number("seed", seed, int, _MODEL_ARGS)
        self._model_name, self._network = model, network
        if enable_thinking not in (None, True, False):  # templates take any text as true
            raise ConfigError(f"enable_thinking={enable_thinking!r} in --model_args must be true or false")
        self._template_args: dict[str, Any] = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        self._think_end_token = think_end_token
        self._marks = models.find(model).thinking or thinking.marks_of_tokens(self.tokenizer.get_added_vocab())
        self._has_told_of_cuts = False
        context = context_limit(network.config.to_dict()) or 2048
        self.max_length = context if max_length is None else _number("max_length", max_length, int, _MODEL_ARGS)
        if not 0 < self.max_length <= context:
            raise ConfigError(
                f"max_length={max_length} in --model_args is beyond the model's context of {context:,} tokens"
                if self.max_length > 0
                else f"max_length={max_length} in --model_args must be at least 1"
            )
        self._info: dict[str, Any] = {
            "model": model,
            "method": method,
            "checkpoint": checkpoint.path,
            "params": compression.params(),
            "kv_dtype": kv_dtype,
        }

    @property
    def eot_token_id(self) -> int:
        """The token that ends a sequence."""
        ends = end_ids(self._network, self.tokenizer)
        if not ends:
            raise ConfigError(f"neither tokenizer nor configuration of {self._model_name} names an end of a sequence")
        own = self.tokenizer.eos_token_id
        return min(ends) if own is None else int(own)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        start = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else int(start)

    @property
    def tokenizer_name(self) -> str:
        """Part of the key of lm-eval's cache of requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes into its results about the model."""
        return self._info

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation in the model's chat template (``--apply_chat_template``)."""
        return apply_template(
            self.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self._template_args,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; a beginning-of-sequence token that the text already has is not added again."""
        if add_special_tokens is None:
            start = self.tokenizer.bos_token
            add_special_tokens = not (start and string.startswith(start))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of continuations, and whether greedy decoding would give them.

        A context without a token, as a blank one, is the token that stands for the beginning of a text.
        """
        pairs = []
        for request in requests:
            context, continuation = request.args
            if context:
                context_ids, ids = self._encode_pair(context, continuation)
            else:
                context_ids, ids = [], self.tok_encode(continuation, add_special_tokens=False)
            if not context_ids:
                context_ids, ids = self._begin(ids)
            pairs.append(((context, continuation), context_ids, ids))
        return self._loglikelihood_tokens(pairs, disable_tqdm)

    def _begin(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """The token that a text begins with, and those that follow; a text that has it already has it once."""
        prefix = self.prefix_token_id
        return ([prefix], ids) if ids[:1] != [prefix] else (ids[:1], ids[1:])

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation, and whether greedy decoding would give it."""
        chains, n_cut = [], 0
        for index, (_pair, context, continuation) in enumerate(requests):
            if not continuation:  # nothing to score: probability 1
                continue
            if len(continuation) > self.max_length:
                raise ConfigError(
                    f"a continuation of {len(continuation)} tokens is longer than the model's {self.max_length}: "
                    "raise max_length in --model_args"
                )
            # The last token is scored and never processed, so one more token of context has room.
            room = self.max_length + 1 - len(continuation)
            n_cut += len(context) > room
            prompt = tuple(context[-room:])
            chains.append(Request(str(index), 0, prompt, len(continuation), forced_ids=tuple(continuation)))
        self._tell_of_cuts(n_cut, len(chains))
        scores = [(0.0, True)] * len(requests)
        for chain in self._run(chains, Sampling(0.0), "scoring", disable_tqdm):
            scores[int(chain.problem)] = (chain.logprob, chain.greedy)
        return scores

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows of the model's length.

        What a text begins with is given, not scored, and there once: the tokenizer adds no such token of its own here.
        """
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []  # the request of each window
        for index, request in enumerate(requests):
            (prefix,), tokens = self._begin(self.tok_encode(request.args[0], add_special_tokens=False))
            for window in utils.get_rolling_token_windows(
                token_list=tokens, prefix_token=prefix, max_seq_len=self.max_length, context_len=1
            ):
                windows.append((None, *utils.make_disjoint_window(window)))
                owners.append(index)
        totals = [0.0] * len(requests)
        for owner, (logprob, _greedy) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[owner] += logprob
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text generated for each request, cut before the stop strings of its answer."""
        groups: dict[str, list[int]] = {}
        # Requests with the same settings generate together.
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        # Of all groups, before the first of them has run for hours.
        settings = {key: self._read_settings(requests[indices[0]].args[1]) for key, indices in groups.items()}
        repeats: Counter[str] = Counter()
        texts = [""] * len(requests)
        n_cut = 0
        batches: list[tuple[Sampling, dict[tuple[str, int], int], list[Request]]] = []
        for key, indices in groups.items():
            sampling, L = settings[key]
            index_of_chain: dict[tuple[str, int], int] = {}
            chains = []
            for index in indices:
                # Noise depends on the document, not on the order or number of requests; a document that is asked
                # again gets the next chain.
                instance = requests[index]
                name = f"{getattr(instance, 'task_name', None)}/{getattr(instance, 'doc_id', None)}"
                index_of_chain[name, repeats[name]] = index
                ids = self.tok_encode(instance.args[0]) or [self.prefix_token_id]
                n_cut += len(ids) > self.max_length - L
                prompt = tuple(ids[-(self.max_length - L) :])
                chains.append(Request(name, repeats[name], prompt, L, opened=self._opened(instance.args[0])))
                repeats[name] += 1
            batches.append((sampling, index_of_chain, chains))
        self._tell_of_cuts(n_cut, len(requests))
        for sampling, index_of_chain, chains in batches:
            opened = {(chain.problem, chain.chain): chain.opened for chain in chains}
            for chain in self._run(chains, sampling, "generating", disable_tqdm):
                number = chain.problem, chain.chain
                texts[index_of_chain[number]] = self._shown(chain.text, opened[number])
        return texts

    def _opened(self, prompt: str) -> str:
        """The mark of the thinking that a prompt opened, which is then the last thing in it; empty if there is none."""
        end = thinking.in_table_marks(prompt[-_MARK_CHARS:], self._marks).rstrip()
        marks = thinking.open_marks(end) if thinking.ends_in_mark(end) else None
        return marks.opening if marks else ""

    def _shown(self, text: str, opened: str) -> str:
        """A chain's text as lm-eval gets it."""
        if self._think_end_token is not None:
            return text.rpartition(self._think_end_token)[2].lstrip() if self._think_end_token in text else text
        # A thinking that was cut off has no answer; without its beginning nobody could tell.
        is_open = thinking.open_marks(opened + thinking.in_table_marks(text, self._marks)) is not None
        return opened + text if opened and is_open else text

    def _tell_of_cuts(self, n_cut: int, n_all: int) -> None:
        """Say, once, that prompts lose their beginnings."""
        if n_cut and not self._has_told_of_cuts:
            self._has_told_of_cuts = True
            _logger.warning(
                "%d of %d prompts do not fit into max_length=%d beside what is to be generated or scored: they are cut "
                "from the left, as by lm-eval's own models",
                n_cut,
                n_all,
                self.max_length,
            )

    def _read_settings(self, gen_kwargs: Mapping[str, Any]) -> tuple[Sampling, int]:
        """Sampling and L of a request for text.

        As in lm-eval, tokens are drawn if ``do_sample`` or a temperature above 0 asks for it; a task that asks for it
        without a temperature gets the model's own sampling.

        Raises:
            ConfigError: A setting is unknown or not supported, or has a value without a meaning.
        """
        given = {name: value for name, value in gen_kwargs.items() if value is not None}
        for name, value in given.items():
            if name not in _APPLIED and value not in _WITHOUT_EFFECT.get(name, ()):
                raise ConfigError(_explain_unsupported(name, value))
        shape = {name: _number(name, given[name], kind) for name, kind in _SHAPES.items() if name in given}
        if shape.get("top_k") == -1:  # another way of saying that all are kept
            shape["top_k"] = 0
        try:
            check_sampling(Sampling(**shape))
        except EngineError as error:
            raise ConfigError(f"{error}, in a task or --gen_kwargs") from None
        lengths = {name: _number(name, given[name], int) for name in _LENGTHS if name in given}
        draws = given.get("do_sample", shape.get("temperature", 0) > 0)
        if not isinstance(draws, bool):
            raise ConfigError(f"do_sample={draws!r} of a task or --gen_kwargs must be true or false")
        if draws and "temperature" not in shape:
            own = models.find_default_sampling(models.find(self._model_name))
            shape = {**own.values, **shape}
        # What lm-eval makes of several names for a length, and of contradictions, with what it says of them.
        normal: dict[str, Any] = dict(
            normalize_gen_kwargs({**given, **shape, **lengths, "do_sample": draws}, MAX_NEW_TOKENS)
        )
        L = int(normal["max_gen_toks"])
        if L < 1:
            raise ConfigError(f"max_gen_toks={L} of a task or --gen_kwargs must be at least 1")
        if self.max_length <= L:
            raise ConfigError(
                f"max_gen_toks={L} leaves no room for a prompt in max_length={self.max_length}: choose fewer with "
                "--gen_kwargs max_gen_toks=N, or another max_length in --model_args if the model's context allows it"
            )
        shape["temperature"] = shape["temperature"] if draws else 0.0
        sampling = Sampling(
            **shape,
            stop=_stop_strings(given.get("until")),
            stop_in_answer=True,
            seed=_number("seed", given.get("seed", self._seed), int),
            marks=self._marks,
        )
        return sampling, L

    def _run(self, requests: Sequence[Request], sampling: Sampling, label: str, silent: bool) -> Iterator[Chain]:
        """Generate under a progress bar, as lm-eval's own models do."""
        from tqdm import tqdm

        chains = self._engine.generate(requests, sampling)
        yield from tqdm(chains, total=len(requests), desc=label, disable=silent)


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


def _number(name: str, value: Any, kind: type, place: str = "of a task or --gen_kwargs") -> Any:
    """A setting's number.

    Args:
        name: The setting.
        value: What was given.
        kind: int or float.
        place: Where it was given, for the message.

    Raises:
        ConfigError: It is none.
    """
    try:
        number = float(value)
        if isinstance(value, bool) or (kind is int and number != int(number)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name}={value!r} {place} must be {what}") from None
    return kind(number)


def _read_batch_size(batch_size: int | str, most: int | None) -> int:
    """How many chains decode together, as lm-eval writes it: a number, "auto" or "auto:N"."""
    if str(batch_size).partition(":")[0] == "auto":
        return min(AUTO_BATCH, _number("max_batch_size", most, int, _MODEL_ARGS) if most else AUTO_BATCH)
    return int(_number("batch_size", batch_size, int, "(--batch_size)"))


def _stop_strings(until: Any) -> tuple[str, ...]:
    """Stop strings as a task gives them: a text or several; empty ones stop nothing.

    Raises:
        ConfigError: They are something else.
    """
    texts = [until] if isinstance(until, str) else until or ()
    if not isinstance(texts, Sequence) or not all(isinstance(text, str | None) for text in texts):
        raise ConfigError(f"until={until!r} of a task or --gen_kwargs must be a text or a list of texts")
    return tuple(dict.fromkeys(text for text in texts if text))


def _choose_ratio(model: str, method: str, cr: float | None, params: Mapping[str, Any]) -> float:
    """The compression ratio asked for, else the only one that the model's retrofits offer; 1 beside a budget in tokens.

    Raises:
        ConfigError: There are several, or none, or a budget in tokens leaves it without effect.
    """
    if "budget" in params:
        beside = ["cr"] * (cr is not None) + ["rule"] * ("rule" in params)
        if beside:
            raise ConfigError(f"{beside[0]} in --model_args has no effect beside budget: give one of them")
        return 1.0
    if cr is not None:
        return float(_number("cr", cr, float, _MODEL_ARGS))
    if method == "vanilla":
        return 1.0
    entry = models.find(model)
    ratios = list(entry.retrofits.get(method, entry.dms))
    if len(ratios) != 1:
        raise ConfigError(
            f"say the compression ratio of {method} in --model_args, e.g. cr={ratios[0] if ratios else 4:g}"
        )
    return ratios[0]


def main() -> None:
    """lm-eval's command with this model registered; a user error is one line and exit code 2."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except HyperscaleError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
