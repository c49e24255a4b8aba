"""Formant synthesis: a voice and noises, shaped by a vocal tract that moves.

After Klatt ("Software for a cascade/parallel formant synthesizer", J. Acoust. Soc. Am. 67, 1980):
the voice and aspiration pass through resonators in cascade, frication through one of its own.
Where Klatt updates recursive filters every 5 ms, here every 5 ms a window of the source is
multiplied with the exact frequency response of the same resonators, and the windows overlap and
add. It is the same sound, and all moments are computed at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import fft

#: Samples a second.
RATE = 16000
#: Samples between the moments at which the vocal tract is described: 5 ms.
HOP = 80
#: Length of a moment's response, in samples: long enough for the narrowest formant to fade.
_LENGTH = 12 * HOP
#: Bandwidths of the first four formants, in Hz (Klatt 1980, table II, rounded).
_BANDWIDTHS = (60.0, 90.0, 150.0, 250.0)
#: The higher formants of a tube of 17.5 cm, which do not move, and their bandwidth, in Hz.
_HIGHER, _HIGHER_BANDWIDTH = (4500.0, 5500.0, 6500.0, 7500.0), 300.0
_NASAL_POLE, _NASAL_BANDWIDTH = 270.0, 100.0


@dataclass
class Tracks:
    """What the speaker's throat and mouth do, moment by moment (every 5 ms).

    Parameters
    ----------
    pitch : ndarray, shape (moments,)
        Fundamental frequency in Hz.
    formants : ndarray, shape (moments, 4)
        In Hz, for a vocal tract of 17.5 cm.
    voicing, aspiration, frication : ndarray, shape (moments,)
        Amplitudes of the sources; about 1 for a vowel's voice.
    peak, width : ndarray, shape (moments,)
        Centre and bandwidth of the frication, in Hz.
    nasal : ndarray, shape (moments,)
        Opening of the nose, 0 .. 1.
    """

    pitch: np.ndarray
    formants: np.ndarray
    voicing: np.ndarray
    aspiration: np.ndarray
    frication: np.ndarray
    peak: np.ndarray
    width: np.ndarray
    nasal: np.ndarray


def synthesise(
    tracks: Tracks,
    *,
    rng: np.random.Generator,
    tract: float = 1.0,
    breathiness: float = 0.1,
    jitter: float = 0.01,
) -> np.ndarray:
    """Make the sound of moving sources and a moving vocal tract.

    Parameters
    ----------
    tracks : Tracks
    rng : numpy.random.Generator
        For noises and jitter.
    tract : float
        All formants are multiplied by it: 1 for a vocal tract of 17.5 cm, about 1.17 for women.
    breathiness : float
        Amplitude of the noise that comes with the voice; it also dulls the voice.
    jitter : float
        Standard deviation of the pitch from one period to the next, as a share of it.

    Returns
    -------
    ndarray of float32, shape (moments x 80,)
    """
    n = len(tracks.pitch) * HOP
    steps = np.arange(n, dtype=np.float32) / HOP

    def each_sample(track: np.ndarray) -> np.ndarray:
        return np.interp(steps, np.arange(len(track)), track).astype(np.float32)

    pitch = each_sample(tracks.pitch)
    if jitter:
        # Drawn anew every 5 ms, about once a period.
        wobble = jitter * rng.standard_normal(len(tracks.pitch))
        pitch = pitch * each_sample(1 + wobble)
    voice, openness = glottal_source(pitch, breathiness)
    noise = rng.standard_normal((2, n), dtype=np.float32)
    voicing = each_sample(tracks.voicing)
    # The noise of breath is strongest while the glottis is open.
    breath = each_sample(tracks.aspiration) + breathiness * voicing * openness
    throat = voicing * voice + 0.25 * breath * noise[0]
    hiss = each_sample(tracks.frication) * noise[1]
    response = tract_response(tracks.formants * tract, tracks.nasal, tract)
    spectrum = _spectra(throat) * response
    if hiss.any():
        spectrum += _spectra(hiss) * _frication_response(tracks.peak * tract, tracks.width * tract)
    return _overlap_add(fft.irfft(spectrum, _LENGTH))


def glottal_source(pitch: np.ndarray, breathiness: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Change of the air flow through the vibrating glottis.

    The flow of each period is that of Klatt and Klatt (J. Acoust. Soc. Am. 87, 1990): a
    polynomial :math:`t^2 - t^3` while the glottis is open, zero while it is closed. Its difference
    from sample to sample is what reaches the ear, since lips radiate changes of flow.

    Parameters
    ----------
    pitch : ndarray, shape (samples,)
        In Hz.
    breathiness : float
        The glottis is open for longer where it is larger.

    Returns
    -------
    source, openness : ndarray of float32, shape (samples,)
    """
    phase = np.cumsum(pitch / RATE, dtype=np.float64) % 1.0
    opened = np.float32(min(0.55 + breathiness, 0.95))
    t = np.minimum(phase.astype(np.float32) / opened, 1)
    flow = t * t * (1 - t) * np.float32(27 / 4)
    source = np.diff(flow, prepend=flow[:1])
    # As loud at every pitch; low pitches have more samples a period.
    return source * (np.float32(RATE / 10) / pitch), flow


def _frequencies() -> np.ndarray:
    """One sample's turn on the unit circle at each frequency of the spectra."""
    return np.exp(-2j * np.pi * np.arange(_LENGTH // 2 + 1) / _LENGTH).astype(np.complex64)


def _resonator(frequency: np.ndarray | float, bandwidth: np.ndarray | float) -> np.ndarray:
    """Reciprocal of Klatt's resonator (1980, equation 2) at each frequency of the spectra."""
    frequency, bandwidth = np.broadcast_arrays(np.asarray(frequency), np.asarray(bandwidth))
    radius = np.exp(-np.pi * bandwidth / RATE)
    b = (2 * radius * np.cos(2 * np.pi * frequency / RATE)).astype(np.float32)[..., None]
    c = (-(radius**2)).astype(np.float32)[..., None]
    back = _frequencies()
    return (1 - b * back - c * back**2) / (1 - b - c)


@cache
def _higher(scale: float) -> np.ndarray:
    """Response of the formants that do not move, for a vocal tract of one length."""
    response = np.ones(_LENGTH // 2 + 1, np.complex64)
    for frequency in _HIGHER:
        if frequency * scale < 0.48 * RATE:
            response /= _resonator(frequency * scale, _HIGHER_BANDWIDTH * scale)
    return response


def tract_response(formants: np.ndarray, nasal: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Frequency response of the vocal tract.

    Parameters
    ----------
    formants : ndarray, shape (moments, 4)
        In Hz.
    nasal : ndarray, shape (moments,)
        Opening of the nose, 0 .. 1: it adds a pole at 270 Hz, and a zero above it.
    scale : float
        Of the higher formants.

    Returns
    -------
    ndarray of complex64, shape (moments, frequencies)
    """
    reciprocal = _resonator(formants[:, 0], _BANDWIDTHS[0] + 60 * nasal)
    for number in (1, 2, 3):
        reciprocal *= _resonator(formants[:, number], _BANDWIDTHS[number] * (1 + nasal))
    response = _higher(round(scale, 3)) / reciprocal
    open_nose = nasal > 0.01
    if open_nose.any():
        zero = _resonator(_NASAL_POLE + 250 * nasal[open_nose], _NASAL_BANDWIDTH)
        response[open_nose] *= zero / _resonator(_NASAL_POLE, _NASAL_BANDWIDTH)
    return response


def _frication_response(peak: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Response of one resonator, with as much power whatever its width."""
    response = 1 / _resonator(np.minimum(peak, 0.48 * RATE), width)
    response *= 1 - _frequencies()  # no rumble below the peak
    power = np.mean(np.abs(response) ** 2, axis=1, keepdims=True)
    return response / np.sqrt(power)


def _spectra(source: np.ndarray) -> np.ndarray:
    """Spectra of overlapping windows of 10 ms, one every 5 ms."""
    padded = np.pad(source, (HOP, 0))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP]
    window = np.hanning(2 * HOP + 1)[:-1].astype(np.float32)
    return fft.rfft(windows * window, _LENGTH)


def _overlap_add(pieces: np.ndarray) -> np.ndarray:
    """Sum of responses that begin 5 ms after one another."""
    moments = len(pieces)
    blocks = pieces.reshape(moments, _LENGTH // HOP, HOP)
    total = np.zeros((moments + _LENGTH // HOP, HOP), np.float32)
    for place in range(_LENGTH // HOP):
        total[place : place + moments] += blocks[:, place]
    return total.reshape(-1)[HOP : (moments + 1) * HOP]
