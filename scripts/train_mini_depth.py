"""Train the miniature depth estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, corpus, fit, held_out

from engramma.features.depth import WEIGHTS, Miniature, MiniDepth
from engramma.nn.blocks import image_batch
from engramma.nn.seed import seeded
from engramma.nn.weights import load_shipped
from engramma.worlds.miniatures import depth_quality

BATCH = 64


def main() -> None:
    options = arguments(__doc__, steps=800)
    data = corpus(options.work / "scenes", options.scenes)
    with seeded(0):
        model = MiniDepth()

    def batch(rng: np.random.Generator) -> Any:
        rows = rng.integers(len(data.images), size=BATCH)
        return image_batch(data.images[rows]), torch.from_numpy(data.depth[rows]).float()

    model = fit(
        model,
        batch,
        lambda network, parts: network.loss(*parts),
        steps=options.steps,
        rate=2e-3,
        checkpoint=options.work / "depth.pt",
        description="depth estimator",
        average=0.99,
    )
    path = WEIGHTS / "mini-depth.safetensors"
    model.save(path)
    load_shipped.cache_clear()
    write_card(
        path,
        "mini-depth: depth estimator of the scenes",
        f"{options.steps} batches of {BATCH} scenes out of {options.scenes}, AdamW, bfloat16; "
        "absolute error of the log distance; moving average of the weights",
        depth_quality(Miniature(), held_out()),
    )


if __name__ == "__main__":
    main()
