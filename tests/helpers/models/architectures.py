"""Tiny random checkpoints of the true architectures, with a byte-level tokenizer, as transformers writes them."""

import tiny
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from hyperscale.methods.core.dms_gate import GateConfig, attach_gates

END = "<|end|>"
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|model|><think>\n"
    "{% endif %}"
)


def tokenizer(end_id=None):
    """Bytes and three special tokens; with an ``end_id``, ids between them and it are nobody's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {c: i for i, c in enumerate(alphabet)} | ({END: end_id} if end_id else {})
    core = Tokenizer(models.BPE(vocab=ids, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=END, additional_special_tokens=["<|user|>", "<|model|>"]
    )
    made.chat_template = TEMPLATE
    return made


def write(folder, family, *, gates=False, offset=0.0):
    """A checkpoint of a family, with random DMS gates of window 4 if asked for."""
    logging.disable_progress_bar()
    words = tokenizer()
    made = tiny.model(family, vocab=len(words), eos=words.eos_token_id)
    extra = GateConfig(window=4, cr=8, initial_offset=offset).to_hf() if gates else {}
    if gates:
        for index, attention in enumerate(attach_gates(made)):
            generator = torch.Generator().manual_seed(index)
            weight = attention.dms_proj_alpha.requires_grad_(False).weight
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    for name, value in extra.items():
        setattr(made.config, name, value)
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
