"""Episodes in which something must be learned from a few examples, and remembered.

An episode is a sequence of examples of one small problem that the learner has never met: a
sinusoid, or a few classes under labels drawn for this episode only. At each step it is asked for
the target of the present input; the target itself is shown one step later, with the next input.
What it answers when a class comes up for the second time is then owed to memory alone.

===================  ============================================  ==============================
source               problem                                       targets
===================  ============================================  ==============================
`SinusoidEpisodes`   y = A sin(x - phi), A and phi unknown         y, a number
`ImageEpisodes`      which label has this class, in this episode   labels, permuted every episode
`DelayedCopy`        repeat a symbol after a delay                 the symbol
===================  ============================================  ==============================

`ImageEpisodes` are made of scikit-learn's digits (`digits`), of the Omniglot folders
(`read_omniglot`) or of a mini-ImageNet array file (`read_image_arrays`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from engramma.errors import ConfigError, DataError, LeakageError


@dataclass(frozen=True, eq=False)
class FewShotEpisodes:
    """A batch of episodes of one length.

    Parameters
    ----------
    inputs : ndarray of float32, shape (episode, step, feature)
    shown : ndarray of float32, shape (episode, step, code)
        What is shown of earlier targets beside each input; of width 0 where nothing is.
    targets : ndarray, shape (episode, step) of int64, or (episode, step, value) of float32
        Labels, or numbers.
    scored : ndarray of bool, shape (episode, step)
        Steps at which an answer is asked for.
    instance : ndarray of int64, shape (episode, step)
        The how-manieth example of its class (or function) this is; 1 is the first.
    n_classes : int
        Number of labels; 0 for numbers.
    kind : ndarray of int64, optional, shape (episode, step)
        Underlying class, which the learner does not see.
    label : ndarray of float32, optional, shape (episode, step, code)
        What a predictor of gradients may be told after each step, in training only: by default the
        target of that step, which the learner itself is shown one step later.
    """

    inputs: np.ndarray
    shown: np.ndarray
    targets: np.ndarray
    scored: np.ndarray
    instance: np.ndarray
    n_classes: int = 0
    kind: np.ndarray | None = None
    label: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.inputs.shape[:2]
        for name in ("shown", "targets", "scored", "instance"):
            if getattr(self, name).shape[:2] != shape:
                raise DataError(
                    f"{name} has shape {getattr(self, name).shape}, and the inputs "
                    f"{self.inputs.shape}",
                    where="FewShotEpisodes",
                    mend="all arrays are episode x step first",
                )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def length(self) -> int:
        """Steps an episode."""
        return int(self.inputs.shape[1])

    @property
    def observed(self) -> np.ndarray:
        """What a learner sees at each step: the input, and the target of the step before."""
        return np.concatenate([self.inputs, self.shown], axis=-1)

    @property
    def codes(self) -> np.ndarray:
        """Targets as vectors: one-hot labels, or the numbers themselves."""
        return _codes(self.targets, self.n_classes)

    @property
    def told(self) -> np.ndarray:
        """``label``, or where there is none `codes`."""
        return self.codes if self.label is None else self.label

    def check_delay(self) -> None:
        """Make sure that no target is shown with its own input.

        Raises
        ------
        LeakageError
            If what is shown is anything but the target of the step before.
        """
        if not self.shown.shape[-1]:
            return
        expected = _delayed(self.codes)
        if self.shown.shape == expected.shape and np.allclose(self.shown, expected):
            return
        raise LeakageError(
            "what is shown beside an input is not the target of the step before",
            where="the labels shown in the episodes",
            mend="delay the labels by one step (the first step shows none)",
        )


def _codes(targets: np.ndarray, n_classes: int) -> np.ndarray:
    if not n_classes:
        return targets.astype(np.float32)
    return np.eye(n_classes, dtype=np.float32)[targets]


def _delayed(codes: np.ndarray) -> np.ndarray:
    """Each step sees the target before it, the first none."""
    return np.concatenate([np.zeros_like(codes[:, :1]), codes[:, :-1]], axis=1)


class EpisodeSource(Protocol):
    """What draws batches of episodes."""

    def draw(self, rng: np.random.Generator, n: int) -> FewShotEpisodes:
        """Draw ``n`` episodes."""
        ...


# -- regression ----------------------------------------------------------------------------

#: Largest input to either side; inputs are divided by it.
REACH = 5.0


@dataclass(frozen=True)
class SinusoidEpisodes:
    """A sinusoid of unknown amplitude and phase, one point a step (Finn et al. 2017, section 5.1).

    Parameters
    ----------
    shots : int
        Examples before the last question, so that an episode has ``shots + 1`` steps.
    amplitude : (float, float)
    phase : (float, float)
        Radians.
    noise : float
        Standard deviation of what is added to each target.
    """

    shots: int = 10
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, float(np.pi))
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.shots < 1:
            raise ConfigError(f"an episode needs at least one shot, not {self.shots}")

    def draw(self, rng: np.random.Generator, n: int) -> FewShotEpisodes:
        """Draw ``n`` episodes, x uniform in ± 5 and divided by 5."""
        length = self.shots + 1
        amplitude, phase = (rng.uniform(*r, (n, 1)) for r in (self.amplitude, self.phase))
        x = rng.uniform(-REACH, REACH, (n, length))
        y = amplitude * np.sin(x - phase) + self.noise * rng.standard_normal((n, length))
        targets = y[..., None].astype(np.float32)
        return FewShotEpisodes(
            inputs=(x / REACH)[..., None].astype(np.float32),
            shown=_delayed(targets),
            targets=targets,
            scored=np.ones((n, length), dtype=bool),
            instance=np.tile(np.arange(1, length + 1), (n, 1)),
        )


# -- classification ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Images:
    """Images of many classes, as vectors.

    Parameters
    ----------
    values : ndarray of float32, shape (image, feature)
    labels : ndarray of int64, shape (image,)
    names : tuple of str
        Of the classes, by label.
    """

    values: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def of(self, classes: Sequence[int]) -> Images:
        """Only the images of some classes, which keep their labels."""
        chosen = np.isin(self.labels, np.asarray(classes))
        return Images(self.values[chosen], self.labels[chosen], self.names)


def split_classes(
    images: Images, train: Sequence[int], test: Sequence[int]
) -> tuple[Images, Images]:
    """Split into the images of the classes for meta-training, and of others for the test.

    Raises
    ------
    LeakageError
        If a class stands in both.
    DataError
        If there is no image of a class.
    """
    both = sorted(set(train) & set(test))
    if both:
        raise LeakageError(
            f"class {', '.join(images.names[c] for c in both)} stands in training and in test",
            mend="give each class to one of the two",
        )
    missing = sorted((set(train) | set(test)) - set(images.labels.tolist()))
    if missing:
        raise DataError(
            f"there is no image of class {missing[0]}",
            mend=f"classes are 0 to {len(images.names) - 1}",
        )
    return images.of(train), images.of(test)


@dataclass(frozen=True)
class ImageEpisodes:
    """A few classes under labels of this episode only, one image a step.

    Parameters
    ----------
    images : Images
        Of the classes to draw from.
    ways : int
        Classes an episode.
    length : int
        Steps.
    rare : float, optional
        Share of the steps that show one of the classes, drawn for each episode; the others share
        the rest. By default classes come as equally often as the length allows.
    """

    images: Images
    ways: int = 4
    length: int = 20
    rare: float | None = None

    def __post_init__(self) -> None:
        known = len(np.unique(self.images.labels))
        if not 2 <= self.ways <= known:
            raise ConfigError(
                f"an episode of {self.ways} classes cannot be drawn from {known}",
                where="ways",
                mend=f"say 2 to {known}",
            )
        if self.rare is not None and not 0 < self.rare < 1:
            raise ConfigError(f"a share lies between 0 and 1, not {self.rare}", where="rare")

    def draw(self, rng: np.random.Generator, n: int) -> FewShotEpisodes:
        """Draw ``n`` episodes; no image comes twice in one, unless a class runs out of them."""
        known = np.unique(self.images.labels)
        members = {int(c): np.flatnonzero(self.images.labels == c) for c in known}
        rows = np.empty((n, self.length), dtype=np.int64)
        targets, instance, kind = (np.empty_like(rows) for _ in range(3))
        for episode in range(n):
            classes = rng.choice(known, self.ways, replace=False)
            # `order` numbers the classes of the episode, 0 being the rare one; labels are another
            # numbering, so that a label says nothing about its class.
            order, label = self._order(rng), rng.permutation(self.ways)
            for c in range(self.ways):
                at, own = np.flatnonzero(order == c), members[int(classes[c])]
                rounds = -(-len(at) // len(own))
                pick = [rng.choice(own, min(len(at), len(own)), False) for _ in range(rounds)]
                rows[episode, at] = np.concatenate([*pick, at[:0]])[: len(at)]
                targets[episode, at], kind[episode, at] = label[c], classes[c]
                instance[episode, at] = np.arange(1, len(at) + 1)
        return FewShotEpisodes(
            inputs=self.images.values[rows],
            shown=_delayed(_codes(targets, self.ways)),
            targets=targets,
            scored=np.ones(rows.shape, dtype=bool),
            instance=instance,
            n_classes=self.ways,
            kind=kind,
        )

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        if self.rare is None:
            return rng.permutation(np.arange(self.length) % self.ways)
        rest = (1 - self.rare) / (self.ways - 1)
        return rng.choice(self.ways, self.length, p=[self.rare, *[rest] * (self.ways - 1)])


@lru_cache
def digits() -> Images:
    """Handwritten digits, 8 x 8 pixels between 0 and 1, as they come with scikit-learn."""
    from sklearn.datasets import load_digits

    data = load_digits()
    values = (data.data / 16).astype(np.float32)
    return Images(values, data.target.astype(np.int64), tuple("0123456789"))


#: Digits to learn to learn from, and to be tested with.
DIGITS_TRAIN, DIGITS_TEST = tuple(range(6)), tuple(range(6, 10))


def turned(images: Images) -> Images:
    """Add each class turned by 90, 180 and 270 degrees as three more classes (square images)."""
    side = int(images.values.shape[1] ** 0.5)
    pictures = images.values.reshape(-1, side, side)
    values = [
        np.rot90(pictures, turn, axes=(1, 2)).reshape(images.values.shape) for turn in range(4)
    ]
    n = len(images.names)
    labels = [images.labels + turn * n for turn in range(4)]
    names = [f"{name}@{90 * turn}" if turn else name for turn in range(4) for name in images.names]
    return Images(np.concatenate(values), np.concatenate(labels), tuple(names))


def read_omniglot(folder: str | Path, *, size: int = 28, rotations: bool = False) -> Images:
    """Read one of Omniglot's folders, ``images_background`` or ``images_evaluation``.

    Parameters
    ----------
    folder : path
        Holds ``ALPHABET/characterNN/*.png``, black strokes on white, 105 x 105 pixels.
    size : int
        Side to scale the images to.
    rotations : bool
        Whether a character turned by 90, 180 and 270 degrees counts as three more classes
        (Santoro et al. 2016).

    Returns
    -------
    Images
        Strokes are 1, paper is 0. Classes are called ``ALPHABET/characterNN`` (and ``@90``, ...).

    Raises
    ------
    DataError
        If there are no such images, or one is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    root = Path(folder)
    files = sorted(root.glob("*/character*/*.png"))
    if not files:
        raise DataError(
            "there are no Omniglot images here",
            where=str(root),
            mend="point to images_background or images_evaluation: alphabet/characterNN/*.png",
        )
    values, names = [], []
    for file in files:
        try:
            with Image.open(file) as image:
                small = image.convert("L").resize((size, size), Image.Resampling.BOX)
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(
                f"an image cannot be read ({error})",
                where=str(file),
                mend="unpack the archive again",
            ) from error
        strokes = 1 - np.asarray(small, dtype=np.float32) / 255
        values.append(strokes.ravel())
        names.append(f"{file.parent.parent.name}/{file.parent.name}")
    known, labels = np.unique(names, return_inverse=True)
    images = Images(np.stack(values), labels.astype(np.int64), tuple(known.tolist()))
    return turned(images) if rotations else images


def read_image_arrays(path: str | Path, *, size: int | None = None) -> Images:
    """Read mini-ImageNet, or any images, from an ``.npz`` file.

    Parameters
    ----------
    path : path
        Holds ``image_data`` (image, height, width, 3) uint8, ``labels`` (image,) int and,
        optionally, ``names`` (class,) of strings.
    size : int, optional
        Side to scale the images to.

    Raises
    ------
    DataError
        If the file holds anything else.

    Notes
    -----
    mini-ImageNet is passed around as a pickle of ``image_data`` and ``class_dict`` (class to row
    numbers). A pickle can run any code when it is opened, so it is not read here. Convert it once,
    where you trust its source::

        labels = np.empty(len(image_data), dtype=np.int64)
        for label, rows in enumerate(class_dict.values()):
            labels[rows] = label
        np.savez(path, image_data=image_data, labels=labels, names=list(class_dict))
    """
    from PIL import Image

    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        images, labels = arrays["image_data"], arrays["labels"]
    except (OSError, ValueError, KeyError, AttributeError, EOFError, TypeError) as error:
        raise DataError(
            f"this is no .npz file with image_data and labels ({error})",
            where=str(path),
            mend="write it with np.savez(path, image_data=..., labels=..., names=...); pickles "
            "are not opened",
        ) from error
    plain = images.ndim == 4 and images.shape[-1] == 3 and images.dtype == np.uint8
    if not plain or labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"image_data is {images.dtype} {images.shape}, and labels {labels.dtype} "
            f"{labels.shape}",
            where=str(path),
            mend="image_data is uint8, image x height x width x 3; labels one whole number an "
            "image",
        )
    if size is not None:
        scaled = [Image.fromarray(i).resize((size, size), Image.Resampling.BOX) for i in images]
        images = np.stack([np.asarray(i) for i in scaled])
    known, labels = np.unique(labels, return_inverse=True)
    names = tuple(str(n) for n in arrays.get("names", known))
    if len(names) != len(known):
        raise DataError(
            f"{len(known)} classes have {len(names)} names",
            where=str(path),
            mend="give one name a class, or none",
        )
    values = images.reshape(len(images), -1).astype(np.float32) / 255
    return Images(values, labels.astype(np.int64), names)


# -- delayed copy --------------------------------------------------------------------------


@dataclass(frozen=True)
class DelayedCopy:
    """Symbols, each to be repeated ``delay`` steps after it was seen.

    Parameters
    ----------
    symbols : int
        Size of the alphabet.
    items : int
        Symbols an episode, one a step from the first step on; blanks follow.
    delay : int
        Steps from a symbol to its answer; at least ``items``.

    Notes
    -----
    An episode has ``items + delay`` steps. Inputs are one-hot, with a blank and a go signal, which
    stands at the steps that are scored. ``label`` holds all answers of the episode.
    """

    symbols: int = 4
    items: int = 1
    delay: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.items <= self.delay or self.symbols < 2:
            raise ConfigError(
                f"{self.items} of {self.symbols} symbols cannot be repeated after {self.delay} "
                "steps",
                mend="take at least two symbols, and a delay of at least as many steps as items",
            )

    def draw(self, rng: np.random.Generator, n: int) -> FewShotEpisodes:
        """Draw ``n`` episodes."""
        length = self.items + self.delay
        drawn = rng.integers(0, self.symbols, (n, self.items))
        # Codes: the symbols, then blank, then go.
        tokens = np.full((n, length), self.symbols)
        tokens[:, : self.items], tokens[:, self.delay :] = drawn, self.symbols + 1
        targets = np.zeros((n, length), dtype=np.int64)
        targets[:, self.delay :] = drawn
        answers = _codes(drawn, self.symbols).reshape(n, 1, -1)
        return FewShotEpisodes(
            inputs=np.eye(self.symbols + 2, dtype=np.float32)[tokens],
            shown=np.zeros((n, length, 0), dtype=np.float32),
            targets=targets,
            scored=np.broadcast_to(np.arange(length) >= self.delay, (n, length)).copy(),
            instance=np.ones((n, length), dtype=np.int64),
            n_classes=self.symbols,
            label=np.repeat(answers, length, axis=1),
        )
