"""The model that lm-eval sees: generation and likelihood through a compressed cache."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from hyperscale import methods, models
from hyperscale.engines import registry
from hyperscale.engines.base import Chain, Request, Sampling
from hyperscale.engines.detokenize import end_ids
from hyperscale.engines.devices import check_device, device_kind
from hyperscale.engines.provider import EngineSpec
from hyperscale.errors import ConfigError
from hyperscale.kv.formats import AUTO
from hyperscale.lm_eval.generation_settings import read_settings
from hyperscale.lm_eval.model_arguments import MODEL_ARGS, choose_ratio, read_batch_size, read_number
from hyperscale.models import thinking
from hyperscale.models.context import context_limit
from hyperscale.models.prompts import apply_template, choose_template
from hyperscale.utils.hub import silence_transformers

_logger = logging.getLogger("lm_eval.models.hyperscale")  # what lm-eval shows, this shows
_MARK_CHARS = 100  # of a prompt's end: any mark of thinking is shorter


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
        ratio = choose_ratio(model, method, cr, params)
        compression = methods.create(method, cr=ratio, **params)
        checkpoint = models.resolve(model, method, ratio)
        models.require(checkpoint.path, model)
        self.batch_size = read_batch_size(batch_size, max_batch_size)
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
        self._seed = read_number("seed", seed, int, MODEL_ARGS)
        self._model_name, self._network = model, network
        if enable_thinking not in (None, True, False):  # templates take any text as true
            raise ConfigError(f"enable_thinking={enable_thinking!r} in --model_args must be true or false")
        self._template_args: dict[str, Any] = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        self._think_end_token = think_end_token
        self._marks = models.find(model).thinking or thinking.marks_of_tokens(self.tokenizer.get_added_vocab())
        self._has_told_of_cuts = False
        context = context_limit(network.config.to_dict()) or 2048
        self.max_length = context if max_length is None else read_number("max_length", max_length, int, MODEL_ARGS)
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
        """Sampling and L of a request for text, as `generation_settings.read_settings`."""
        return read_settings(
            gen_kwargs, model=self._model_name, max_length=self.max_length, seed=self._seed, marks=self._marks
        )

    def _run(self, requests: Sequence[Request], sampling: Sampling, label: str, silent: bool) -> Iterator[Chain]:
        """Generate under a progress bar, as lm-eval's own models do."""
        from tqdm import tqdm

        chains = self._engine.generate(requests, sampling)
        yield from tqdm(chains, total=len(requests), desc=label, disable=silent)
