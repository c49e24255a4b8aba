"""Manifolds of known topology in the activity of noisy neurons.

Each shape is a set of points in a few dimensions, sampled along its parameter, centred and scaled
to unit mean square radius. Every neuron reads one random direction of that space, and adds its own
Gaussian noise. The shapes that share a topology (ring, twisted ring, ellipse) differ in geometry,
and some that look alike (ring, open arc) differ in topology.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
#: Generalised golden ratio of two dimensions; its powers spread points evenly over a square.
PLASTIC = 1.32471795724474602596


@dataclass(frozen=True)
class Shape:
    """A shape and its topology.

    Parameters
    ----------
    points : callable
        ``points(n) -> (n, dimension)``.
    betti : tuple of int
        Number of parts, loops and cavities.
    """

    points: Callable[[int], np.ndarray]
    betti: tuple[int, int, int]


def _turn(n: int) -> np.ndarray:
    """``n`` angles that go once around, without repeating the first."""
    return 2 * np.pi * np.arange(n) / n


def _columns(*parts: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*parts), axis=1)


def ring(n: int) -> np.ndarray:
    """Circle."""
    t = _turn(n)
    return _columns(np.cos(t), np.sin(t))


def twisted_ring(n: int) -> np.ndarray:
    """Ring whose height goes up and down twice a turn."""
    t = _turn(n)
    return _columns(np.cos(t), np.sin(t), np.sin(2 * t))


def ellipse(n: int) -> np.ndarray:
    """Ring squeezed to half its width."""
    t = _turn(n)
    return _columns(np.cos(t), 0.5 * np.sin(t))


def open_arc(n: int) -> np.ndarray:
    """Three quarters of a circle."""
    t = np.linspace(0, 1.5 * np.pi, n)
    return _columns(np.cos(t), np.sin(t))


def line(n: int) -> np.ndarray:
    """Straight segment."""
    return np.linspace(-1, 1, n)[:, None]


def figure_eight(n: int) -> np.ndarray:
    """Lemniscate of Gerono: two loops that meet in a point."""
    t = _turn(n)
    return _columns(np.sin(t), np.sin(t) * np.cos(t))


def two_rings(n: int) -> np.ndarray:
    """Two circles side by side, apart by their own diameter."""
    first, second = ring(n - n // 2), ring(n // 2)
    apart = np.array([2.0, 0.0])
    return np.concatenate([first - apart, second + apart])


def sphere(n: int) -> np.ndarray:
    """Surface of a ball, sampled along a golden spiral."""
    z = 1 - (2 * np.arange(n) + 1) / n
    t = GOLDEN_ANGLE * np.arange(n)
    radius = np.sqrt(1 - z**2)
    return _columns(radius * np.cos(t), radius * np.sin(t), z)


def torus(n: int) -> np.ndarray:
    """Product of two rings, in four dimensions: flat, so that all its points are alike."""
    index = np.arange(n)
    s, t = 2 * np.pi * (index / PLASTIC % 1), 2 * np.pi * (index / PLASTIC**2 % 1)
    return _columns(np.cos(s), np.sin(s), np.cos(t), np.sin(t))


SHAPES = {
    "ring": Shape(ring, (1, 1, 0)),
    "twisted ring": Shape(twisted_ring, (1, 1, 0)),
    "ellipse": Shape(ellipse, (1, 1, 0)),
    "open arc": Shape(open_arc, (1, 0, 0)),
    "line": Shape(line, (1, 0, 0)),
    "figure-8": Shape(figure_eight, (1, 2, 0)),
    "two rings": Shape(two_rings, (2, 2, 0)),
    "sphere": Shape(sphere, (1, 0, 1)),
    "torus": Shape(torus, (1, 2, 1)),
}


def manifold(
    name: str,
    n_points: int = 60,
    n_neurons: int = 100,
    noise: float = 0.0,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """Activity of neurons over the points of a shape.

    Parameters
    ----------
    name : str
        Key of `SHAPES`.
    n_points, n_neurons : int
        At least 8 points.
    noise : float
        Standard deviation of the noise, in units of the standard deviation of the signal
        (root mean square over neurons).
    rng : numpy.random.Generator
        Draws the directions that neurons read, then the noise.

    Returns
    -------
    ndarray of float32, shape (n_points, n_neurons)

    Raises
    ------
    ConfigError
        If the shape is unknown or has too few points.
    """
    if name not in SHAPES:
        raise ConfigError(f"there is no shape {name!r}", mend=f"choose one of {', '.join(SHAPES)}")
    if n_points < 8:
        raise ConfigError(f"{n_points} points do not make a {name}", mend="take at least 8")
    points = SHAPES[name].points(n_points)
    points = points - points.mean(axis=0)
    points /= np.sqrt((points**2).sum(axis=1).mean())
    if n_neurons < points.shape[1]:
        raise ConfigError(
            f"{n_neurons} neurons cannot hold a {name}", mend=f"take at least {points.shape[1]}"
        )
    # Orthonormal directions embed the shape without distorting it; scaled to unit signal a neuron.
    directions = np.linalg.qr(rng.standard_normal((n_neurons, points.shape[1])))[0]
    activity = np.sqrt(n_neurons) * points @ directions.T
    return (activity + noise * rng.standard_normal(activity.shape)).astype(np.float32)


@world("manifold")
def manifold_recording(
    seed: int = 0,
    shape: str = "ring",
    n_points: int = 60,
    n_neurons: int = 100,
    noise: float = 0.5,
    n_runs: int = 4,
) -> Recording:
    """Record a population whose responses to a continuum of stimuli form a known manifold.

    Parameters
    ----------
    seed : int
    shape : str
        Key of `SHAPES`.
    n_points : int
        Stimuli.
    n_neurons : int
    noise : float
        Standard deviation of the trial noise over that of the signal.
    n_runs : int
        Each run presents every stimulus once.
    """
    rng = np.random.default_rng(seed)
    signal = manifold(shape, n_points, n_neurons, rng=rng)
    trials = np.tile(signal, (n_runs, 1))
    trials += noise * rng.standard_normal(trials.shape, dtype=np.float32)
    ids = [f"point{i:03d}" for i in range(n_points)]
    part = np.arange(n_points) * 4 // n_points
    stimuli = StimulusSet(
        pd.DataFrame({"quarter": [f"quarter {p + 1}" for p in part]}, index=ids),
        attrs={"name": f"{shape}, Betti numbers {SHAPES[shape].betti}"},
    )
    return Recording.from_arrays(
        trials,
        np.tile(ids, n_runs),
        run=np.repeat(np.arange(1, n_runs + 1), n_points),
        stimuli=stimuli,
        source=f"generated: {shape} in {n_neurons} neurons",
        modality="spikes",
        betti=list(SHAPES[shape].betti),
    )
