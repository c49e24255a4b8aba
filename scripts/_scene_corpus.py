"""Scenes to train miniatures on, kept in a folder so that several trainings share them."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.progress import track
from engramma.worlds.captions import Description, Thing, captions, misdescribe
from engramma.worlds.scenes import Scenes, make_scenes

SHARD = 4096
#: Scenes that a miniature is measured on: first objects in colours never seen in training.
N_HELD_OUT = 1000


@dataclass(frozen=True, eq=False)
class Corpus:
    """Images (n, 64, 64, 3) uint8, log-free depth (n, 64, 64) float16, and what they show."""

    images: np.ndarray
    depth: np.ndarray
    descriptions: list[Description]

    def captions(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        """Write a new caption of each of some scenes."""
        return [captions(self.descriptions[i], rng, 1)[0] for i in rows]

    def wrong_captions(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        """Write a caption with one mistake of each of some scenes."""
        return [captions(misdescribe(self.descriptions[i], rng), rng, 1)[0] for i in rows]


def corpus(folder: Path, n: int) -> Corpus:
    """Return ``n`` scenes of common compositions; what is in the folder is not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.empty((n, 64, 64, 3), np.uint8)
    depth = np.empty((n, 64, 64), np.float16)
    descriptions: list[Description] = []
    for number in track(range(-(-n // SHARD)), "drawing scenes"):
        path = folder / f"scenes{number:03d}.npz"
        if not path.exists():
            _draw(path, number)
        with np.load(path) as shard:
            rows = slice(number * SHARD, min((number + 1) * SHARD, n))
            images[rows] = shard["images"][: rows.stop - rows.start]
            depth[rows] = shard["depth"][: rows.stop - rows.start]
            descriptions += [_describe(d) for d in json.loads(str(shard["descriptions"]))]
    return Corpus(images, depth, descriptions[:n])


def _draw(path: Path, number: int) -> None:
    rng = np.random.default_rng([11, number])
    scenes = make_scenes(
        SHARD,
        rng=rng,
        object_counts=(0.4, 0.3, 0.15, 0.15),
        compositions="common",
        caption=False,
    )
    texts = [
        [d.background, [[t.category, t.colour, t.size] for t in d.things], d.relations]
        for d in scenes.descriptions
    ]
    work = path.with_suffix(".part.npz")
    np.savez(
        work,
        images=scenes.images,
        depth=scenes.depth.astype(np.float16),
        descriptions=json.dumps(texts),
    )
    work.replace(path)


def _describe(parts: list) -> Description:
    background, things, relations = parts
    return Description(
        background,
        tuple(Thing(*t) for t in things),
        tuple((i, name, j) for i, name, j in relations),
    )


def held_out(n: int = N_HELD_OUT) -> Scenes:
    """Return scenes whose first objects are compositions that training never shows."""
    return make_scenes(n, rng=np.random.default_rng(987), compositions="held out")


def arguments(description: str | None, steps: int) -> argparse.Namespace:
    """Read the options that all training scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, default=Path("build/miniatures"))
    parser.add_argument("--scenes", type=int, default=16 * SHARD, help="scenes to train on")
    parser.add_argument("--steps", type=int, default=steps, help="batches to train on")
    return parser.parse_args()


def fit(
    model: nn.Module,
    batch: Callable[[np.random.Generator], object],
    loss: Callable[[nn.Module, object], torch.Tensor],
    *,
    steps: int,
    rate: float,
    checkpoint: Path,
    description: str,
    average: float | None = None,
    report_every: int = 100,
) -> nn.Module:
    """Train with AdamW in bfloat16, a warm-up and a cosine decay; resumes from the checkpoint.

    With ``average`` the exponential moving average of the weights is returned.
    """
    if any(p.ndim == 4 for p in model.parameters()):
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    epochs = max(1, steps // report_every)

    def shape(epoch: int) -> float:
        warm = min(1.0, (epoch + 1) / 3)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * epoch / epochs)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
    # The average travels with the model, so that a checkpoint holds it.
    both = _Averaged(model, average)
    started = time.perf_counter()

    def batches(epoch: int) -> Iterator[object]:
        for number in range(report_every):
            yield batch(np.random.default_rng([epoch, number]))
            both.update()

    def step(_: nn.Module, data: object) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss(model, data)

    def tell(epoch: int, value: float) -> None:
        minutes = (time.perf_counter() - started) / 60
        print(
            f"{description}: {epoch + 1}/{epochs}, loss {value:.4f}, {minutes:.1f} min", flush=True
        )

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with seeded(0):
        train(
            both,
            step,
            batches,
            epochs=epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            clip=1.0,
            checkpoint=checkpoint,
            description=description,
            after_epoch=tell,
        )
    return both.result().eval()


class _Averaged(nn.Module):
    """A model and the moving average of its weights."""

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        super().__init__()
        self.model, self.decay = model, decay
        self.average = None
        if decay is not None:
            self.average = torch.optim.swa_utils.AveragedModel(
                model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
            )

    def update(self) -> None:
        if self.average is not None:
            self.average.update_parameters(self.model)

    def result(self) -> nn.Module:
        return self.model if self.average is None else self.average.module
