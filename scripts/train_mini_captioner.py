"""Train the miniature captioners: of image tokens (GIT) and of embeddings (ClipCap).

After Wang et al. 2022 and Mokady et al. 2021. The towers of the miniature image-text model stay as
they are: train those first. The captioner of embeddings also learns from embeddings of captions
alone (Nukrai et al. 2022), of scenes of all compositions that are never drawn.

Things in colours without a name are told without colours, after another start, so that what
categories look like is learnt whatever their colour, and colours are never left out otherwise. Some
of the colours that are read back are replaced by random ones, so that no category is ruled out by
the colour said before it.

One head of each attention is taught to look at the thing that comes next in the caption and one at
the thing said last, as grounded captioners are (Zhou et al. 2019, "Grounded video description"):
without it, it takes very long until what is said of several things goes to the right ones. A thing
is looked at in the cells that show it, or, in the prefix that an embedding becomes, in the token
that stands for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _objects import CROWDED, GRID, LOOK, Lessons, look_loss, meant, things, told_things
from _scene_corpus import (
    arguments,
    both_corpora,
    fit,
    held_out,
    told_scenes,
    tower_tokens,
    turned,
)
from torch import Tensor, nn

from engramma.features import contrastive
from engramma.generative.captioner import WEIGHTS, Miniature, MiniCaptioner, TokenMiniature
from engramma.nn.hooks import capture
from engramma.nn.seed import seeded
from engramma.nn.weights import in_batches, load_shipped
from engramma.nn.words import UNKNOWN
from engramma.worlds.captions import mentions, vocabulary
from engramma.worlds.layouts import COLOURS, MOST_OBJECTS
from engramma.worlds.miniatures import caption_scores, captioner_quality

#: Scenes a batch in colours that have a name and in others, and scenes that are told, not drawn.
NAMED, STRAYS, UNDRAWN = 80, 32, 48
#: Share of colours misread.
MISREAD = 0.1
#: Largest angle (tangent) by which embeddings are turned away before they are told.
BLUR = 0.2


def token_loss(
    captioner: MiniCaptioner, tokens: Tensor, texts: Tensor, read: Tensor, looks: Tensor
) -> Tensor:
    """Loss of captions of image tokens, and of which cells the words look at."""
    blocks = _taught_blocks(captioner)
    names = [f"{block}.{part}" for block in blocks for part in ("query", "key_value")]
    with capture(captioner, names, detach=False) as found:
        loss = captioner.loss(tokens, texts, read)
    for block in blocks:
        query = found[f"{block}.query"][:, captioner.n_prefix :]
        key, _ = found[f"{block}.key_value"].chunk(2, dim=2)
        loss = loss + LOOK * look_loss(query, key, captioner.blocks[0].heads, looks)
    return loss


def embedding_loss(
    captioner: MiniCaptioner, embeddings: Tensor, texts: Tensor, read: Tensor, looks: Tensor
) -> Tensor:
    """Loss of captions of embeddings, and of which token of the prefix the words look at.

    So each token comes to stand for an object, in the order of reading.
    """
    blocks = _taught_blocks(captioner)
    with capture(captioner, [f"{block}.qkv" for block in blocks], detach=False) as found:
        loss = captioner.loss(turned(embeddings, BLUR), texts, read)
    n = captioner.n_prefix
    for block in blocks:
        query, key, _ = found[f"{block}.qkv"].chunk(3, dim=2)
        loss = loss + LOOK * look_loss(query[:, n:], key[:, :n], captioner.blocks[0].heads, looks)
    return loss


def _taught_blocks(captioner: MiniCaptioner) -> list[str]:
    """Name the blocks from the second one on, whose words know what was said before them."""
    return [f"blocks.{i}" for i in range(1, len(captioner.blocks))]


def where_to_look(texts: list[str], codes: Tensor, places: Tensor, words: int) -> Tensor:
    """Return the places of what is told of next, and of what was told of last, before each word.

    Parameters
    ----------
    texts : list of str
    codes : Tensor of int, shape (text, object, 3)
        Of `Things`.
    places : Tensor, shape (text, object, place)
        Shares of where each object is.
    words : int
        How many are predicted of the longest text, its end included.

    Returns
    -------
    Tensor, shape (text, 2, word, place)
        As `look_loss` takes it. Zero where no thing comes next, or none came before, and where
        two things are alike in category and colour.
    """
    looks = torch.zeros(len(texts), 2, words, places.shape[2])
    for row, text in enumerate(texts):
        said = 0
        for _, stop, thing in mentions(text):
            which = meant(thing, codes[row])
            looks[row, 1, stop:] = 0
            if which is not None:
                looks[row, 0, said:stop] = places[row, which]
                looks[row, 1, stop:] = places[row, which]
            said = stop
    return looks


def start_from_taught(captioner: nn.Module, checkpoint: Path) -> None:
    """Take over the captioner that the image-text model was taught with."""
    prefix = "average.module.teller."
    state = torch.load(checkpoint, weights_only=True)["model"]
    captioner.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )


class CaptionLessons(Lessons):
    """Draws what the captioners learn from; see the constants above."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.colours = self.tokenizer.encode([" ".join(COLOURS)])[0, 1:-1]

    def rows(
        self, rng: np.random.Generator, *, crowded: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw scenes of both kinds; if crowded, named ones of several things."""
        some = np.flatnonzero(self.several) if crowded else len(self.named.images)
        rows = rng.choice(some, NAMED, replace=False)
        return rows, rng.choice(len(self.strays.images), STRAYS, replace=False)

    def read(self, texts: Tensor, rng: np.random.Generator) -> Tensor:
        """Return what is read back of texts of named scenes, then of strays, then of others."""
        misread = torch.isin(texts, self.colours) & torch.from_numpy(
            rng.random(texts.shape) < MISREAD
        )
        other = torch.from_numpy(rng.integers(len(self.colours), size=tuple(texts.shape)))
        read = torch.where(misread, self.colours[other], texts)
        read[NAMED : NAMED + STRAYS, 0] = UNKNOWN
        return read


def main() -> None:
    options = arguments(__doc__, steps=2000, only=("tokens", "embeddings"))
    named, strays = both_corpora(options)
    layout, undrawn = told_scenes(20_000)
    clip = contrastive.Miniature()
    towers = clip.network
    lessons = CaptionLessons(named, strays, undrawn, towers.tokenizer)
    there = things(named)
    seen = [tower_tokens(options.work, towers.image, data.images) for data in (named, strays)]
    recipe = (
        f"batches of {NAMED} scenes out of {len(named.images)} and {STRAYS} out of "
        f"{len(strays.images)} in colours that have no name and go unsaid, AdamW, bfloat16, moving "
        f"average of the weights; mini-clip is fixed; {MISREAD:.0%} of the colours read back are "
        "replaced by random ones; two heads of its attention are taught where to look; "
    )
    scenes = held_out()

    def of_tokens(rng: np.random.Generator, crowded: bool = False) -> Any:
        rows, others = lessons.rows(rng, crowded=crowded)
        told = named.captions(rows, rng)
        texts = towers.tokenizer.encode([*told, *strays.captions(others, rng)])
        looks = torch.zeros(len(texts), 2, texts.shape[1] - 1, GRID**2)
        some = there[rows]
        looks[:NAMED] = where_to_look(told, some.codes, some.looks, texts.shape[1] - 1)
        tokens = torch.cat([seen[0][rows], seen[1][others]]).float()
        return tokens, texts, lessons.read(texts, rng), looks

    if options.only != "embeddings":
        captioner = train_of_tokens(options, towers.settings["width"], of_tokens)
        path = WEIGHTS / "mini-git.safetensors"
        captioner.save(path)
        load_shipped.cache_clear()
        write_card(
            path,
            "mini-git: captions of the scenes from image tokens",
            f"{options.steps} and {further(options)} {recipe}the second part mostly scenes of "
            "several things; tokens of the image tower",
            caption_scores(TokenMiniature().caption_images(scenes.images), scenes),
        )

    whole = [in_batches(lambda x: towers.project_tokens(x.float()), s).clone() for s in seen]
    unseen = told_things(layout, undrawn)

    def of_embeddings(rng: np.random.Generator) -> Any:
        rows, others = lessons.rows(rng, crowded=rng.random() < CROWDED)
        told = named.captions(rows, rng)
        numbers, more = lessons.told(UNDRAWN, rng)
        texts = towers.tokenizer.encode([*told, *strays.captions(others, rng), *more])
        objects = there[rows] + unseen[numbers]
        each = torch.eye(MOST_OBJECTS).expand(NAMED + UNDRAWN, -1, -1)
        looks = torch.zeros(len(texts), 2, texts.shape[1] - 1, MOST_OBJECTS)
        named_rows = [*range(NAMED), *range(NAMED + STRAYS, len(texts))]
        looks[named_rows] = where_to_look([*told, *more], objects.codes, each, texts.shape[1] - 1)
        with torch.inference_mode():
            words = towers.project_texts(towers.tokenizer.encode(more))
        embeddings = torch.cat([whole[0][rows], whole[1][others], words.clone()])
        return embeddings, texts, lessons.read(texts, rng), looks

    if options.only != "tokens":
        captioner = train_of_embeddings(options, clip.dim, of_embeddings)
        path = WEIGHTS / "mini-captioner.safetensors"
        captioner.save(path)
        load_shipped.cache_clear()
        write_card(
            path,
            "mini-captioner: captions of the scenes from embeddings",
            f"{options.steps} and {further(options)} {recipe}goes on from the captioner mini-clip "
            "was trained beside; "
            f"embeddings of these images and of {UNDRAWN} captions alone, of all "
            "compositions, a batch, slightly turned at random; mostly scenes of several things",
            captioner_quality(Miniature(), clip, scenes),
        )


def further(options: argparse.Namespace) -> int:
    """Batches of the second part of the training, at a lower rate."""
    return int(options.steps * 4 // 5)


def train_of_tokens(
    options: argparse.Namespace, width: int, batch: Callable[..., Any]
) -> MiniCaptioner:
    """Train on scenes as they come, then mostly on those of several things."""
    with seeded(0):
        model = MiniCaptioner(
            words=vocabulary(), condition=width, context=width, grid=GRID**2, depth=4
        )

    def crowded(rng: np.random.Generator) -> Any:
        return batch(rng, crowded=rng.random() < CROWDED)

    return _fit_twice(options, model, (batch, crowded), token_loss, "tokens")


def train_of_embeddings(
    options: argparse.Namespace, dim: int, batch: Callable[..., Any]
) -> MiniCaptioner:
    """Go on from the captioner that the image-text model was taught with."""
    with seeded(0):
        model = MiniCaptioner(words=vocabulary(), condition=dim, prefix=MOST_OBJECTS)
    start_from_taught(model, options.work / "image-text-pooled.pt")
    return _fit_twice(options, model, (batch, batch), embedding_loss, "embeddings")


def _fit_twice(
    options: argparse.Namespace,
    model: MiniCaptioner,
    batches: tuple[Callable[..., Any], Callable[..., Any]],
    loss: Callable[..., Tensor],
    name: str,
) -> MiniCaptioner:
    fitted: Any = model
    # The second time from the same seeds, but not the same draws.
    parts = (
        (batches[0], options.steps, 2e-3, name),
        (lambda rng: batches[1](rng.spawn(1)[0]), further(options), 1.5e-3, f"{name}-further"),
    )
    for draw, steps, rate, part in parts:
        fitted = fit(
            fitted,
            draw,
            lambda network, data: loss(network, *data),
            steps=steps,
            rate=rate,
            checkpoint=options.work / f"captioner-{part}.pt",
            description=f"captioner of {part}",
            average=0.995,
        )
    return fitted


if __name__ == "__main__":
    main()
