"""Sort-of-CLEVR: questions about six coloured shapes whose answers are known exactly.

Six objects, one of each colour, stand on white: squares or discs, 11 pixels across, whose centres
are at least 10 pixels apart. A question is 18 numbers: the colour of the object asked about (6),
that of a second one (6), the kind (3: about one object, two, three) and which of three questions
of its kind (3). An answer is one of ten classes, which mean yes, no, rectangle, circle and then
colours by name; counts are told by class 4 (none) to 9 (five).

=======  =======================================================================================
kind     questions
=======  =======================================================================================
norel    what shape is it? is it in the left half? in the upper half?
binary   what shape is the nearest object? the farthest? how many others have its shape?
ternary  how many objects lie in the box that two span? does any lie within 12 pixels above or
         below the line through both? how many make an obtuse (or right) triangle with both?
=======  =======================================================================================

Published files (Santoro et al. 2017; ternary questions by Zeng et al. 2023) keep images as height x
width x blue, green, red in [0, 1]. They are pickles, which can run any program when they are read,
and are therefore refused: see `read_sort_of_clevr` for how to convert one that you trust.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.nn.patches import cut_patches

COLOURS = ("red", "green", "blue", "orange", "grey", "yellow")
RGB = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 156, 0), (128, 128, 128), (255, 255, 0)], np.uint8
)
ANSWERS = ("yes", "no", "rectangle", "circle", *COLOURS)
KINDS = ("norel", "binary", "ternary")
YES, NO, RECTANGLE, CIRCLE, FIRST_COUNT = 0, 1, 2, 3, 4
QUESTION_SIZE = 18
#: Pixels above and below a line that still count as lying on it.
BAND = 12


@dataclass(frozen=True, eq=False)
class SortOfCLEVR:
    """Images, and questions of three kinds about each.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_images, side, side, 3)
        Red, green, blue.
    questions : mapping of kind to ndarray of float32, shape (n_images, n_questions, 18)
    answers : mapping of kind to ndarray of int64, shape (n_images, n_questions)
    centres : ndarray of int64, shape (n_images, 6, 2), or None
        Column and row of each object, where they are known.
    squares : ndarray of bool, shape (n_images, 6), or None
        Whether an object is a square; a disc if not.
    """

    images: np.ndarray
    questions: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]
    centres: np.ndarray | None = None
    squares: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def patches(self, side: int = 15) -> np.ndarray:
        """Cut images into squares: (n_images, n_patches, side * side * 3), float32 in [0, 1]."""
        return cut_patches(self.images, side)

    def objects(self) -> np.ndarray:
        """State description instead of pixels: (n_images, 6, 10), float32.

        One row an object: its colour (6) and shape (2) as 0 and 1, column and row in -1 to 1.
        """
        if self.centres is None or self.squares is None:
            raise DataError(
                "the places and shapes of the objects are not known",
                where="SortOfCLEVR.objects",
                mend="use patches, or generated images",
            )
        colour = np.broadcast_to(np.eye(6), (len(self), 6, 6))
        shape = np.stack([self.squares, ~self.squares], axis=-1)
        place = 2 * self.centres / self.images.shape[1] - 1
        return np.concatenate([colour, shape, place], axis=-1).astype(np.float32)


def make_sort_of_clevr(
    n_images: int,
    *,
    rng: np.random.Generator,
    size: int = 75,
    radius: int = 5,
    n_questions: int = 10,
    as_published: bool = False,
) -> SortOfCLEVR:
    """Render images and ask about them.

    Parameters
    ----------
    n_images : int
    rng : numpy.random.Generator
    size : int
        Height and width in pixels.
    radius : int
        Half the width of an object, without its centre.
    n_questions : int
        Of each kind, an image.
    as_published : bool
        Repeat two slips of the published generator: an object is its own nearest if all others
        are farther than 31 pixels (its squared distance to itself is set to 999), and ternary
        questions never ask about yellow.
    """
    if size < 10 * radius:
        raise ConfigError(
            f"six objects of radius {radius} may not fit into {size} pixels",
            mend="take a size of at least ten radii",
        )
    centres = _scatter(n_images, size, radius, rng)
    squares = rng.random((n_images, 6)) < 0.5
    questions, answers = {}, {}
    for kind in KINDS:
        colours = _two_colours(
            n_images, n_questions, 5 if as_published and kind == "ternary" else 6, rng
        )
        subtype = rng.integers(0, 3, (n_images, n_questions))
        questions[kind] = encode_questions(kind, colours, subtype)
        answers[kind] = solve(kind, centres, squares, colours, subtype, size, as_published)
    return SortOfCLEVR(draw(centres, squares, size, radius), questions, answers, centres, squares)


def _scatter(n: int, size: int, radius: int, rng: np.random.Generator) -> np.ndarray:
    """Centres of six objects an image, at least two radii apart; redrawn one by one until so."""
    centres = np.empty((n, 6, 2), np.int64)
    for k in range(6):
        todo = np.arange(n)
        while len(todo):
            centres[todo, k] = rng.integers(radius, size - radius, (len(todo), 2))
            apart = ((centres[todo, :k] - centres[todo, k : k + 1]) ** 2).sum(-1)
            todo = todo[(apart < (2 * radius) ** 2).any(axis=1)]
    return centres


def _two_colours(n: int, m: int, among: int, rng: np.random.Generator) -> np.ndarray:
    """Two different colours a question, n x m x 2."""
    first = rng.integers(0, among, (n, m))
    return np.stack([first, (first + rng.integers(1, among, (n, m))) % among], axis=-1)


def draw(centres: np.ndarray, squares: np.ndarray, size: int, radius: int) -> np.ndarray:
    """Render objects (n x 6) on white, as uint8, n x size x size x 3."""
    images = np.full((len(centres), size, size, 3), 255, np.uint8)
    side = np.arange(-radius, radius + 1)
    offsets = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    # A pixel belongs to a disc if it is nearer to the centre than half a pixel past the radius.
    in_disc = (offsets**2).sum(axis=1) < (radius + 0.5) ** 2
    rows = np.arange(len(centres))[:, None]
    for k, colour in enumerate(RGB):
        at = centres[:, k, None, ::-1] + offsets
        image, which = np.nonzero(squares[:, k, None] | in_disc)
        at = at[image, which]
        images[rows[image, 0], at[:, 0], at[:, 1]] = colour
    return images


def encode_questions(kind: str, colours: np.ndarray, subtype: np.ndarray) -> np.ndarray:
    """Questions as 18 numbers; the second colour is left out but for ternary ones."""
    questions = np.zeros((*subtype.shape, QUESTION_SIZE), np.float32)
    one = np.ones((*subtype.shape, 1), np.float32)
    np.put_along_axis(questions, colours[..., :1], one, axis=-1)
    if kind == "ternary":
        np.put_along_axis(questions, 6 + colours[..., 1:], one, axis=-1)
    questions[..., 12 + KINDS.index(kind)] = 1
    np.put_along_axis(questions, 15 + subtype[..., None], one, axis=-1)
    return questions


def solve(
    kind: str,
    centres: np.ndarray,
    squares: np.ndarray,
    colours: np.ndarray,
    subtype: np.ndarray,
    size: int,
    as_published: bool = False,
) -> np.ndarray:
    """Exact answers to questions of one kind.

    Parameters
    ----------
    kind : {"norel", "binary", "ternary"}
    centres, squares : ndarray, shape (n, 6, 2) and (n, 6)
    colours : ndarray of int, shape (n, m, 2)
    subtype : ndarray of int, shape (n, m)
    size : int
        Of the images, in pixels.
    as_published : bool
        See `make_sort_of_clevr`.

    Returns
    -------
    ndarray of int64, shape (n, m)
        Index into `ANSWERS`.
    """
    image = np.arange(len(centres))[:, None]
    first = colours[..., 0]
    place, square = centres[image, first], squares[image, first]
    if kind == "norel":
        halves = np.where(place < size / 2, YES, NO)
        options = [np.where(square, RECTANGLE, CIRCLE), halves[..., 0], halves[..., 1]]
    elif kind == "binary":
        squared = ((centres[:, None] - place[..., None, :]) ** 2).sum(axis=-1)
        farthest = squared.argmax(axis=-1)
        own = 999 if as_published else 10 * size**2
        np.put_along_axis(squared, first[..., None], own, axis=-1)
        nearest = squared.argmin(axis=-1)
        alike = (squares[:, None] == square[..., None]).sum(axis=-1) - 1
        shape = np.where(squares, RECTANGLE, CIRCLE)
        options = [shape[image, nearest], shape[image, farthest], FIRST_COUNT + alike]
    else:
        options = _three(centres, place, centres[image, colours[..., 1]], colours)
    return np.choose(subtype, options).astype(np.int64)


def _three(
    centres: np.ndarray, a: np.ndarray, b: np.ndarray, colours: np.ndarray
) -> list[np.ndarray]:
    """Answers to the three ternary questions about objects at a and b (n x m x 2)."""
    c = centres[:, None]
    a, b = a[..., None, :], b[..., None, :]
    other = (np.arange(6) != colours[..., :1]) & (np.arange(6) != colours[..., 1:])
    inside = ((np.minimum(a, b) <= c) & (c <= np.maximum(a, b))).all(axis=-1)
    slope = (b - a)[..., 1] / ((b - a)[..., 0] + 1e-10)
    height = a[..., 1] + slope * (c - a)[..., 0]
    on_band = np.abs(height - c[..., 1]) <= BAND
    # In whole numbers: the angle opposite the longest side is right or more, but not straight.
    sides = np.stack(
        [((x - y) ** 2).sum(-1) * np.ones_like(inside, int) for x, y in ((a, b), (b, c), (c, a))]
    )
    obtuse = 2 * sides.max(axis=0) >= sides.sum(axis=0)
    ab, ac = b - a, c - a
    straight = ab[..., 0] * ac[..., 1] == ab[..., 1] * ac[..., 0]
    return [
        FIRST_COUNT + (inside & other).sum(axis=-1),
        np.where((on_band & other).any(axis=-1), YES, NO),
        FIRST_COUNT + (obtuse & ~straight & other).sum(axis=-1),
    ]


# -- published files -----------------------------------------------------------------------


def write_sort_of_clevr(path: str | Path, data: SortOfCLEVR) -> None:
    """Write an .npz file that `read_sort_of_clevr` reads."""
    arrays = {"images": data.images}
    for kind in KINDS:
        arrays[f"{kind}_questions"] = data.questions[kind]
        arrays[f"{kind}_answers"] = data.answers[kind]
    for name in ("centres", "squares"):
        if getattr(data, name) is not None:
            arrays[name] = getattr(data, name)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def from_items(items: Iterable[tuple[Any, ...]], *, blue_first: bool = True) -> SortOfCLEVR:
    """Arrange items as published files hold them.

    Parameters
    ----------
    items : iterable of (image, ternary, binary, norel)
        Image height x width x 3 in [0, 1]; for each kind questions and answers.
    blue_first : bool
        Whether the channels of images are blue, green, red.
    """
    images = []
    questions: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    answers: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for image, ternary, binary, norel in items:
        pixels = np.rint(255 * np.asarray(image)).astype(np.uint8)
        images.append(pixels[..., ::-1] if blue_first else pixels)
        for kind, (asked, told) in zip(KINDS, (norel, binary, ternary), strict=True):
            questions[kind].append(asked)
            answers[kind].append(told)
    return SortOfCLEVR(
        np.array(images),
        {kind: np.array(q, np.float32) for kind, q in questions.items()},
        {kind: np.array(a, np.int64) for kind, a in answers.items()},
    )


def read_sort_of_clevr(path: str | Path) -> SortOfCLEVR:
    """Read an .npz file of images, questions and answers.

    It holds ``images`` (n, side, side, 3; uint8), and for each kind ``KIND_questions`` (n, m, 18)
    and ``KIND_answers`` (n, m). A published pickle can run any program when it is read, and is
    refused. Whoever trusts a file can convert it::

        import pickle
        from engramma.worlds.sort_of_clevr import from_items, write_sort_of_clevr
        train, test = pickle.load(open("sort-of-clevr.pickle", "rb"))
        write_sort_of_clevr("train.npz", from_items(train))
        write_sort_of_clevr("test.npz", from_items(test))

    Raises
    ------
    DataError
        If it is a pickle, damaged, or lacks an array; which one is said.
    """
    path = Path(path)
    if path.suffix in (".pickle", ".pkl", ".p"):
        raise DataError(
            "pickles can run any program when they are read, and are refused",
            where=str(path),
            mend="convert it if you trust it; help(engramma.worlds.sort_of_clevr."
            "read_sort_of_clevr) has the lines",
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the file cannot be read ({error})", where=str(path), mend="give an .npz file"
        ) from error
    return _checked(arrays, str(path))


def _checked(arrays: Mapping[str, np.ndarray], where: str) -> SortOfCLEVR:
    needed = ["images", *(f"{kind}_{part}" for kind in KINDS for part in ("questions", "answers"))]
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise DataError(f"there is no array {', '.join(missing)}", where=where)
    images = arrays["images"]
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise DataError(
            f"images have shape {images.shape} of {images.dtype}, and n x side x side x 3 of uint8 "
            "is needed",
            where=where,
        )
    for kind in KINDS:
        questions, answers = arrays[f"{kind}_questions"], arrays[f"{kind}_answers"]
        if questions.shape != (*answers.shape, QUESTION_SIZE) or len(answers) != len(images):
            raise DataError(
                f"{len(images)} images have {kind} questions of shape {questions.shape} and "
                f"answers of shape {answers.shape}",
                where=where,
                mend=f"n x m x {QUESTION_SIZE} and n x m are needed",
            )
        if answers.size and not (answers.min() >= 0 and answers.max() < len(ANSWERS)):
            raise DataError(
                f"answers to {kind} questions are not all between 0 and {len(ANSWERS) - 1}",
                where=where,
            )
    return SortOfCLEVR(
        images,
        {kind: arrays[f"{kind}_questions"].astype(np.float32) for kind in KINDS},
        {kind: arrays[f"{kind}_answers"].astype(np.int64) for kind in KINDS},
        arrays.get("centres"),
        arrays.get("squares"),
    )
