"""Train the miniature captioner on embeddings of the miniature image-text model.

Half of a batch are embeddings of images, all of common compositions; half are embeddings of
captions of scenes that are not drawn, of all compositions (after Nukrai et al. 2022, "Text-only
training for image captioning using noise-injected CLIP"). Without the latter the captioner learns
that some categories never have some colours, and does not say what it was never told.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, corpus, fit, held_out

from engramma.features import contrastive
from engramma.generative.captioner import WEIGHTS, Miniature, MiniCaptioner
from engramma.nn.seed import seeded
from engramma.nn.weights import load_shipped
from engramma.worlds.captions import Description, captions, vocabulary
from engramma.worlds.layouts import draw_layouts
from engramma.worlds.miniatures import captioner_quality
from engramma.worlds.scenes import describe

BATCH = 128
#: Scenes that are told and not drawn.
N_TOLD = 12_000


def main() -> None:
    options = arguments(__doc__, steps=2100)
    data = corpus(options.work / "scenes", options.scenes)
    clip = contrastive.Miniature()
    kept = options.work / "embeddings.pt"
    if not kept.exists():
        torch.save(torch.from_numpy(clip.embed_images(data.images)), kept)
    embeddings = torch.load(kept, weights_only=True)
    with seeded(0):
        model = MiniCaptioner(words=vocabulary(), condition=clip.dim)
    model.whiten(embeddings)

    told = told_scenes()
    rng = np.random.default_rng(5)
    texts = torch.from_numpy(clip.embed_texts([captions(d, rng, 1)[0] for d in told]))

    def batch(rng: np.random.Generator) -> Any:
        rows = rng.integers(len(data.images), size=BATCH // 2)
        others = rng.integers(len(told), size=BATCH // 2)
        said = data.captions(rows, rng) + [captions(told[i], rng, 1)[0] for i in others]
        return torch.cat([embeddings[rows], texts[others]]), model.tokenizer.encode(said)

    model = fit(
        model,
        batch,
        lambda network, parts: network.loss(*parts),
        steps=options.steps,
        rate=2e-3,
        checkpoint=options.work / "captioner.pt",
        description="captioner",
        average=0.998,
    )
    path = WEIGHTS / "mini-captioner.safetensors"
    model.save(path)
    load_shipped.cache_clear()
    write_card(
        path,
        "mini-captioner: captions of the scenes from embeddings",
        f"{options.steps} batches of {BATCH} scenes out of {options.scenes}, AdamW, bfloat16; "
        "half of each batch embeddings of images, half embeddings of captions alone, of all "
        "compositions; each scene captioned anew every time; moving average of the weights",
        captioner_quality(Miniature(), clip, held_out()),
    )


def told_scenes() -> list[Description]:
    """Describe scenes of all compositions, without drawing them."""
    layout = draw_layouts(
        N_TOLD, rng=np.random.default_rng(4), object_counts=(0.4, 0.3, 0.15, 0.15)
    )
    return describe(layout)


if __name__ == "__main__":
    main()
