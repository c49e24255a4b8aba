"""Clean prompts and their corrupted twins, of equal length, with the answers to choose from.

`engramma.probing.paired_tasks` has tasks in text for any tokenizer, and
`engramma.probing.paired_tokens` tasks in token numbers for small models.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from engramma.errors import DataError, DataWarning
from engramma.probing.model import LanguageModel, pad


@dataclass(frozen=True)
class PairedPrompts:
    """Prompts, corrupted ones of equal length, and what may come next.

    Parameters
    ----------
    name : str
    clean, corrupted : Tensor of int64, shape (prompt, token)
        Padded on the right.
    last : Tensor of int64, shape (prompt,)
        Position of the last token.
    answers : Tensor of int64, shape (prompt,)
        The right next token of the clean prompt.
    foils : Tensor of int64, shape (prompt, foil)
        Wrong next tokens. The first of them is what logit differences are taken to.
    marked : Tensor of int64, shape (prompt, mark)
        Positions of the clean prompt at which foils stand: those to attend to in a repair.

    Raises
    ------
    DataError
        If shapes do not go together.
    """

    name: str
    clean: Tensor
    corrupted: Tensor
    last: Tensor
    answers: Tensor
    foils: Tensor
    marked: Tensor

    def __post_init__(self) -> None:
        if self.clean.shape != self.corrupted.shape:
            raise DataError(
                f"clean prompts are {tuple(self.clean.shape)} (prompt x token) and corrupted ones "
                f"{tuple(self.corrupted.shape)}",
                where=self.name,
                mend="make each corrupted prompt as long as its clean one",
            )
        counts = {f.name: len(getattr(self, f.name)) for f in fields(self) if f.name != "name"}
        if len(set(counts.values())) != 1 or not len(self.clean):
            raise DataError(
                f"the numbers of prompts differ, or are 0: {counts}",
                where=self.name,
                mend="give one row a prompt in each",
            )

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> PairedPrompts:
        """Return some of the prompts."""
        parts = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "name"}
        return PairedPrompts(self.name, **parts)

    @property
    def changed(self) -> Tensor:
        """Last position at which the corrupted prompt differs, (prompt,)."""
        differs = self.clean != self.corrupted
        from_the_end = differs.flip(1).int().argmax(dim=1)
        return differs.shape[1] - 1 - from_the_end

    def difference(self, logits: Tensor) -> Tensor:
        """Logit of the answer minus that of the first foil.

        Parameters
        ----------
        logits : Tensor, shape (prompt, ..., vocabulary)

        Returns
        -------
        Tensor, shape (prompt, ...)
        """
        answer, foils = self._chosen(logits)
        return (answer - foils[..., 0]).float()

    def right(self, logits: Tensor) -> Tensor:
        """Whether the answer is above all foils; bool, shapes as for `difference`."""
        answer, foils = self._chosen(logits)
        return (answer[..., None] > foils).all(dim=-1)

    @property
    def chance(self) -> float:
        """Share of right answers of a model that prefers none of them."""
        return 1 / (1 + self.foils.shape[1])

    def _chosen(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        wanted = torch.cat([self.answers[:, None], self.foils], dim=1)
        between = logits.ndim - 2
        index = wanted.view(len(self), *[1] * between, -1)
        picked = logits.gather(-1, index.expand(*logits.shape[:-1], -1))
        return picked[..., 0], picked[..., 1:]


@dataclass(frozen=True)
class TextPair:
    """A clean and a corrupted prompt as text.

    Parameters
    ----------
    clean, corrupted : str
    answer : str
        Continuation of the clean prompt, with its space.
    foils : sequence of str
    marked : sequence of str
        Beginnings of the clean prompt, each of which ends with a word to be marked.
    """

    clean: str
    corrupted: str
    answer: str
    foils: Sequence[str]
    marked: Sequence[str] = ()


def tokenise(
    model: LanguageModel, pairs: Sequence[TextPair], name: str, *, first_token: bool = False
) -> PairedPrompts:
    """Turn pairs of texts into tokens.

    Parameters
    ----------
    model : LanguageModel
        Whose tokenizer is used.
    pairs : sequence of TextPair
        With equally many foils and marks each.
    name : str
    first_token : bool
        Whether the first token of an answer that has several is used, with a warning.

    Raises
    ------
    DataError
        If a clean and a corrupted prompt differ in length; if an answer is not one token and
        ``first_token`` is not set; if answer and foil begin alike.
    """
    clean, corrupted, wanted = [], [], []
    cut: set[str] = set()
    for pair in pairs:
        a, b = model.token_ids(pair.clean), model.token_ids(pair.corrupted)
        if len(a) != len(b):
            raise DataError(
                f"the clean prompt has {len(a)} tokens, and the corrupted one {len(b)}",
                where=f"{pair.clean!r} and {pair.corrupted!r}",
                mend="replace words by words of as many tokens",
            )
        clean.append(a)
        corrupted.append(b)
        tokens = []
        for answer in (pair.answer, *pair.foils):
            token, whole = _continuation(model, pair.clean, answer)
            if not whole:
                cut.add(answer)
            tokens.append(token)
        if tokens[0] in tokens[1:]:
            raise DataError(
                f"answer {pair.answer!r} and a foil of {list(pair.foils)} have the same first "
                "token",
                where=pair.clean,
                mend="choose words that begin differently",
            )
        wanted.append(tokens)
    _say_cut(cut, name, first_token)
    marks = [[len(model.token_ids(text)) - 1 for text in pair.marked] for pair in pairs]
    padded, last = pad(clean)
    chosen = torch.tensor(wanted)
    return PairedPrompts(
        name=name,
        clean=padded,
        corrupted=pad(corrupted)[0],
        last=last,
        answers=chosen[:, 0],
        foils=chosen[:, 1:],
        marked=torch.tensor(marks, dtype=torch.long).view(len(pairs), -1),
    )


def _continuation(model: LanguageModel, prompt: str, answer: str) -> tuple[int, bool]:
    """First token that ``answer`` adds to a prompt, and whether it is the only one."""
    before, after = model.token_ids(prompt), model.token_ids(prompt + answer)
    if after[: len(before)] != before or len(after) == len(before):
        raise DataError(
            f"{answer!r} is no token of its own behind the prompt: they are merged",
            where=prompt,
            mend="put the space before the answer, and not at the end of the prompt",
        )
    return after[len(before)], len(after) == len(before) + 1


def _say_cut(cut: set[str], name: str, first_token: bool) -> None:
    if not cut:
        return
    words = f"{', '.join(repr(w) for w in sorted(cut))} have more than one token"
    if not first_token:
        raise DataError(
            words, where=name, mend="choose words of one token, or set first_token=True"
        )
    warnings.warn(f"{name}: {words}; the first is used", DataWarning, stacklevel=3)
