"""Train the miniature shape autoencoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, fit

from engramma.generative.shapes import WEIGHTS, Miniature, MiniShape
from engramma.nn.seed import seeded
from engramma.nn.weights import in_batches, load_shipped
from engramma.progress import track
from engramma.worlds.solid_quality import shape_quality
from engramma.worlds.solids import SOLIDS, draw_solids

BATCH, SHAPES, HELD_OUT = 64, 4800, 320


def corpus(path: Path) -> np.ndarray:
    """Return grids of common shapes, (n, 32, 32, 32), in eighths; drawn once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found, _ = draw_solids(SHAPES, rng=np.random.default_rng(17), shapes="common")
        grids = [np.rint(8 * s.occupancy()).astype(np.uint8) for s in track(found, "filling grids")]
        np.save(path, np.stack(grids))
    return np.load(path)


def main() -> None:
    options = arguments(__doc__, steps=1100)
    grids = torch.from_numpy(corpus(options.work / "solids.npy"))
    with seeded(0):
        network = MiniShape()
    model = fit(
        network,
        lambda rng: grids[rng.integers(len(grids), size=BATCH)] / 8,
        lambda network, batch: network.loss(batch),
        steps=options.steps,
        rate=2e-3,
        checkpoint=options.work / "shape.pt",
        description="shape autoencoder",
        average=0.995,
    )
    codes = in_batches(lambda x: model.moments(x / 8)[0], grids)
    model.centre.copy_(codes.mean(dim=0))
    model.spread.copy_(codes.std(dim=0).clamp(min=1e-3))
    path = WEIGHTS / "mini-shape.safetensors"
    model.save(path)
    load_shipped.cache_clear()
    held_out, _ = draw_solids(HELD_OUT, rng=np.random.default_rng(991), shapes="held out")
    write_card(
        path,
        "mini-shape: autoencoder of the shapes of solids",
        f"{options.steps} batches of {BATCH} shapes out of {SHAPES} ({len(SOLIDS)} categories, "
        "32 x 32 x 32 cells), AdamW, bfloat16; cross-entropy and soft intersection over union, "
        "and 1e-5 of the divergence in nats; moving average of the weights",
        shape_quality(Miniature(), held_out, grids.float().mean(dim=0).numpy() / 8),
        held_out=f"{HELD_OUT} solids of the same categories in combinations of shape parameters "
        "that no training solid has",
    )


if __name__ == "__main__":
    main()
