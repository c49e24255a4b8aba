"""Train the miniature image autoencoder: 64 x 64 pixels to 4 x 8 x 8 numbers and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from _model_card import write_card
from _scene_corpus import arguments, corpus, fit, held_out

from engramma.generative.autoencoder import WEIGHTS, Miniature, MiniAutoencoder
from engramma.nn.blocks import image_batch
from engramma.nn.seed import seeded
from engramma.nn.weights import in_batches, load_shipped
from engramma.worlds.miniatures import autoencoder_quality

BATCH = 64


def main() -> None:
    options = arguments(__doc__, steps=2200)
    data = corpus(options.work / "scenes", options.scenes)
    with seeded(0):
        model = MiniAutoencoder()

    def batch(rng: np.random.Generator) -> Any:
        return image_batch(data.images[rng.integers(len(data.images), size=BATCH)])

    model = fit(
        model,
        batch,
        lambda network, images: network.loss(images),
        steps=options.steps,
        rate=1.5e-3,
        checkpoint=options.work / "autoencoder.pt",
        description="autoencoder",
        average=0.998,
    )
    # Latents are handed out with mean 0 and variance 1 in each channel.
    means = in_batches(lambda x: model.moments(image_batch(x))[0], data.images[:4096])
    model.centre.copy_(means.mean(dim=(0, 2, 3)))
    model.spread.copy_(means.std(dim=(0, 2, 3)))
    path = WEIGHTS / "mini-autoencoder.safetensors"
    path.parent.mkdir(exist_ok=True)
    model.save(path)
    load_shipped.cache_clear()
    write_card(
        path,
        "mini-vae: image autoencoder of the scenes",
        f"{options.steps} batches of {BATCH} scenes out of {options.scenes}, AdamW, bfloat16; "
        "squared error and 1e-5 of the divergence; moving average of the weights",
        autoencoder_quality(Miniature(), held_out()),
    )


if __name__ == "__main__":
    main()
