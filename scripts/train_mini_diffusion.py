"""Train the miniature latent diffusion model on the miniature autoencoder's latents.

Conditions are image embeddings of the miniature image-text model, slightly blurred by noise, so
that embeddings decoded from a brain, which are never exact, lie within what was trained on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, corpus, fit, held_out, kept, tower_tokens, turned

from engramma.features import contrastive
from engramma.features.model import file_fingerprint
from engramma.generative import autoencoder
from engramma.generative.diffusion import WEIGHTS, Miniature, MiniDiffusion
from engramma.nn.seed import seeded
from engramma.nn.weights import in_batches, load_shipped
from engramma.worlds.miniatures import diffusion_quality

BATCH = 128
#: Largest angle (tangent) by which conditions are turned away at random.
BLUR = 0.3


def main() -> None:
    options = arguments(__doc__, steps=1200)
    data = corpus(options.work / "scenes", options.scenes)
    coder, clip = autoencoder.Miniature(), contrastive.Miniature()
    coded = file_fingerprint(coder.path)[:12]
    latents = kept(
        options.work / f"latents-{coded}-{options.scenes}.pt",
        lambda: torch.from_numpy(coder.encode(data.images)),
    )
    tokens = tower_tokens(options.work, clip.network.image, data.images)
    embeddings = in_batches(lambda x: clip.network.project_tokens(x.float()), tokens).clone()
    with seeded(0):
        model = MiniDiffusion(condition=clip.dim)

    def batch(rng: np.random.Generator) -> Any:
        rows = torch.from_numpy(rng.integers(len(latents), size=BATCH))
        return latents[rows], embeddings[rows]

    def loss(network: Any, parts: Any) -> torch.Tensor:
        return network.loss(parts[0], turned(parts[1], BLUR))

    model = fit(
        model,
        batch,
        loss,
        steps=options.steps,
        rate=8e-4,
        checkpoint=options.work / "diffusion.pt",
        description="diffusion",
        average=0.998,
    )
    path = WEIGHTS / "mini-diffusion.safetensors"
    model.save(path)
    load_shipped.cache_clear()
    write_card(
        path,
        "mini-diffusion: latent diffusion model of the scenes",
        f"{options.steps} batches of {BATCH} scenes out of {options.scenes}, AdamW, bfloat16; "
        "velocity prediction, cosine schedule, conditions dropped in a tenth of cases and blurred; "
        "moving average of the weights",
        diffusion_quality(Miniature(), coder, clip, held_out(100)),
        "100 scenes whose first objects are pairs of category and colour that no training scene "
        "shows; 20 steps, guidance 3",
    )


if __name__ == "__main__":
    main()
