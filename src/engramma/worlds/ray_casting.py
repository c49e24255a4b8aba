r"""Views of a house: depth, classes and colours of each pixel, and the way back to the map.

The camera stands upright. With the coordinates :math:`x_c=(u+\frac12-c_x)/f` and
:math:`y_c=(v+\frac12-c_y)/f` of a pixel, the point at depth :math:`d` is
:math:`p=o+d\,(\mathbf f+x_c\mathbf r-y_c\mathbf u)`. So all pixels of a column cross the same
cells, one after the other (Amanatides & Woo 1987), and what each meets there follows from the
cell's height: its side, its top, or the ceiling. Heading 0 looks north (-z); it grows to the west,
as a rotation about y does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.worlds.house import CEILING, CELL, CLASSES, FURNITURE, HEIGHT, House
from engramma.worlds.layouts import COLOURS

EYE = 1.25
_GROUP = 64
#: Brightness of sides that face east or west, north or south, of tops and floor, of the ceiling.
_LIGHT = np.array([0.8, 0.65, 1.0, 0.9], dtype=np.float32)
_ANGLES = 8


@dataclass(frozen=True, eq=False)
class Views:
    """What a camera sees.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (frame, height, width, 3)
    depth : ndarray of float32, shape (frame, height, width)
        Along the optical axis, in metres.
    classes : ndarray of int8, shape (frame, height, width)
        Index into `engramma.worlds.house.CLASSES`.
    instances : ndarray of int16, shape (frame, height, width)
        Row of the house's objects, or -1.
    positions : ndarray of float32, shape (frame, 3)
        x, y, z of the camera, in metres.
    headings : ndarray of float32, shape (frame,)
        In radians.
    focal : float
        In pixels, the same both ways.
    """

    rgb: np.ndarray
    depth: np.ndarray
    classes: np.ndarray
    instances: np.ndarray
    positions: np.ndarray
    headings: np.ndarray
    focal: float

    @property
    def rotations(self) -> np.ndarray:
        """The same headings as quaternions x, y, z, w, shape (frame, 4)."""
        half = self.headings / 2
        zero = np.zeros_like(half)
        return np.stack([zero, np.sin(half), zero, np.cos(half)], axis=1)


def _pixels(size: tuple[int, int], focal: float) -> tuple[np.ndarray, np.ndarray]:
    """x_c of columns and y_c of rows."""
    height, width = size
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    return x.astype(np.float32), y.astype(np.float32)


def _directions(headings: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parts along x and z of the direction of each column, shape (frame, column)."""
    sin, cos = np.sin(headings)[:, None], np.cos(headings)[:, None]
    return -sin + x * cos, -cos - x * sin


def render(
    house: House,
    positions: np.ndarray,
    headings: np.ndarray,
    *,
    size: tuple[int, int] = (48, 64),
    field_of_view: float = 90.0,
) -> Views:
    """Render views of a house.

    Parameters
    ----------
    house : House
    positions : ndarray, shape (frame, 3)
        x, y, z of the camera, in metres.
    headings : ndarray, shape (frame,)
        In radians.
    size : tuple of int
        Height and width in pixels.
    field_of_view : float
        From left to right, in degrees.

    Raises
    ------
    ConfigError
        If the picture has no pixels, or the field of view is none.
    DataError
        If a camera stands in a wall, in furniture, or outside.
    """
    if min(size) < 1 or not 0 < field_of_view < 180:
        raise ConfigError(
            f"there are no pictures of {size} pixels that show {field_of_view} degrees",
            where="size, field_of_view", mend="show more than 0 and less than 180 degrees",
        )  # fmt: skip
    positions = np.asarray(positions, dtype=np.float32).reshape(-1, 3)
    headings = np.asarray(headings, dtype=np.float32).reshape(-1)
    extent = np.array(house.classes.shape)[::-1] * CELL
    inside = ((positions[:, [0, 2]] >= 0) & (positions[:, [0, 2]] < extent)).all(axis=1)
    inside &= house.free[house.cell_of(positions[:, 0], positions[:, 2])]
    inside &= (positions[:, 1] > 0) & (positions[:, 1] < HEIGHT)
    if len(positions) != len(headings) or not inside.all():
        wrong = int(np.argmin(inside)) if len(positions) == len(headings) else len(headings)
        raise DataError("a camera stands in something, outside, or has no heading",
                        where=f"frame {wrong}", mend="place cameras over free cells")  # fmt: skip
    focal = size[1] / 2 / np.tan(np.radians(field_of_view) / 2)
    n = len(headings)
    depth = np.empty((n, *size), dtype=np.float32)
    cell = np.empty((n, *size), dtype=np.int32)
    face = np.empty((n, *size), dtype=np.int8)
    for start in range(0, n, _GROUP):
        some = np.s_[start : start + _GROUP]
        depth[some], cell[some], face[some] = _cast(
            house, positions[some], headings[some], size, focal
        )
    classes = house.classes.ravel()[cell]
    instances = house.instances.ravel()[cell]
    classes[face == 3] = CEILING
    instances[face == 3] = -1
    points = unproject(depth, positions, headings, focal)
    rgb = _colours(house, points, depth, classes, instances, face)
    return Views(rgb, depth, classes, instances, positions, headings, float(focal))


def _cast(
    house: House,
    positions: np.ndarray,
    headings: np.ndarray,
    size: tuple[int, int],
    focal: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, cell that is hit, and face, each frame x row x column.

    In cell k, entered at depth t and left at t', a pixel hits the side of what is there if
    y_c > (eye - top) / t, else its top if y_c >= (eye - top) / t', and the ceiling if
    y_c <= (eye - ceiling) / t'. The first cell in which one of them is so counts.
    """
    x, y = _pixels(size, focal)
    n, (rows, columns) = len(headings), size
    eye = np.repeat(positions[:, 1], columns)
    steps = _walk(house, positions, _directions(headings.astype(np.float64), x))
    with np.errstate(divide="ignore"):
        beside = (eye - steps["top"]) / steps["enter"]
        onto = (eye - steps["top"]) / steps["leave"]
    overhead = (eye - np.float32(HEIGHT)) / steps["leave"]
    lowest = np.minimum.accumulate(np.minimum(beside, onto), axis=0)
    first = np.zeros((n * columns, rows), dtype=np.int64)
    for low, high in zip(lowest, overhead, strict=True):
        first += (y < low[:, None]) & (y > high[:, None])
    place = first * (n * columns) + np.arange(n * columns)[:, None]
    enter, top, side = (steps[name].ravel()[place] for name in ("enter", "top", "side"))
    on_side = y > beside.ravel()[place]
    on_ceiling = ~on_side & (y <= overhead.ravel()[place])
    level = np.where(on_ceiling, np.float32(HEIGHT), top)
    depth = np.where(on_side, enter, (eye[:, None] - level) / np.where(y == 0, 1, y))
    face = np.where(on_side, side, np.where(on_ceiling, 3, 2))
    cell = steps["cell"].ravel()[place]

    def image(values: np.ndarray, kind: type) -> np.ndarray:
        return np.swapaxes(values.reshape(n, columns, rows), 1, 2).astype(kind)

    return image(depth, np.float32), image(cell, np.int32), image(face, np.int8)


def _walk(
    house: House, positions: np.ndarray, directions: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Cells that the columns of pixels cross up to the first wall, each step x ray."""
    width = house.classes.shape[1]
    heights = house.heights.ravel()
    direction = np.stack([d.ravel() for d in directions]).astype(np.float64)
    direction[np.abs(direction) < 1e-9] = 1e-9
    n_columns = directions[0].shape[1]
    origin = np.repeat(positions[:, [0, 2]].T.astype(np.float64), n_columns, axis=1)
    at = np.floor(origin / CELL).astype(np.int64)
    step = np.where(direction > 0, 1, -1)
    leaves = ((at + (step > 0)) * CELL - origin) / direction
    across = CELL / np.abs(direction)
    enter = np.zeros(direction.shape[1])
    side = np.zeros(direction.shape[1], dtype=np.int8)
    ray = np.arange(direction.shape[1])
    found: dict[str, list[np.ndarray]] = {k: [] for k in ("enter", "leave", "top", "side", "cell")}
    while True:
        cell = at[1] * width + at[0]
        top = heights[cell]
        leave = leaves.min(axis=0)
        for name, value in (("enter", enter.astype(np.float32)), ("side", side), ("cell", cell),
                            ("leave", leave.astype(np.float32)), ("top", top)):  # fmt: skip
            found[name].append(value)
        on = top < HEIGHT  # rays that have come to a wall stay there
        if not on.any():
            return {name: np.stack(values) for name, values in found.items()}
        axis = leaves.argmin(axis=0)
        enter = np.where(on, leave, enter)
        side = np.where(on, axis, side).astype(np.int8)
        at[axis[on], ray[on]] += step[axis[on], ray[on]]
        leaves[axis[on], ray[on]] += across[axis[on], ray[on]]


def _colours(
    house: House,
    points: np.ndarray,
    depth: np.ndarray,
    classes: np.ndarray,
    instances: np.ndarray,
    face: np.ndarray,
) -> np.ndarray:
    """Colours of floor by room, of objects their own, with stripes that tell the category."""
    n_rooms = len(house.rooms)
    floors = 0.45 + 0.3 * np.stack(
        [np.cos(2 * np.pi * (np.arange(n_rooms) / n_rooms + k / 3)) for k in range(3)], axis=1
    )
    own = np.array([COLOURS[c] for c in house.objects["colour"]]).reshape(-1, 3)
    palette = np.concatenate([[(0.85, 0.84, 0.8), (0.95, 0.95, 0.95)], floors, own])
    room = house.room_of[house.cell_of(points[..., 0], points[..., 2])]
    index = np.where(classes == 0, 2 + np.maximum(room, 0), np.where(classes == CEILING, 1, 0))
    index = np.where(instances >= 0, 2 + n_rooms + instances, index)
    period = (np.arange(len(CLASSES)) % 4 + 1) * 0.12
    wave = np.where(
        classes % 2 == 1, points[..., 1], points[..., 0] + points[..., 2]
    ) / period[classes]  # fmt: skip
    stripe = np.where((instances >= 0) & (np.floor(wave) % 2 == 0), 0.7, 1.0)
    light = _LIGHT[face] * stripe / (1 + 0.06 * depth)
    pixels: np.ndarray = (255 * palette[index] * light[..., None] + 0.5).astype(np.uint8)
    return pixels


def unproject(
    depth: np.ndarray, positions: np.ndarray, headings: np.ndarray, focal: float
) -> np.ndarray:
    """Points that pixels show, x, y, z in metres, shape (frame, height, width, 3)."""
    x, y = _pixels((depth.shape[1], depth.shape[2]), focal)
    east, south = _directions(headings, x)
    along = np.stack(
        np.broadcast_arrays(east[:, None, :], -y[None, :, None], south[:, None, :]), axis=-1
    )
    points: np.ndarray = positions[:, None, None, :] + depth[..., None] * along
    return points


def project_labels(house_shape: tuple[int, int], views: Views, labels: np.ndarray) -> np.ndarray:
    """Put what pixels show on a map, the highest point of each cell; -1 where nothing was seen.

    Depth, pose and labels are all that is used. Points more than half a metre above the camera
    are dropped, as in Semantic MapNet. Points on the border of two cells show the side of the
    one behind it, and belong there.
    """
    positions, headings = views.positions.astype(np.float64), views.headings.astype(np.float64)
    points = unproject(views.depth.astype(np.float64), positions, headings, views.focal)
    on_border = np.abs(points / CELL - np.round(points / CELL)) < 1e-5
    on_border &= points[..., 1:2] > 1e-5  # floor has no sides
    behind = np.sign(points - positions[:, None, None, :])
    inner = np.floor((points + np.where(on_border, behind, 0) * 1e-3) / CELL).astype(int)
    row, column = inner[..., 2], inner[..., 0]
    rows, columns = house_shape
    keep = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    keep &= points[..., 1] <= positions[:, None, None, 1] + 0.5
    order = np.argsort(points[..., 1][keep], kind="stable")
    found = np.full(house_shape, -1, dtype=np.int16)
    found[row[keep][order], column[keep][order]] = labels[keep][order]
    return found


def class_features(
    views: Views,
    *,
    rng: np.random.Generator,
    dim: int = 8,
    noise: float = 0.5,
    confusion: float = 0.3,
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy features of the class of each pixel, which from some sides look like another's.

    Each piece of furniture, seen from one of eight directions, is mistaken for another class
    with probability ``confusion``, and always for the same one; so more views of a cell from
    other sides help, and more pixels of the same view do not.

    Parameters
    ----------
    views : Views
    rng : numpy.random.Generator
        Of prototypes, confusions and noise.
    dim : int
    noise : float
        Standard deviation, where prototypes have length 1.
    confusion : float

    Returns
    -------
    features : ndarray of float32, shape (frame, height, width, dim)
    prototypes : ndarray of float32, shape (class, dim)

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if dim < 1 or noise < 0 or not 0 <= confusion <= 1:
        raise ConfigError(f"{dim} features, noise {noise}, confusion {confusion}",
                          where="class_features", mend="confusion lies in 0 .. 1")  # fmt: skip
    n = len(CLASSES)
    prototypes = rng.standard_normal((n, dim)).astype(np.float32)
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    n_objects = int(views.instances.max()) + 1
    wrong = rng.random((n_objects + 1, _ANGLES)) < confusion
    wrong[-1] = False  # row -1: no object
    other = n - len(FURNITURE) + rng.integers(0, len(FURNITURE), (n_objects + 1, _ANGLES))
    x, _ = _pixels((1, views.depth.shape[2]), views.focal)
    bearing = views.headings[:, None] - np.arctan(x)
    angle = np.floor(bearing / (2 * np.pi) * _ANGLES).astype(int) % _ANGLES
    angle = np.broadcast_to(angle[:, None, :], views.classes.shape)
    seen = np.where(
        wrong[views.instances, angle], other[views.instances, angle], views.classes
    )  # fmt: skip
    features = rng.standard_normal((*seen.shape, dim), dtype=np.float32)
    features *= np.float32(noise)
    features += prototypes[seen]
    return features, prototypes
