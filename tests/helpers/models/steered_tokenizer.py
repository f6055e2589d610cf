"""A tokenizer of characters with a token that ends the thinking."""

import tiny

END, EOS, SIZE = 22, 23, 24  # the last two of 24 tokens


class Marks(tiny.Characters):
    """Characters, and a token that ends the thinking."""

    all_special_tokens = ()

    def __init__(self):
        super().__init__(SIZE)

    def get_vocab(self):
        return {self.decode([i]): i for i in range(SIZE)}

    def encode(self, text, add_special_tokens=False):
        return [END] if text == "</think>" else [ord(c) - 33 for c in text if ord(c) - 33 < END]

    def decode(self, ids, skip_special_tokens=True, clean_up_tokenization_spaces=False):
        return "".join("</think>" if i == END else chr(33 + i) for i in ids if i != EOS)


WORD = Marks().decode([3, 1, 4])
