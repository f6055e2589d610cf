"""Scores chains for best-of-n, from their texts, without knowing the answer.

Mean log-probability needs no scorer here: the samples hold it. A reward model is a path.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from hyperscale.engines.devices import check_device
from hyperscale.errors import ModelError, ResultsError
from hyperscale.models.prompts import apply_template, choose_template
from hyperscale.scoring.voting.strategies import LOGPROB
from hyperscale.utils.hub import model_errors
from hyperscale.utils.paths import expand_home


class Scorer(ABC):
    """Gives texts numbers; the higher, the better.

    Attributes:
        name: Its name in the column ``vote`` and in the samples.
    """

    name: str

    @abstractmethod
    def score(self, prompt: str, text: str) -> float:
        """Score of a chain.

        Args:
            prompt: The user message.
            text: Thinking, end of thinking and answer.
        """


class RewardModel(Scorer):
    """A transformers model for sequence classification with one output, or two of which the second means "good".

    It reads the conversation in its own chat template, or, without one, the prompt and the text with an empty line
    between them; of what is longer than its positions, the end. Chains are scored one by one, so that no score depends
    on another chain.
    """

    def __init__(self, path: str, device: str = "cpu") -> None:
        """Name a folder or a hub id; weights are loaded when the first text is scored."""
        self.path, self.device = path, device
        self.name = Path(path).name
        self._loaded: Any = None

    def score(self, prompt: str, text: str) -> float:
        """See `Scorer.score`: the model's output, or the second minus the first.

        Raises:
            ModelError: The model cannot be loaded, has other outputs, or answers with no number.
        """
        import torch

        if self._loaded is None:
            self._loaded = _load(self.path, self.device)
        model, tokenizer = self._loaded
        ids = _ids(tokenizer, prompt, text)[-int(getattr(model.config, "max_position_embeddings", 0) or 2**30) :]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids], device=self.device)).logits[0].float()
        value = float(logits[0] if len(logits) == 1 else logits[1] - logits[0])
        if value != value:
            raise ModelError(f"the reward model {self.path} gives no number for a chain: try it in float32 elsewhere")
        return value


def get(name: str, device: str = "cpu") -> Scorer | None:
    """A scorer; None for mean log-probability, which is in the samples.

    Args:
        name: ``logprob``, or a folder or hub id of a reward model.
        device: Where a reward model runs.

    Raises:
        ModelError: A folder is no model's.
    """
    if name == LOGPROB:
        return None
    folder = expand_home(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{name} holds no config.json: pass a transformers model for sequence classification")
        return RewardModel(str(folder.resolve()), device)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"no scorer {name!r}: choose {LOGPROB}, or the folder or hub id of a reward model")
    return RewardModel(name, device)


def _load(path: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    check_device(device)
    with model_errors(f"cannot load the reward model {path}"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        outputs = int(config.num_labels)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path, output_loading_info=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if info["missing_keys"]:  # a language model without a head would be given a random one
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(f"{path} is no reward model, it lacks {missing}: pass one for sequence classification")
    surplus = sorted(name for name in info["unexpected_keys"] if not name.endswith(("lm_head.weight", ".inv_freq")))
    if surplus:  # scales of quantised weights, biases, adapters: without them the scores are others
        raise ModelError(
            f"the reward model {path} has tensors that its class has no place for: {', '.join(surplus[:3])}"
        )
    if outputs not in (1, 2):
        raise ModelError(f"the reward model {path} has {outputs} outputs: pass one with a single output, or with two")
    return model.to(device).eval().requires_grad_(False), tokenizer


def _ids(tokenizer: Any, prompt: str, text: str) -> list[int]:
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        remedy = "choose another model with --scorer"
        whole = apply_template(
            tokenizer, messages, choose_template(tokenizer), remedy=remedy, add_generation_prompt=False
        )
        ids = tokenizer.encode(whole, add_special_tokens=False)
    else:
        ids = tokenizer.encode(f"{prompt}\n\n{text}")
    if not ids:
        raise ResultsError("a chain without text and prompt cannot be scored")
    return [int(i) for i in ids]
