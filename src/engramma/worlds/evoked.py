"""M/EEG-like recordings with sources, latencies and topographies that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.objects import SUPERORDINATES
from engramma.worlds.scenes import make_scenes
from engramma.worlds.tuning import meaning


@dataclass(frozen=True)
class Source:
    """A dipole: place and direction in the unit sphere (right, front, up), and its time course.

    The response is zero until ``latency`` (s) and then rises to its peak within ``rise`` (s).
    """

    place: tuple[float, float, float]
    direction: tuple[float, float, float]
    latency: float
    rise: float
    follows: str


#: What each area's amplitude follows, besides a response common to all stimuli.
SOURCES: Mapping[str, Source] = {
    "early": Source((0.05, -0.72, 0.15), (0.2, -0.9, 0.4), 0.05, 0.035, "position"),
    "right occipito-temporal": Source(
        (0.55, -0.5, -0.15), (0.8, -0.5, -0.2), 0.12, 0.05, "category"
    ),
    "left occipito-temporal": Source(
        (-0.55, -0.5, -0.15), (-0.8, -0.5, 0.1), 0.12, 0.05, "category"
    ),
    "anterior temporal": Source((-0.6, 0.1, -0.2), (-0.7, 0.4, 0.4), 0.25, 0.12, "meaning"),
}
#: Sensors of the standard 10-20 system that stand for a cap of 32.
# fmt: off
CHANNELS = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7", "C3", "Cz", "C4",
    "T8", "CP5", "CP1", "CP2", "CP6", "P7", "P3", "Pz", "P4", "P8", "PO7", "PO3", "POz", "PO4",
    "PO8", "O1", "O2",
)
# fmt: on


@world("evoked")
def evoked(
    seed: int = 0,
    *,
    n_stimuli: int = 64,
    n_repeats: int = 6,
    sfreq: float = 100.0,
    start: float = -0.2,
    stop: float = 0.8,
    snr: float = 0.8,
    blinks: float = 0.1,
    signal: bool = True,
    size: int = 64,
    subject: str = "sub-01",
) -> Recording:
    """Record evoked responses of one virtual subject to rendered scenes.

    Parameters
    ----------
    seed : int
    n_stimuli : int
    n_repeats : int
        Presentations of each stimulus, one a run.
    sfreq : float
        Samples a second.
    start, stop : float
        Seconds from stimulus onset.
    snr : float
        Standard deviation over stimuli of what the sources add, at its peak over sensors and
        times, against that of the noise.
    blinks : float
        Share of presentations with a blink.
    signal : bool
        False leaves out everything that depends on the stimulus: the control.
    size : int
        Pixels a side of the scenes.
    subject : str

    Returns
    -------
    Recording
        presentation x unit x time, in volts; ``x, y, z`` in metres. ``attrs["truth"]`` holds
        the latencies and the presentations with blinks. Nothing depends on the stimulus before
        the first latency.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if n_stimuli < 2 or n_repeats < 1 or sfreq <= 0 or not start < 0 < stop or snr < 0:
        raise ConfigError(
            "an evoked recording cannot be made with these numbers",
            mend="use n_stimuli >= 2, n_repeats >= 1, sfreq > 0, start < 0 < stop and snr >= 0",
        )
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]
    scene_rng, brain_rng, noise_rng, blink_rng = streams
    stimuli = make_scenes(n_stimuli, rng=scene_rng, size=size).stimuli
    time = np.arange(round(start * sfreq), round(stop * sfreq) + 1) / sfreq
    positions = _positions()
    common, specific = _brain(stimuli, positions, time, brain_rng)
    order = np.concatenate([noise_rng.permutation(n_stimuli) for _ in range(n_repeats)])
    noise = _noise(len(order), positions, time, sfreq, noise_rng)
    peak = specific.std(axis=0).max()
    # What all stimuli share is made four times what tells them apart, as in real evoked responses.
    scale = snr * noise.std() / peak
    data = noise
    data += np.float32(4 * scale * peak / np.abs(common).max()) * common
    if signal:
        data += np.float32(scale) * specific[order]
    blinking = np.flatnonzero(blink_rng.random(len(order)) < blinks)
    data[blinking] += _blinks(len(blinking), positions, time, blink_rng) * noise.std()
    data *= np.float32(8e-6 / noise.std())
    return Recording.from_arrays(
        data,
        np.asarray(stimuli.ids, dtype=object)[order],
        subject=subject,
        run=np.repeat(np.arange(1, n_repeats + 1), n_stimuli),
        unit=CHANNELS,
        time=time,
        unit_coords={
            "kind": np.full(len(CHANNELS), "eeg"),
            **dict(zip("xyz", positions.T, strict=True)),
        },
        stimuli=stimuli,
        modality="eeg",
        source="virtual subject",
        sfreq=sfreq,
        truth={
            "latency": {name: s.latency for name, s in SOURCES.items()},
            "follows": {name: s.follows for name, s in SOURCES.items()},
            "blinks": blinking.tolist(),
            "signal": signal,
        },
    )


def _positions() -> np.ndarray:
    """Sensor positions (m) from the standard 10-20 montage."""
    import mne

    # The same positions under their new and their old name in MNE.
    known = mne.channels.get_builtin_montages()
    name = "colin27_1020" if "colin27_1020" in known else "standard_1020"
    places = mne.channels.make_standard_montage(name).get_positions()["ch_pos"]
    return np.asarray([places[name] for name in CHANNELS])


def _brain(
    stimuli: StimulusSet, positions: np.ndarray, time: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Response common to all stimuli (sensor x time), and what each adds (stimulus x ...)."""
    common = np.zeros((len(positions), len(time)), dtype=np.float32)
    specific = np.zeros((len(stimuli), len(positions), len(time)), dtype=np.float32)
    for name, source in SOURCES.items():
        course = _course(time, source)
        drive = _drive(stimuli, source.follows, name, rng)
        jitter = 0.3 * rng.standard_normal((drive.shape[1], 3))
        for column, turn in zip(drive.T, jitter, strict=True):
            # Populations in one area lie side by side and point different ways.
            field = _topography(positions, source.place, np.asarray(source.direction) + 2 * turn)
            specific += (column[:, None, None] * np.outer(field, course)).astype(np.float32)
        field = _topography(positions, source.place, np.asarray(source.direction))
        common += np.outer(field, course).astype(np.float32)
    return common, specific


def _course(time: np.ndarray, source: Source) -> np.ndarray:
    """Gamma-like bump: exactly 0 until the latency, 1 at its peak."""
    after = np.maximum(time - source.latency, 0) / source.rise
    return after**2 * np.exp(2 * (1 - after))


def _drive(stimuli: StimulusSet, follows: str, name: str, rng: np.random.Generator) -> np.ndarray:
    """Amplitudes of the populations of an area, stimulus x population, standardised."""
    if follows == "position":
        values = stimuli.table[["x", "y"]].to_numpy(float)
    elif follows == "category":
        classes = stimuli.table["superordinate"].to_numpy()
        onehot = (classes[:, None] == np.asarray(SUPERORDINATES)).astype(float)
        values = onehot @ rng.standard_normal((len(SUPERORDINATES), 3))
    elif follows == "meaning":
        semantic = meaning(stimuli)
        values = semantic @ rng.standard_normal((semantic.shape[1], 3))
    else:
        raise ConfigError(f"source {name!r} follows {follows!r}, which is not known")
    values = values - values.mean(axis=0)
    return values / np.maximum(values.std(axis=0), 1e-9)


def _topography(positions: np.ndarray, place: object, direction: np.ndarray) -> np.ndarray:
    """Potential of a dipole in an infinite homogeneous conductor, average reference.

    Proportional to ``p . r / |r|^3`` (Malmivuo and Plonsey, *Bioelectromagnetism*, 1995, ch. 8).
    """
    centre = np.asarray([0.0, 0.0, 0.04])
    sphere = (positions - centre) / np.linalg.norm(positions - centre, axis=1).mean()
    apart = sphere - np.asarray(place)
    field = apart @ direction / np.linalg.norm(apart, axis=1) ** 3
    field = field - field.mean()
    return field / np.abs(field).max()


def _noise(
    n: int, positions: np.ndarray, time: np.ndarray, sfreq: float, rng: np.random.Generator
) -> np.ndarray:
    """1/f noise that neighbouring sensors share, and white noise of each sensor."""
    sensors, samples = len(positions), len(time)
    length = 2 * samples  # longer than the epoch: its two ends need not meet
    frequency = np.fft.rfftfreq(length, 1 / sfreq)
    frequency[0] = frequency[1]
    spectrum = np.fft.rfft(rng.standard_normal((n, sensors, length), dtype=np.float32))
    slow = np.fft.irfft(spectrum / np.sqrt(frequency), n=length)[..., :samples]
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    kernel = np.exp(-(apart**2) / (2 * 0.04**2))
    kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
    shared = np.einsum("cd,ndt->nct", kernel, slow, optimize=True)
    white = rng.standard_normal(shared.shape, dtype=np.float32)
    return (shared / shared.std() + 0.4 * white).astype(np.float32)


def _blinks(
    n: int, positions: np.ndarray, time: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Eyelid artefacts: large, frontal, about 0.3 s long, at any time."""
    eyes = np.asarray([[-0.03, 0.09, -0.02], [0.03, 0.09, -0.02]])
    apart = np.linalg.norm(positions[:, None] - eyes[None], axis=2).min(axis=1)
    field = np.exp(-apart / 0.04)
    moment = rng.uniform(time[0], time[-1], n)
    course = np.exp(-((time - moment[:, None]) ** 2) / (2 * 0.07**2))
    amplitude = rng.uniform(8, 14, n) / field.max()
    return (amplitude[:, None, None] * field[:, None] * course[:, None, :]).astype(np.float32)
