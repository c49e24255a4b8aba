"""A foundation model in a Hugging Face folder: the network, and what prepares its items.

Every wrapper of a real model names the model types that it takes, and the class of transformers
that loads each. A model of another type, weights that are pickled, and weights that lack a part
of the network (which transformers would fill with random numbers) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError, MissingPackageError
from engramma.features.folders import read_json, require_weights
from engramma.features.huggingface import (
    folder_fingerprint,
    read_pretrained,
    transformers,
)

#: Parameters that published weights lack, and that no forward pass in evaluation mode uses.
UNUSED = ("masked_spec_embed", "neck.fusion_stage.layers.0.residual_layer1")


class Pretrained:
    """A model of the transformers library in a folder, read when it is first needed.

    Parameters
    ----------
    source : str or path
        What ``save_pretrained`` wrote, of the model and of what prepares its items.
    kinds : dict of str to str
        For each type of model that is taken, the class that loads it.
    what : str
        What is sought, for errors.

    Attributes
    ----------
    folder : Path
    kind : str
        The model's type.
    name : str
        Name of the folder.

    Raises
    ------
    ConfigError
        If there is no such model, or its weights are not safe to read.
    """

    def __init__(self, source: str | Path, kinds: Mapping[str, str], what: str) -> None:
        self.folder = Path(source).expanduser()
        require_weights(self.folder)
        self.name = self.folder.resolve().name
        self.kind = str(read_json(self.folder / "config.json").get("model_type"))
        if self.kind not in kinds:
            raise ConfigError(
                f"this folder holds a model of type {self.kind!r}, and {what} is of type "
                f"{' or '.join(map(repr, kinds))}",
                where=str(self.folder),
                mend="point to the folder of such a model",
            )
        self._class = kinds[self.kind]

    @cached_property
    def network(self) -> Any:
        """The network, in evaluation mode and float32, without gradients."""
        kind = library_class(transformers(), self._class)
        return read_network(kind, self.folder)

    @property
    def config(self) -> Any:
        """The network's configuration."""
        return self.network.config

    def part(self, loader: str) -> Any:
        """Read a tokenizer or processor beside the model, by the class that loads it."""
        return read_pretrained(library_class(transformers(), loader), self.folder)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, padding at the end."""
        tokenizer = self.part("AutoTokenizer")
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer

    @cached_property
    def processor(self) -> Any:
        """What resizes, crops and normalises images."""
        return self.part("AutoImageProcessor")

    def tokens(self, texts: Sequence[str], longest: int) -> tuple[Tensor, Tensor]:
        """Return token ids and their mask, text x token, cut after the longest text that fits.

        Raises
        ------
        DataError
            If there is no text, or one is empty.
        """
        texts = list(texts)
        if not texts or not all(t.strip() for t in texts):
            raise DataError(
                "a text is empty" if texts else "there is no text", mend="give texts with words"
            )
        limit = min(longest, self.tokenizer.model_max_length)
        found = self.tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=limit
        )
        return found["input_ids"], found["attention_mask"]

    def pixels(self, images: np.ndarray) -> Tensor:
        """Return prepared images, image x 3 x height x width, of RGB images (uint8)."""
        check_images(images)
        found = self.processor(
            images=list(images), return_tensors="pt", input_data_format="channels_last"
        )
        pixels: Tensor = found["pixel_values"]
        return pixels

    def identity(self) -> str:
        """Hash of all files of the folder that count."""
        return f"{self.kind} {folder_fingerprint(self.folder)}"


def library_class(library: Any, name: str) -> Any:
    """Find a class in transformers or diffusers.

    Raises
    ------
    MissingPackageError
        If the installed version has none of this name.
    """
    found = getattr(library, name, None)
    if found is None:
        raise MissingPackageError(
            f"{library.__name__} {library.__version__} has no {name}",
            mend=f"pip install --upgrade {library.__name__}, or an older one if it was removed",
        )
    return found


def read_network(kind: Any, folder: Path) -> Any:
    """Read a whole network from safetensors, in evaluation mode and float32.

    Raises
    ------
    ConfigError
        If the weights cannot be read, or lack a part of the network.
    """
    network, report = read_pretrained(kind, folder, use_safetensors=True, output_loading_info=True)
    missing = sorted(n for n in report["missing_keys"] if not any(u in n for u in UNUSED))
    if missing:
        raise ConfigError(
            f"the weights lack {len(missing)} parameters of {kind.__name__} ({missing[0]})",
            where=str(folder),
            mend="point to the folder of a model that was trained as one",
        )
    return network.float().eval().requires_grad_(False)


def check_images(images: np.ndarray) -> None:
    """Refuse what is no batch of RGB images.

    Raises
    ------
    DataError
        With the shape and type that were given.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not images.size:
        raise DataError(
            f"images have shape {images.shape} and type {images.dtype}",
            mend="give image x height x width x 3, uint8",
        )


def all_batches(function: Any, *items: Any, size: int = 16) -> Any:
    """Apply a network to parallel sequences of items, some at a time, without gradients.

    Parameters
    ----------
    function : callable
        Takes a batch of each sequence, and returns a Tensor, or a dict of them.
    items : sequences
        Of one length.
    size : int
        Items a batch; small, since the models are large.

    Returns
    -------
    ndarray, or dict of str to ndarray
        Float32, of all items.
    """
    with torch.inference_mode():
        parts = [
            function(*(each[i : i + size] for each in items)) for i in range(0, len(items[0]), size)
        ]
    if isinstance(parts[0], dict):
        return {n: torch.cat([part[n] for part in parts]).float().numpy() for n in parts[0]}
    return torch.cat(parts).float().numpy()
