"""GIT from a folder: a captioner that reads the tokens of an image encoder (Wang et al. 2022)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engramma.features.pretrained import Pretrained, all_batches
from engramma.generative.captioner import TokenCaptioner


class GitFolder(TokenCaptioner):
    """The ``GitForCausalLM`` of a Hugging Face folder, with tokenizer and image processor.

    What it captions are the tokens of its own image encoder, as `image_tokens` returns them or as
    a decoder predicts them: image x token x width, or each image's tokens in one row. They enter
    where the image encoder's output would.

    Parameters
    ----------
    source : str or path
    length : int
        Most tokens of a caption.

    Attributes
    ----------
    token_shape : tuple of int
        Tokens and width of one image; ``condition_dim`` is their product.
    """

    def __init__(self, source: str | Path, *, length: int = 25) -> None:
        self.model = Pretrained(source, {"git": "GitForCausalLM"}, "a captioner")
        self.name, self.length = self.model.name, length
        vision = self.model.config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2 + 1
        self.token_shape = (tokens, int(vision.hidden_size))
        self.condition_dim = tokens * int(vision.hidden_size)

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        """The image encoder, and the network that is given its output."""
        network = self.model.network
        encoder, network.git.image_encoder = network.git.image_encoder, _Given()
        return encoder, network

    def image_tokens(self, images: np.ndarray) -> np.ndarray:
        """Return the image encoder's tokens, image x token x width, of RGB images (uint8)."""
        encoder, _ = self._parts

        def run(batch: np.ndarray) -> Tensor:
            return encoder(self.model.pixels(batch)).last_hidden_state

        found: np.ndarray = all_batches(run, images)
        return found

    def write(self, tokens: Tensor) -> list[str]:
        """Write the likeliest sentence, word by word, for the tokens of each image."""
        _, network = self._parts
        texts: list[str] = []
        for batch in tokens[:, None].split(16):
            with torch.inference_mode():
                ids = network.generate(
                    pixel_values=batch, max_new_tokens=self.length, do_sample=False, num_beams=1
                )
            texts += self.model.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [t.strip() for t in texts]

    def identity(self) -> str:
        """Hash of the folder, and the length of captions."""
        return f"{self.model.identity()} length={self.length}"


class _Given(nn.Module):
    """Stands where the image encoder stood, and hands on the tokens it is given."""

    def forward(self, pixel_values: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=pixel_values[:, 0])
