"""Train the miniature video encoder: what objects do, what they are, and how the camera moves.

What things are is read off by the image tower of the miniature image-text model, which stays as it
is: train that first. Beside the answers about whole clips, the encoder learns how far what each
cell of 8 x 8 pixels shows moves, and the names of what it shows and of what that does, from the
flow and the masks of the clips. As for images, half of the clips show things in colours without a
name, so that no colour is ruled out for a category; see `_scene_corpus.corpus`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, cell_loss, cell_pixels, cell_shares, fit, stray_hues
from torch import Tensor, nn
from torch.nn import functional

from engramma.features import contrastive
from engramma.features.contrastive import ImageTower
from engramma.features.video import WEIGHTS, Miniature, MiniVideo, clip_batch
from engramma.nn.seed import seeded
from engramma.nn.weights import load_shipped
from engramma.progress import track
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.layouts import COLOURS, MOST_OBJECTS
from engramma.worlds.objects import CATEGORIES
from engramma.worlds.rendering import render
from engramma.worlds.videos import ACTIONS, CAMERAS, make_videos, video_quality

BATCH, FRAMES = 32, 8
SHARD, SHARDS = 512, 24
NAMES = {
    "action": list(ACTIONS),
    "category": list(CATEGORIES),
    "colour": list(COLOURS),
    "background": list(BACKGROUNDS),
    "camera": list(CAMERAS),
}
#: Questions about single things, which cells are asked, too.
THINGS = ("action", "category", "colour")


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips, and the answers to each question, -1 where there is none.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, FRAMES, 64, 64, 3)
    answers : dict of str to ndarray of int, shape (n, objects)
    cells : ndarray of uint8, shape (n, tubes * 64, objects)
        Pixels of each object in each cell of the first frame of each tube of two frames.
    flow : ndarray of float16, shape (n, tubes * 64, 2)
        Pixels, right and down, by which what those cells show moves to the second frame.
    """

    frames: np.ndarray
    answers: dict[str, np.ndarray]
    cells: np.ndarray
    flow: np.ndarray


def corpus(folder: Path) -> Clips:
    """Return clips, those of every other shard in colours without a name."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number in track(range(SHARDS), "drawing videos"):
        path = folder / f"videos{number:03d}.npz"
        if not path.exists():
            _draw(path, number)
        with np.load(path) as shard:
            parts.append(dict(shard))
    whole = {k: np.concatenate([part.pop(k) for part in parts]) for k in list(parts[0])}
    return Clips(whole["frames"], {k: whole[k] for k in NAMES}, whole["cells"], whole["flow"])


def _draw(path: Path, number: int) -> None:
    rng = np.random.default_rng([13, number])
    videos = make_videos(SHARD, rng=rng, frames=FRAMES, compositions="common")
    first = videos.layout[::FRAMES]
    colour = first.colour
    if number % 2:
        hues = np.repeat(stray_hues(first, rng), FRAMES, axis=0)
        pictures = render(videos.layout.with_(hue=hues), rng=rng)
        videos = replace(videos, frames=pictures.images.reshape(videos.frames.shape))
        colour = np.full_like(colour, -1)
    work = path.with_suffix(".part.npz")
    np.savez(
        work,
        frames=videos.frames,
        action=videos.action,
        category=first.category,
        colour=colour,
        background=first.background[:, None],
        camera=videos.camera[:, None],
        cells=cell_pixels(videos.masks[:, ::2]).reshape(SHARD, -1, MOST_OBJECTS),
        flow=videos.flow()[:, ::2]
        .reshape(SHARD, FRAMES // 2, 8, 8, 8, 8, 2)
        .mean(axis=(3, 5))
        .astype(np.float16)
        .reshape(SHARD, -1, 2),
    )
    work.replace(path)


class Taught(nn.Module):
    """The encoder, and what it is taught with and that is not shipped: names and flow of cells."""

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        self.encoder = MiniVideo(names=NAMES, tower=tower.settings, frames=FRAMES)
        self.encoder.tower.load_state_dict(tower.state_dict())
        self.encoder.tower.requires_grad_(False)
        width = self.encoder.settings["dim"]
        self.names = nn.ModuleDict({k: nn.Linear(width, len(NAMES[k]) + 1) for k in THINGS})
        self.flow = nn.Linear(width, 2)

    def loss(
        self, clips: Tensor, truth: dict[str, Tensor], cells: dict[str, Tensor], flow: Tensor
    ) -> Tensor:
        """Losses of the answers, of the names of cells, and of their flow."""
        summaries, tokens, motion = self.encoder.read(clips)
        named = sum(cell_loss(self.names[k](tokens), shares) for k, shares in cells.items())
        moved = functional.smooth_l1_loss(self.flow(motion).float(), flow)
        return self.encoder.loss(summaries, truth) + named + moved


def main() -> None:
    options = arguments(__doc__, steps=500)
    videos = corpus(options.work / "videos")
    with seeded(0):
        model = Taught(contrastive.Miniature().network.image)

    def batch(rng: np.random.Generator) -> Any:
        rows = rng.integers(len(videos.frames), size=BATCH)
        truth = {
            k: torch.from_numpy(_distribution(v[rows], len(NAMES[k])))
            for k, v in videos.answers.items()
        }
        cells = {
            k: cell_shares(videos.cells[rows], videos.answers[k][rows], len(NAMES[k]))
            for k in THINGS
        }
        flow = torch.from_numpy(videos.flow[rows]).float()
        return clip_batch(videos.frames[rows]), truth, cells, flow

    model = fit(
        model,
        batch,
        lambda network, parts: network.loss(*parts),
        steps=options.steps,
        rate=1.5e-3,
        checkpoint=options.work / "video.pt",
        description="video encoder",
        average=0.99,
    ).encoder
    path = WEIGHTS / "mini-video.safetensors"
    model.save(path)
    load_shipped.cache_clear()
    held_out = make_videos(
        1000,
        rng=np.random.default_rng(989),
        frames=FRAMES,
        compositions="held out",
        object_counts=(1.0,),
    )
    write_card(
        path,
        "mini-video: video encoder of the moving scenes",
        f"{options.steps} batches of {BATCH} clips out of {len(videos.frames)} ({FRAMES} frames of "
        "64 x 64), half of them in colours that have no name (none near one held out for its "
        "category), AdamW, bfloat16; the image tower is that of mini-clip, and fixed; "
        "cross-entropy of actions, categories, colours, backgrounds and camera motions, the same "
        "of each cell of 8 x 8 pixels, and its flow; moving average of the weights",
        video_quality(Miniature(), held_out),
        held_out="1000 videos of one object, a pair of category and colour that no training video "
        "shows",
    )


def _distribution(codes: np.ndarray, n: int) -> np.ndarray:
    """Shares of the objects of each clip that each answer fits, (clips, n); zero for none."""
    shares = (codes[..., None] == np.arange(n)).sum(axis=1).astype(np.float32)
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)


if __name__ == "__main__":
    main()
