"""Networks that differ in nothing but their seed.

Small networks learn the handwritten digits that come with scikit-learn (8 x 8 pixels, ten
classes), 1200 images to train and 597 held out, in a second each. The seed sets the initial
weights and the order of the images, and nothing else. Trained weights are cached under the hash of
everything they depend on, one entry a network, so that zoos share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
import sklearn
import torch
from torch import nn

from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.features.cache import FeatureCache, key_of
from engramma.nn.seed import seeded
from engramma.nn.small import SmallCNN, SmallMLP, layer_activations
from engramma.nn.train import train
from engramma.registry import world

N_TRAIN = 1200
#: Raised whenever training changes, so that networks trained before are not used.
VERSION = 1


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, split once and for all.

    Parameters
    ----------
    train_images, test_images : ndarray of float32, shape (n, 1, 8, 8), 0 ... 1
    train_labels, test_labels : ndarray of int, shape (n,)
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@lru_cache(maxsize=1)
def digits() -> Digits:
    """Return the digits of scikit-learn: 1200 to train, 597 held out.

    The two parts are consecutive in the data set, which is ordered by writer, so that most held-out
    digits come from hands that no network was trained on.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return Digits(images[:N_TRAIN], labels[:N_TRAIN], images[N_TRAIN:], labels[N_TRAIN:])


@dataclass(frozen=True)
class SeedZoo:
    """A recipe for networks; each seed gives one.

    Parameters
    ----------
    architecture : {"mlp", "cnn"}
        ``"mlp"``: four hidden layers of 64 units (``fc1`` ... ``fc4``), so that only what they
        represent tells them apart. ``"cnn"``: convolutions of 16 and 32 maps and 64 fully
        connected units (``conv1``, ``conv2``, ``fc``).
    epochs, batch_size : int
    learning_rate : float
        Of Adam, on the cross-entropy.
    """

    architecture: Literal["mlp", "cnn"] = "mlp"
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        if self.architecture not in ("mlp", "cnn"):
            raise ConfigError(
                f"there is no architecture {self.architecture!r}", mend="choose mlp or cnn"
            )
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise ConfigError("epochs, batch size and learning rate must be positive")

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the hidden layers, from input to output."""
        return self.untrained(0).hidden

    def untrained(self, seed: int) -> SmallMLP | SmallCNN:
        """Return the network of one seed before training."""
        with seeded(seed):
            if self.architecture == "mlp":
                return SmallMLP(64, (64, 64, 64, 64), 10).eval()
            return SmallCNN(8, (16, 32), 64, 10).eval()

    def trained(self, seed: int) -> SmallMLP | SmallCNN:
        """Return the network of one seed after training, from the cache where it is there."""
        network = self.untrained(seed)
        cache = FeatureCache()
        key = key_of(
            kind="seed zoo",
            zoo=asdict(self),
            seed=seed,
            version=VERSION,
            torch=torch.__version__,
            sklearn=sklearn.__version__,
        )
        weights = cache.get(key)
        if weights is None:
            self._train(network, seed)
            flat = nn.utils.parameters_to_vector(network.parameters())
            cache.put(key, flat.detach().numpy())
        else:
            nn.utils.vector_to_parameters(torch.from_numpy(weights), network.parameters())
        return network

    def _train(self, network: nn.Module, seed: int) -> None:
        data = digits()
        images = torch.from_numpy(data.train_images)
        labels = torch.from_numpy(data.train_labels)

        def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            order = np.random.default_rng([seed, epoch]).permutation(len(images))
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                yield images[rows], labels[rows]

        train(
            network,
            lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
            batches,
            epochs=self.epochs,
            optimizer=torch.optim.Adam(network.parameters(), lr=self.learning_rate),
            description=f"{self.architecture} of seed {seed}",
        )

    def accuracy(self, network: nn.Module) -> float:
        """Share of the held-out digits that a network names correctly."""
        data = digits()
        logits = layer_activations(network, data.test_images, ["out"])["out"]
        return float((logits.argmax(axis=1) == data.test_labels).mean())

    def activations(
        self, seeds: Iterable[int], images: np.ndarray, *, trained: bool = True
    ) -> dict[int, dict[str, np.ndarray]]:
        """Hidden layers of the networks of several seeds.

        Returns
        -------
        dict of int to dict of str to ndarray
            By seed and layer: input x unit, or input x map x height x width.
        """
        return {
            seed: layer_activations(
                self.trained(seed) if trained else self.untrained(seed), images, self.layers
            )
            for seed in seeds
        }


@world("seed-zoo")
def seed_zoo_cohort(
    seed: int = 0,
    n_networks: int = 8,
    n_stimuli: int = 62,
    architecture: Literal["mlp", "cnn"] = "mlp",
) -> Cohort:
    """Show held-out digits to a cohort whose subjects are networks of different seeds.

    The region (``roi``) of a unit is its layer.

    Parameters
    ----------
    seed : int
        Draws the images; the networks have seeds ``seed * n_networks`` and following.
    n_networks, n_stimuli : int
    architecture : {"mlp", "cnn"}
    """
    data = digits()
    if not 4 <= n_stimuli <= len(data.test_images):
        raise ConfigError(f"there are 4 to {len(data.test_images)} images, not {n_stimuli}")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(data.test_images), n_stimuli, replace=False))
    ids = [f"digit{row:03d}" for row in rows]
    grey = np.round(255 * data.test_images[rows, 0, :, :, None]).astype(np.uint8)
    table = pd.DataFrame({"digit": [str(label) for label in data.test_labels[rows]]}, index=ids)
    stimuli = StimulusSet(table, images=np.repeat(grey, 3, axis=3), attrs={"name": "digits"})
    zoo = SeedZoo(architecture)
    seeds = range(seed * n_networks, (seed + 1) * n_networks)
    recordings = {}
    for number, layers in zoo.activations(seeds, data.test_images[rows]).items():
        flat = {name: values.reshape(len(rows), -1) for name, values in layers.items()}
        name = f"network{number}"
        recordings[name] = Recording.from_arrays(
            np.concatenate(list(flat.values()), axis=1),
            ids,
            subject=name,
            unit=[f"{layer}/{i}" for layer, x in flat.items() for i in range(x.shape[1])],
            unit_coords={"roi": np.repeat(list(flat), [x.shape[1] for x in flat.values()])},
            stimuli=stimuli,
            source=f"generated: {architecture} trained on digits",
        )
    return Cohort(recordings, attrs={"source": f"{n_networks} networks that differ in seed"})
