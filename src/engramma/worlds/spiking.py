"""SpikeNetSim: a population that sees movies, with hubs that drive others, and behaviour.

Neurons have receptive fields on a small screen. A few *hubs* each drive a few *targets* after a
delay; all others only see. Behaviour follows the rate of a known group of neurons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.spiking_neurons import Connections, simulate_glm, simulate_lif

#: Frames a second, and pixels a side of the screen.
FRAME_RATE, SCREEN = 50, 16
#: For each kind of neuron: weight of a connection, and gain of the standardised stimulus.
STRENGTH: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"bernoulli": (2.5, 0.6), "poisson": (2.5, 0.6), "lif": (2.0, 0.15)}
)


@dataclass(frozen=True, eq=False)
class SpikingPopulation:
    """A simulated population and all that is known of it.

    Parameters
    ----------
    recording : Recording
        presentation x unit x time: spikes a second in bins.
    spikes : ndarray of uint8, shape (n_neurons, n_times)
        Spikes in steps of ``dt``, over all presentations one after the other.
    behaviour : ndarray of float32, shape (n_times,)
        Smoothed mean rate of the neurons of ``group``, standardised.
    group : ndarray of int
        Neurons that behaviour follows.
    connections : Connections
        Who drives whom, how strongly and after how long.
    hubs : ndarray of int
    filters : ndarray of float32, shape (n_neurons, SCREEN, SCREEN)
        Receptive fields.
    movies : ndarray of float32, shape (n_stimuli, n_frames, SCREEN, SCREEN)
        Contrast, about -1 to 1, at `FRAME_RATE` frames a second.
    drive : ndarray of float32, shape (n_neurons, n_times)
        Baseline and stimulus, in the units of the model.
    expected : ndarray of float32, shape (n_neurons, n_times)
        Of generalised linear neurons, the expected spikes of each step given the past; of
        integrate-and-fire ones, the membrane potential.
    dt : float
        Seconds a step.
    """

    recording: Recording
    spikes: np.ndarray
    behaviour: np.ndarray
    group: np.ndarray
    connections: Connections
    hubs: np.ndarray
    filters: np.ndarray
    movies: np.ndarray
    drive: np.ndarray
    expected: np.ndarray
    dt: float

    def spike_times(self) -> list[np.ndarray]:
        """Return the times of the spikes of each neuron, in seconds from the start."""
        return [np.repeat(np.arange(len(row)), row) * self.dt for row in self.spikes]


@world("spiking")
def spiking(seed: int = 0, **options: Any) -> Recording:
    """Record a spiking population that sees movies; see `make_population` for the options.

    Returns
    -------
    Recording
        presentation x unit x time, spikes a second. Units have a ``kind`` (``hub``, ``target`` or
        ``other``), presentations the mean ``behaviour``. ``attrs["truth"]`` holds ``weights`` and
        ``delays`` (to the row, from the column), ``hubs``, ``group`` and ``filters``.

    Raises
    ------
    ConfigError
        If an option is unknown or out of range.
    """
    known = [k for k in make_population.__kwdefaults__ or {} if k != "seed"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"the world 'spiking' has no option {unknown[0]!r}",
            mend=f"options are {', '.join(known)}",
        )
    return make_population(seed=seed, **options).recording


def make_population(
    *,
    seed: int = 0,
    model: str = "bernoulli",
    stimulus: str = "gratings",
    n_neurons: int = 30,
    n_hubs: int = 3,
    n_targets: int = 6,
    delays: tuple[float, float] = (0.02, 0.06),
    coupling: float = 1.0,
    silence_hubs: bool = False,
    rate: float = 8.0,
    n_stimuli: int = 8,
    n_repeats: int = 10,
    seconds: float = 1.0,
    signal: bool = True,
    refractory: float = 0.003,
    noise: float = 0.15,
    bin_width: float = 0.01,
    dt: float = 0.001,
) -> SpikingPopulation:
    """Simulate a population that sees movies.

    Parameters
    ----------
    seed : int
    model : {"bernoulli", "poisson", "lif"}
        Kind of neuron, see `engramma.worlds.spiking_neurons`.
    stimulus : {"gratings", "natural"}
        Gratings that drift in evenly spaced directions, or movies with the 1/f spectrum of
        natural scenes (Field 1987) that change smoothly.
    n_neurons, n_hubs, n_targets : int
        Targets are those of each hub; no hub is a target.
    delays : tuple of float
        Shortest and longest delay of a connection, in seconds.
    coupling : float
        Factor on all weights; 0 is the control without connections.
    silence_hubs : bool
        Whether hubs are kept from spiking, while all else is as it was.
    rate : float
        Mean rate about which neurons spike without connections, in spikes a second (generalised
        linear neurons); integrate-and-fire neurons sit at 0.85 of their threshold.
    n_stimuli, n_repeats : int
        Each repeat, which is a run, shows all stimuli in a new order.
    seconds : float
        Duration of a movie; movies follow one another without a gap.
    signal : bool
        False makes neurons blind: the control.
    refractory : float
        Absolute refractory period in seconds.
    noise : float
        Of integrate-and-fire neurons, see `simulate_lif`.
    bin_width, dt : float
        Bin of the recording and time step, in seconds.

    Raises
    ------
    ConfigError
        If an option is out of range.
    """
    if model not in STRENGTH or stimulus not in ("gratings", "natural"):
        raise ConfigError(
            f"there is no population of kind {model!r} that sees {stimulus!r}",
            mend="model is bernoulli, poisson or lif; stimulus is gratings or natural",
        )
    if n_hubs < 0 or not 0 <= n_targets <= n_neurons - n_hubs:
        raise ConfigError(
            f"{n_hubs} hubs cannot have {n_targets} targets each among {n_neurons} neurons",
            mend="use n_targets <= n_neurons - n_hubs",
        )
    for name, whole, part in (
        ("seconds", seconds, 1 / FRAME_RATE),
        ("seconds", seconds, bin_width),
        ("bin_width", bin_width, dt),
        ("1/frame rate", 1 / FRAME_RATE, dt),
    ):
        if part <= 0 or round(whole / part) < 1 or abs(whole / part - round(whole / part)) > 1e-6:
            raise ConfigError(
                f"{name} = {whole:g} s is no multiple of {part:g} s",
                mend="make seconds a multiple of bin_width and of a frame, and both of dt",
            )
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)]
    movie_rng, field_rng, wiring_rng, order_rng, spike_rng = streams
    movies, stimuli = _movies(stimulus, n_stimuli, round(seconds * FRAME_RATE), movie_rng)
    filters = _receptive_fields(n_neurons, field_rng)
    weight, gain = STRENGTH[model]
    connections, hubs = _wire(n_neurons, n_hubs, n_targets, weight * coupling, delays, wiring_rng)
    order = np.concatenate([order_rng.permutation(n_stimuli) for _ in range(n_repeats)])
    seen = _see(movies, filters)[order]  # presentation x frame x neuron
    seen = seen.reshape(-1, n_neurons).T
    base = 0.85 if model == "lif" else np.log(rate * dt) - gain**2 / 2
    drive = np.repeat(base + gain * float(signal) * seen, round(1 / FRAME_RATE / dt), axis=1)
    felt = drive.copy()
    if silence_hubs:
        felt[hubs] = -30.0
    if model == "lif":
        spikes, expected = simulate_lif(
            felt, connections, dt=dt, rng=spike_rng, refractory=refractory, noise=noise
        )
    else:
        spikes, expected = simulate_glm(
            felt, connections, dt=dt, rng=spike_rng, refractory=refractory,
            counts=model == "poisson",
        )  # fmt: skip
    group = np.sort(wiring_rng.permutation(n_neurons)[: max(1, n_neurons // 3)])
    behaviour = _behave(spikes[group], dt)
    counts = spikes.reshape(n_neurons, len(order), -1, round(bin_width / dt)).sum(axis=3)
    kinds = np.where((connections.weights != 0).any(axis=1), "target", "other").astype(object)
    kinds[hubs] = "hub"
    recording = Recording.from_arrays(
        (counts.transpose(1, 0, 2) / bin_width).astype(np.float32),
        np.asarray(stimuli.ids, dtype=object)[order],
        subject="sub-01",
        run=np.repeat(np.arange(1, n_repeats + 1), n_stimuli),
        unit=[f"neuron{i:03d}" for i in range(n_neurons)],
        time=(np.arange(counts.shape[2]) + 0.5) * bin_width,
        unit_coords={"kind": kinds.astype(str)},
        presentation_coords={
            "onset": np.arange(len(order)) * seconds,
            "behaviour": behaviour.reshape(len(order), -1).mean(axis=1),
        },
        stimuli=stimuli,
        modality="spikes",
        source=f"generated: {n_neurons} {model} neurons that see {stimulus}",
        truth={
            "weights": connections.weights, "delays": connections.delays, "hubs": hubs,
            "group": group, "filters": filters, "signal": signal,
        },
    )  # fmt: skip
    return SpikingPopulation(
        recording, spikes, behaviour, group, connections, hubs, filters, movies,
        drive.astype(np.float32), expected, dt,
    )  # fmt: skip


def _movies(
    stimulus: str, n: int, n_frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, StimulusSet]:
    """Movies, and a table with their middle frames as pictures."""
    place = (np.arange(SCREEN) - (SCREEN - 1) / 2) / SCREEN
    time = np.arange(n_frames) / FRAME_RATE
    if stimulus == "gratings":
        direction = np.arange(n) * 360.0 / n
        cycles, hertz = 2.5, 4.0
        angle = np.deg2rad(direction)[:, None, None]
        along = np.cos(angle) * place[None, None, :] + np.sin(angle) * place[None, :, None]
        phase = rng.uniform(0, 2 * np.pi, (n, 1, 1, 1))
        moved = cycles * along[:, None] - hertz * time[None, :, None, None]
        movies = np.cos(2 * np.pi * moved + phase)
        table = pd.DataFrame({"direction": direction, "orientation": direction % 180})
        table.index = pd.Index([f"grating{d:05.1f}" for d in direction], dtype=object)
    else:
        frequency = np.hypot(np.fft.fftfreq(SCREEN)[:, None], np.fft.fftfreq(SCREEN)[None])
        frequency[0, 0] = np.inf  # no mean
        white = rng.standard_normal((n, n_frames, SCREEN, SCREEN))
        spatial = np.fft.ifft2(np.fft.fft2(white) / frequency).real
        movies = gaussian_filter1d(spatial, 0.1 * FRAME_RATE, axis=1)
        movies /= 2 * movies.std(axis=(1, 2, 3), keepdims=True)
        table = pd.DataFrame(index=pd.Index([f"movie{i:03d}" for i in range(n)], dtype=object))
    middle = np.clip(127.5 + 127.5 * movies[:, n_frames // 2], 0, 255).astype(np.uint8)
    pictures = np.repeat(middle[..., None], 3, axis=3)
    return movies.astype(np.float32), StimulusSet(table, images=pictures)


def _receptive_fields(n: int, rng: np.random.Generator) -> np.ndarray:
    """Gabor functions of random orientation, phase and place, of unit norm."""
    place = (np.arange(SCREEN) - (SCREEN - 1) / 2) / SCREEN
    x0, y0 = rng.uniform(-0.25, 0.25, (2, n, 1, 1))
    angle, phase = rng.uniform(0, np.pi, (n, 1, 1)), rng.uniform(0, 2 * np.pi, (n, 1, 1))
    x, y = place[None, None, :] - x0, place[None, :, None] - y0
    wave = np.cos(2 * np.pi * 2.5 * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    fields = wave * np.exp(-(x**2 + y**2) / (2 * 0.15**2))
    fields -= fields.mean(axis=(1, 2), keepdims=True)
    fields /= np.linalg.norm(fields, axis=(1, 2), keepdims=True)
    return fields.astype(np.float32)


def _see(movies: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Filter movies: stimulus x frame x neuron, standardised over all frames."""
    seen = np.einsum("sfyx,nyx->sfn", movies, filters, optimize=True)
    return (seen - seen.mean(axis=(0, 1))) / seen.std(axis=(0, 1))


def _wire(
    n: int,
    n_hubs: int,
    n_targets: int,
    weight: float,
    delays: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Connections, np.ndarray]:
    """Connect each hub to targets that are no hubs, with weights about ``weight``."""
    weights = np.zeros((n, n), dtype=np.float32)
    lags = np.full((n, n), np.nan, dtype=np.float32)
    order = rng.permutation(n)
    hubs, others = np.sort(order[:n_hubs]), order[n_hubs:]
    for hub in hubs:
        targets = rng.choice(others, n_targets, replace=False)
        weights[targets, hub] = weight * rng.uniform(0.8, 1.2, n_targets)
        # Whole milliseconds, so that a time step can hold them.
        lags[targets, hub] = np.round(rng.uniform(*delays, n_targets), 3)
    return Connections(weights, lags), hubs


def _behave(spikes: np.ndarray, dt: float, time_constant: float = 0.2) -> np.ndarray:
    """Mean rate of a group, smoothed by a causal exponential and standardised."""
    keep = np.exp(-dt / time_constant)
    smooth = lfilter([1 - keep], [1.0, -keep], spikes.mean(axis=0))
    spread = smooth.std()
    return ((smooth - smooth.mean()) / (spread if spread > 0 else 1.0)).astype(np.float32)
