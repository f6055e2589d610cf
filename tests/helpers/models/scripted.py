"""Checkpoints that write a given text, whatever they are asked: tiny, of a true architecture, with a chat template."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import logging

END = "<|end_of_text|>"
TURN = "<|assistant|>"
#: Turns, a system prompt if there is one, and the model's turn.
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}" + TURN


def tokenizer(pieces=(), *, template=TEMPLATE, special=()):
    """Bytes, turns, and a token for each piece; those in ``special`` are special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)
    made.add_tokens([AddedToken(text, special=True, normalized=False) for text in ("<|system|>", "<|user|>", TURN)])
    for piece in dict.fromkeys([*pieces, *special]):
        made.add_tokens([AddedToken(piece, special=piece in special, normalized=False)])
    made.chat_template = template
    return made


def write(folder, script, *, after=(TURN,), template=TEMPLATE, special=(), jumps=None):
    """A checkpoint that writes the pieces of a script, one token each and all different, and ends.

    Args:
        folder: Where it goes.
        script: The pieces.
        after: Texts, of one token each, after which the script begins.
        template: The chat template; None for a base model.
        special: Pieces that the tokenizer lists as special tokens.
        jumps: A piece or byte to the piece that follows it, instead of the script's or besides.
    """
    logging.disable_progress_bar()
    assert len(set(script)) == len(script), "a piece may stand in a script once"
    follows = dict.fromkeys(after, script[0]) | dict(zip(script, [*script[1:], END], strict=True)) | (jumps or {})
    pieces = [*script, *(text for text in follows if len(text) > 1), *follows.values()]
    words = tokenizer([p for p in pieces if p not in (END, TURN)], template=template, special=special)
    size = len(words)
    config = LlamaConfig(
        hidden_size=size + size % 2,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=8,
        vocab_size=size,
        max_position_embeddings=4096,
        eos_token_id=words.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        # Nothing is added to the embedding of the last token, which the output layer turns into the next one.
        for layer in made.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        made.model.embed_tokens.weight.copy_(torch.eye(size, config.hidden_size))
        made.lm_head.weight.zero_()
        for text, follower in follows.items():
            (token,), (then,) = (words.encode(t, add_special_tokens=False) for t in (text, follower))
            made.lm_head.weight[then, token] = 100.0
    made.generation_config.eos_token_id = words.eos_token_id
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
