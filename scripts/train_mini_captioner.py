"""Train the miniature captioner on image embeddings of the miniature image-text model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, corpus, fit, held_out

from engramma.features import contrastive
from engramma.generative.captioner import WEIGHTS, Miniature, MiniCaptioner
from engramma.nn.weights import load_shipped
from engramma.worlds.captions import vocabulary
from engramma.worlds.miniatures import captioner_quality

BATCH = 128


def main() -> None:
    options = arguments(__doc__, steps=1300)
    data = corpus(options.work / "scenes", options.scenes)
    clip = contrastive.Miniature()
    kept = options.work / "embeddings.pt"
    if not kept.exists():
        torch.save(torch.from_numpy(clip.embed_images(data.images)), kept)
    embeddings = torch.load(kept, weights_only=True)
    torch.manual_seed(0)
    model = MiniCaptioner(words=vocabulary(), condition=clip.dim)
    model.whiten(embeddings)

    def batch(rng: np.random.Generator) -> Any:
        rows = rng.integers(len(data.images), size=BATCH)
        return embeddings[rows], model.tokenizer.encode(data.captions(rows, rng))

    model = fit(
        model,
        batch,
        lambda network, parts: network.loss(*parts),
        steps=options.steps,
        rate=1e-3,
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
        "each scene captioned anew every time; moving average of the weights",
        captioner_quality(Miniature(), clip, held_out()),
    )


if __name__ == "__main__":
    main()
