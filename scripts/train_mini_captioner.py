"""Train the miniature captioners: of image tokens (GIT) and of embeddings (ClipCap).

After Wang et al. 2022 and Mokady et al. 2021. The towers of the miniature image-text model stay as
they are: train those first. The captioner of embeddings also learns from embeddings of captions
alone (Nukrai et al. 2022), of scenes of all compositions that are never drawn.

Things in colours without a name are told without colours, after another start, so that what
categories look like is learnt whatever their colour, and colours are never left out otherwise. Some
of the colours that are read back are replaced by random ones, so that no category is ruled out by
the colour said before it.

In the captioner of tokens, one head of each attention is taught to look at the thing that comes
next in the caption and one at the thing said last, as grounded captioners are (Zhou et al. 2019,
"Grounded video description"): without it, it takes very long until what is said of several things
goes to the right ones. It goes on alone, mostly with scenes of several things.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import (
    Corpus,
    arguments,
    corpus,
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
from engramma.nn.weights import load_shipped
from engramma.nn.words import UNKNOWN
from engramma.worlds.captions import captions, mentions, vocabulary
from engramma.worlds.layouts import COLOURS, MOST_OBJECTS
from engramma.worlds.miniatures import caption_scores, captioner_quality

#: Scenes a batch in colours that have a name and in others, and scenes that are told, not drawn.
NAMED, STRAYS, UNDRAWN = 80, 32, 48
#: Share of colours misread.
MISREAD = 0.1
#: Share of batches whose scenes have several things, when that captioner is trained alone.
CROWDED = 0.75
#: Weight of where the attention looks, in each block.
LOOK = 0.2
#: Largest angle (tangent) by which embeddings are turned away before they are told.
BLUR = 0.2


class Tellers(nn.Module):
    """The two captioners, which share nothing but their training scenes."""

    def __init__(self, width: int, dim: int, grid: int) -> None:
        super().__init__()
        self.of_tokens = MiniCaptioner(
            words=vocabulary(), condition=width, context=width, grid=grid, depth=4
        )
        self.of_embeddings = MiniCaptioner(words=vocabulary(), condition=dim)

    def loss(
        self, tokens: Tensor, embeddings: Tensor, texts: Tensor, read: Tensor, looks: Tensor
    ) -> Tensor:
        """Sum of both losses; the last texts are of embeddings only."""
        n = len(tokens)
        told = self.of_embeddings.loss(turned(embeddings, BLUR), texts, read)
        return told + looking_loss(self.of_tokens, tokens, texts[:n], read[:n], looks)


def looking_loss(
    captioner: MiniCaptioner, tokens: Tensor, texts: Tensor, read: Tensor, looks: Tensor
) -> Tensor:
    """Loss of captions of image tokens, and of where the attention looks."""
    # From the second block on, whose words know what was said before them.
    blocks = [f"blocks.{i}" for i in range(1, len(captioner.blocks))]
    names = [f"{block}.{part}" for block in blocks for part in ("query", "key_value")]
    with capture(captioner, names, detach=False) as found:
        loss = captioner.loss(tokens, texts, read)
    for block in blocks:
        query, key = found[f"{block}.query"], found[f"{block}.key_value"]
        loss = loss + LOOK * look_loss(
            query[:, captioner.n_prefix :],
            key[..., : key.shape[-1] // 2],
            captioner.blocks[0].heads,
            looks,
        )
    return loss


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


def where_to_look(data: Corpus, rows: np.ndarray, texts: list[str], words: int) -> Tensor:
    """Return the cells of what is told of next, and of what was told of last, before each word.

    Parameters
    ----------
    data : Corpus
    rows : ndarray of int
        Scenes.
    texts : list of str
        A caption of each.
    words : int
        How many are predicted of the longest caption, its end included.

    Returns
    -------
    Tensor, shape (scene, 2, word, cell)
        As `look_loss` takes it. Zero where no thing comes next, or none came before, and where
        two things are alike in category and colour.
    """
    cells = data.cells[rows].reshape(len(rows), -1, MOST_OBJECTS).transpose(0, 2, 1)
    shares = cells / np.maximum(cells.sum(axis=2, keepdims=True), 1)
    looks = np.zeros((len(rows), 2, words, shares.shape[2]), np.float32)
    for scene, (row, text) in enumerate(zip(rows, texts, strict=True)):
        said = 0
        for _, stop, thing in mentions(text):
            fits = [
                i
                for i, t in enumerate(data.descriptions[row].things)
                if t.category == thing.category and thing.colour in ("", t.colour)
            ]
            if len(fits) == 1:
                looks[scene, 0, said:stop] = shares[scene, fits[0]]
                looks[scene, 1, stop:] = shares[scene, fits[0]]
            else:
                looks[scene, 1, stop:] = 0
            said = stop
    return torch.from_numpy(looks)


def start_from_taught(captioner: nn.Module, checkpoint: Path) -> None:
    """Take over the captioner that the image-text model was taught with."""
    prefix = "average.module.teller."
    state = torch.load(checkpoint, weights_only=True)["model"]
    captioner.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )


def main() -> None:
    options = arguments(__doc__, steps=2000)
    further = options.steps * 4 // 5
    named = corpus(options.work / "scenes", options.scenes)
    strays = corpus(options.work / "scenes", options.scenes // 2, strays=True)
    undrawn = told_scenes(20_000)
    clip = contrastive.Miniature()
    towers = clip.network
    seen = [tower_tokens(options.work, clip, data.images) for data in (named, strays)]
    with seeded(0):
        model = Tellers(towers.settings["width"], clip.dim, seen[0].shape[1] - 1)
    start_from_taught(model.of_embeddings, options.work / "image-text-blurred.pt")
    several = np.flatnonzero([len(d.things) > 1 for d in named.descriptions])
    tokenizer = model.of_tokens.tokenizer
    colours = tokenizer.encode([" ".join(COLOURS)])[0, 1:-1]

    def batch(rng: np.random.Generator, crowded: bool = False) -> Any:
        rows = rng.choice(several if crowded else len(named.images), NAMED, replace=False)
        others = rng.choice(len(strays.images), STRAYS, replace=False)
        more = [captions(undrawn[i], rng, 1)[0] for i in rng.integers(len(undrawn), size=UNDRAWN)]
        told = named.captions(rows, rng)
        texts = tokenizer.encode([*told, *strays.captions(others, rng), *more])
        looks = torch.zeros(NAMED + STRAYS, 2, texts.shape[1] - 1, seen[0].shape[1] - 1)
        looks[:NAMED] = where_to_look(named, rows, told, texts.shape[1] - 1)
        with torch.inference_mode():
            tokens = torch.cat([seen[0][rows], seen[1][others]]).float()
            words = towers.project_texts(towers.tokenizer.encode(more))
            embeddings = torch.cat([towers.project_tokens(tokens), words])
        misread = torch.isin(texts, colours) & torch.from_numpy(rng.random(texts.shape) < MISREAD)
        other = colours[torch.from_numpy(rng.integers(len(colours), size=tuple(texts.shape)))]
        read = torch.where(misread, other, texts)
        read[NAMED : NAMED + STRAYS, 0] = UNKNOWN
        return tokens.clone(), embeddings.clone(), texts, read, looks

    model = fit(
        model,
        batch,
        lambda network, parts: network.loss(*parts),
        steps=options.steps,
        rate=2e-3,
        checkpoint=options.work / "captioner.pt",
        description="captioners",
        average=0.995,
    )

    def tokens_alone(rng: np.random.Generator) -> Any:
        # From the same seeds, but not the same draws as before.
        rng = rng.spawn(1)[0]
        tokens, _, texts, read, looks = batch(rng, crowded=rng.random() < CROWDED)
        n = len(tokens)
        return tokens, texts[:n], read[:n], looks

    model.of_tokens = fit(
        model.of_tokens,
        tokens_alone,
        lambda network, parts: looking_loss(network, *parts),
        steps=further,
        rate=1.5e-3,
        checkpoint=options.work / "captioner-tokens.pt",
        description="captioner of tokens",
        average=0.995,
    )
    paths = WEIGHTS / "mini-captioner.safetensors", WEIGHTS / "mini-git.safetensors"
    model.of_embeddings.save(paths[0])
    model.of_tokens.save(paths[1])
    load_shipped.cache_clear()
    recipe = (
        f"{options.steps} batches of {NAMED} scenes out of {len(named.images)} and {STRAYS} out of "
        f"{len(strays.images)} in colours that have no name and go unsaid, AdamW, bfloat16, moving "
        f"average of the weights; mini-clip is fixed; {MISREAD:.0%} of the colours read back are "
        "replaced by random ones; "
    )
    scenes = held_out()
    write_card(
        paths[0],
        "mini-captioner: captions of the scenes from embeddings",
        recipe + "goes on from the captioner mini-clip was trained beside; "
        f"embeddings of these images and of {UNDRAWN} captions alone, of all "
        "compositions, a batch, slightly turned at random",
        captioner_quality(Miniature(), clip, scenes),
    )
    write_card(
        paths[1],
        "mini-git: captions of the scenes from image tokens",
        recipe + f"{further} more mostly of scenes of several things; tokens of the image tower; "
        "two heads of its attention are taught where to look",
        caption_scores(TokenMiniature().caption_images(scenes.images), scenes),
    )


if __name__ == "__main__":
    main()
