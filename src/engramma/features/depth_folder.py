"""DPT (MiDaS 3) from a folder: how far away what an image shows is (Ranftl et al. 2021)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engramma.errors import ConfigError, DataError
from engramma.features.depth import DepthEstimator
from engramma.features.pretrained import Pretrained, all_batches

#: Distances that the nearest and the farthest place of an image are given.
NEAR, FAR = 1.0, 10.0


class DepthFolder(DepthEstimator):
    """The ``DPTForDepthEstimation`` of a Hugging Face folder.

    The network tells inverse depth up to an unknown scale and shift. `depth` fixes both image by
    image, so that distances run from 1 to 10 as the miniature's do; order within an image is what
    the network says, and distances of different images cannot be compared.
    """

    def __init__(self, source: str | Path) -> None:
        kinds = {"dpt": "DPTForDepthEstimation"}
        self.model = Pretrained(source, kinds, "a depth estimator")
        self.name = self.model.name

    def depth(self, images: np.ndarray) -> np.ndarray:
        """Return distances, image x height x width, 1 (nearest) to 10 (farthest)."""
        return to_distance(self.inverse_depth(images))

    def inverse_depth(self, images: np.ndarray) -> np.ndarray:
        """Return what the network says, image x height x width: larger is nearer."""

        def run(batch: np.ndarray) -> Tensor:
            said = self.model.network(pixel_values=self.model.pixels(batch)).predicted_depth
            return _resized(said, batch.shape[1:3])

        return all_batches(run, images)

    def hidden_states(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the four states that depth is read from, each image x token x width.

        Raises
        ------
        ConfigError
            If the model reads it from maps of a convolutional network.
        """
        chosen = self._chosen()

        def run(batch: np.ndarray) -> dict[str, Tensor]:
            found = self.model.network.dpt(self.model.pixels(batch), output_hidden_states=True)
            return {str(i): found.hidden_states[i + 1] for i in chosen}

        return list(all_batches(run, images).values())

    def depth_of_states(self, states: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Read depth from states, as a decoder of brain activity may have predicted them.

        Parameters
        ----------
        states : list of ndarray
            As `hidden_states` returns them.
        size : tuple of int
            Height and width of the result.

        Returns
        -------
        ndarray of float32, shape (n, height, width)
            1 (nearest) to 10 (farthest).

        Raises
        ------
        DataError
            If there are not as many states as the model reads.
        """
        if len(states) != len(self._chosen()):
            raise DataError(
                f"there are {len(states)} hidden states", where=f"model {self.name}",
                mend=f"give the {len(self._chosen())} that hidden_states returns",
            )  # fmt: skip
        network = self.model.network

        def run(*batch: Tensor) -> Tensor:
            return _resized(network.head(network.neck(list(batch), None, None)), size)

        tensors = [torch.as_tensor(s, dtype=torch.float32) for s in states]
        return to_distance(all_batches(run, *tensors))

    def identity(self) -> str:
        """Hash of the folder."""
        return self.model.identity()

    def _chosen(self) -> list[int]:
        if self.model.config.is_hybrid or not hasattr(self.model.network, "dpt"):
            raise ConfigError(
                "this model reads depth from the maps of another network",
                where=str(self.model.folder),
                mend="use a DPT with a plain vision transformer, such as dpt-large",
            )
        return list(self.model.config.backbone_out_indices)


def to_distance(inverse: np.ndarray) -> np.ndarray:
    """Bring inverse depths, image x height x width, to distances from 1 to 10 in each image."""
    low, high = (f(inverse, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    share = (inverse - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    distances: np.ndarray = 1 / (1 / FAR + share * (1 / NEAR - 1 / FAR))
    return distances.astype(np.float32)


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return functional.interpolate(maps[:, None], tuple(size), mode="bicubic")[:, 0]
