"""Scenes to train miniatures on, kept in a folder so that several trainings share them."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from torch import nn
from torch.nn import functional

from engramma.features import contrastive
from engramma.features.model import module_fingerprint
from engramma.nn.blocks import image_batch
from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.progress import track
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.captions import Description, Thing, captions, misdescribe
from engramma.worlds.layouts import (
    COLOURS,
    MOST_OBJECTS,
    Layout,
    draw_layouts,
    held_out_compositions,
)
from engramma.worlds.objects import CATEGORIES
from engramma.worlds.scenes import Scenes, describe, draw_scenes, make_scenes

SHARD = 4096
#: Most objects of the scenes to train on, as shares of scenes with one, two, ... of them.
OBJECT_COUNTS = (0.4, 0.3, 0.15, 0.15)
#: Scenes that a miniature is measured on: first objects in colours never seen in training.
N_HELD_OUT = 1000


@dataclass(frozen=True, eq=False)
class Corpus:
    """Images (n, 64, 64, 3) uint8, log-free depth (n, 64, 64) float16, and what they show.

    ``cells`` (n, 8, 8, objects) uint8 are the pixels of each object in each cell of a grid.
    """

    images: np.ndarray
    depth: np.ndarray
    cells: np.ndarray
    descriptions: list[Description]

    def grid(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of each cell's pixels by category and by colour, the background last.

        Returns
        -------
        categories, colours : Tensor, shape (scene, cell, categories + 1) and (.., colours + 1)
            All zero for the colours of scenes whose colours have no name.
        """
        parts = []
        for names, attribute in ((CATEGORIES, "category"), (list(COLOURS), "colour")):
            codes = np.full((len(rows), MOST_OBJECTS), -1)
            for scene, row in enumerate(rows):
                for number, thing in enumerate(self.descriptions[row].things):
                    value = getattr(thing, attribute)
                    codes[scene, number] = names.index(value) if value else -1
            parts.append(
                cell_shares(self.cells[rows].reshape(len(rows), 64, -1), codes, len(names))
            )
        return parts[0], parts[1]

    @cached_property
    def places(self) -> np.ndarray:
        """Position of each scene's place in `BACKGROUNDS`."""
        return np.asarray([BACKGROUNDS.index(d.background) for d in self.descriptions])

    def captions(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        """Write a new caption of each of some scenes."""
        return [captions(self.descriptions[i], rng, 1)[0] for i in rows]

    def wrong_captions(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        """Write a caption with one mistake of each of some scenes."""
        return [captions(misdescribe(self.descriptions[i], rng), rng, 1)[0] for i in rows]


def corpus(folder: Path, n: int, *, strays: bool = False) -> Corpus:
    """Return ``n`` scenes of common compositions; what is in the folder is not drawn again.

    ``strays`` are things in colours that have no name here, and their captions say none. From them
    a model learns what a category looks like whatever its colour: from common compositions alone
    it learns, too, which colours a category never has. No stray is near a colour that is held out
    for its category.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, draw = ("strays", _draw_strays) if strays else ("scenes", _draw)
    images = np.empty((n, 64, 64, 3), np.uint8)
    depth = np.empty((n, 64, 64), np.float16)
    cells = np.empty((n, 8, 8, MOST_OBJECTS), np.uint8)
    descriptions: list[Description] = []
    for number in track(range(-(-n // SHARD)), "drawing scenes"):
        path = folder / f"{name}{number:03d}.npz"
        if not path.exists():
            _keep(path, draw(number))
        with np.load(path) as shard:
            rows = slice(number * SHARD, min((number + 1) * SHARD, n))
            images[rows] = shard["images"][: rows.stop - rows.start]
            depth[rows] = shard["depth"][: rows.stop - rows.start]
            cells[rows] = shard["cells"][: rows.stop - rows.start]
            descriptions += [_describe(d) for d in json.loads(str(shard["descriptions"]))]
    return Corpus(images, depth, cells, descriptions[:n])


def both_corpora(options: argparse.Namespace) -> tuple[Corpus, Corpus]:
    """Return the scenes in colours that have a name, and half as many strays; see `corpus`."""
    folder = options.work / "scenes"
    return corpus(folder, options.scenes), corpus(folder, options.scenes // 2, strays=True)


def _draw(number: int) -> Scenes:
    return make_scenes(
        SHARD,
        rng=np.random.default_rng([11, number]),
        object_counts=OBJECT_COUNTS,
        compositions="common",
        caption=False,
    )


def _draw_strays(number: int) -> Scenes:
    rng = np.random.default_rng([17, number])
    layout = draw_layouts(SHARD, rng=rng, object_counts=OBJECT_COUNTS, compositions="common")
    scenes = draw_scenes(layout.with_(hue=stray_hues(layout, rng)), rng=rng, caption=False)
    nameless = [
        replace(d, things=tuple(replace(t, colour="") for t in d.things))
        for d in scenes.descriptions
    ]
    return replace(scenes, descriptions=nameless)


def stray_hues(layout: Layout, rng: np.random.Generator, margin: float = 0.1) -> np.ndarray:
    """Draw any colours but those held out for a category, RGB, shape (n, objects, 3).

    Named colours differ from the palette by at most 0.06 in each channel.
    """
    palette = np.asarray(list(COLOURS.values()))
    out = held_out_compositions()[layout.category]
    hues = np.empty(layout.hue.shape, np.float32)
    left = np.ones(layout.category.shape, bool)
    while left.any():
        shape = (int(left.sum()), 3)
        hue, saturation, value = (rng.uniform((0, 0.3, 0.3), (1, 1, 0.97), shape)).T
        hues[left] = hsv_to_rgb(np.stack([hue, saturation, value], axis=1))
        near = np.abs(hues[:, :, None] - palette).max(axis=3) < margin
        left = (near & out).any(axis=2)
    return hues


def _keep(path: Path, scenes: Scenes) -> None:
    texts = [
        [d.background, [[t.category, t.colour, t.size] for t in d.things], d.relations]
        for d in scenes.descriptions
    ]
    work = path.with_suffix(".part.npz")
    np.savez(
        work,
        images=scenes.images,
        depth=scenes.depth.astype(np.float16),
        cells=cell_pixels(scenes.masks),
        descriptions=json.dumps(texts),
    )
    work.replace(path)


def cell_pixels(masks: np.ndarray) -> np.ndarray:
    """Count pixels of each object in cells of 8 x 8: (..., 64, 64) to (..., 8, 8, objects)."""
    cells = masks.reshape(*masks.shape[:-2], 8, 8, 8, 8)
    counts = [(cells == 1 + number).sum(axis=(-3, -1)) for number in range(MOST_OBJECTS)]
    return np.stack(counts, axis=-1).astype(np.uint8)


def cell_shares(cells: np.ndarray, codes: np.ndarray, n: int) -> torch.Tensor:
    """Shares of each cell's 64 pixels that show each of ``n`` values, the background last.

    Parameters
    ----------
    cells : ndarray, shape (scene, cell, object)
        Pixels of each object.
    codes : ndarray of int, shape (scene, object)
        The value of each object; -1 where it has none, or there is no such object.
    n : int

    Returns
    -------
    Tensor, shape (scene, cell, n + 1)
        All zero for scenes in which an object that is seen has no value.
    """
    shares = torch.from_numpy(cells).float() / 64
    # What has no value counts into a column of its own, which is left out.
    one_hot = functional.one_hot(torch.from_numpy(codes) % (n + 1), n + 1)[..., :n].float()
    found = torch.cat([shares @ one_hot, 1 - shares.sum(dim=2, keepdim=True)], dim=2)
    without = (cells.any(axis=1) & (codes < 0)).any(axis=1)
    return found * torch.from_numpy(~without)[:, None, None]


def cell_loss(said: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of what is said of cells (scene, cell, n), given the true shares."""
    return functional.cross_entropy(said.float().flatten(0, 1), shares.flatten(0, 1))


def turned(embeddings: torch.Tensor, most: float) -> torch.Tensor:
    """Turn unit vectors (n, dim) away at random, by an angle of at most the tangent ``most``."""
    aside = functional.normalize(torch.randn_like(embeddings), dim=1)
    away = embeddings + most * torch.rand(len(embeddings), 1) * aside
    return functional.normalize(away, dim=1)


def kept(path: Path, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Return what the file holds, or compute it and keep it there."""
    if not path.exists():
        work = path.with_suffix(".part")
        torch.save(compute(), work)
        work.replace(path)
    return torch.load(path, weights_only=True)


def tower_tokens(
    folder: Path, tower: contrastive.ImageTower, images: np.ndarray, size: int = 1024
) -> torch.Tensor:
    """Return an image tower's tokens (n, token, width), bfloat16; kept in the folder."""

    def compute() -> torch.Tensor:
        found = []
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for start in track(range(0, len(images), size), "reading scenes"):
                found.append(tower(image_batch(images[start : start + size])).bfloat16())
        return torch.cat(found)

    key = hashlib.blake2b(module_fingerprint(tower).encode(), digest_size=6)
    for start in range(0, len(images), size):
        key.update(images[start : start + size].tobytes())
    return kept(folder / f"tokens-{key.hexdigest()}.pt", compute)


def told_scenes(n: int) -> tuple[Layout, list[Description]]:
    """Lay out and describe scenes of all compositions, without drawing them."""
    layout = draw_layouts(n, rng=np.random.default_rng(4), object_counts=OBJECT_COUNTS)
    return layout, describe(layout)


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


def arguments(
    description: str | None, steps: int, **choices: tuple[str, ...]
) -> argparse.Namespace:
    """Read the options that all training scripts share, and optional choices."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, default=Path("build/miniatures"))
    parser.add_argument("--scenes", type=int, default=16 * SHARD, help="scenes to train on")
    parser.add_argument("--steps", type=int, default=steps, help="batches to train on")
    for name, values in choices.items():
        parser.add_argument(f"--{name}", choices=values)
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
