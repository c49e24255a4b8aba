"""Video encoders: what moves how in a clip, as tokens and as one vector.

After Tong et al. 2022 ("VideoMAE") a clip is cut into tubes of two frames, and a transformer reads
the tubes of all places and times. The miniature brings each tube to an 8 x 8 grid, and learnt to
name what objects do, what they are, and how the camera moves.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import ConfigError, DataError
from engramma.features.contrastive import ImageTower
from engramma.features.model import FeatureModel, feature_model, file_fingerprint
from engramma.features.pooling import Activation, Tokens
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
    """Two streams, of what things are and of how they move, and a transformer over both.

    After Simonyan and Zisserman 2014 ("Two-stream convolutional networks"). What things are is
    read off the first frame of each tube by an image tower that is trained beforehand. How they
    move is read off both frames, from how alike the features of one are to those of the other a
    little further on in each direction (Dosovitskiy et al. 2015, "FlowNet").

    Parameters
    ----------
    names : dict of str to list of str
        What is learnt to be told: for each question (``action``, ``category``, ...) the answers.
    tower : dict
        Settings of the `ImageTower`.
    channels : list of int
        Of the motion stream at 1/2 and 1/4 of the image's size.
    reach : int
        Farthest displacement looked at, in steps of 4 pixels.
    dim, blocks, heads : int
        Of the transformer.
    frames : int
        Of the clips; even.
    """

    near: Tensor
    inside: Tensor

    def __init__(
        self,
        *,
        names: Mapping[str, Sequence[str]],
        tower: Mapping[str, Any],
        channels: Sequence[int] = (32, 64),
        reach: int = 2,
        dim: int = 128,
        blocks: int = 3,
        heads: int = 4,
        frames: int = 8,
    ) -> None:
        super().__init__()
        self.remember(locals())
        self.tower = ImageTower(**tower)
        a, b = channels
        self.seen = nn.Sequential(
            strided(3, a), nn.GroupNorm(a // 16, a), nn.SiLU(), strided(a, b), ResidualBlock(b)
        )
        near, inside = _neighbours(tower["image_size"] // 4, reach)
        self.register_buffer("near", near, persistent=False)
        self.register_buffer("inside", inside, persistent=False)
        self.compare = nn.Sequential(
            nn.Conv2d(2 * b + near.shape[1], 2 * b, 3, padding=1),
            ResidualBlock(2 * b),
            strided(2 * b, dim),
            ResidualBlock(dim),
        )
        self.appearance = nn.Linear(tower["dim"], dim)
        self.place = nn.Parameter(0.02 * torch.randn((tower["image_size"] // 8) ** 2, dim))
        self.time = nn.Parameter(0.02 * torch.randn(frames // 2, 1, dim))
        self.summary = nn.Parameter(0.02 * torch.randn(1, dim))
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.answers = nn.ModuleDict({k: nn.Linear(dim, len(v)) for k, v in names.items()})

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Map clips (n, frames, 3, size, size), -1 .. 1, to tokens at each layer.

        Tokens are those of the first tube, row by row, then of the second, ...; from the first
        block on a summary stands before them. ``motion`` are tokens of the motion stream alone.
        """
        first, second = batch[:, ::2].flatten(0, 1), batch[:, 1::2].flatten(0, 1)
        n = len(batch)
        motion = self._motion(first, second).flatten(2).transpose(1, 2).unflatten(0, (n, -1))
        shown = self.appearance(self.tower(first)).unflatten(0, (n, -1))
        tokens = (shown[:, :, 1:] + motion + self.place + self.time).flatten(1, 2)
        found = {"motion": motion.flatten(1, 2), "tubes": tokens}
        summary = self.summary + shown[:, :, 0].mean(dim=1, keepdim=True)
        x = torch.cat([summary, tokens], dim=1)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            found[f"block{number}"] = x
        return found

    def _motion(self, first: Tensor, second: Tensor) -> Tensor:
        """Map pairs of frames (n, 3, size, size) to a grid (n, dim, size / 8, size / 8)."""
        last = torch.channels_last
        both = self.seen(torch.cat([first, second]).contiguous(memory_format=last))
        now, then = both.chunk(2)
        queries, keys = (functional.normalize(f.flatten(2), dim=1) for f in (now, then))
        alike = queries.transpose(1, 2) @ keys
        alike = alike.gather(2, self.near.expand(len(alike), -1, -1)) * self.inside
        alike = alike.transpose(1, 2).unflatten(2, now.shape[2:])
        grid: Tensor = self.compare(torch.cat([now, then, alike], dim=1))
        return grid

    def read(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Summaries (n, dim), tokens (n, token, dim) and motion tokens of clips."""
        found = self(batch)
        last = self.norm(found[f"block{len(self.blocks)}"])
        return last[:, 0], last[:, 1:], found["motion"]

    def loss(self, summaries: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy of the answers, mean over questions.

        Parameters
        ----------
        summaries : Tensor, shape (n, dim)
        truth : dict of str to Tensor, shape (n, number of answers)
            Distribution over the answers of each question: where a clip shows several objects,
            each counts equally. All zero where a question has no answer.
        """
        errors = [
            functional.cross_entropy(self.answers[k](summaries).float(), target)
            for k, target in truth.items()
        ]
        return torch.stack(errors).mean()


def _neighbours(side: int, reach: int) -> tuple[Tensor, Tensor]:
    """For each place of a grid, the places up to ``reach`` steps away and which are inside it.

    Returns
    -------
    near : Tensor of int, shape (side ** 2, (2 * reach + 1) ** 2)
    inside : Tensor of the same shape
        0 where a neighbour lies outside.
    """
    steps = torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * 2)
    places = torch.cartesian_prod(*[torch.arange(side)] * 2)[:, None] + steps
    inside = ((places >= 0) & (places < side)).all(dim=2)
    row, column = places.clamp(0, side - 1).unbind(2)
    return row * side + column, inside.float()


class Miniature(VideoEncoder):
    """The video encoder of the scenes, trained by ``scripts/train_mini_video.py``.

    Clips with more frames than it takes are sampled evenly, and those of another size are resized.
    """

    name = "mini-video"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-video.safetensors" if path is None else Path(path)
        self.network: MiniVideo = load_shipped(MiniVideo, self.path)
        self.layers = (
            "motion",
            "tubes",
            *(f"block{i + 1}" for i in range(len(self.network.blocks))),
        )

    def activations(
        self, videos: np.ndarray, layers: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return video x token x channel at layers.

        Raises
        ------
        ConfigError
            If there is no such layer.
        DataError
            If videos have another shape, or too few frames.
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
        return in_batches(lambda x: self.network.read(clip_batch(x))[0], clips, 32)

    def _sampled(self, videos: np.ndarray) -> np.ndarray:
        """Check clips and take as many frames as the network wants, evenly, in its size."""
        frames, size = self.network.settings["frames"], self.network.tower.image_size
        clips = evenly_sampled(videos, frames, self.name)
        if clips.shape[2:4] == (size, size):
            return clips
        flat = torch.as_tensor(clips).flatten(0, 1).movedim(-1, 1)
        resized = functional.interpolate(flat, (size, size), mode="bilinear", antialias=True)
        return resized.movedim(1, -1).unflatten(0, clips.shape[:2]).numpy()


def evenly_sampled(videos: np.ndarray, frames: int, model: str) -> np.ndarray:
    """Take ``frames`` frames of each clip, evenly from the first to the last.

    Raises
    ------
    DataError
        If videos are not n x frames x height x width x 3, uint8, or have too few frames.
    """
    videos = np.asarray(videos)
    shape = videos.shape
    if len(shape) != 5 or shape[4] != 3 or shape[1] < frames or videos.dtype != np.uint8:
        raise DataError(
            f"videos have shape {shape} and type {videos.dtype}",
            where=f"model {model}",
            mend=f"give n x frames x height x width x 3, uint8, with at least {frames} frames",
        )
    return videos[:, np.linspace(0, shape[1] - 1, frames).round().astype(int)]


def clip_batch(videos: np.ndarray) -> Tensor:
    """Bring clips (n, frames, height, width, 3), uint8, to (n, frames, 3, height, width), ± 1."""
    return torch.as_tensor(videos).float().movedim(-1, 2) / 127.5 - 1


class VideoLayers(FeatureModel):
    """Layers of a video encoder, as features of an encoding model.

    Parameters
    ----------
    make : callable
        Returns the encoder; called when it is first needed.
    """

    medium = "video"

    def __init__(self, make: Callable[[], VideoEncoder]) -> None:
        self._make = make

    @cached_property
    def encoder(self) -> VideoEncoder:
        """The encoder."""
        return self._make()

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the encoder."""
        return self.encoder.name

    @property
    def layers(self) -> Sequence[str]:
        """Layers of the encoder, and the unit vector of the whole clip."""
        return (*self.encoder.layers, "embedding")

    def identity(self) -> str:
        """Return the identity of the encoder."""
        return self.encoder.identity()

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return tokens and unit vectors of clips, which may differ in length and size."""
        inner = [n for n in layers if n != "embedding"]
        found: dict[str, list[Tensor]] = {n: [] for n in layers}
        for clip in items:
            if inner:
                for name, tokens in self.encoder.activations(clip[None], inner).items():
                    found[name].append(torch.from_numpy(tokens))
            if "embedding" in layers:
                vector = self.encoder.embed_videos(clip[None])
                found["embedding"].append(torch.from_numpy(vector))
        return {
            n: torch.cat(parts) if n == "embedding" else Tokens(torch.cat(parts))
            for n, parts in found.items()
        }


@feature_model("mini-video", "video", "layers of the miniature video encoder", default=False)
def _video() -> FeatureModel:
    return VideoLayers(Miniature)
