"""Hyperscale as a model of lm-eval: any of its tasks with a compressed KV cache.

``python -m hyperscale.lm_eval --model hyperscale --model_args model=llama-3.2-1b-dms,method=dms,cr=8 --tasks gsm8k`` is
lm-eval's own command with this model registered: lm-eval finds models of other packages only after they are imported.
In Python, ``import hyperscale.lm_eval`` before ``lm_eval.simple_evaluate(model="hyperscale", …)`` does the same.

The compression is in force in both kinds of request. A generated token and a scored one go through the same cache: the
context is prefilled under the method, then the continuation is fed token by token.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from hyperscale import methods, models
from hyperscale.engines.base import Chain, Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.kv.formats import AUTO
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
            model: Name in models.yaml, local folder or hub id.
            method: KV-compression method.
            cr: Nominal compression ratio; the only one that the model's checkpoints offer if None.
            batch_size: Chains that decode together; "auto" is 64. It changes no result.
            max_batch_size: Most that "auto" may be.
            device: As torch names it; CUDA where there is one if None.
            dtype: float32 or bfloat16; float32 on the CPU and bfloat16 on CUDA if "auto".
            kv_dtype: What the cache is kept in: the model's type if "auto", fp8, int8 or int4.
            max_length: Most tokens of context and continuation together; the model's own if None.
            seed: Of the sampling noise.
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
        ratio = _ratio(model, method, cr)
        made = methods.create(method, cr=ratio, **params)
        checkpoint = models.resolve(model, method, ratio)
        models.require(checkpoint.path, model)
        loaded, self.tokenizer = load_model(checkpoint.path, device=str(device), dtype=dtype)
        auto = str(batch_size).startswith("auto")
        self.batch_size = min(AUTO_BATCH, max_batch_size or AUTO_BATCH) if auto else int(batch_size)
        self._engine = TorchEngine(
            loaded, self.tokenizer, made, batch_size=self.batch_size, device=str(device), kv_dtype=kv_dtype
        )
        self._device = torch.device(str(device))
        self._seed = seed
        self.max_length = int(max_length or getattr(loaded.config, "max_position_embeddings", 0) or 2048)
        self._info: dict[str, Any] = {"model": model, "method": method, "checkpoint": checkpoint.path}
        self._info |= {"params": made.params(), "kv_dtype": kv_dtype}

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
        asked = []
        for number, (_pair, context, continuation) in enumerate(requests):
            if not continuation:
                continue
            if len(continuation) > self.max_length:
                raise ConfigError(
                    f"a continuation of {len(continuation)} tokens is longer than the model's {self.max_length}: "
                    "raise max_length in --model_args"
                )
            kept = tuple(context[-(self.max_length + 1 - len(continuation)) :])
            forced = tuple(continuation)
            asked.append(Request(str(number), 0, kept, len(forced), forced=forced))
        scores = [(0.0, True)] * len(requests)
        for chain in self._run(asked, Sampling(0.0), "scoring", disable_tqdm):
            scores[int(chain.problem)] = (chain.logprob, chain.greedy)
        return scores

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows of the model's length."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in utils.get_rolling_token_windows(
                token_list=tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            ):
                windows.append((None, *utils.make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (logprob, _greedy) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[owner] += logprob
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text generated for each request, cut before its stop strings."""
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        repeats: Counter[str] = Counter()
        texts = [""] * len(requests)
        for numbers in groups.values():
            sampling, length = self._settings(requests[numbers[0]].args[1])
            places: dict[tuple[str, int], int] = {}
            asked = []
            for number in numbers:
                # Noise depends on the document, not on the order or number of requests.
                instance = requests[number]
                name = f"{getattr(instance, 'task_name', None)}/{getattr(instance, 'doc_id', None)}"
                places[name, repeats[name]] = number
                room = max(self.max_length - length, 1)
                prompt = tuple(self.tok_encode(instance.args[0])[-room:])
                asked.append(Request(name, repeats[name], prompt or (self.prefix_token_id,), length))
                repeats[name] += 1
            for chain in self._run(asked, sampling, "generating", disable_tqdm):
                texts[places[chain.problem, chain.chain]] = chain.text
        return texts

    def _settings(self, asked: dict[str, Any]) -> tuple[Sampling, int]:
        settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(asked), MAX_NEW_TOKENS))
        until = settings.get("until") or ()
        stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        temperature = float(settings.get("temperature") or 0.0) if settings.get("do_sample") else 0.0
        top_p = float(settings.get("top_p") or 1.0)
        return Sampling(temperature, top_p, stop, self._seed), int(settings["max_gen_toks"])

    def _run(self, asked: Iterable[Request], sampling: Sampling, what: str, silent: bool) -> Iterator[Chain]:
        from tqdm import tqdm

        asked = list(asked)
        yield from tqdm(self._engine.generate(asked, sampling), total=len(asked), desc=what, disable=silent)


def _ratio(model: str, method: str, cr: float | None) -> float:
    if cr is not None:
        return float(cr)
    if method == "vanilla":
        return 1.0
    found = models.find(model)
    offered = list(found.retrofits.get(method, found.dms))
    if len(offered) != 1:
        raise ConfigError(
            f"say the compression ratio of {method} in --model_args, e.g. cr={offered[0] if offered else 4:g}"
        )
    return offered[0]


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
