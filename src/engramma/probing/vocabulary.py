"""Words as tokens: the spellings that a tokenizer keeps apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from engramma.errors import DataWarning
from engramma.probing.model import LanguageModel


def concept_tokens(model: LanguageModel, words: Sequence[str]) -> list[int]:
    """Tokens of the variants of words: with and without space, capital and plural.

    Warns
    -----
    DataWarning
        If a word is several tokens: its first is used.
    """
    found: list[int] = []
    for word in words:
        main = model.token_ids(f" {word}", special=False)
        if len(main) > 1:
            warnings.warn(
                f"{word!r} is {len(main)} tokens: the first, {model.decode(main[:1])!r}, is used",
                DataWarning,
                stacklevel=2,
            )
        found.append(main[0])
        forms = (word, word.capitalize())
        for variant in (f"{space}{f}{s}" for space in (" ", "") for f in forms for s in ("", "s")):
            tokens = model.token_ids(variant, special=False)
            if len(tokens) == 1 and tokens[0] not in found:
                found.append(tokens[0])
    return found


def several_spellings(model: LanguageModel, tokens: Tensor) -> np.ndarray:
    """Whether lists of tokens (list, token) hold a word in several spellings, list by list.

    Spellings differ in capitals and in the space before; words have three letters or more.
    """
    known = {int(t): model.decode([t]).strip().lower() for t in tokens.unique()}
    found = np.zeros(len(tokens))
    for number, row in enumerate(tokens.tolist()):
        words = [w for w in (known[t] for t in row) if len(w) > 2 and w.isalpha()]
        found[number] = len(words) > len(set(words))
    return found
