"""Train the miniature video encoder: what objects do, what they are, and how the camera moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, fit

from engramma.features.video import WEIGHTS, Miniature, MiniVideo, clip_batch
from engramma.nn.seed import seeded
from engramma.nn.weights import load_shipped
from engramma.progress import track
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.layouts import COLOURS
from engramma.worlds.objects import CATEGORIES
from engramma.worlds.videos import ACTIONS, CAMERAS, make_videos, video_quality

BATCH, FRAMES = 32, 8
SHARD, SHARDS = 512, 12
NAMES = {
    "action": list(ACTIONS),
    "category": list(CATEGORIES),
    "colour": list(COLOURS),
    "background": list(BACKGROUNDS),
    "camera": list(CAMERAS),
}
MIRROR = {"right": "left", "left": "right", "up": "up", "down": "down"}
REVERSE = {"right": "left", "left": "right", "up": "down", "down": "up"}


def corpus(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return clips, and for each question the answers (n, objects), -1 where there is no object."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number in track(range(SHARDS), "drawing videos"):
        path = folder / f"videos{number:03d}.npz"
        if not path.exists():
            _draw(path, number)
        with np.load(path) as shard:
            parts.append(dict(shard))
    whole = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return whole.pop("frames"), whole


def _draw(path: Path, number: int) -> None:
    rng = np.random.default_rng([13, number])
    videos = make_videos(SHARD, rng=rng, frames=FRAMES, compositions="common")
    first = videos.layout[::FRAMES]
    work = path.with_suffix(".part.npz")
    np.savez(
        work,
        frames=videos.frames,
        action=videos.action,
        category=first.category,
        colour=first.colour,
        background=first.background[:, None],
        camera=videos.camera[:, None],
    )
    work.replace(path)


def _renamed(answers: list[str], words: dict[str, str], swap: bool) -> np.ndarray:
    """Position of what each answer becomes when the words for directions are exchanged."""
    exchange = {"approach": "leave", "leave": "approach"} if swap else {}
    new = [exchange.get(a, " ".join(words.get(w, w) for w in a.split())) for a in answers]
    return np.asarray([answers.index(a) for a in new])


def main() -> None:
    options = arguments(__doc__, steps=800)
    frames, answers = corpus(options.work / "videos")
    with seeded(0):
        model = MiniVideo(names=NAMES, frames=FRAMES)
    renamed = {
        question: (
            _renamed(NAMES[question], MIRROR, swap=False),
            _renamed(NAMES[question], REVERSE, swap=True),
        )
        for question in ("action", "camera")
    }

    def batch(rng: np.random.Generator) -> Any:
        rows = rng.integers(len(frames), size=BATCH)
        clips = frames[rows]
        truth = {k: v[rows] for k, v in answers.items()}
        # Mirrored and reversed in time, clips show other motions.
        for kind, axis in enumerate((3, 1)):
            some = rng.random(BATCH) < 0.5
            clips[some] = np.flip(clips[some], axis)
            for question, codes in renamed.items():
                old = truth[question][some]
                truth[question][some] = np.where(old < 0, -1, codes[kind][old])
        targets = {k: torch.from_numpy(_distribution(v, len(NAMES[k]))) for k, v in truth.items()}
        return clip_batch(clips), targets

    model = fit(
        model,
        batch,
        lambda network, parts: network.loss(*parts),
        steps=options.steps,
        rate=1.5e-3,
        checkpoint=options.work / "video.pt",
        description="video encoder",
        average=0.99,
    )
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
        f"{options.steps} batches of {BATCH} clips out of {len(frames)} ({FRAMES} frames of "
        "64 x 64), half of them mirrored and half reversed in time, AdamW, bfloat16; "
        "cross-entropy of actions, categories, colours, backgrounds and camera motions; moving "
        "average of the weights",
        video_quality(Miniature(), held_out),
        held_out="1000 videos of one object, a pair of category and colour that no training video "
        "shows",
    )


def _distribution(codes: np.ndarray, n: int) -> np.ndarray:
    """Shares of the objects of each clip that each answer fits, (clips, n)."""
    shares = (codes[..., None] == np.arange(n)).sum(axis=1).astype(np.float32)
    return shares / shares.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    main()
