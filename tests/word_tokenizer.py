"""A tokenizer of whole words for models that are built in tests."""

import re


class WordTokenizer:
    """Words with the space before them, numbered as they come; long words are two tokens."""

    def __init__(self, longest=8):
        self.words, self.longest = [], longest

    def __call__(self, text, add_special_tokens=True):
        pieces = []
        for piece in re.findall(r" ?\w+|[^\w ]", text):
            pieces += [p for p in (piece[: self.longest], piece[self.longest :]) if p]
        for piece in pieces:
            if piece not in self.words:
                self.words.append(piece)
        return {"input_ids": [self.words.index(p) for p in pieces]}

    def decode(self, tokens):
        return "".join(self.words[t] if t < len(self.words) else "?" for t in tokens)
