"""Speech encoders: from sound to what is said, moment by moment; and the miniature of them.

After Whisper (Radford et al. 2023) two convolutions and a transformer read a log-mel spectrogram;
after wav2vec 2.0 (Baevski et al. 2020) the symbols of the speech, with a mark between words, are
learnt without their times by connectionist temporal classification (Graves et al. 2006). In
addition the mean over time is an embedding of the whole utterance, trained so that two speakers
who say the same sentence lie next to each other (van den Oord et al. 2018). The miniature learnt it
on the voices of `engramma.worlds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.features.audio import LogMel, Waveform
from engramma.features.model import FeatureModel, feature_model, file_fingerprint
from engramma.features.pooling import Activation, Tokens
from engramma.features.word_decoding import WordDecoder
from engramma.nn.blocks import TransformerBlock, sinusoids
from engramma.nn.hooks import capture
from engramma.nn.weights import Shipped, load_shipped

WEIGHTS = Path(__file__).parent / "weights"
#: The mark between two words.
BOUNDARY = "|"
#: Seconds from one token of the encoder to the next.
FRAME = 0.04
#: How far below the loudest frame something can still be heard, in log10 of power.
_HEARD = 6.0


class MiniSpeech(Shipped):
    """A speech encoder.

    Parameters
    ----------
    symbols : list of str
        What speech is made of: phonemes, and the mark between words.
    bands : int
        Of the log-mel spectrogram.
    width, heads, depth : int
        Of the transformer.
    dim : int
        Width of the embedding of utterances.
    """

    def __init__(
        self,
        *,
        symbols: list[str],
        bands: int = 80,
        width: int = 144,
        heads: int = 4,
        depth: int = 4,
        dim: int = 128,
    ) -> None:
        super().__init__()
        self.remember(locals())
        self.symbols = list(symbols)
        self.conv1 = nn.Conv1d(bands, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.symbol = nn.Linear(width, 2 * (len(symbols) + 1))
        self.projection = nn.Linear(width, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(1 / 0.07))))

    def convolve(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Map spectrograms (n, time, band) to tokens (n, time / 4, width)."""
        x = functional.gelu(self.conv1(mel.transpose(1, 2)))
        # Beyond its end a sound meets zeros, whatever it is batched with.
        x = x * (torch.arange(x.shape[2]) < ((lengths + 1) // 2)[:, None])[:, None]
        return functional.gelu(self.conv2(x)).transpose(1, 2)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map spectrograms to tokens.

        Parameters
        ----------
        mel : Tensor, shape (n, time, band)
            What `heard` returns, padded with zeros at the end.
        lengths : Tensor, shape (n,)
            Frames of each.

        Returns
        -------
        tokens : Tensor, shape (n, time / 4, width)
        there : Tensor of bool, shape (n, time / 4)
            Which tokens are real.
        """
        x = self.convolve(mel, lengths)
        there = torch.arange(x.shape[1]) < ((lengths + 3) // 4)[:, None]
        x = x + sinusoids(torch.arange(x.shape[1]), x.shape[-1]).to(x.dtype)
        for block in self.blocks:
            x = block(x, mask=there)
        return self.norm(x), there

    def scores(self, tokens: Tensor) -> Tensor:
        """Return scores of blank and symbols, (..., 2 x token, symbol): two moments a token."""
        return self.symbol(tokens).unflatten(-1, (2, -1)).flatten(-3, -2).float()

    def embed(self, tokens: Tensor, there: Tensor) -> Tensor:
        """Return unit vectors of whole utterances, from tokens."""
        weights = there[..., None].to(tokens.dtype)
        mean = (tokens * weights).sum(dim=1) / weights.sum(dim=1)
        return functional.normalize(self.projection(mean).float(), dim=-1)

    def encode(self, symbols: Sequence[str]) -> Tensor:
        """Return the numbers of symbols; 0 is the blank of the temporal classification."""
        return torch.tensor([self.symbols.index(s) + 1 for s in symbols])

    def loss(
        self, mel: Tensor, lengths: Tensor, targets: Sequence[Tensor], weight: float = 0.3
    ) -> Tensor:
        """Return the loss of a batch in which the two halves say the same sentences.

        Parameters
        ----------
        mel, lengths : Tensor
            Of 2 n utterances.
        targets : sequence of n Tensor
            Numbers of the symbols of each sentence.
        weight : float
            Of the contrast of utterances, relative to the temporal classification.
        """
        tokens, there = self(mel, lengths)
        scores = self.scores(tokens).log_softmax(dim=-1).transpose(0, 1)
        twice = [*targets, *targets]
        sizes = torch.tensor([len(t) for t in twice])
        told = functional.ctc_loss(
            scores, torch.cat(twice), 2 * there.sum(dim=1), sizes, zero_infinity=True
        )
        one, other = self.embed(tokens, there).chunk(2)
        likeness = self.log_scale.exp().clamp(max=100) * one @ other.T
        same = torch.arange(len(one))
        contrast = functional.cross_entropy(likeness, same) + functional.cross_entropy(
            likeness.T, same
        )
        return told + weight * contrast / 2


def heard(mel: Tensor) -> Tensor:
    """Bring a log-mel spectrogram to about -1 .. 1, whatever the level of the sound.

    As in Whisper, what lies far below the loudest moment is as good as silence.
    """
    top = mel.max()
    return (mel.clamp_min(top - _HEARD) - top + _HEARD / 2) / (_HEARD / 2)


class Miniature:
    """The speech encoder of the generated voices, trained by ``scripts/train_mini_speech.py``.

    Parameters
    ----------
    path : path, optional
        Other weights of the same kind.
    """

    name = "mini-speech"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-speech.safetensors" if path is None else Path(path)
        self.network: MiniSpeech = load_shipped(MiniSpeech, self.path)

    @cached_property
    def _mel(self) -> LogMel:
        return LogMel(n_bands=self.network.settings["bands"])

    def batch(self, sounds: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
        """Return spectrograms of sounds (samples and rate in Hz), padded, and their lengths."""
        frames = [heard(self._mel.spectrogram(samples, rate)) for samples, rate in sounds]
        lengths = torch.tensor([len(f) for f in frames])
        return nn.utils.rnn.pad_sequence(frames, batch_first=True), lengths

    @torch.inference_mode()
    def tokens(self, sounds: Sequence[Waveform]) -> list[np.ndarray]:
        """Return the last tokens of each sound, (n_frames, width): one every 40 ms."""
        found: list[np.ndarray] = []
        for start in range(0, len(sounds), 32):
            tokens, there = self.network(*self.batch(sounds[start : start + 32]))
            found += [t[m].numpy() for t, m in zip(tokens, there, strict=True)]
        return found

    @torch.inference_mode()
    def embed(self, sounds: Sequence[Waveform]) -> np.ndarray:
        """Return unit vectors, sound x dim: alike where the same is said."""
        tokens = [torch.from_numpy(t) for t in self.tokens(sounds)]
        padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        lengths = torch.tensor([len(t) for t in tokens])
        there = torch.arange(padded.shape[1]) < lengths[:, None]
        return self.network.embed(padded, there).numpy()

    @torch.inference_mode()
    def symbols(self, sounds: Sequence[Waveform]) -> list[list[str]]:
        """Return the likeliest phonemes of each sound, with marks between words."""
        found = []
        for tokens in self.tokens(sounds):
            best = self.network.scores(torch.from_numpy(tokens)).argmax(dim=-1)
            numbers = torch.unique_consecutive(best).tolist()
            found.append([self.network.symbols[i - 1] for i in numbers if i])
        return found

    @torch.inference_mode()
    def transcribe(
        self, sounds: Sequence[Waveform], lexicon: Mapping[str, Sequence[str]]
    ) -> list[list[str]]:
        """Return the words of each sound.

        Parameters
        ----------
        sounds : sequence of (samples, rate)
        lexicon : mapping of str to sequence of str
            The words that may be said, and their phonemes.

        Raises
        ------
        ConfigError
            If the lexicon is empty, or holds unknown phonemes.
        """
        decode = WordDecoder(lexicon, self.network.symbols, BOUNDARY)
        return [
            decode(self.network.scores(torch.from_numpy(tokens)).log_softmax(dim=-1).numpy())
            for tokens in self.tokens(sounds)
        ]

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"mini-speech {file_fingerprint(self.path)}"


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that make one sequence the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


class SpeechLayers(FeatureModel):
    """Layers of the miniature speech encoder, as features of an encoding model."""

    name = "mini-speech"
    medium = "audio"

    @property
    def layers(self) -> Sequence[str]:
        """The convolutions, the blocks of the transformer, and the utterance's unit vector."""
        depth = len(Miniature().network.blocks)
        return ["conv", *(f"block{i + 1}" for i in range(depth)), "embedding"]

    def identity(self) -> str:
        """Hash of the weights file."""
        return Miniature().identity()

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return sequences, one token every 40 ms, and the unit vector."""
        model = Miniature()
        network = model.network
        inside = {f"block{i + 1}": f"blocks.{i}" for i in range(len(network.blocks))}
        inner = {name: inside[name] for name in layers if name in inside}
        mel, lengths = model.batch(items)
        with torch.inference_mode(), capture(network, list(inner.values())) as outputs:
            tokens, there = network(mel, lengths)
            found: dict[str, Activation] = {n: Tokens(outputs[m], there) for n, m in inner.items()}
            if "conv" in layers:
                found["conv"] = Tokens(network.convolve(mel, lengths), there)
            if "embedding" in layers:
                found["embedding"] = network.embed(tokens, there)
        return found


@feature_model("mini-speech", "audio", "layers of the miniature speech encoder", default=False)
def _speech() -> FeatureModel:
    return SpeechLayers()
