"""wav2vec 2.0, its relatives, and the encoder of Whisper from a folder.

Baevski et al. 2020 (wav2vec 2.0), Hsu et al. 2021 (HuBERT), Chen et al. 2022 (WavLM), Radford et
al. 2023 (Whisper).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engramma.errors import DataError
from engramma.features.audio import Waveform, resample
from engramma.features.model import FeatureModel
from engramma.features.pooling import Activation, Tokens
from engramma.features.pretrained import Pretrained

KINDS = {
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
    "whisper": "WhisperModel",
}


class SpeechEncoder(Protocol):
    """What decoders and encoders ask of a model that hears speech.

    Attributes
    ----------
    name : str
    """

    name: str

    def tokens(self, sounds: Sequence[Waveform]) -> list[np.ndarray]:
        """Return the last tokens of each sound (samples and rate in Hz), frame x width."""

    def embed(self, sounds: Sequence[Waveform]) -> np.ndarray:
        """Return unit vectors, sound x dim."""

    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same results."""


class SpeechFolder(FeatureModel):
    """The speech encoder of a Hugging Face folder, with its feature extractor.

    Its layers are ``hidden.0`` (the embeddings) to ``hidden.N`` (after the last block). Sounds are
    brought to the rate that the model was trained at, and go through it one at a time, since some
    of these models tell padding from silence and some do not.

    Attributes
    ----------
    rate : int
        Hz; of the sounds as the model hears them.
    frame : float
        Seconds from one token to the next.
    """

    medium = "audio"

    def __init__(self, source: str | Path) -> None:
        self.model = Pretrained(source, KINDS, "a speech encoder")
        self.name = self.model.name

    @cached_property
    def _extractor(self) -> Any:
        return self.model.part("AutoFeatureExtractor")

    @property
    def rate(self) -> int:
        """Sampling rate in Hz."""
        return int(self._extractor.sampling_rate)

    @property
    def frame(self) -> float:
        """Seconds from one token to the next."""
        if self.model.kind == "whisper":
            return 2 * int(self._extractor.hop_length) / self.rate
        return prod(self.model.config.conv_stride) / self.rate

    @property
    def layers(self) -> Sequence[str]:
        """The embeddings, and what each block puts out."""
        return [f"hidden.{i}" for i in range(self.model.config.num_hidden_layers + 1)]

    def identity(self) -> str:
        """Hash of the folder."""
        return self.model.identity()

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return sequences of frames, padded at the end."""
        states = [self._states(sound) for sound in items]
        lengths = torch.tensor([len(found[0]) for found in states])
        there = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        answer: dict[str, Activation] = {}
        for name in layers:
            depth = self.layers.index(name)
            values = [found[depth] for found in states]
            answer[name] = Tokens(torch.nn.utils.rnn.pad_sequence(values, batch_first=True), there)
        return answer

    def tokens(self, sounds: Sequence[Waveform]) -> list[np.ndarray]:
        """Return the last tokens of each sound, frame x width.

        Raises
        ------
        DataError
            If a sound is no waveform with its rate, too short, or too long for the model.
        """
        return [self._states(sound)[-1].numpy() for sound in sounds]

    def embed(self, sounds: Sequence[Waveform]) -> np.ndarray:
        """Return the mean over time of the last tokens, brought to length 1."""
        means = torch.stack([self._states(sound)[-1].mean(dim=0) for sound in sounds])
        return functional.normalize(means, dim=1).numpy()

    @torch.inference_mode()
    def _states(self, sound: Waveform) -> list[Tensor]:
        """Return the states of one sound at all depths, frame x width."""
        samples, rate = self._checked(sound)
        wave = resample(samples, rate, self.rate)
        if self.model.kind == "whisper":
            return self._whisper(wave)
        values = self._extractor(wave, sampling_rate=self.rate, return_tensors="pt").input_values
        network = self.model.network
        if int(network._get_feat_extract_output_lengths(values.shape[1])) < 1:
            raise self._wrong(f"a sound of {len(samples) / rate:.3f} s is shorter than one frame")
        return [s[0] for s in network(values, output_hidden_states=True).hidden_states]

    def _whisper(self, wave: np.ndarray) -> list[Tensor]:
        """Whisper always hears as many seconds as it was trained on; silence is cut off again."""
        longest = self._extractor.n_samples / self.rate
        if len(wave) > self._extractor.n_samples:
            raise self._wrong(f"a sound of {len(wave) / self.rate:.1f} s exceeds {longest:g} s")
        heard = self._extractor(wave, sampling_rate=self.rate, return_tensors="pt").input_features
        states = self.model.network.get_encoder()(heard, output_hidden_states=True).hidden_states
        frames = -(-len(wave) // (2 * self._extractor.hop_length))
        return [s[0, :frames] for s in states]

    def _checked(self, sound: Waveform) -> Waveform:
        try:
            samples, rate = sound
        except (TypeError, ValueError):
            raise self._wrong("a sound comes without its rate") from None
        samples = np.asarray(samples, dtype=np.float32)
        if np.ndim(rate) or rate <= 0 or rate != int(rate):
            raise self._wrong(f"{rate} is no sampling rate")
        if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
            raise self._wrong(f"a sound of shape {samples.shape} is not a finite row of samples")
        return samples, int(rate)

    def _wrong(self, what: str) -> DataError:
        mend = "give pairs of samples (mono, float) and their whole rate in Hz, cut to fit"
        return DataError(what, where=f"model {self.name}", mend=mend)
