r"""Moving scenes in miniature, three views of what moves where and who encodes it.

``flow``: soft patterns that a smooth flow carries along. Content and motion are known factors, and
the flow is partly given away by the content, as in natural clips (a car drives, a house stands):
:math:`F = R m + a \sqrt 2\, W c` with smooth residual motion :math:`R m` of unit variance, standard
normal content factors c and smooth weights W of mean square 1. For 20 factors the share of flow
variance that content predicts is :math:`40 a^2 / (1 + 40 a^2)`: 13 % at a = .06, 47 % at a = .15.

``ball``: a ball that bounces off walls, seen for some steps and hidden for the rest, and neurons
that follow its true place and velocity throughout.

``digits``: handwritten digits drifting in eight directions in noise, test digits other than the
training ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.videos import DIRECTIONS


@dataclass(frozen=True, eq=False)
class MovingScenes:
    """Clips, what is true of them, and who responds to them.

    Parameters
    ----------
    frames : ndarray of float32, shape (n, frames, size, size)
        Grey clips.
    truth : dict of str to ndarray
        What the view says of its clips; see `moving_scenes`.
    recording : Recording, optional
        Responses to the clips, in their order; the stimuli have the names of the clips.
    """

    frames: np.ndarray
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    recording: Recording | None = None

    def __len__(self) -> int:
        return len(self.frames)


@world("moving-scenes")
def moving_scenes(seed: int = 0, *, view: str = "flow", **options: Any) -> MovingScenes:
    """Make clips with known motion; see `flow_clips`, `hidden_ball` and `drifting_digits`.

    Parameters
    ----------
    seed : int
    view : {"flow", "ball", "digits"}
    **options
        Those of the function that makes the view.

    Raises
    ------
    ConfigError
        If there is no such view or option.
    """
    views: dict[str, Callable[..., MovingScenes]] = {
        "flow": flow_clips,
        "ball": hidden_ball,
        "digits": drifting_digits,
    }
    if view not in views:
        raise ConfigError(
            f"moving scenes have no view {view!r}", mend=f"choose from {', '.join(views)}"
        )
    known = [n for n in views[view].__kwdefaults__ or {}]
    unknown = [n for n in options if n not in known]
    if unknown:
        raise ConfigError(
            f"the view {view!r} has no option {unknown[0]!r}",
            mend=f"its options are {', '.join(known)}",
        )
    return views[view](np.random.default_rng([seed, 71]), **options)


def flow_clips(
    rng: np.random.Generator,
    *,
    n: int = 400,
    frames: int = 8,
    size: int = 16,
    n_content: int = 20,
    n_motion: int = 8,
    coefficient: float = 0.06,
    speed: float = 0.4,
    n_units: int = 90,
    noise: float = 0.7,
) -> MovingScenes:
    r"""Make clips whose flow is partly given away by their content, and voxels that encode either.

    Frame t shows at x what frame 0 showed at :math:`x - t F(x)`, to any fraction of a pixel.

    Parameters
    ----------
    rng : numpy.random.Generator
    n, frames, size : int
        Clips, frames a clip and pixels a side.
    n_content, n_motion : int
        Content factors, each the amount of one soft pattern in the picture, and motion factors.
    coefficient : float
        How much content tells of motion; .06 is 13 % of flow variance (with 20 factors), .15 is
        47 %: then the first frame suffices, and brains have nothing to add.
    speed : float
        Standard deviation of the flow before that of content is added, pixels a frame.
    n_units : int
        Voxels, a third each: ``static`` (content), ``motion`` (flow) and ``mixed`` (half each).
    noise : float
        Standard deviation of voxels' noise; that of their signal is 1.

    Returns
    -------
    MovingScenes
        ``truth`` holds ``content`` (n, n_content), ``motion`` (n, n_motion), ``flow`` (n, 5, 5,
        2), pixels a frame to the right and down at knots whose corners are those of the picture,
        ``pixel_flow`` (n, size, size, 2) and ``content_flow`` (n, 5, 5, 2), the part that content
        predicts. The recording's attribute ``truth`` has ``signal`` (n, n_units).

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if n < 2 or frames < 2 or size < 8 or n_units < 3 or coefficient < 0 or noise < 0:
        raise ConfigError(
            f"clips cannot be made with n={n}, frames={frames}, size={size}, n_units={n_units}, "
            f"coefficient={coefficient:g} and noise={noise:g}",
            mend="use n and frames of at least 2, size >= 8, n_units >= 3, and nothing negative",
        )
    content = rng.standard_normal((n, n_content))
    motion = rng.standard_normal((n, n_motion))
    residual = motion @ _smooth_fields(n_motion, rng) / np.sqrt(n_motion)
    told = coefficient * np.sqrt(2) * content @ _smooth_fields(n_content, rng)
    coarse = (speed * (residual + told)).reshape(n, 5, 5, 2)
    # Linear between knots.
    weight = np.maximum(1 - np.abs(np.linspace(0, 4, size)[:, None] - np.arange(5)), 0)
    pixel_flow = np.einsum("yi,xj,nijc->nyxc", weight, weight, coarse, optimize=True)
    moved = _carried(content, pixel_flow, frames, rng)
    signals = (
        _unit_variance(content @ rng.standard_normal((n_content, n_units))),
        _unit_variance(coarse.reshape(n, 50) @ rng.standard_normal((50, n_units))),
    )
    roi = np.repeat(["static", "motion", "mixed"], -(-n_units // 3))[:n_units]
    share = np.select([roi == "static", roi == "motion"], [1.0, 0.0], 0.5)
    signal = _unit_variance(np.sqrt(share) * signals[0] + np.sqrt(1 - share) * signals[1])
    recording = _record(signal + noise * rng.standard_normal(signal.shape), signal, roi)
    truth = {
        "content": content,
        "motion": motion,
        "flow": coarse,
        "pixel_flow": pixel_flow,
        "content_flow": speed * told.reshape(n, 5, 5, 2),
    }
    return MovingScenes(moved, {k: v.astype(np.float32) for k, v in truth.items()}, recording)


def _smooth_fields(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw vector fields on 5 x 5 knots, alike between neighbours, (n, 50), of mean square 1."""
    fields = gaussian_filter(rng.standard_normal((n, 9, 9, 2)), (0, 1.5, 1.5, 0))[:, 2:7, 2:7]
    return (fields / np.sqrt((fields**2).mean())).reshape(n, 50)


def _carried(
    content: np.ndarray, flow: np.ndarray, frames: int, rng: np.random.Generator
) -> np.ndarray:
    """Sum plane waves under soft windows, at the places that flow carries into each pixel."""
    n_content, size = content.shape[1], flow.shape[1]
    wave = rng.uniform(-0.9, 0.9, (n_content, 2)).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, (n_content,)).astype(np.float32)
    middle = rng.uniform(0, size, (n_content, 2)).astype(np.float32)
    weight = (content / np.sqrt(n_content)).astype(np.float32)
    down, across = np.indices((size, size), dtype=np.float32)
    found = np.empty((len(content), frames, size, size), np.float32)
    for t in range(frames):
        x, y = across - t * flow[..., 0], down - t * flow[..., 1]
        total = np.zeros(x.shape, np.float32)
        for k in range(n_content):
            window = ((x - middle[k, 0]) ** 2 + (y - middle[k, 1]) ** 2) / (2 * (size / 4) ** 2)
            pattern = np.cos(wave[k, 0] * x + wave[k, 1] * y + phase[k]) * np.exp(-window)
            total += weight[:, k, None, None] * pattern
        found[:, t] = total
    return found / found[:, 0].std()


def hidden_ball(
    rng: np.random.Generator,
    *,
    n: int = 200,
    steps: int = 19,
    hidden: int = 12,
    size: int = 16,
    speed: float = 0.09,
    n_features: int = 64,
    n_units: int = 64,
    noise: float = 0.1,
) -> MovingScenes:
    """Bounce a ball off the walls of a box, hide it in the end, and let neurons follow it.

    Parameters
    ----------
    rng : numpy.random.Generator
    n, steps, hidden : int
        Clips, steps a clip, and how many of them, the last ones, are hidden.
    size : int
        Pixels a side; hidden steps show an empty box.
    speed : float
        Of the ball, in widths of the box a step.
    n_features, n_units : int
        Of the static encoder, random cosine features of place (Rahimi and Recht 2007); neurons
        are the hyperbolic tangent of random mixes of true place and velocity.
    noise : float
        Standard deviation of the neurons' noise.

    Returns
    -------
    MovingScenes
        ``truth`` holds ``place`` and ``velocity`` (n, steps, 2) in a box from -1 to 1, ``hidden``
        (steps,), ``bounced`` (n, steps), whether a wall was met since the step before, and
        ``features`` (n, steps, n_features) of true places. The recording has a time axis of
        steps, and its attribute ``truth`` has ``signal``.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if n < 1 or not 0 <= hidden < steps or size < 8 or not 0 < speed < 0.5 or noise < 0:
        raise ConfigError(
            f"a ball cannot be hidden with n={n}, steps={steps}, hidden={hidden}, size={size}, "
            f"speed={speed:g} and noise={noise:g}",
            mend="use n >= 1, 0 <= hidden < steps, size >= 8, speed below 0.5 and noise >= 0",
        )
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    heading = 2 * speed * np.concatenate([np.cos(angle), np.sin(angle)], axis=-1)
    free = rng.uniform(-1, 1, (n, 1, 2)) + heading * np.arange(steps)[:, None]
    # Reflection at both walls folds the straight path: a triangle wave of period 4.
    place = 1 - np.abs((free + 1) % 4 - 2)
    crossed = np.floor((free + 1) / 2).astype(int)
    velocity = heading * np.where(crossed % 2 == 0, 1, -1)
    bounced = np.zeros((n, steps), bool)
    bounced[:, 1:] = (np.diff(crossed, axis=1) != 0).any(axis=-1)
    is_hidden = np.arange(steps) >= steps - hidden
    line = np.linspace(-1, 1, size)
    square = (line - place[..., :1, None]) ** 2 + (line[:, None] - place[..., 1:, None]) ** 2
    frames = np.exp(-square / (2 * 0.15**2)) * ~is_hidden[:, None, None]
    features = np.cos(
        3 * place @ rng.standard_normal((2, n_features)) + rng.uniform(0, 2 * np.pi, n_features)
    )
    state = np.concatenate([place, velocity / speed], axis=-1)
    signal = np.tanh(state @ rng.standard_normal((4, n_units)) / np.sqrt(2))
    signal = np.moveaxis(signal, 1, 2)
    responses = signal + noise * rng.standard_normal(signal.shape)
    recording = _record(responses, signal, np.full(n_units, "frontal"), np.arange(steps) * 1.0)
    truth = {
        "place": place.astype(np.float32),
        "velocity": velocity.astype(np.float32),
        "hidden": is_hidden,
        "bounced": bounced,
        "features": features.astype(np.float32),
    }
    return MovingScenes(frames.astype(np.float32), truth, recording)


def drifting_digits(
    rng: np.random.Generator,
    *,
    n_train: int = 800,
    n_test: int = 400,
    frames: int = 8,
    size: int = 16,
    noise: float = 0.15,
) -> MovingScenes:
    """Let handwritten digits drift by a pixel a frame, around the edges, in eight directions.

    The digits are those that scikit-learn ships (8 x 8 pixels; Alpaydin and Kaynak 1998). Places
    are uniform, so that no single frame tells the direction.

    Parameters
    ----------
    rng : numpy.random.Generator
    n_train, n_test : int
        Clips; no digit image is in both.
    frames, size : int
        Frames a clip and pixels a side.
    noise : float
        Standard deviation of the pixels' noise; digits go from 0 to 1.

    Returns
    -------
    MovingScenes
        ``truth`` holds ``digit`` (0 .. 9), ``direction`` (position in `DIRECTIONS`), ``image``
        (row of the digits of scikit-learn) and ``train`` (bool), one a clip.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if min(n_train, n_test) < 1 or frames < 2 or size < 8 or noise < 0:
        raise ConfigError(
            f"digits cannot drift with n_train={n_train}, n_test={n_test}, frames={frames}, "
            f"size={size} and noise={noise:g}",
            mend="use clips in both parts, frames >= 2, size >= 8 and noise >= 0",
        )
    from sklearn.datasets import load_digits

    digits = load_digits()
    n = n_train + n_test
    train = np.arange(n) < n_train
    order = rng.permutation(len(digits.images))
    cut = 2 * len(order) // 3
    image = np.where(train, rng.choice(order[:cut], n), rng.choice(order[cut:], n))
    direction = rng.integers(len(DIRECTIONS), size=n)
    step = np.asarray(list(DIRECTIONS.values()))[direction]
    start = rng.integers(size, size=(n, 2))
    corner = start[:, None] + step[:, None] * np.arange(frames)[:, None]
    clips = noise * rng.standard_normal((n, frames, size, size), dtype=np.float32)
    columns = (corner[..., :1] + np.arange(8)) % size
    rows = (corner[..., 1:] + np.arange(8)) % size
    clip, time = np.ogrid[:n, :frames]
    at = (clip[..., None, None], time[..., None, None], rows[..., None], columns[..., None, :])
    clips[at] += (digits.images[image] / 16).astype(np.float32)[:, None]
    truth = {
        "digit": digits.target[image],
        "direction": direction,
        "image": image,
        "train": train,
    }
    return MovingScenes(clips, truth)


def _unit_variance(signal: np.ndarray) -> np.ndarray:
    return signal / signal.std(axis=0)


def _record(
    responses: np.ndarray, signal: np.ndarray, roi: np.ndarray, time: np.ndarray | None = None
) -> Recording:
    ids = [f"clip{i:05d}" for i in range(len(responses))]
    return Recording.from_arrays(
        responses.astype(np.float32),
        ids,
        unit_coords={"roi": roi},
        time=time,
        stimuli=StimulusSet(pd.DataFrame(index=pd.Index(ids, dtype=object))),
        modality="simulated",
        source="moving scenes",
        truth={"signal": signal.astype(np.float32)},
    )
