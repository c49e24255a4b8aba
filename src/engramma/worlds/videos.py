"""Videos of scenes whose objects and camera move, with true optical flow.

Each object does one of `ACTIONS`, whatever its category, colour and place, and the camera pans or
stands still, whatever the objects do. Layouts are changed frame by frame and drawn again; as all
motions are known, the flow of every pixel is a closed form of the layouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.features.video import Miniature
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.captions import names, place_phrase
from engramma.worlds.layouts import MOST_OBJECTS, Compositions, Layout, draw_layouts
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE
from engramma.worlds.rendering import render

#: Unit steps right and down of the directions that objects move and cameras pan in.
DIRECTIONS = {
    "right": (1, 0),
    "down right": (1, 1),
    "down": (0, 1),
    "down left": (-1, 1),
    "left": (-1, 0),
    "up left": (-1, -1),
    "up": (0, -1),
    "up right": (1, -1),
}
#: What objects do, and how a caption says it.
ACTIONS = {
    **{name: f"moves {name.replace(' ', ' and ')}" for name in DIRECTIONS},
    "approach": "comes closer",
    "leave": "goes away",
    "rotate": "turns around",
    "bounce": "bounces up and down",
    "still": "stands still",
}
#: What the camera does: it pans by a whole pixel a frame, or not at all.
CAMERAS = ("still", *DIRECTIONS)
#: Distance that an object moves in a video, and height of its jumps, in shares of the image.
TRAVEL, JUMP = (0.3, 0.45), (0.14, 0.22)
#: Factor by which an object that approaches grows, and angle (radians) that one turns by.
GROWTH, SPIN = (1.6, 2.0), (1.6, 3.0)
#: Times that an object which bounces meets the ground in a video.
BOUNCES = 2


@dataclass(frozen=True, eq=False)
class Videos:
    """Rendered videos of n scenes, and everything known about them.

    Parameters
    ----------
    stimuli : StimulusSet
        The videos, their first frames as images, and a table with ``caption``, of the first
        object ``category``, ``superordinate``, ``colour``, ``size`` and ``action``,
        ``background``, ``camera``, ``n_objects``, and of a second object, empty where there is
        none, ``second``, ``second_colour`` and ``second_action``.
    frames : ndarray of uint8, shape (n, frames, size, size, 3)
    masks : ndarray of uint8, shape (n, frames, size, size)
        0 background, 1 the first object, 2 the second, ...
    depth : ndarray of float32, shape (n, frames, size, size)
        Distance of what is seen, from 1 (near) to 10 (the horizon).
    action : ndarray of int, shape (n, MOST_OBJECTS)
        Position in `ACTIONS`; -1 where there is no object.
    camera : ndarray of int, shape (n,)
        Position in `CAMERAS`.
    layout : Layout
        Of all frames of the first video, then of the second, ...
    """

    stimuli: StimulusSet
    frames: np.ndarray
    masks: np.ndarray
    depth: np.ndarray
    action: np.ndarray
    camera: np.ndarray
    layout: Layout

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def tracks(self) -> np.ndarray:
        """Centres of objects in pixels, (n, frames, MOST_OBJECTS, 2); NaN where there is none."""
        n, frames, size = self.masks.shape[:3]
        centre = size * np.stack([self.layout.x, self.layout.y], axis=-1)
        centre[self.layout.category < 0] = np.nan
        return centre.reshape(n, frames, MOST_OBJECTS, 2).astype(np.float32)

    def flow(self, rows: slice = slice(None)) -> np.ndarray:
        """Motion of what each pixel shows from its frame to the next, in pixels.

        Parameters
        ----------
        rows : slice
            Of which videos.

        Returns
        -------
        ndarray of float32, shape (videos, frames - 1, size, size, 2)
            To the right and down: what frame t shows at a pixel is at the pixel plus the flow in
            frame t + 1, unless it is then hidden (`occluded`).
        """
        masks = self.masks[rows]
        n, frames, size = masks.shape[:3]
        index = np.arange(len(self.layout)).reshape(self.masks.shape[:2])[rows]
        now, then = self.layout[index[:, :-1].ravel()], self.layout[index[:, 1:].ravel()]
        flow = _flow(now, then, masks[:, :-1].reshape(-1, size, size))
        return flow.reshape(n, frames - 1, size, size, 2)

    def occluded(self, rows: slice = slice(None)) -> np.ndarray:
        """Whether what a pixel shows is hidden or out of sight in the next frame.

        Returns
        -------
        ndarray of bool, shape (videos, frames - 1, size, size)
        """
        masks, flow = self.masks[rows], self.flow(rows)
        n, frames, size = masks.shape[:3]
        pixel = np.arange(size)
        column = np.rint(pixel + flow[..., 0]).astype(int)
        row = np.rint(pixel[:, None] + flow[..., 1]).astype(int)
        outside = (column < 0) | (column >= size) | (row < 0) | (row >= size)
        video, time = np.ogrid[:n, 1:frames]
        at = (np.clip(part, 0, size - 1) for part in (row, column))
        seen = masks[video[..., None, None], time[..., None, None], *at]
        return outside | (seen != masks[:, :-1])


def make_videos(
    n: int,
    *,
    rng: np.random.Generator,
    frames: int = 16,
    size: int = 64,
    categories: Sequence[str] = CATEGORIES,
    actions: Sequence[str] = tuple(ACTIONS),
    object_counts: Sequence[float] = (0.7, 0.3),
    compositions: Compositions = "all",
    still_camera: float = 0.5,
    grain: float = 0.02,
) -> Videos:
    """Draw and render ``n`` videos.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    frames : int
        Frames a video, at least 2. Motions take the whole video, however many it has; the camera
        pans by at most 16 pixels.
    size : int
        Pixels a side, at least 16.
    categories, actions : sequence of str
        What first objects are, and what objects do, each about equally often.
    object_counts : sequence of float
        Shares of videos with one, two, ... up to four objects.
    compositions : {"all", "common", "held out"}
        Pairs of category and colour; see `engramma.worlds.scenes.make_scenes`.
    still_camera : float
        Share of videos in which the camera does not move.
    grain : float
        Standard deviation of the sensor noise, new in each frame, full scale 1.

    Raises
    ------
    ConfigError
        If a category or action is unknown, or a number out of range.
    """
    if frames < 2 or size < 16 or not 0 <= still_camera <= 1:
        raise ConfigError(
            f"videos cannot be made with frames={frames}, size={size} and "
            f"still_camera={still_camera:g}",
            mend="use frames >= 2, size >= 16 and a share of still cameras between 0 and 1",
        )
    unknown = [a for a in actions if a not in ACTIONS]
    if unknown or not len(actions):
        raise ConfigError(
            f"there is no action {unknown[0]!r}" if unknown else "no action is given",
            mend=f"choose from {', '.join(ACTIONS)}",
        )
    layout = draw_layouts(
        n,
        rng=rng,
        categories=categories,
        object_counts=object_counts,
        compositions=compositions,
    )
    codes = np.asarray([list(ACTIONS).index(a) for a in actions])
    action = codes[rng.integers(len(codes), size=(n, MOST_OBJECTS))]
    action[:, 0] = rng.permutation(np.resize(codes, n))
    action[layout.category < 0] = -1
    pans = rng.random(n) >= still_camera
    camera = np.where(pans, rng.integers(1, len(CAMERAS), size=n), 0)
    return film(layout, action, camera, rng=rng, frames=frames, size=size, grain=grain)


def film(
    layout: Layout,
    action: np.ndarray,
    camera: np.ndarray,
    *,
    rng: np.random.Generator,
    frames: int = 16,
    size: int = 64,
    grain: float = 0.02,
) -> Videos:
    """Render videos of given scenes; in the middle of a video, things are where they were put.

    Parameters
    ----------
    layout : Layout
        Of n scenes.
    action : ndarray of int, shape (n, MOST_OBJECTS)
        Position in `ACTIONS`; -1 where there is no object.
    camera : ndarray of int, shape (n,)
        Position in `CAMERAS`.
    rng, frames, size, grain
        As of `make_videos`.
    """
    n = len(layout)
    moving = _animate(layout, action, camera, frames, size, rng)
    pictures = render(moving, rng=rng, size=size, grain=grain, description="rendering videos")
    shape = (n, frames, size, size)
    images = pictures.images.reshape(*shape, 3)
    stimuli = StimulusSet(
        _table(layout, action, camera),
        images=images[:, 0],
        videos=images,
        attrs={"source": "rendered videos"},
    )
    masks, depth = pictures.masks.reshape(shape), pictures.depth.reshape(shape)
    return Videos(stimuli, images, masks, depth, action, camera, moving)


def _animate(
    layout: Layout,
    action: np.ndarray,
    camera: np.ndarray,
    frames: int,
    size: int,
    rng: np.random.Generator,
) -> Layout:
    """Layouts of all frames; in the middle of the video objects are where the layout has them."""
    n = len(layout)
    shape = (n, 1, MOST_OBJECTS)
    time = np.linspace(-0.5, 0.5, frames)[:, None]
    step = np.zeros((len(ACTIONS), 2))
    step[: len(DIRECTIONS)] = list(DIRECTIONS.values())
    step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1)
    does = np.asarray(list(ACTIONS))[action][:, None]
    way = time * rng.uniform(*TRAVEL, shape)
    x = layout.x[:, None] + way * step[action, 0][:, None]
    y = layout.y[:, None] + way * step[action, 1][:, None]
    height = np.abs(np.sin(np.pi * BOUNCES * (time + 0.5))) * rng.uniform(*JUMP, shape)
    y -= np.where(does == "bounce", height - JUMP[0] / 2, 0)
    growth = np.log(rng.uniform(*GROWTH, shape)) * time
    growth *= (does == "approach").astype(int) - (does == "leave").astype(int)
    radius = layout.radius[:, None] * np.exp(growth)
    spin = time * rng.uniform(*SPIN, shape) * rng.choice([-1, 1], shape)
    turn = layout.turn[:, None] + np.where(does == "rotate", spin, 0)
    # Whole pixels, so that the background moves exactly as its flow says.
    pixels = np.arange(frames) - frames // 2
    if frames > 16:
        pixels = pixels * 16 // frames
    pan = np.asarray([(0, 0), *DIRECTIONS.values()])[camera]
    shift = pan[:, None] * (pixels / size)[:, None]
    moving = layout[np.repeat(np.arange(n), frames)]
    return moving.with_(
        shift=shift.reshape(-1, 2),
        x=(x - shift[..., :1]).reshape(-1, MOST_OBJECTS),
        y=(y - shift[..., 1:]).reshape(-1, MOST_OBJECTS),
        turn=turn.reshape(-1, MOST_OBJECTS),
        radius=radius.reshape(-1, MOST_OBJECTS),
    )


def _flow(now: Layout, then: Layout, masks: np.ndarray) -> np.ndarray:
    """Flow between pairs of layouts (n), given what each pixel (n, size, size) shows now."""
    n, size = masks.shape[:2]
    # Each object undergoes a similarity transform, p -> c' + A (p - c); the background a shift.
    factor = then.radius / now.radius
    angle = then.turn - now.turn
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    before, after = (size * np.stack([p.x, p.y], axis=-1) for p in (now, then))
    pan = -np.rint(size * then.shift) + np.rint(size * now.shift)
    transforms = np.zeros((n, 1 + MOST_OBJECTS, 2, 3), np.float32)
    transforms[:, 0, :, 2] = pan
    transforms[:, 1:, 0, 0] = transforms[:, 1:, 1, 1] = cos - 1
    transforms[:, 1:, 0, 1], transforms[:, 1:, 1, 0] = -sin, sin
    change = np.einsum("nkij,nkj->nki", transforms[:, 1:, :, :2], before)
    transforms[:, 1:, :, 2] = after - before - change
    chosen = transforms[np.arange(n)[:, None, None], masks]
    across = (np.arange(size, dtype=np.float32) + 0.5)[:, None]
    down = across[:, None]
    return chosen[..., 0] * across + chosen[..., 1] * down + chosen[..., 2]


def _table(layout: Layout, action: np.ndarray, camera: np.ndarray) -> pd.DataFrame:
    """Captions and facts about the first two objects of each video, one row a video."""
    objects = layout.objects()
    objects["action"] = np.asarray(list(ACTIONS))[action[objects["scene"], objects["number"]]]
    by_scene = [rows.to_dict("records") for _, rows in objects.groupby("scene")]
    places = [BACKGROUNDS[code] for code in layout.background]
    pans = [CAMERAS[code] for code in camera]
    first = objects[objects["number"] == 0].reset_index(drop=True)
    table = first[["category", "colour", "size", "action"]].copy()
    captions = [
        tell(things, place, pan) for things, place, pan in zip(by_scene, places, pans, strict=True)
    ]
    table.insert(0, "caption", captions)
    table.insert(2, "superordinate", table["category"].map(SUPERORDINATE))
    table["background"], table["camera"] = places, pans
    table["n_objects"] = layout.n_objects
    seconds = [t[1] if len(t) > 1 else {} for t in by_scene]
    for column, key in (
        ("second", "category"),
        ("second_colour", "colour"),
        ("second_action", "action"),
    ):
        table[column] = [t.get(key, "") for t in seconds]
    table.index = pd.Index([f"video{i:05d}" for i in range(len(layout))], dtype=object)
    return table


def tell(things: Sequence[Mapping[Any, Any]], background: str, camera: str) -> str:
    """Tell what moves how: "a red cat moves left in a field while the camera pans up".

    Parameters
    ----------
    things : sequence of mapping
        With ``category``, ``colour`` and ``action``.
    background, camera : str
        Of `BACKGROUNDS` and `CAMERAS`.
    """
    said = [
        f"{_article(t['colour'])} {t['colour']} {names(t['category'])[0]} {ACTIONS[t['action']]}"
        for t in things
    ]
    pan = "" if camera == "still" else f" while the camera pans {camera.replace(' ', ' and ')}"
    return f"{' and '.join(said)} {place_phrase(background)}{pan}"


def _article(colour: str) -> str:
    return "an" if colour[0] in "aeiou" else "a"


def video_quality(model: Miniature, videos: Videos) -> dict[str, float]:
    """Shares of videos whose first object's action and category, and whose camera, are told right.

    Returns
    -------
    dict
        One share for each question that the model answers. Videos should show one object.
    """
    said = model.tell(videos.frames)
    return {
        question: float((np.asarray(answers) == videos.stimuli.table[question].to_numpy()).mean())
        for question, answers in said.items()
    }
