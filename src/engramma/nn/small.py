"""Small networks whose hidden layers have names, and their activations as arrays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from engramma.nn.hooks import capture


class SmallMLP(nn.Sequential):
    """Fully connected network: flatten, then ``fc1``, ``fc2``, ... (linear, ReLU), then ``out``.

    Parameters
    ----------
    n_inputs : int
        Number of pixels or features.
    widths : sequence of int
        Units of each hidden layer.
    n_outputs : int
    """

    def __init__(self, n_inputs: int, widths: Sequence[int], n_outputs: int) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        before = n_inputs
        for index, width in enumerate(widths, start=1):
            parts[f"fc{index}"] = nn.Sequential(nn.Linear(before, width), nn.ReLU())
            before = width
        parts["out"] = nn.Linear(before, n_outputs)
        super().__init__(parts)
        self.hidden = tuple(f"fc{index}" for index in range(1, len(widths) + 1))


class SmallCNN(nn.Sequential):
    """Convolutional network: ``conv1``, ``conv2``, ... (3 x 3, ReLU, then pooled), ``fc``, ``out``.

    Parameters
    ----------
    side : int
        Height and width of the single-channel images, in pixels; halved after each convolution.
    channels : sequence of int
        Feature maps of each convolution.
    width : int
        Units of the hidden layer ``fc``.
    n_outputs : int
    """

    def __init__(self, side: int, channels: Sequence[int], width: int, n_outputs: int) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        before = 1
        for index, maps in enumerate(channels, start=1):
            parts[f"conv{index}"] = nn.Sequential(nn.Conv2d(before, maps, 3, padding=1), nn.ReLU())
            parts[f"pool{index}"] = nn.MaxPool2d(2)
            before, side = maps, side // 2
        parts["flatten"] = nn.Flatten()
        parts["fc"] = nn.Sequential(nn.Linear(before * side * side, width), nn.ReLU())
        parts["out"] = nn.Linear(width, n_outputs)
        super().__init__(parts)
        self.hidden = (*(f"conv{index}" for index in range(1, len(channels) + 1)), "fc")


def layer_activations(
    model: nn.Module, inputs: np.ndarray, layers: Iterable[str], batch: int = 512
) -> dict[str, np.ndarray]:
    """Run a network in evaluation mode and return the outputs of named layers.

    Parameters
    ----------
    model : nn.Module
    inputs : ndarray, shape (n_inputs, ...)
    layers : iterable of str
        Names of submodules.
    batch : int
        Inputs a forward pass.

    Returns
    -------
    dict of str to ndarray of float32, shape (n_inputs, ...)
    """
    names = list(layers)
    collected: dict[str, list[np.ndarray]] = {name: [] for name in names}
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), capture(model, names) as outputs:
            for start in range(0, len(inputs), batch):
                model(torch.as_tensor(inputs[start : start + batch], dtype=torch.float32))
                for name in names:
                    collected[name].append(outputs[name].numpy())
    finally:
        model.train(training)
    return {name: np.concatenate(parts) for name, parts in collected.items()}
