"""Runs lm-eval's tasks with a compressed KV cache: hyperscale as a model of lm-eval.

``python -m hyperscale.lm_eval --model hyperscale --model_args model=llama-3.2-1b-dms,method=dms,cr=8 --tasks gsm8k`` is
lm-eval's own command with this model registered: lm-eval finds models of other packages only after they are imported.
In Python, ``import hyperscale.lm_eval`` before ``lm_eval.simple_evaluate(model="hyperscale", …)`` does the same.

The compression is in force in both kinds of request. A generated token and a scored one go through the same cache: the
context is prefilled under the method, then the continuation is fed token by token.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from hyperscale import methods, models
from hyperscale.engines import registry
from hyperscale.engines.base import Chain, Request, Sampling
from hyperscale.engines.provider import EngineSpec
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.kv.formats import AUTO
from hyperscale.models.context import context_limit
from hyperscale.utils.hub import silence_transformers

MAX_NEW_TOKENS = 256  # where a task does not say, as in lm-eval's own models
AUTO_BATCH = 64


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
        **params: Any,
    ) -> None:
        """Load a model; the arguments are ``--model_args`` and lm-eval's own.

        Args:
            model: Name (`hyperscale models`), local folder or hub id.
            method: KV-compression method.
            cr: Nominal compression ratio; the only one that the model's checkpoints offer if None.
            batch_size: Chains that decode together; "auto" is 64. It changes no result.
            max_batch_size: Most that "auto" may be.
            device: As torch names it; CUDA where there is one if None.
            dtype: float32 or bfloat16; float32 on the CPU and bfloat16 on CUDA if "auto".
            kv_dtype: What the cache is kept in: the model's type if "auto", fp8, int8 or int4.
            max_length: Most tokens of context and continuation together; the model's own if None.
            seed: Seed of the sampling noise.
            **params: The method's own parameters.

        Raises:
            HyperscaleError: Anything named does not exist or fit together.
        """
        super().__init__()
        import torch

        silence_transformers()  # its loader reports our gates as tensors that it does not expect

        if device is None or (str(device).startswith("cuda") and not torch.cuda.is_available()):
            device = "cuda" if torch.cuda.is_available() else "cpu"  # lm-eval asks for cuda:0 by default
        if dtype == "auto":
            dtype = "float32" if str(device) == "cpu" else "bfloat16"
        ratio = _choose_ratio(model, method, cr)
        compression = methods.create(method, cr=ratio, **params)
        checkpoint = models.resolve(model, method, ratio)
        models.require(checkpoint.path, model)
        is_auto = str(batch_size).startswith("auto")
        self.batch_size = min(AUTO_BATCH, max_batch_size or AUTO_BATCH) if is_auto else int(batch_size)
        spec = EngineSpec(
            checkpoint.path,
            compression,
            batch_size=self.batch_size,
            device=str(device),
            dtype=dtype,
            kv_dtype=kv_dtype,
        )
        provider = registry.get(registry.DEFAULT)  # it scores forced tokens, which likelihoods need
        network, self.tokenizer = provider.load_weights(spec)
        self._engine = provider.build(spec, (network, self.tokenizer))
        self._device = torch.device(str(device))
        self._seed = seed
        context = context_limit(network.config.to_dict()) or 2048
        if int(max_length or 0) > context:
            raise ConfigError(
                f"max_length={max_length} in --model_args is beyond the model's context of {context:,} tokens"
            )
        self.max_length = int(max_length or context)
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
        return int(self.tokenizer.eos_token_id)

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
        text = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return str(text)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; a beginning-of-sequence token that the text already has is not added again."""
        if add_special_tokens is None:
            start = self.tokenizer.bos_token
            add_special_tokens = not (start and string.startswith(start))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation, and whether greedy decoding would give it."""
        chains = []
        for index, (_pair, context, continuation) in enumerate(requests):
            if not continuation:  # nothing to score: probability 1
                continue
            if len(continuation) > self.max_length:
                raise ConfigError(
                    f"a continuation of {len(continuation)} tokens is longer than the model's {self.max_length}: "
                    "raise max_length in --model_args"
                )
            # The last token is scored and never processed, so one more token of context has room.
            prompt = tuple(context[-(self.max_length + 1 - len(continuation)) :])
            chains.append(Request(str(index), 0, prompt, len(continuation), forced_ids=tuple(continuation)))
        scores = [(0.0, True)] * len(requests)
        for chain in self._run(chains, Sampling(0.0), "scoring", disable_tqdm):
            scores[int(chain.problem)] = (chain.logprob, chain.greedy)
        return scores

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows of the model's length."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []  # the request of each window
        for index, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in utils.get_rolling_token_windows(
                token_list=tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            ):
                windows.append((None, *utils.make_disjoint_window(window)))
                owners.append(index)
        totals = [0.0] * len(requests)
        for owner, (logprob, _greedy) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[owner] += logprob
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text generated for each request, cut before its stop strings."""
        groups: dict[str, list[int]] = {}
        # Requests with the same settings generate together.
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        repeats: Counter[str] = Counter()
        texts = [""] * len(requests)
        for indices in groups.values():
            sampling, L = self._read_settings(requests[indices[0]].args[1])
            index_of_chain: dict[tuple[str, int], int] = {}
            chains = []
            for index in indices:
                # Noise depends on the document, not on the order or number of requests; a document that is asked
                # again gets the next chain.
                instance = requests[index]
                name = f"{getattr(instance, 'task_name', None)}/{getattr(instance, 'doc_id', None)}"
                index_of_chain[name, repeats[name]] = index
                prompt_tokens = max(self.max_length - L, 1)
                prompt = tuple(self.tok_encode(instance.args[0])[-prompt_tokens:])
                chains.append(Request(name, repeats[name], prompt or (self.prefix_token_id,), L))
                repeats[name] += 1
            for chain in self._run(chains, sampling, "generating", disable_tqdm):
                texts[index_of_chain[chain.problem, chain.chain]] = chain.text
        return texts

    def _read_settings(self, gen_kwargs: dict[str, Any]) -> tuple[Sampling, int]:
        """Sampling and L of a request for text; without ``do_sample`` lm-eval means greedy decoding."""
        settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(gen_kwargs), MAX_NEW_TOKENS))
        until = settings.get("until") or ()
        stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        temperature = float(settings.get("temperature") or 0.0) if settings.get("do_sample") else 0.0
        top_p = float(settings.get("top_p") or 1.0)
        return Sampling(temperature, top_p, stop=stop, seed=self._seed), int(settings["max_gen_toks"])

    def _run(self, requests: Sequence[Request], sampling: Sampling, label: str, silent: bool) -> Iterator[Chain]:
        """Generate under a progress bar, as lm-eval's own models do."""
        from tqdm import tqdm

        chains = self._engine.generate(requests, sampling)
        yield from tqdm(chains, total=len(requests), desc=label, disable=silent)


def _choose_ratio(model: str, method: str, cr: float | None) -> float:
    """The compression ratio asked for, else the only one that the model's retrofits offer.

    Raises:
        ConfigError: There are several, or none.
    """
    if cr is not None:
        return float(cr)
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
