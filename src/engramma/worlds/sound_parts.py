"""What sounds are put together from: struck bodies, bands of noise, tones that glide, voices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramma.worlds.formants import HOP, RATE, Tracks, synthesise
from engramma.worlds.phonemes import PHONEMES

#: Courses of loudness: share of a part's duration in which it rises, and in which it falls.
_SHAPES = {"flat": (0.05, 0.05), "swell": (0.5, 0.5), "burst": (0.02, 0.98), "grow": (0.9, 0.1)}


class SoundCanvas:
    """A stretch of silence to which parts of a sound are added.

    Parameters
    ----------
    samples : int
        At 16 kHz.
    pitch : float
        All frequencies are multiplied by it.
    rng : numpy.random.Generator
    """

    def __init__(self, samples: int, pitch: float, rng: np.random.Generator) -> None:
        self.pitch, self.rng = pitch, rng
        self.wave = np.zeros(samples, np.float32)

    @property
    def seconds(self) -> float:
        """How long the sound is."""
        return len(self.wave) / RATE

    def vary(self, value: float, share: float = 0.1) -> float:
        """Draw a value near another one; ``share`` is the standard deviation of its logarithm."""
        return float(value * np.exp(share * self.rng.standard_normal()))

    def times(self, period: float, jitter: float = 0.08, start: float = 0.0) -> list[float]:
        """Onsets, in seconds, that follow one another about every ``period``."""
        onsets, now = [], start + 0.01
        while now < self.seconds - 0.02:
            onsets.append(now)
            now += self.vary(period, jitter)
        return onsets

    def add(self, onset: float, part: np.ndarray) -> None:
        """Add samples from a moment (in seconds) on; what lies beyond the end is cut."""
        first = round(onset * RATE)
        part = part[: max(len(self.wave) - first, 0)]
        self.wave[first : first + len(part)] += part

    def strike(
        self,
        onset: float,
        frequencies: Sequence[float],
        decay: float,
        *,
        gain: float = 1.0,
        click: float = 0.3,
    ) -> None:
        """Strike a body that rings in several modes (modal synthesis).

        Parameters
        ----------
        onset : float
            Seconds.
        frequencies : sequence of float
            Of the modes in Hz; higher ones are weaker and fade faster.
        decay : float
            Seconds in which the lowest mode falls to 1/e.
        gain : float
        click : float
            Strength of the noise of the blow itself.
        """
        seconds = min(6 * decay, self.seconds - onset)
        time = np.arange(max(round(seconds * RATE), 1), dtype=np.float32) / RATE
        part = np.zeros_like(time)
        for frequency in frequencies:
            if frequency * self.pitch < 0.47 * RATE:
                ratio = frequencies[0] / frequency
                angle = 2 * np.pi * np.float32(frequency * self.pitch) * time
                phase = self.rng.uniform(0, 2 * np.pi)
                part += (
                    np.float32(ratio**0.5)
                    * np.sin(angle + phase)
                    * np.exp(-time / np.float32(decay * ratio**0.5))
                )
        part[:16] *= np.linspace(0, 1, len(part[:16]))
        self.add(onset, gain * part)
        if click:
            self.noise(onset, 0.012, 800, 6000, gain=gain * click, shape="burst")

    def noise(
        self,
        onset: float,
        seconds: float,
        low: float,
        high: float,
        *,
        gain: float = 1.0,
        shape: str = "flat",
    ) -> None:
        """Add noise between two frequencies in Hz, of the course that ``shape`` names."""
        n = max(round(seconds * RATE), 16)
        spectrum = np.fft.rfft(self.rng.standard_normal(n))
        frequency = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 1.0) / self.pitch
        octaves = np.log2(np.maximum(low / frequency, frequency / high))
        spectrum *= np.exp(-0.5 * (np.maximum(octaves, 0) / 0.25) ** 2)
        part = np.fft.irfft(spectrum, n)
        part *= _course(n, shape) / max(float(np.sqrt(np.mean(part**2))), 1e-9)
        self.add(onset, (gain * part).astype(np.float32))

    def tone(
        self,
        onset: float,
        seconds: float,
        start: float,
        end: float | None = None,
        *,
        harmonics: Sequence[float] = (1.0,),
        gain: float = 1.0,
        shape: str = "flat",
        vibrato: float = 0.0,
        speed: float = 6.0,
    ) -> None:
        """Add a harmonic tone that glides from one pitch to another.

        Parameters
        ----------
        onset, seconds : float
        start, end : float
            Fundamental frequency in Hz; it stays the same where no end is given.
        harmonics : sequence of float
            Amplitudes of the fundamental and its multiples.
        gain : float
        shape : str
            ``"flat"``, ``"swell"``, ``"burst"`` or ``"grow"``.
        vibrato, speed : float
            Movement of the pitch: its reach in octaves, and how often a second.
        """
        n = max(round(seconds * RATE), 16)
        time = np.arange(n) / RATE
        octaves = np.log2((end or start) / start) * time / time[-1]
        octaves += vibrato * np.sin(2 * np.pi * speed * time)
        pitch = start * self.pitch * 2**octaves
        angle = 2 * np.pi * np.cumsum(pitch) / RATE + self.rng.uniform(0, 2 * np.pi)
        part = np.zeros(n)
        for number, amplitude in enumerate(harmonics, start=1):
            part += amplitude * np.where(number * pitch < 0.47 * RATE, np.sin(number * angle), 0)
        part *= _course(n, shape) / np.sqrt(np.sum(np.square(harmonics)) / 2)
        self.add(onset, (gain * part).astype(np.float32))

    def voice(
        self,
        onset: float,
        seconds: float,
        pitch: float,
        vowel: str,
        *,
        fall: float = 0.0,
        tract: float = 1.0,
        breath: float = 0.15,
        shape: str = "swell",
        vibrato: float = 0.0,
    ) -> None:
        """Add a vowel (a symbol of `PHONEMES`); ``fall`` is how far the pitch sinks, in octaves."""
        moments = max(round(seconds * RATE / HOP), 4)
        time = np.linspace(0, 1, moments)
        targets = PHONEMES[vowel].targets
        formants = np.asarray([(*t, 3500.0) for t in targets])
        place = np.linspace(0, len(targets) - 1, moments)
        octaves = -fall * time + vibrato * np.sin(2 * np.pi * 5.5 * seconds * time)
        silent = np.zeros(moments)
        tracks = Tracks(
            pitch=pitch * self.pitch * 2**octaves,
            formants=np.stack([np.interp(place, range(len(targets)), f) for f in formants.T], 1),
            voicing=_course(moments, shape),
            aspiration=breath * _course(moments, "burst"),
            frication=silent,
            peak=silent + 4000,
            width=silent + 2000,
            nasal=silent,
        )
        self.add(onset, synthesise(tracks, rng=self.rng, tract=tract, breathiness=breath))


def _course(n: int, shape: str) -> np.ndarray:
    """Loudness of a part over time, 0 .. 1."""
    rise, fall = _SHAPES[shape]
    time = (np.arange(n) + 0.5) / n
    up, down = np.minimum(time / rise, 1), np.minimum((1 - time) / fall, 1)
    return np.sin(np.pi / 2 * up) * (down**2 if shape == "burst" else np.sin(np.pi / 2 * down))
