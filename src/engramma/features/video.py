"""Video encoders: what moves how in a clip, as tokens and as one vector.

After Tong et al. 2022 ("VideoMAE") a clip is cut into tubes of two frames, and a transformer reads
the tubes of all places and times. The miniature brings each tube to a 4 x 4 grid by convolutions,
and learnt to name what objects do, what they are, and how the camera moves.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import ConfigError, DataError
from engramma.features.model import file_fingerprint
from engramma.nn.blocks import ResidualBlock, TransformerBlock, strided
from engramma.nn.weights import Shipped, in_batches, load_shipped

WEIGHTS = Path(__file__).parent / "weights"


class VideoEncoder(abc.ABC):
    """What encoding models ask of a model such as VideoMAE.

    Attributes
    ----------
    name : str
    layers : tuple of str
        From early to late.
    """

    name: str
    layers: tuple[str, ...]

    @abc.abstractmethod
    def activations(
        self, videos: np.ndarray, layers: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return video x token x channel, float32, at layers (all of them by default).

        Parameters
        ----------
        videos : ndarray of uint8, shape (n, frames, height, width, 3)
        layers : sequence of str, optional
        """

    @abc.abstractmethod
    def embed_videos(self, videos: np.ndarray) -> np.ndarray:
        """Return one vector of unit length a video, float32."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same results."""


class MiniVideo(Shipped):
    """Convolutions within tubes of two frames, and a transformer over tubes.

    Parameters
    ----------
    names : dict of str to list of str
        What is learnt to be told: for each question (``action``, ``category``, ...) the answers.
    channels : list of int
        Of the convolutions at 1/2, 1/4 and 1/8 of the image's size.
    dim, blocks, heads : int
        Of the transformer.
    frames, image_size : int
        Of the clips; frames are even.
    """

    def __init__(
        self,
        *,
        names: Mapping[str, Sequence[str]],
        channels: Sequence[int] = (32, 64, 96),
        dim: int = 128,
        blocks: int = 3,
        heads: int = 4,
        frames: int = 8,
        image_size: int = 64,
    ) -> None:
        super().__init__()
        self.remember(locals())
        a, b, c = channels
        self.stem = nn.Sequential(
            # Two frames and their difference.
            strided(9, a),
            nn.GroupNorm(a // 16, a),
            nn.SiLU(),
            strided(a, b),
            ResidualBlock(b),
            strided(b, c),
            ResidualBlock(c),
            ResidualBlock(c),
            strided(c, dim),
        )
        side = image_size // 16
        self.place = nn.Parameter(0.02 * torch.randn(side * side, dim))
        self.time = nn.Parameter(0.02 * torch.randn(frames // 2, 1, dim))
        self.summary = nn.Parameter(0.02 * torch.randn(1, dim))
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.answers = nn.ModuleDict({k: nn.Linear(dim, len(v)) for k, v in names.items()})

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Map clips (n, frames, 3, size, size), -1 .. 1, to tokens at each layer.

        Tokens are those of the first tube, row by row, then of the second, ...; from the first
        block on a summary stands before them.
        """
        first, second = batch[:, ::2], batch[:, 1::2]
        tubes = torch.cat([first, second, second - first], dim=2)
        grid = self.stem(tubes.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        tokens = grid.flatten(2).transpose(1, 2).unflatten(0, (len(batch), -1))
        tokens = (tokens + self.place + self.time).flatten(1, 2)
        found = {"tubes": tokens}
        x = torch.cat([self.summary.expand(len(batch), 1, -1), tokens], dim=1)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            found[f"block{number}"] = x
        return found

    def embed(self, batch: Tensor) -> Tensor:
        """Summaries (n, dim) of clips."""
        return self.norm(self(batch)[f"block{len(self.blocks)}"][:, 0])

    def loss(self, batch: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy of the answers, mean over questions.

        Parameters
        ----------
        batch : Tensor, shape (n, frames, 3, size, size), -1 .. 1
        truth : dict of str to Tensor, shape (n, number of answers)
            Distribution over the answers of each question: where a clip shows several objects,
            each counts equally.
        """
        summary = self.embed(batch)
        errors = [
            functional.cross_entropy(self.answers[k](summary).float(), target)
            for k, target in truth.items()
        ]
        return torch.stack(errors).mean()


class Miniature(VideoEncoder):
    """The video encoder of the scenes, trained by ``scripts/train_mini_video.py``.

    Clips with more frames than it takes are sampled evenly.
    """

    name = "mini-video"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-video.safetensors" if path is None else Path(path)
        self.network: MiniVideo = load_shipped(MiniVideo, self.path)
        self.layers = ("tubes", *(f"block{i + 1}" for i in range(len(self.network.blocks))))

    def activations(
        self, videos: np.ndarray, layers: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return video x token x channel at layers.

        Raises
        ------
        ConfigError
            If there is no such layer.
        DataError
            If clips have another size, or too few frames.
        """
        wanted = self.layers if layers is None else tuple(layers)
        unknown = [n for n in wanted if n not in self.layers]
        if unknown:
            raise ConfigError(
                f"{self.name} has no layer {unknown[0]!r}",
                mend=f"choose from {', '.join(self.layers)}",
            )
        clips = self._sampled(videos)
        parts: dict[str, list[np.ndarray]] = {n: [] for n in wanted}
        for start in range(0, len(clips), 32):
            with torch.inference_mode():
                found = self.network(clip_batch(clips[start : start + 32]))
            for name in wanted:
                parts[name].append(found[name].numpy())
        return {name: np.concatenate(part) for name, part in parts.items()}

    def embed_videos(self, videos: np.ndarray) -> np.ndarray:
        """Return one vector of unit length a video."""
        return functional.normalize(self._summaries(videos), dim=1).numpy()

    def tell(self, videos: np.ndarray) -> dict[str, list[str]]:
        """Return the likeliest answer to each question (``action``, ``category``, ...)."""
        summaries = self._summaries(videos)
        said = {}
        for question, answer in self.network.answers.items():
            names = self.network.settings["names"][question]
            said[question] = [names[i] for i in answer(summaries).argmax(dim=1).tolist()]
        return said

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"mini-video {file_fingerprint(self.path)}"

    def _summaries(self, videos: np.ndarray) -> Tensor:
        clips = self._sampled(videos)
        return in_batches(lambda x: self.network.embed(clip_batch(x)), clips, 32)

    def _sampled(self, videos: np.ndarray) -> np.ndarray:
        """Check clips and take as many frames as the network wants, evenly."""
        frames, size = (self.network.settings[k] for k in ("frames", "image_size"))
        shape = np.shape(videos)
        if len(shape) != 5 or shape[2:] != (size, size, 3) or shape[1] < frames:
            raise DataError(
                f"videos have shape {shape}",
                where=f"model {self.name}",
                mend=f"give n x frames x {size} x {size} x 3 with at least {frames} frames",
            )
        return videos[:, np.linspace(0, shape[1] - 1, frames).round().astype(int)]


def clip_batch(videos: np.ndarray) -> Tensor:
    """Bring clips (n, frames, height, width, 3), uint8, to (n, frames, 3, height, width), ± 1."""
    return torch.as_tensor(videos).float().movedim(-1, 2) / 127.5 - 1
