"""Houses: rooms on a grid, walls with doors, furniture of known category, colour and name.

A house is a field of square cells, each with a height and a class: floor, wall (up to the
ceiling), or a piece of furniture, which is a box of several cells. `engramma.worlds.ray_casting`
renders views of it; the classes seen from above are its semantic map.

Coordinates are in metres: x to the east (columns), y up, z to the south (rows).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from engramma.errors import ConfigError
from engramma.worlds.layouts import COLOURS

#: Cells along both sides, and height in metres. The classes of Semantic MapNet
#: (Cartillier et al. 2021, arXiv:2010.01191).
FURNITURE: dict[str, tuple[int, int, float]] = {
    "shelving": (1, 2, 1.9), "chest of drawers": (1, 2, 0.9), "bed": (2, 3, 0.5),
    "cushion": (1, 1, 0.25), "fireplace": (1, 2, 1.2), "sofa": (1, 3, 0.8),
    "table": (2, 2, 0.75), "chair": (1, 1, 0.95), "cabinet": (1, 1, 1.6),
    "plant": (1, 1, 1.3), "counter": (1, 3, 1.0), "sink": (1, 1, 0.85),
}  # fmt: skip
CLASSES = ("floor", "wall", "ceiling", *FURNITURE)
FLOOR, WALL, CEILING = 0, 1, 2
ROOMS = (
    "kitchen", "library", "workshop", "office", "attic", "cellar", "museum", "bakery",
    "bathroom", "bedroom", "hall", "nursery", "pantry", "studio", "laundry", "parlour",
)  # fmt: skip
CELL, HEIGHT = 0.5, 2.5
_ONSETS, _VOWELS, _CODAS = "bdfgklmnprstvz", "aeiou", "bdfgklmnpsxz"
_TRIES = 200


@dataclass(frozen=True, eq=False)
class House:
    """Where walls, doors and furniture are.

    Parameters
    ----------
    classes : ndarray of int8, shape (rows, columns)
        Semantic map: index into `CLASSES` of what is seen from above.
    heights : ndarray of float32, shape (rows, columns)
        In metres; 0 is floor.
    instances : ndarray of int16, shape (rows, columns)
        Row of ``objects``, or -1.
    room_of : ndarray of int8, shape (rows, columns)
        Index of the room; -1 for walls. A door belongs to the room north or west of it.
    rooms : tuple of str
        Row by row.
    doors : tuple of tuple of int
        Pairs of rooms that a door joins.
    objects : DataFrame
        ``name`` (invented), ``category``, ``colour``, ``room``, ``x`` and ``z`` of the centre,
        ``height``.
    """

    classes: np.ndarray
    heights: np.ndarray
    instances: np.ndarray
    room_of: np.ndarray
    rooms: tuple[str, ...]
    doors: tuple[tuple[int, int], ...]
    objects: pd.DataFrame

    @property
    def free(self) -> np.ndarray:
        """Cells one can stand on."""
        return self.heights == 0

    def cell_of(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of places in metres; those outside lie on the nearest cell."""
        rows, columns = self.classes.shape
        row = np.clip(np.floor(np.asarray(z) / CELL).astype(int), 0, rows - 1)
        column = np.clip(np.floor(np.asarray(x) / CELL).astype(int), 0, columns - 1)
        return row, column


def invented_names(n: int, rng: np.random.Generator) -> list[str]:
    """Draw different words of two syllables that mean nothing, as *dazop*."""
    first = [a + b for a in _ONSETS for b in _VOWELS]
    last = [a + b + c for a in _ONSETS for b in _VOWELS for c in _CODAS]
    chosen = rng.choice(len(first) * len(last), size=n, replace=False)
    return [first[i % len(first)] + last[i // len(first)] for i in chosen]


def make_house(
    rng: np.random.Generator,
    *,
    rooms: tuple[int, int] = (2, 3),
    room_cells: int = 8,
    objects_per_room: int = 3,
    extra_doors: float = 0.5,
) -> House:
    """Build a house in which every free cell can be reached from every other.

    Parameters
    ----------
    rng : numpy.random.Generator
    rooms : tuple of int
        Rows and columns of rooms.
    room_cells : int
        Free width of a room, in cells of 0.5 m.
    objects_per_room : int
        Fewer stand where there is no room for more.
    extra_doors : float
        Probability of a door between neighbours beyond those that join all rooms.

    Raises
    ------
    ConfigError
        If there are no rooms, or more than there are names, or they are too small.
    """
    down, across = rooms
    if min(rooms) < 1 or down * across > len(ROOMS):
        raise ConfigError(f"a house has 1 to {len(ROOMS)} rooms, not {down} x {across}",
                          where="rooms")  # fmt: skip
    if room_cells < 4 or objects_per_room < 0:
        raise ConfigError(f"rooms of {room_cells} cells with {objects_per_room} objects",
                          where="room_cells", mend="make rooms of at least 4 cells")  # fmt: skip
    pitch = room_cells + 1
    shape = (down * pitch + 1, across * pitch + 1)
    room_of = np.full(shape, -1, dtype=np.int8)
    for i in range(down * across):
        top, left = i // across * pitch + 1, i % across * pitch + 1
        room_of[top : top + room_cells, left : left + room_cells] = i
    doors = _doors(down, across, extra_doors, rng)
    kept = np.zeros(shape, dtype=bool)  # in front of doors nothing stands
    for a, b in doors:
        _open(room_of, kept, a, b, across, pitch, room_cells, rng)
    heights = np.where(room_of < 0, np.float32(HEIGHT), np.float32(0))
    classes = np.where(room_of < 0, WALL, FLOOR).astype(np.int8)
    instances = np.full(shape, -1, dtype=np.int16)
    names = [ROOMS[i] for i in rng.permutation(len(ROOMS))[: down * across]]
    table: list[dict[str, object]] = []
    for room in range(down * across):
        for _ in range(objects_per_room):
            placed = _place(room, room_of, heights, kept, rng)
            if placed is None:
                continue
            category, where = placed
            heights[where] = FURNITURE[category][2]
            classes[where] = CLASSES.index(category)
            instances[where] = len(table)
            centre = [CELL * (s.start + s.stop) / 2 for s in where]
            table.append({"category": category, "room": names[room], "x": centre[1],
                          "z": centre[0], "height": FURNITURE[category][2]})  # fmt: skip
    objects = pd.DataFrame(table, columns=["category", "room", "x", "z", "height"])
    objects.insert(0, "name", invented_names(len(table), rng))
    colours = rng.permutation(np.resize(list(COLOURS), max(len(table), 1)))[: len(table)]
    objects.insert(2, "colour", colours)
    return House(classes, heights, instances, room_of, tuple(names), doors, objects)


def _doors(
    down: int, across: int, extra: float, rng: np.random.Generator
) -> tuple[tuple[int, int], ...]:
    """Neighbours that a door joins: a random tree, and some more."""
    pairs = [(i, i + 1) for i in range(down * across) if (i + 1) % across]
    pairs += [(i, i + across) for i in range((down - 1) * across)]
    group = list(range(down * across))
    chosen = []
    for index in rng.permutation(len(pairs)):
        a, b = pairs[index]
        if group[a] != group[b] or rng.random() < extra:
            chosen.append((a, b))
            group = [group[a] if g == group[b] else g for g in group]
    return tuple(sorted(chosen))


def _open(
    room_of: np.ndarray,
    kept: np.ndarray,
    a: int,
    b: int,
    across: int,
    pitch: int,
    width: int,
    rng: np.random.Generator,
) -> None:
    """Cut a door of two cells into the wall between two rooms."""
    top, left = a // across * pitch + 1, a % across * pitch + 1
    offset = int(rng.integers(0, width - 1))
    if b == a + 1:
        gap = np.s_[top + offset : top + offset + 2, left + width : left + width + 1]
        front = np.s_[top + offset : top + offset + 2, left + width - 1 : left + width + 2]
    else:
        gap = np.s_[top + width : top + width + 1, left + offset : left + offset + 2]
        front = np.s_[top + width - 1 : top + width + 2, left + offset : left + offset + 2]
    room_of[gap] = a
    kept[front] = True


def _place(
    room: int,
    room_of: np.ndarray,
    heights: np.ndarray,
    kept: np.ndarray,
    rng: np.random.Generator,
) -> tuple[str, tuple[slice, slice]] | None:
    """Find a place for a piece of furniture that cuts nothing off."""
    cells = np.argwhere((room_of == room) & (heights == 0) & ~kept)
    for _ in range(_TRIES):
        category = list(FURNITURE)[int(rng.integers(len(FURNITURE)))]
        size = FURNITURE[category][:2]
        tall, wide = size if rng.random() < 0.5 else size[::-1]
        row, column = cells[int(rng.integers(len(cells)))]
        where = np.s_[row : row + tall, column : column + wide]
        ok = (room_of[where] == room) & (heights[where] == 0) & ~kept[where]
        if ok.shape != (tall, wide) or not ok.all():
            continue
        free = heights == 0
        free[where] = False
        around = free[max(row - 1, 0) : row + tall + 1, max(column - 1, 0) : column + wide + 1]
        if ndimage.label(free)[1] == 1 and around.any():
            return category, where
    return None
