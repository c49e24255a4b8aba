"""A small room on a grid, in which an agent first watches and then goes to what is asked for.

The room of the ballet of Lampinen et al. (2021): 11 x 11 cells, walls included, with the agent in
its middle and up to eight things on cells around it. `GridRoom` has the interface of gymnasium,
which need not be installed, and leaves to each world what happens while the agent watches.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from engramma.errors import ConfigError, DataError

ROOM = 11
START = (5, 5)
PIXELS = 9
#: Row and column of the cells that things start on.
CELLS = ((2, 2), (2, 5), (2, 8), (5, 2), (5, 8), (8, 2), (8, 5), (8, 8))
#: The eight actions.
DIRECTIONS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
#: Change of row and column of each direction.
STEPS = np.array([(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)])

SHAPES = (
    "triangle",
    "empty_square",
    "plus",
    "inverse_plus",
    "ex",
    "inverse_ex",
    "circle",
    "empty_circle",
    "tee",
    "upside_down_tee",
    "h",
    "u",
    "upside_down_u",
    "vertical_stripes",
    "horizontal_stripes",
)
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
    "orange": (255, 165, 0),
    "yellow": (255, 255, 0),
    "brown": (128, 64, 0),
    "pink": (255, 64, 255),
    "cyan": (0, 255, 255),
    "dark_green": (0, 100, 0),
    "dark_red": (100, 0, 0),
    "dark_blue": (0, 0, 100),
    "olive": (100, 100, 0),
    "teal": (0, 100, 100),
    "lavender": (215, 200, 255),
    "peach": (255, 210, 170),
    "rose": (255, 205, 230),
    "light_green": (200, 255, 200),
    "light_yellow": (255, 255, 200),
}
WALL, AGENT = (40, 40, 40), (255, 255, 255)
_RGB = np.array(list(COLOURS.values())) / 255


@lru_cache(maxsize=len(SHAPES))
def shape_mask(shape: str) -> np.ndarray:
    """Pixels of a shape, 9 x 9, true where it is."""
    row, column = np.indices((PIXELS, PIXELS))
    half = PIXELS // 2
    radius = (row - half) ** 2 + (column - half) ** 2
    middle_row, middle_column = abs(row - half) <= 1, abs(column - half) <= 1
    sides = abs(column - half) >= 2
    plus = middle_row | middle_column
    ex = (abs(row - column) <= 1) | (abs(PIXELS - 1 - row - column) <= 1)
    masks = {
        "triangle": row >= 2 * abs(column - half),
        "empty_square": np.maximum(abs(row - half), abs(column - half)) >= half - 1,
        "plus": plus,
        "inverse_plus": ~plus,
        "ex": ex,
        "inverse_ex": ~ex,
        "circle": radius <= half**2,
        "empty_circle": abs(radius - half**2) < 6,
        "tee": middle_column | (row < 3),
        "upside_down_tee": middle_column | (row >= PIXELS - 3),
        "h": sides | middle_row,
        "u": sides | (row >= PIXELS - 3),
        "upside_down_u": sides | (row < 3),
        "vertical_stripes": column % 2 == 0,
        "horizontal_stripes": row % 2 == 0,
    }
    return masks[shape]


def coloured(mask: np.ndarray, colour: int) -> np.ndarray:
    """Picture of a cell, 9 x 9 x 3: a mask in one of the `COLOURS`, on black."""
    return mask[..., None] * _RGB[colour]


def some_of(rng: np.random.Generator, n: int, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw ``count`` of ``n`` indices without repetition, in each cell of an array."""
    return rng.random((*shape, n)).argsort(axis=-1)[..., :count]


def check_things(count: int) -> None:
    """Refuse more things than there are cells."""
    if not 1 <= count <= len(CELLS):
        raise ConfigError(f"there is room for 1 to {len(CELLS)} things, not {count}")


class GridRoom:
    """Base of worlds that are watched first and walked in afterwards.

    A subclass says what is on the stage (`places`), how it looks (`paint`, `symbols`), when the
    question is asked (`ask_frame`) and what the language says then.

    Parameters
    ----------
    max_steps : int
        Steps after which the episode is truncated.
    vision : {"pixels", "symbolic"}
    seed : int
        Of the first episode; later ones follow from it unless `reset` is given another.
    """

    metadata: Mapping[str, Any] = {"render_modes": ["rgb_array"]}
    #: All that the language can say; the first while the agent watches.
    language: tuple[str, ...]
    #: Numbers of one row of `symbols`.
    n_symbols: int

    def __init__(
        self, *, max_steps: int, vision: Literal["pixels", "symbolic"] = "pixels", seed: int = 0
    ) -> None:
        if vision not in ("pixels", "symbolic"):
            raise ConfigError(f"there is no vision {vision!r}", mend="say pixels or symbolic")
        if max_steps < 1:
            raise ConfigError(f"an episode of {max_steps} steps is none", where="max_steps")
        self.vision, self.max_steps = vision, max_steps
        self._rng = np.random.default_rng(seed)
        self._over = True

    # -- what a world implements -------------------------------------------------------------

    @property
    def ask_frame(self) -> int:
        """Observation in which the language asks; actions count from the next step on."""
        raise NotImplementedError

    def begin(self, options: Mapping[str, Any]) -> None:
        """Draw a new episode, or take it from the options of `reset`."""
        raise NotImplementedError

    def places(self) -> np.ndarray:
        """Row and column of all things now, thing x 2."""
        raise NotImplementedError

    def answer(self) -> tuple[int, int]:
        """Say which thing is asked for, and the index of what is said in `language`."""
        raise NotImplementedError

    def paint(self, room: np.ndarray) -> None:
        """Draw all things into the room, row x column x 9 x 9 x 3."""
        raise NotImplementedError

    def symbols(self) -> np.ndarray:
        """Say the same in numbers, float32, one row for each of the eight cells."""
        raise NotImplementedError

    # -- the interface of gymnasium ----------------------------------------------------------

    @property
    def observation_space(self) -> Any:
        """Spaces of gymnasium if it is installed, else shapes in a mapping."""
        pixels = self.vision == "pixels"
        name = "image" if pixels else "symbols"
        side = ROOM * PIXELS
        shape = (side, side, 3) if pixels else (len(CELLS), self.n_symbols)
        try:
            from gymnasium import spaces
        except ImportError:
            return {name: shape, "language": len(self.language)}
        bound = 1.0 if pixels else float(ROOM)
        box = spaces.Box(0.0 if pixels else -bound, bound, shape, np.float32)
        return spaces.Dict({name: box, "language": spaces.Discrete(len(self.language))})

    @property
    def action_space(self) -> Any:
        """`gymnasium.spaces.Discrete(8)` if it is installed, else 8."""
        try:
            from gymnasium import spaces
        except ImportError:
            return len(DIRECTIONS)
        return spaces.Discrete(len(DIRECTIONS))

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode.

        Returns
        -------
        observation : dict
            ``image`` (99 x 99 x 3, 0 ... 1) or ``symbols``, and ``language``, the index of what is
            said.
        info : dict
            ``language`` as text, ``frame``, and ``target``, which no agent may look at.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agent = np.array(START)
        self.frame, self._over = 0, False
        self.begin(options or {})
        return self._observe(), self._info()

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move in one of eight `DIRECTIONS`; without effect until the question has been heard.

        Returns
        -------
        observation, reward, terminated, truncated, info
            The episode ends when something is touched, with reward 1 if it is what was asked for.
        """
        if self._over:
            raise DataError("the episode is over", where=type(self).__name__, mend="reset it")
        if not 0 <= int(action) < len(DIRECTIONS):
            raise DataError(f"there is no action {action}", mend="say 0 (north) to 7 (north-west)")
        may_move = self.asks
        self.frame += 1
        touched = np.zeros(0, dtype=int)
        if may_move:
            goal = self.agent + STEPS[int(action)]
            if (goal > 0).all() and (goal < ROOM - 1).all():
                self.agent = goal
            touched = np.flatnonzero((self.places() == self.agent).all(axis=1))
        terminated = len(touched) > 0
        truncated = not terminated and self.frame >= self.max_steps
        self._over = terminated or truncated
        reward = float(self.answer()[0] in touched)
        return self._observe(), reward, terminated, truncated, self._info()

    def render(self) -> np.ndarray:
        """Show the 11 x 11 cells around the agent, black beyond the walls."""
        board = np.zeros((3 * ROOM, 3 * ROOM, PIXELS, PIXELS, 3), dtype=np.float32)
        room = board[ROOM : 2 * ROOM, ROOM : 2 * ROOM]
        room[[0, -1]] = room[:, [0, -1]] = np.divide(WALL, 255)
        room[tuple(self.agent)] = np.divide(AGENT, 255)
        self.paint(room)
        row, column = ROOM + self.agent - ROOM // 2
        view = board[row : row + ROOM, column : column + ROOM]
        return view.transpose(0, 2, 1, 3, 4).reshape(ROOM * PIXELS, ROOM * PIXELS, 3)

    @property
    def asks(self) -> bool:
        """Whether the question has been asked."""
        return self.frame >= self.ask_frame

    def _said(self) -> int:
        return self.answer()[1] if self.asks else 0

    def _observe(self) -> dict[str, Any]:
        if self.vision == "pixels":
            return {"image": self.render(), "language": self._said()}
        return {"symbols": self.symbols(), "language": self._said()}

    def _info(self) -> dict[str, Any]:
        said = self.language[self._said()]
        return {"language": said, "frame": self.frame, "target": self.answer()[0]}
