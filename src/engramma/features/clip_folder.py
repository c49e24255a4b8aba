"""CLIP from a folder: images and texts in one space (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engramma.features.contrastive import ImageTextModel
from engramma.features.pretrained import Pretrained, all_batches


class ClipFolder(ImageTextModel):
    """The ``CLIPModel`` of a Hugging Face folder, with its tokenizer and image processor.

    Parameters
    ----------
    source : str or path
    projected : bool
        Whether tokens are brought to the common space, and scaled so that the one which stands
        for the whole has length 1, as the image and text conditions of Versatile Diffusion are
        (Xu et al. 2023). Else they are those of the towers, after their last normalisation.
    """

    def __init__(self, source: str | Path, *, projected: bool = False) -> None:
        self.model = Pretrained(source, {"clip": "CLIPModel"}, "an image-text model")
        self.name, self.projected = self.model.name, projected
        self.dim = int(self.model.config.projection_dim)

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Return unit vectors, image x dim."""
        return self._images(images)["embedding"]

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, text x dim."""
        return self._texts(texts)["embedding"]

    def image_tokens(self, images: np.ndarray) -> np.ndarray:
        """Return tokens, image x token x width: the global one, then patches row by row."""
        return self._images(images)["tokens"]

    def text_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Return tokens, text x token x width, padded with zeros to the longest text possible."""
        return self._texts(texts)["tokens"]

    def identity(self) -> str:
        """Hash of the folder, and how tokens are projected."""
        return f"{self.model.identity()} projected={self.projected}"

    def _images(self, images: np.ndarray) -> dict[str, np.ndarray]:
        network = self.model.network

        def run(batch: np.ndarray) -> dict[str, Tensor]:
            found = network.vision_model(pixel_values=self.model.pixels(batch))
            tokens = network.vision_model.post_layernorm(found.last_hidden_state)
            return self._finish(tokens, found.pooler_output, network.visual_projection)

        return all_batches(run, images)

    def _texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        network = self.model.network
        longest = int(self.model.config.text_config.max_position_embeddings)

        def run(batch: Sequence[str]) -> dict[str, Tensor]:
            ids, mask = self.model.tokens(batch, longest)
            found = network.text_model(input_ids=ids, attention_mask=mask)
            result = self._finish(
                found.last_hidden_state, found.pooler_output, network.text_projection
            )
            kept = result["tokens"] * mask[..., None]
            return {**result, "tokens": functional.pad(kept, (0, 0, 0, longest - ids.shape[1]))}

        return all_batches(run, list(texts))

    def _finish(
        self, tokens: Tensor, pooled: Tensor, projection: torch.nn.Module
    ) -> dict[str, Tensor]:
        embedding = projection(pooled)
        if self.projected:
            tokens = projection(tokens) / embedding.norm(dim=1)[:, None, None]
        return {"embedding": functional.normalize(embedding, dim=1), "tokens": tokens}
