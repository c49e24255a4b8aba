"""What a feature model is, and the table of those known by name."""

from __future__ import annotations

import abc
import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import nn

from engramma.errors import ConfigError
from engramma.features.pooling import Activation
from engramma.nn.hooks import capture, list_modules, match_names
from engramma.registry import Registry


class FeatureModel(abc.ABC):
    """Something that turns images, captions, sounds or videos into activations, layer by layer.

    Attributes
    ----------
    name : str
        Stands in front of the layer in the names of features.
    medium : str
        ``"image"``, ``"caption"``, ``"audio"`` or ``"video"``.
    pool : str
        How activations are pooled unless the user says otherwise.
    single_layer : bool
        Whether features are named after the model alone.
    """

    name: str
    medium: str = "image"
    pool: str = "mean"
    single_layer: bool = False

    @property
    @abc.abstractmethod
    def layers(self) -> Sequence[str]:
        """Layers one can ask for."""

    @property
    def default_layers(self) -> Sequence[str]:
        """Layers that are extracted unless the user names some."""
        return self.layers

    def choose(self, wanted: str | Iterable[str] | None) -> list[str]:
        """Return the layers that names and patterns stand for; those extracted by default for None.

        Raises
        ------
        ConfigError
            If there is no such layer.
        """
        if wanted is None:
            return list(self.default_layers)
        return match_names(wanted, list(self.layers), f"model {self.name!r}")

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same activations."""

    @abc.abstractmethod
    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return the activations of a batch of items at ``layers``."""


class ModuleModel(FeatureModel):
    """Any network that comes with a ``preprocess``.

    Parameters
    ----------
    module : nn.Module
        ``module.preprocess(item)`` makes a tensor of one item (an RGB array, a text, or a pair of
        samples and sampling rate); these are stacked and handed to the module. ``medium``
        ("image" unless the module says otherwise) tells what items it takes, and ``layers``
        which submodules are extracted by default (its direct children, if it has none).
    name : str, optional
        By default the class name.
    """

    def __init__(self, module: nn.Module, name: str | None = None, pool: str = "mean") -> None:
        if not callable(getattr(module, "preprocess", None)):
            raise ConfigError(
                f"{type(module).__name__} has no preprocess method",
                mend="give it one that makes a tensor of one image, caption or sound",
            )
        self.module = module
        self.name = name or type(module).__name__
        self.medium = str(getattr(module, "medium", "image"))
        self.pool = pool

    @property
    def layers(self) -> Sequence[str]:
        """All submodules, by their names in the module."""
        return list_modules(self.module)

    @property
    def default_layers(self) -> Sequence[str]:
        """What the module names in ``layers``, or its direct children."""
        named = getattr(self.module, "layers", None)
        if isinstance(named, list | tuple):
            return [str(n) for n in named]
        return [name for name, _ in self.module.named_children()]

    def identity(self) -> str:
        """Architecture, weights and preprocessing."""
        return module_fingerprint(self.module)

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Run the module once, in evaluation mode and without gradients."""
        batch = torch.stack([torch.as_tensor(self.module.preprocess(i)) for i in items])  # type: ignore[operator]
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        if batch.ndim == 4:
            batch = batch.to(memory_format=torch.channels_last)
        training = self.module.training
        self.module.eval()
        try:
            with torch.inference_mode(), capture(self.module, layers) as outputs:
                self.module(batch.to(device))
        finally:
            self.module.train(training)
        missing = [n for n in layers if n not in outputs]
        if missing:
            raise ConfigError(
                f"the forward pass of {self.name} never calls layer {missing[0]!r}",
                mend="name another layer",
            )
        return {n: outputs[n].cpu() for n in layers}


def module_fingerprint(module: nn.Module) -> str:
    """Hash of a module's structure, parameters, buffers and the code of its own methods."""
    digest = hashlib.blake2b(digest_size=16)
    kind = type(module)
    digest.update(f"{kind.__module__}.{kind.__qualname__}{module!r}".encode())
    for method in ("forward", "preprocess"):
        function = getattr(module, method, None)
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        digest.update(type(function).__qualname__.encode() + _code_bytes(code))
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        data = tensor.detach().cpu().contiguous()
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _code_bytes(code: Any) -> bytes:
    """Bytecode and constants of a function and of those inside it (no addresses, no file names)."""
    if not isinstance(code, CodeType):
        return repr(code).encode()
    return code.co_code + b"".join(_code_bytes(c) for c in code.co_consts)


def file_fingerprint(*paths: Path) -> str:
    """Hash of the contents of files."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        with path.open("rb") as file:
            digest.update(path.name.encode())
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def to_batch(values: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack arrays of one shape to a float32 tensor."""
    return torch.from_numpy(np.stack(values).astype(np.float32, copy=False))


@dataclass(frozen=True)
class ModelCard:
    """A feature model known by name.

    Parameters
    ----------
    name, medium, description : str
        ``medium`` may also be ``"table"``: made from the stimulus table alone.
    factory : callable
        Makes the `FeatureModel`; weights are loaded only when they are needed.
    requires : tuple of str
        Packages it imports or takes weights from.
    install : str
        What to type where one is missing.
    default : bool
        Whether a study takes it unasked; not those that know the generated world only.
    """

    name: str
    medium: str
    description: str
    factory: Callable[[], FeatureModel]
    requires: tuple[str, ...] = ()
    install: str = ""
    default: bool = True

    def missing(self) -> list[str]:
        """Name the packages that are not installed."""
        return [p for p in self.requires if importlib.util.find_spec(p) is None]

    def make(self) -> FeatureModel:
        """Make the model.

        Raises
        ------
        ConfigError
            If a package is not installed.
        """
        missing = self.missing()
        if missing:
            raise ConfigError(
                f"model {self.name!r} needs {', '.join(missing)}, which is not installed",
                mend=self.install or f"pip install {' '.join(missing)}",
            )
        return self.factory()


models: Registry[ModelCard] = Registry("feature")


def feature_model(
    name: str,
    medium: str,
    description: str,
    *,
    requires: tuple[str, ...] = (),
    install: str = "",
    default: bool = True,
) -> Callable[[Callable[[], FeatureModel]], Callable[[], FeatureModel]]:
    """Register the decorated function, which makes a `FeatureModel`, under ``name``."""

    def register(factory: Callable[[], FeatureModel]) -> Callable[[], FeatureModel]:
        card = ModelCard(name, medium, description, factory, requires, install, default)
        models.add(name, card)
        return factory

    return register
