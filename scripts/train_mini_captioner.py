"""Train the miniature captioners: of image tokens (GIT) and of embeddings (ClipCap).

After Wang et al. 2022 and Mokady et al. 2021. The towers of the miniature image-text model stay as
they are: train those first. The captioner of embeddings also learns from embeddings of captions
alone (Nukrai et al. 2022), of scenes of all compositions that are never drawn.

Things in colours without a name are told without colours, after another start, so that what
categories look like is learnt whatever their colour, and colours are never left out otherwise. Some
of the colours that are read back are replaced by random ones, so that no category is ruled out by
the colour said before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, corpus, fit, held_out, told_scenes, turned
from torch import Tensor, nn

from engramma.features import contrastive
from engramma.generative.captioner import WEIGHTS, Miniature, MiniCaptioner, TokenMiniature
from engramma.nn.blocks import image_batch
from engramma.nn.seed import seeded
from engramma.nn.weights import load_shipped
from engramma.nn.words import UNKNOWN
from engramma.worlds.captions import captions, vocabulary
from engramma.worlds.layouts import COLOURS
from engramma.worlds.miniatures import caption_scores, captioner_quality

#: Scenes a batch in colours that have a name and in others, and scenes that are told, not drawn.
NAMED, STRAYS, UNDRAWN = 80, 32, 48
#: Share of colours misread.
MISREAD = 0.1
#: Largest angle (tangent) by which embeddings are turned away before they are told.
BLUR = 0.2


class Tellers(nn.Module):
    """The two captioners, which share nothing but their training scenes."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.of_tokens = MiniCaptioner(words=vocabulary(), condition=width, context=width)
        self.of_embeddings = MiniCaptioner(words=vocabulary(), condition=dim)

    def loss(self, tokens: Tensor, embeddings: Tensor, texts: Tensor, read: Tensor) -> Tensor:
        """Sum of both losses; the last texts are of embeddings only."""
        n = len(tokens)
        return self.of_tokens.loss(tokens, texts[:n], read[:n]) + self.of_embeddings.loss(
            turned(embeddings, BLUR), texts, read
        )


def main() -> None:
    options = arguments(__doc__, steps=800)
    named = corpus(options.work / "scenes", options.scenes)
    strays = corpus(options.work / "scenes", options.scenes // 2, strays=True)
    undrawn = told_scenes(20_000)
    clip = contrastive.Miniature()
    towers = clip.network
    with seeded(0):
        model = Tellers(towers.settings["width"], clip.dim)
    tokenizer = model.of_tokens.tokenizer
    colours = tokenizer.encode([" ".join(COLOURS)])[0, 1:-1]

    def batch(rng: np.random.Generator) -> Any:
        rows = rng.choice(len(named.images), NAMED, replace=False)
        others = rng.choice(len(strays.images), STRAYS, replace=False)
        pictures = np.concatenate([named.images[rows], strays.images[others]])
        more = [captions(undrawn[i], rng, 1)[0] for i in rng.integers(len(undrawn), size=UNDRAWN)]
        texts = tokenizer.encode([*named.captions(rows, rng), *strays.captions(others, rng), *more])
        with torch.inference_mode():
            tokens = towers.image(image_batch(pictures))
            told = towers.project_texts(towers.tokenizer.encode(more))
            embeddings = torch.cat([towers.project_tokens(tokens), told])
        misread = torch.isin(texts, colours) & torch.from_numpy(rng.random(texts.shape) < MISREAD)
        other = colours[torch.from_numpy(rng.integers(len(colours), size=tuple(texts.shape)))]
        read = torch.where(misread, other, texts)
        read[NAMED : NAMED + STRAYS, 0] = UNKNOWN
        return tokens.clone(), embeddings.clone(), texts, read

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
        recipe + f"embeddings of these images and of {UNDRAWN} captions alone, of all "
        "compositions, a batch, slightly turned at random",
        captioner_quality(Miniature(), clip, scenes),
    )
    write_card(
        paths[1],
        "mini-git: captions of the scenes from image tokens",
        recipe + "tokens of the image tower",
        caption_scores(TokenMiniature().caption_images(scenes.images), scenes),
    )


if __name__ == "__main__":
    main()
