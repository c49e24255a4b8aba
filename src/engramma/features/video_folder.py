"""VideoMAE from a folder: clips as tokens of places and times (Tong et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from engramma.errors import ConfigError
from engramma.features.pretrained import Pretrained, all_batches
from engramma.features.video import VideoEncoder, evenly_sampled


class VideoFolder(VideoEncoder):
    """The ``VideoMAEModel`` of a Hugging Face folder.

    Its layers are ``hidden.0`` (the embeddings) to ``hidden.N`` (after the last block). Clips with
    more frames than it takes are sampled evenly.
    """

    def __init__(self, source: str | Path) -> None:
        self.model = Pretrained(source, {"videomae": "VideoMAEModel"}, "a video encoder")
        self.name = self.model.name
        self.layers = tuple(f"hidden.{i}" for i in range(self.model.config.num_hidden_layers + 1))

    def activations(
        self, videos: np.ndarray, layers: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return video x token x channel at layers; tokens run over time, then rows, then columns.

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

        def run(batch: np.ndarray) -> dict[str, Tensor]:
            states = self._run(batch).hidden_states
            return {n: states[self.layers.index(n)] for n in wanted}

        found: dict[str, np.ndarray] = all_batches(run, self._sampled(videos), size=4)
        return found

    def embed_videos(self, videos: np.ndarray) -> np.ndarray:
        """Return the mean over the last layer's tokens, brought to length 1."""

        def run(batch: np.ndarray) -> Tensor:
            return functional.normalize(self._run(batch).last_hidden_state.mean(dim=1), dim=1)

        found: np.ndarray = all_batches(run, self._sampled(videos), size=4)
        return found

    def identity(self) -> str:
        """Hash of the folder."""
        return self.model.identity()

    def _run(self, clips: np.ndarray) -> Any:
        frames = self.model.processor(
            images=[list(clip) for clip in clips],
            return_tensors="pt",
            input_data_format="channels_last",
        )
        return self.model.network(frames["pixel_values"], output_hidden_states=True)

    def _sampled(self, videos: np.ndarray) -> np.ndarray:
        return evenly_sampled(videos, int(self.model.config.num_frames), self.name)
