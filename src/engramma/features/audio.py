"""Sound: reading, resampling and log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.features.model import FeatureModel, feature_model
from engramma.features.pooling import Activation, Tokens

Waveform = tuple[np.ndarray, int]


def waveforms(stimuli: StimulusSet) -> Iterator[Waveform]:
    """Yield the sound of each stimulus: samples (mono, float32) and sampling rate in Hz.

    Raises
    ------
    DataError
        If a stimulus has no sound, or it cannot be read, is empty or is not finite.
    """
    from engramma.features.media import require

    require(stimuli, "audio")
    for row, stimulus in enumerate(stimuli.ids):
        if stimuli.audio is None:
            yield read_audio(stimuli.path("audio", stimulus), stimulus)
            continue
        rate = stimuli.attrs.get("sampling_rate")
        if not rate:
            raise DataError(
                "sounds in memory have no sampling rate",
                where="StimulusSet.attrs",
                mend="set attrs['sampling_rate'] in Hz",
            )
        samples = np.asarray(stimuli.audio[row])
        if samples.ndim != 1:
            raise DataError(
                f"a sound in memory has shape {samples.shape}",
                where=f"stimulus {stimulus!r}",
                mend="give one channel, shape (n_samples,)",
            )
        if samples.dtype.kind == "i":
            samples = samples / np.float32(np.iinfo(samples.dtype).max)
        yield _checked(samples.astype(np.float32), f"stimulus {stimulus!r}"), int(rate)


def read_audio(path: Path, stimulus: str = "") -> Waveform:
    """Read a sound file (anything libsndfile reads), averaging its channels."""
    import soundfile

    where = f"{path}" + (f" (stimulus {stimulus!r})" if stimulus else "")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(
            f"a sound file cannot be read ({error})",
            where=where,
            mend="check the file name, or convert it to WAV or FLAC",
        ) from error
    return _checked(samples.mean(axis=1), where), int(rate)


def _checked(samples: np.ndarray, where: str) -> np.ndarray:
    if len(samples) == 0 or not np.isfinite(samples).all():
        state = "is empty" if len(samples) == 0 else "holds NaN or infinity"
        raise DataError(f"a sound {state}", where=where, mend="replace it")
    return samples


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resample with an anti-aliasing polyphase filter; rates in Hz."""
    if rate == target:
        return samples
    common = gcd(rate, target)
    return resample_poly(samples, target // common, rate // common).astype(np.float32)


def hertz_to_mel(frequency: np.ndarray) -> np.ndarray:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    frequency = np.asarray(frequency, dtype=np.float64)
    above = 15 + np.log(np.maximum(frequency, 1000) / 1000) * 27 / np.log(6.4)
    return np.where(frequency < 1000, frequency * 3 / 200, above)


def mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    """Inverse of `hertz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def mel_filters(n_bands: int, n_fft: int, rate: int, low: float, high: float) -> np.ndarray:
    """Triangular filters of equal area, evenly spaced in mel; shape (n_fft / 2 + 1, n_bands).

    Raises
    ------
    ConfigError
        If a band is so narrow that no frequency of the spectrum falls into it.
    """
    bottom, top = hertz_to_mel(np.array([low, high]))
    edges = mel_to_hertz(np.linspace(bottom, top, n_bands + 2))
    spectrum = np.linspace(0, rate / 2, n_fft // 2 + 1)[:, None]
    rising = (spectrum - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - spectrum) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    if not filters.any(axis=0).all():
        raise ConfigError(
            f"{n_bands} mel bands are too many for a window of {n_fft} samples at {rate} Hz",
            mend="use fewer bands or a longer window",
        )
    return filters.astype(np.float32)


class LogMel(FeatureModel):
    """Log-mel spectrogram: how much sound there is in each frequency band, moment by moment.

    Frames lie around multiples of the hop (the ends are mirrored), under a Hann window. The unit
    is log10 of power per hertz, floored at 1e-10.

    Parameters
    ----------
    n_bands : int
        From 0 Hz to half the rate.
    rate : int
        Hz; sounds of another rate are resampled.
    window, hop : float
        Seconds.
    """

    name = "log-mel"
    medium = "audio"
    layers = ("spectrogram",)
    single_layer = True

    def __init__(
        self, n_bands: int = 80, rate: int = 16000, window: float = 0.025, hop: float = 0.010
    ) -> None:
        self.rate, self.n_bands = rate, n_bands
        self.n_fft, self.hop = 2 * round(window * rate / 2), round(hop * rate)
        self.filters = torch.from_numpy(mel_filters(n_bands, self.n_fft, rate, 0.0, rate / 2))

    def identity(self) -> str:
        """All parameters of the spectrogram."""
        return f"log-mel bands={self.n_bands} rate={self.rate} fft={self.n_fft} hop={self.hop}"

    def spectrogram(self, samples: np.ndarray, rate: int) -> torch.Tensor:
        """Spectrogram of one sound, shape (n_frames, n_bands)."""
        wave = torch.from_numpy(np.ascontiguousarray(resample(samples, rate, self.rate)))
        if len(wave) <= self.n_fft // 2:  # too short to be mirrored
            wave = torch.nn.functional.pad(wave, (0, self.n_fft // 2 + 1 - len(wave)))
        spectrum = torch.stft(
            wave,
            self.n_fft,
            self.hop,
            window=torch.hann_window(self.n_fft),
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.abs().square().T @ self.filters
        return power.clamp_min(1e-10).log10()

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return sequences: ``spectrogram`` (n, n_frames, n_bands)."""
        frames = [self.spectrogram(samples, rate) for samples, rate in items]
        padded = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        lengths = torch.tensor([len(f) for f in frames])
        mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
        return {name: Tokens(padded, mask) for name in layers}


@feature_model("log-mel", "audio", "log-mel spectrogram, 80 bands, averaged over time")
def _log_mel() -> FeatureModel:
    return LogMel()
