"""Train the miniature image-text model, beside a captioner of its embeddings.

Two towers learn contrastively, with hard negatives: beside the captions of the other scenes in the
batch, an image is told from a caption of itself with one mistake (an attribute exchanged, a
relation turned), after Yuksekgonul et al. 2023 ("When and why vision-language models behave like
bags-of-words"). At the same time a captioner writes the caption from the embedding, after Yu et
al. 2022 ("CoCa: contrastive captioners"), so that the embedding holds all that captions say; it
does so from embeddings of captions alone, too (Nukrai et al. 2022, "Text-only training for image
captioning using noise-injected CLIP"), of scenes of all compositions that are never drawn. What
each cell of the image tower's grid shows is learnt from the masks: from captions alone a small
network takes very long to find out which words belong to which pixels. All scenes of a batch are in
a few places, or the place alone would tell most of them apart.

Then training goes on with half of the images as the miniature autoencoder gives them back, so that
drawn and decoded images, which have its blur, are read as sharp ones are: train that one first
(``train_mini_autoencoder.py``).

So far the embedding is the tower's global token, and tells what things and what colours there are,
but not which thing has which colour. At last the tower stays as it is, and its tokens are gathered
object by object (`ObjectPool`) to another embedding, while a deeper text tower learns along. Beside
retrieval and captions, each query is taught where to look, and embeddings of images and of captions
must tell what and where each thing is. Then the words are gathered in the same way, towards the
embedding that images have now.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _image_text import MISTAKEN, NAMED, STRAYS, UNDRAWN, Pooled, Taught, Worded
from _model_card import write_card
from _objects import CROWDED, Lessons, Things, roles_of, things, told_things, words_of
from _scene_corpus import (
    arguments,
    both_corpora,
    fit,
    held_out,
    kept,
    told_scenes,
    tower_tokens,
)
from torch import Tensor

from engramma.features import contrastive
from engramma.generative import autoencoder
from engramma.nn.blocks import image_batch
from engramma.nn.seed import seeded
from engramma.nn.weights import in_batches, load_shipped
from engramma.progress import track
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.miniatures import image_text_quality

#: Places of the scenes of a batch.
PLACES = 3
#: Share of images that are blurred in all but the first part of the training.
BLURRED = 0.5


class PairLessons(Lessons):
    """Draws what the image-text models learn from; see the constants above."""

    def rows(
        self, rng: np.random.Generator, *, crowded: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw scenes of both kinds in a few places; if crowded, named ones of several things."""
        places = rng.choice(len(BACKGROUNDS), PLACES, replace=False)
        fits = np.isin(self.named.places, places) & (self.several | (not crowded))
        rows = rng.choice(np.flatnonzero(fits), NAMED, replace=False)
        others = np.flatnonzero(np.isin(self.strays.places, places))
        return rows, rng.choice(others, STRAYS, replace=False)

    def texts(self, rows: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Write captions of scenes, of the first ones with a mistake, and of scenes not drawn."""
        return self.tokenizer.encode(
            [
                *self.named.captions(rows, rng),
                *self.strays.captions(others, rng),
                *self.named.wrong_captions(rows[:MISTAKEN], rng),
                *self.told(UNDRAWN, rng)[1],
            ]
        )

    def spoken(
        self, rows: np.ndarray, there: tuple[Things, Things], rng: np.random.Generator
    ) -> tuple[Tensor, Things, Tensor, Tensor]:
        """Write captions of named scenes as `texts` does.

        Returns
        -------
        texts : Tensor
        objects : Things
            Of the captions without a mistake.
        words, roles : Tensor
            As `words_of` and `roles_of` give them; there are no words for captions with a mistake.
        """
        right = self.named.captions(rows, rng)
        told, more = self.told(UNDRAWN, rng)
        wrong = self.named.wrong_captions(rows[:MISTAKEN], rng)
        every = [*right, *wrong, *more]
        texts = self.tokenizer.encode(every)
        objects = there[0][rows] + there[1][told]
        words = words_of([*right, *more], objects.codes, texts.shape[1] - 1)
        nowhere = torch.zeros(MISTAKEN, *words.shape[1:])
        words = torch.cat([words[: len(rows)], nowhere, words[len(rows) :]])
        return texts, objects, words, roles_of(every, texts.shape[1] - 1)

    def pictures(
        self, rng: np.random.Generator, blurred: Sequence[np.ndarray] = ()
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a batch of images, texts, and what cells show."""
        rows, others = self.rows(rng)
        texts = self.texts(rows, others, rng)
        pictures = np.concatenate([self.named.images[rows], self.strays.images[others]])
        if blurred:
            some = rng.random(len(pictures)) < BLURRED
            pictures[some] = np.concatenate([blurred[0][rows], blurred[1][others]])[some]
        grids = zip(self.named.grid(rows), self.strays.grid(others), strict=True)
        categories, colours = (torch.cat(parts) for parts in grids)
        return image_batch(pictures), texts, categories, colours


def _blurred(path: Path, images: np.ndarray) -> np.ndarray:
    """Return images as the autoencoder gives them back; kept in the file."""
    coder = autoencoder.Miniature()

    def compute() -> Tensor:
        parts = track(np.array_split(images, -(-len(images) // 1024)), "blurring scenes")
        with torch.autocast("cpu", torch.bfloat16):
            return torch.cat([torch.from_numpy(coder.decode(coder.encode(p))) for p in parts])

    return kept(path, compute).numpy()


def main() -> None:
    options = arguments(__doc__, steps=1800)
    afterwards, pooling = options.steps * 8 // 9, options.steps * 10 // 9
    wording = options.steps * 2 // 3
    named, strays = both_corpora(options)
    with seeded(0):
        model: Any = Taught()
    layout, undrawn = told_scenes(20_000)
    lessons = PairLessons(named, strays, undrawn, model.towers.tokenizer)

    def loss(network: Any, parts: Any) -> Tensor:
        return network.loss(*parts)

    model = fit(
        model,
        lessons.pictures,
        loss,
        steps=options.steps,
        rate=1e-3,
        checkpoint=options.work / "image-text.pt",
        description="image-text model",
        average=0.998,
    )
    blurred = [
        _blurred(options.work / f"blurred-{name}.pt", data.images)
        for name, data in (("scenes", named), ("strays", strays))
    ]
    model = fit(
        model,
        # From the same seeds, but not the same draws as before.
        lambda rng: lessons.pictures(rng.spawn(1)[0], blurred),
        loss,
        steps=afterwards,
        rate=6e-4,
        checkpoint=options.work / "image-text-blurred.pt",
        description="image-text model, with blurred images",
        average=0.998,
    )
    with seeded(0):
        pooled = Pooled(model)
    sharp, soft = (
        [tower_tokens(options.work, pooled.towers.image, images) for images in both]
        for both in ([named.images, strays.images], blurred)
    )
    there = [things(data) for data in (named, strays)]

    def gathered(rng: np.random.Generator) -> tuple[Tensor, Tensor, Things]:
        rng = rng.spawn(1)[0]
        rows, others = lessons.rows(rng, crowded=rng.random() < CROWDED)
        some = torch.from_numpy(rng.random(NAMED + STRAYS) < BLURRED)[:, None, None]
        clear, unclear = (torch.cat([kind[0][rows], kind[1][others]]) for kind in (sharp, soft))
        texts = lessons.texts(rows, others, rng)
        tokens = torch.where(some, unclear, clear).float()
        return tokens, texts, there[0][rows] + there[1][others]

    pooled = fit(
        pooled,
        gathered,
        loss,
        steps=pooling,
        rate=1.5e-3,
        checkpoint=options.work / "image-text-pooled.pt",
        description="image-text model, object by object",
        average=0.998,
    )
    with seeded(0):
        model = Worded(pooled)
    seen = [
        in_batches(lambda x: model.towers.project_tokens(x.float()), kind[0]).clone()
        for kind in (sharp, soft)
    ]
    objects = there[0], told_things(layout, lessons.undrawn)

    def spoken(rng: np.random.Generator) -> tuple[Tensor, Tensor, Things, Tensor, Tensor]:
        rng = rng.spawn(2)[1]
        rows, _ = lessons.rows(rng, crowded=rng.random() < CROWDED)
        some = torch.from_numpy(rng.random(NAMED) < BLURRED)[:, None]
        images = torch.where(some, seen[1][rows], seen[0][rows])
        return images, *lessons.spoken(rows, objects, rng)

    model = fit(
        model,
        spoken,
        loss,
        steps=wording,
        rate=1.5e-3,
        checkpoint=options.work / "image-text-worded.pt",
        description="image-text model, word by word",
        average=0.998,
    )
    path = contrastive.WEIGHTS / "mini-image-text.safetensors"
    model.towers.save(path)
    load_shipped.cache_clear()
    write_card(
        path,
        "mini-clip: image-text contrastive model of the scenes",
        f"{options.steps} batches, and {afterwards} more with half of the images as the "
        f"autoencoder gives them back, of {NAMED} scenes out of {len(named.images)} and {STRAYS} "
        f"out of {len(strays.images)} in colours that have no name and go unsaid (none near one "
        f"held out for its category), all of {PLACES} places, AdamW, bfloat16, moving average of "
        f"the weights; symmetric InfoNCE, {MISTAKEN} captions a batch with a single mistake, the "
        "loss of a captioner that reads the embedding, and the names of what is seen in each cell; "
        f"then {pooling} batches for the image embedding, the tower as it is, with the loss of an "
        "inventory of both embeddings, and of where each object's query looks, and "
        f"{wording} for the text embedding, the image embedding as it is",
        image_text_quality(contrastive.Miniature(), held_out()),
    )


if __name__ == "__main__":
    main()
