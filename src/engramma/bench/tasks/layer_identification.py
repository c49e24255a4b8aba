"""Which layer of a network made these activations? Asked of measures of representational likeness.

Networks that differ in nothing but their seed see the same held-out images. A measure that knows
what makes a representation should find a layer most like the same layer of another network
(Kornblith et al. 2019). It is given activations through ``compare(a, b)`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.contracts import Comparison, Task
from engramma.errors import DataError
from engramma.registry import add_task

N_NETWORKS = 6
N_IMAGES = 62


@dataclass(frozen=True)
class Layers:
    """Activations to identify.

    Parameters
    ----------
    activations : tuple of ndarray, each (n_images, n_units)
    network : ndarray of int
        Seed of each.
    layer : ndarray of str
        What is asked for.
    """

    activations: tuple[np.ndarray, ...]
    network: np.ndarray
    layer: np.ndarray


def prepare(seed: int) -> Layers:
    """Show 62 held-out digits to six networks with four hidden layers of 64 units."""
    from engramma.worlds.seed_zoo import SeedZoo, digits

    rng = np.random.default_rng(seed)
    images = digits().test_images
    images = images[rng.choice(len(images), N_IMAGES, replace=False)]
    zoo = SeedZoo("mlp")
    numbers = range(N_NETWORKS * seed, N_NETWORKS * (seed + 1))
    activations, network, layer = [], [], []
    for number, by_layer in zoo.activations(numbers, images).items():
        for name, x in by_layer.items():
            activations.append(x)
            network.append(number)
            layer.append(name)
    return Layers(tuple(activations), np.array(network), np.array(layer))


def score(system: Comparison, data: Layers) -> float:
    """Share of activations that are most like their own layer in the other networks.

    The likeness to a layer is the mean over the other networks of ``compare(query, layer)``.
    """
    names = np.unique(data.layer)
    right = 0
    for i, query in enumerate(data.activations):
        likeness = []
        for name in names:
            others = np.flatnonzero((data.layer == name) & (data.network != data.network[i]))
            values = [system.compare(query, data.activations[j]).value for j in others]
            likeness.append(np.mean(values))
        if not np.isfinite(likeness).all():
            raise DataError(
                "a comparison gave no finite value",
                where=f"layer {data.layer[i]!r} of network {data.network[i]}",
                mend="handle units that do not vary",
            )
        right += names[int(np.argmax(likeness))] == data.layer[i]
    return right / len(data.activations)


add_task(
    Task(
        name="layer-identification",
        contract="Comparison",
        description="Which of four layers do activations come from, judged by other networks?",
        prepare=prepare,
        score=score,
        metric="accuracy (share of layers named correctly)",
        chance=0.25,
        ceiling=lambda data: 1.0,
    )
)
