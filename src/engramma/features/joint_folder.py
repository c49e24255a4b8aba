"""Models that read an image and its text together: VisualBERT and LXMERT from a folder.

Li et al. 2019 (VisualBERT: regions are tokens of one stream); Tan and Bansal 2019 (LXMERT: two
streams that attend to each other). Both were trained on regions that an object detector found;
`GridRegions` takes the cells of a grid over the features of any image model instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError
from engramma.features.model import FeatureModel
from engramma.features.pooling import pool_activation
from engramma.features.pretrained import Pretrained, all_batches, check_images

KINDS = {"visual_bert": "VisualBertModel", "lxmert": "LxmertModel"}
POOLED = "pooled"


class Regions(NamedTuple):
    """What lies where in images.

    Parameters
    ----------
    features : ndarray, shape (n, n_regions, width)
    boxes : ndarray, shape (n, n_regions, 4)
        Left, top, right and bottom, as shares of width and height.
    """

    features: np.ndarray
    boxes: np.ndarray


class GridRegions:
    """The cells of a grid as regions, and the mean of an image model's layer in each.

    Parameters
    ----------
    model : FeatureModel
        Of images; for weights that were trained on 2048 values of a ResNet, one such
        (``vision_model`` of a ResNet's folder).
    layer : str
        A layer that puts out maps, or tokens of a square of patches.
    cells : int
        Along each side; 6 gives as many regions as LXMERT was trained on.
    """

    def __init__(self, model: FeatureModel, layer: str, cells: int = 6) -> None:
        self.model, self.layer, self.cells = model, model.choose(layer)[0], cells

    def __call__(self, images: np.ndarray) -> Regions:
        """Return the regions of RGB images (n, height, width, 3), row by row."""
        check_images(images)

        def run(batch: np.ndarray) -> Tensor:
            found = self.model.activations(list(batch), [self.layer])[self.layer]
            pooled = pool_activation(found, f"grid{self.cells}", self.layer)
            if pooled.shape[1] % self.cells**2:
                raise ConfigError(
                    f"layer {self.layer!r} puts out one vector an image, and no map",
                    mend="name a layer with places",
                )
            return pooled.unflatten(1, (-1, self.cells**2)).transpose(1, 2)

        edges = np.arange(self.cells, dtype=np.float32)
        top, left = (e.ravel() for e in np.meshgrid(edges, edges, indexing="ij"))
        boxes = np.stack([left, top, left + 1, top + 1], axis=1) / self.cells
        return Regions(all_batches(run, images), np.tile(boxes, (len(images), 1, 1)))

    def identity(self) -> str:
        """Return the model's identity, layer and grid."""
        return f"{self.cells} cells of {self.layer}, {self.model.identity()}"


class JointFolder:
    """The VisualBERT or LXMERT of a Hugging Face folder, with its tokenizer.

    Layers of VisualBERT are ``hidden.0`` (the embeddings) to ``hidden.N``, words first and regions
    after them; those of LXMERT ``language.1`` .. and ``vision.1`` ..., each stream's blocks of its
    own and then those across. Both have ``pooled``, one vector a pair.

    Parameters
    ----------
    source : str or path
    regions : callable, optional
        Makes `Regions` of images, where images are given instead of regions.

    Attributes
    ----------
    region_dim : int
        Width of the regions' features.
    """

    def __init__(
        self,
        source: str | Path,
        regions: Callable[[np.ndarray], Regions] | None = None,
    ) -> None:
        self.model = Pretrained(source, KINDS, "a joint model of images and texts")
        self.name, self.regions = self.model.name, regions
        self._lxmert = self.model.kind == "lxmert"
        config = self.model.config
        self.region_dim = int(
            config.visual_feat_dim if self._lxmert else config.visual_embedding_dim
        )

    @property
    def layers(self) -> list[str]:
        """What `activations` can return."""
        config = self.model.config
        if not self._lxmert:
            return [POOLED, *(f"hidden.{i}" for i in range(config.num_hidden_layers + 1))]
        streams = (("language", config.l_layers), ("vision", config.r_layers))
        return [
            POOLED,
            *(f"{s}.{i}" for s, own in streams for i in range(1, own + config.x_layers + 1)),
        ]

    def activations(
        self,
        seen: np.ndarray | Regions,
        captions: Sequence[str],
        layers: Sequence[str] = (POOLED,),
    ) -> dict[str, np.ndarray]:
        """Run pairs of an image and a text.

        Parameters
        ----------
        seen : ndarray of uint8, shape (n, height, width, 3), or Regions
        captions : sequence of n str
        layers : sequence of str

        Returns
        -------
        dict of str to ndarray of float32
            Pair x width of ``pooled``; pair x token x width of the others, zero where a text is
            shorter than the longest.

        Raises
        ------
        ConfigError
            If there is no such layer, or no extractor of regions.
        DataError
            If shapes do not fit.
        """
        unknown = [n for n in layers if n not in self.layers]
        if unknown:
            raise ConfigError(
                f"{self.name} has no layer {unknown[0]!r}",
                mend=f"choose from {', '.join(self.layers)}",
            )
        features, boxes = self._regions(seen, len(captions))
        ids, mask = self.model.tokens(captions, int(self.model.config.max_position_embeddings))

        def run(*batch: Tensor) -> dict[str, Tensor]:
            found = self._lxmert_states(*batch) if self._lxmert else self._states(*batch)
            return {n: found[n] for n in layers}

        answer: dict[str, np.ndarray] = all_batches(run, ids, mask, features, boxes)
        return answer

    def identity(self) -> str:
        """Hash of the folder."""
        return self.model.identity()

    def _states(
        self, ids: Tensor, mask: Tensor, features: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        found = self.model.network(
            input_ids=ids, attention_mask=mask, visual_embeds=features, output_hidden_states=True
        )
        there = torch.cat([mask, torch.ones(features.shape[:2], dtype=mask.dtype)], dim=1)
        states = {f"hidden.{i}": s * there[..., None] for i, s in enumerate(found.hidden_states)}
        return {POOLED: found.pooler_output, **states}

    def _lxmert_states(
        self, ids: Tensor, mask: Tensor, features: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        found = self.model.network(
            input_ids=ids,
            attention_mask=mask,
            visual_feats=features,
            visual_pos=boxes,
            output_hidden_states=True,
        )
        words = [s * mask[..., None] for s in found.language_hidden_states]
        return {
            POOLED: found.pooled_output,
            **{f"language.{i}": s for i, s in enumerate(words, start=1)},
            **{f"vision.{i}": s for i, s in enumerate(found.vision_hidden_states, start=1)},
        }

    def _regions(self, seen: np.ndarray | Regions, n: int) -> tuple[Tensor, Tensor]:
        if not isinstance(seen, Regions):
            if self.regions is None:
                raise ConfigError(
                    "images were given, and nothing that finds regions in them",
                    where=f"model {self.name}",
                    mend="pass regions=GridRegions(image_model, layer), or give Regions",
                )
            seen = self.regions(seen)
        features, boxes = (torch.as_tensor(a, dtype=torch.float32) for a in seen)
        if features.ndim != 3 or features.shape[::2] != (n, self.region_dim):
            raise DataError(
                f"regions have shape {tuple(features.shape)}",
                where=f"model {self.name}, {n} captions",
                mend=f"give {n} x regions x {self.region_dim}",
            )
        if boxes.shape != (*features.shape[:2], 4):
            raise DataError(
                f"boxes have shape {tuple(boxes.shape)}",
                where=f"model {self.name}",
                mend="give one of 4 numbers for each region",
            )
        return features, boxes
