"""What the objects of training scenes are, in the order of reading, and where to look for them.

Networks that must keep apart what belongs to which of several things take very long to find out by
themselves what to look at. Here they are taught it from the masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from _scene_corpus import Corpus
from torch import Tensor, nn
from torch.nn import functional

from engramma.nn.words import WordTokenizer
from engramma.worlds.captions import Description, Thing, captions, mentions, roles
from engramma.worlds.layouts import COLOURS, MOST_OBJECTS, RELATIONS, SIZES, Layout
from engramma.worlds.objects import CATEGORIES

#: A row of the grid counts as much as so many columns: who stands higher is read first.
ROW = 2.0
#: Cells a side of what is looked at.
GRID = 8
#: Weight of where a thing is, beside what it is.
PLACE = 4.0
#: Weight of where each block looks.
LOOK = 0.2
#: Share of batches of several things each, where it matters which is which.
CROWDED = 0.75


@dataclass
class Lessons:
    """Scenes to learn from: in colours that have a name and in others, and told but not drawn."""

    named: Corpus
    strays: Corpus
    undrawn: list[Description]
    tokenizer: WordTokenizer

    def __post_init__(self) -> None:
        self.several = np.array([len(d.things) > 1 for d in self.named.descriptions])

    def told(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
        """Draw scenes that are told only, and write their captions."""
        rows = rng.integers(len(self.undrawn), size=n)
        return rows, [captions(self.undrawn[i], rng, 1)[0] for i in rows]


def look_loss(queries: Tensor, keys: Tensor, heads: int, looks: Tensor) -> Tensor:
    """Cross-entropy of where the first heads of an attention look, given where they should.

    Parameters
    ----------
    queries, keys : Tensor, shapes (n, word, dim) and (n, cell, dim)
    heads : int
        Heads of the attention.
    looks : Tensor, shape (n, head, word, cell)
        Shares that sum to one, or to zero where it does not matter, of the first heads.
    """
    taught = looks.shape[1]
    q, k = (x.unflatten(2, (heads, -1))[:, :, :taught].transpose(1, 2) for x in (queries, keys))
    scores = (q @ k.transpose(2, 3)).float() * q.shape[-1] ** -0.5
    return -(looks * scores.log_softmax(dim=-1)).sum() / looks.sum().clamp(min=1)


def cell_centres(pixels: np.ndarray) -> np.ndarray:
    """Column and row, -1 .. 1, of the middle of objects (..., cell): (..., 2)."""
    at = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    grid = np.stack([np.tile(at, GRID), np.repeat(at, GRID)], axis=1)
    return pixels @ grid / np.maximum(pixels.sum(axis=-1, keepdims=True), 1)


@dataclass(frozen=True, eq=False)
class Things:
    """The objects of scenes in the order of reading, left to right and top to bottom.

    Parameters
    ----------
    codes : Tensor of int, shape (scene, object, 3)
        Category, colour and size; one more than the last where there is no object, -1 where the
        colour has no name.
    centres : Tensor, shape (scene, object, 2)
        Column and row, -1 .. 1.
    looks : Tensor, shape (scene, object, cell)
        Where each is: shares that sum to one, or zero.
    """

    codes: Tensor
    centres: Tensor
    looks: Tensor

    def __getitem__(self, rows: np.ndarray) -> Things:
        """Objects of some of the scenes."""
        return Things(self.codes[rows], self.centres[rows], self.looks[rows])

    def __add__(self, others: Things) -> Things:
        """Objects of these scenes, then of others."""
        return Things(
            torch.cat([self.codes, others.codes]),
            torch.cat([self.centres, others.centres]),
            torch.cat([self.looks, others.looks]),
        )


#: Values of each code.
VALUES = (CATEGORIES, list(COLOURS), list(SIZES))


def things(data: Corpus) -> Things:
    """Return the objects of a corpus; those that are hidden altogether are left out."""
    pixels = data.cells.reshape(len(data.cells), -1, MOST_OBJECTS).transpose(0, 2, 1)
    pixels = pixels.astype(np.float32)
    looks = pixels / np.maximum(pixels.sum(axis=2, keepdims=True), 1)
    return _in_order(_codes(data.descriptions), cell_centres(pixels), looks, pixels.any(axis=2))


def told_things(layout: Layout, descriptions: list[Description]) -> Things:
    """Return the objects of scenes that are not drawn, so that there is nowhere to look."""
    centres = np.stack([layout.x, layout.y], axis=2) * 2 - 1
    nowhere = np.zeros((*layout.category.shape, GRID**2), np.float32)
    return _in_order(_codes(descriptions), centres, nowhere, layout.category >= 0)


def _codes(descriptions: list[Description]) -> np.ndarray:
    codes = np.tile([len(values) for values in VALUES], (len(descriptions), MOST_OBJECTS, 1))
    for scene, description in enumerate(descriptions):
        for number, thing in enumerate(description.things):
            said = zip(VALUES, (thing.category, thing.colour, thing.size), strict=True)
            codes[scene, number] = [values.index(v) if v else -1 for values, v in said]
    return codes


def _in_order(
    codes: np.ndarray, centres: np.ndarray, looks: np.ndarray, seen: np.ndarray
) -> Things:
    codes[~seen] = [len(values) for values in VALUES]
    reading = np.where(seen, centres[..., 0] + ROW * centres[..., 1], np.inf)
    order = reading.argsort(axis=1, kind="stable")[..., None]
    centres = np.where(seen[..., None], centres, 0).astype(np.float32)
    return Things(
        *(torch.from_numpy(np.take_along_axis(x, order, axis=1)) for x in (codes, centres, looks))
    )


def words_of(texts: list[str], codes: Tensor, width: int) -> Tensor:
    """Shares of the words that tell of each object: (text, object, word); zero where unclear.

    Parameters
    ----------
    texts : list of str
    codes : Tensor of int, shape (text, object, 3)
        Of `Things`.
    width : int
        Words of the longest text.
    """
    looks = torch.zeros(len(texts), MOST_OBJECTS, width)
    for row, text in enumerate(texts):
        for first, stop, thing in mentions(text):
            which = meant(thing, codes[row])
            if which is not None:
                looks[row, which, first:stop] = 1
    return looks / looks.sum(dim=2, keepdim=True).clamp(min=1)


def meant(thing: Thing, codes: Tensor) -> int | None:
    """Return which object (object, 3) words tell of; None where two are alike, or none fits."""
    category = CATEGORIES.index(thing.category)
    fits = [
        k
        for k, (kind, colour, _) in enumerate(codes.tolist())
        if kind == category and thing.colour in ("", *VALUES[1][colour : colour + 1])
    ]
    return fits[0] if len(fits) == 1 else None


def roles_of(texts: list[str], width: int) -> Tensor:
    """Return the role in a relation of the thing of each word: (text, word); -1 where none is."""
    found = torch.full((len(texts), width), -1)
    for row, text in enumerate(texts):
        for first, stop, relation, subject in roles(text):
            found[row, first:stop] = 2 * RELATIONS.index(relation) + subject
    return found


class Inventory(nn.Module):
    """Tells from an embedding what and where each thing is, in the order of reading.

    A captioner learns slowly what belongs together, as most of its words do not depend on it; here
    every answer does.
    """

    def __init__(self, dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.sizes = [len(values) + 1 for values in VALUES]
        self.answers = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, MOST_OBJECTS * (sum(self.sizes) + 2)),
        )

    def loss(self, embeddings: Tensor, there: Things) -> Tensor:
        """Cross-entropies of what things are, and squared errors of where, of unit vectors."""
        answers = self.answers(embeddings * embeddings.shape[1] ** 0.5).float()
        *said, where = answers.unflatten(1, (MOST_OBJECTS, -1)).split([*self.sizes, 2], dim=2)
        total = sum(
            functional.cross_entropy(
                answer.flatten(0, 1), there.codes[..., k].flatten(), ignore_index=-1
            )
            for k, answer in enumerate(said)
        )
        shown = there.codes[..., 0] < len(CATEGORIES)
        errors = (where.tanh() - there.centres).square().sum(dim=2)
        return total + PLACE * (errors * shown).sum() / shown.sum()
