r"""Ballet: watch dancers perform one after the other, then go to the one whose dance is named.

The world of Lampinen et al. (2021, arXiv:2105.14039, section 4.1), as in the authors'
``ballet_environment.py``. In the room of `engramma.worlds.grid_room`, two, four or eight dancers,
alike in neither shape nor colour, stand on some of eight cells around the agent. Each dances a
dance of 16 moves, no two the same, with a pause between, while the agent can only watch. Then the
language, so far "watch", names one of the dances; the agent moves in eight directions, and the
episode ends when it touches a dancer: reward 1 for the right one, 0 else.

Time (n dancers, pause d): dance j fills the observations :math:`j(15+d)` to :math:`j(15+d)+15`; the
first observation shows the first move already, as observation :math:`n(15+d)` has the question.
Actions count from the next step on. An episode is cut off after 320 steps for d = 16, else 1024.

A level is named ``{2,4,8}_delay{16,48}``. The agent sees 11 x 11 cells around itself, 9 x 9 pixels
each (99 x 99 x 3, 0 ... 1), or, with ``vision="symbolic"``, one row for each of the eight cells:
(dx, dy) from the agent to the dancer that started there, its shape and its colour.

`Ballet` has the interface of gymnasium. `watch` draws many episodes at once, in symbols and
without the walk, for supervised training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.worlds.episodes import Episodes
from engramma.worlds.grid_room import (
    CELLS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    STEPS,
    GridRoom,
    check_things,
    coloured,
    shape_mask,
    some_of,
)

DANCES: Mapping[str, tuple[str, ...]] = {
    name: tuple(moves.split())
    for name, moves in {
        "circle_cw": "N E S S W W N N E E S S W W N E",
        "circle_ccw": "N W S S E E N N W W S S E E N W",
        "up_and_down": "N S S N N S S N N S S N N S S N",
        "left_and_right": "E W W E E W W E E W W E E W W E",
        "diagonal_uldr": "NW SE SE NW NW SE SE NW NW SE SE NW NW SE SE NW",
        "diagonal_urdl": "NE SW SW NE NE SW SW NE NE SW SW NE NE SW SW NE",
        "plus_cw": "N S E W S N W E N S E W S N W E",
        "plus_ccw": "N S W E S N E W N S W E S N E W",
        "times_cw": "NE SW SE NW SW NE NW SE NE SW SE NW SW NE NW SE",
        "times_ccw": "NW SE SW NE SE NW NE SW NW SE SW NE SE NW NE SW",
        "zee": "NE W W E E SW NE SW SW E E W W NE SW NE",
        "chevron_down": "NW S SE NE N SW NE SW NE S SW NW N SE NW SE",
        "chevron_up": "SE N NW SW S NE SW NE SW N NE SE S NW SE NW",
    }.items()
}
DANCE_STEPS = 16
#: All that the language can say: to watch, and then a dance.
LANGUAGE = ("watch", *DANCES)
LEVELS = tuple(f"{n}_delay{delay}" for delay in (16, 48) for n in (2, 4, 8))


@lru_cache(maxsize=1)
def trajectories() -> np.ndarray:
    """Where each dance stands after each move: dance x move x (row, column), from its cell."""
    moves = [[DIRECTIONS.index(move) for move in dance] for dance in DANCES.values()]
    return STEPS[np.array(moves)].cumsum(axis=1)


def level_options(name: str) -> tuple[int, int]:
    """Take the number of dancers and the pause out of a level's name, ``4_delay16``.

    Raises
    ------
    ConfigError
        If the name is another.
    """
    if name not in LEVELS:
        raise ConfigError(f"there is no level {name!r}", mend=f"say one of {', '.join(LEVELS)}")
    dancers, delay = name.split("_delay")
    return int(dancers), int(delay)


def choice_frame(n_dancers: int, delay: int) -> int:
    """Observation in which the language names a dance."""
    return n_dancers * (DANCE_STEPS - 1 + delay)


def _check(n_dancers: int, delay: int) -> None:
    check_things(n_dancers)
    if delay < 1:
        raise ConfigError(f"the pause lasts at least 1 step, not {delay}", where="delay")


@dataclass(frozen=True)
class Cast:
    """Who dances what, in the order of the dances: indices into the lists of this module.

    Parameters
    ----------
    cells, dances, shapes, colours : ndarray of int, shape (..., dancer)
        No number twice in a row of any of them.
    target : ndarray of int, shape (...)
        The dancer whose dance is named.
    """

    cells: np.ndarray
    dances: np.ndarray
    shapes: np.ndarray
    colours: np.ndarray
    target: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, n_dancers: int, shape: tuple[int, ...] = ()) -> Cast:
        """Draw casts, each independently."""
        counts = (len(CELLS), len(DANCES), len(SHAPES), len(COLOURS))
        cells, dances, shapes, colours = (some_of(rng, n, n_dancers, shape) for n in counts)
        target = np.asarray(rng.integers(n_dancers, size=shape))
        return cls(cells, dances, shapes, colours, target)


class Ballet(GridRoom):
    """The environment, with the interface of gymnasium.

    Parameters
    ----------
    level : str
        One of `LEVELS`; the next three override it.
    n_dancers : int, optional
        One to eight.
    delay : int, optional
        Steps between the last move of a dance and the first of the next.
    max_steps : int, optional
        Steps after which the episode is truncated.
    vision : {"pixels", "symbolic"}
    seed : int
        Of the first episode; later ones follow from it unless `reset` is given another.
    """

    language = LANGUAGE
    n_symbols = 2 + len(SHAPES) + len(COLOURS)

    def __init__(
        self,
        level: str = "4_delay16",
        *,
        n_dancers: int | None = None,
        delay: int | None = None,
        max_steps: int | None = None,
        vision: Literal["pixels", "symbolic"] = "pixels",
        seed: int = 0,
    ) -> None:
        of_level = level_options(level)
        self.n_dancers = of_level[0] if n_dancers is None else n_dancers
        self.delay = of_level[1] if delay is None else delay
        _check(self.n_dancers, self.delay)
        if max_steps is None:
            max_steps = 320 if self.delay == 16 else 1024
        super().__init__(max_steps=max_steps, vision=vision, seed=seed)

    @property
    def ask_frame(self) -> int:
        """Observation in which the language names a dance."""
        return choice_frame(self.n_dancers, self.delay)

    def begin(self, options: Mapping[str, Any]) -> None:
        """Draw a cast, or take ``options["cast"]``."""
        cast = options.get("cast")
        self.cast: Cast = Cast.draw(self._rng, self.n_dancers) if cast is None else cast
        if self.cast.cells.shape != (self.n_dancers,):
            raise DataError(
                f"the cast has shape {self.cast.cells.shape}, where {self.n_dancers} dancers are "
                "needed",
                where="options['cast']",
            )

    def answer(self) -> tuple[int, int]:
        """Say which dancer is asked for, and the name of its dance."""
        target = int(self.cast.target)
        return target, 1 + int(self.cast.dances[target])

    def places(self) -> np.ndarray:
        """Row and column of each dancer now, in the order of the dances."""
        begin = np.arange(self.n_dancers) * (DANCE_STEPS - 1 + self.delay)
        moves = np.clip(self.frame - begin + 1, 0, DANCE_STEPS)
        path = trajectories()[self.cast.dances, np.maximum(moves - 1, 0)]
        return np.array(CELLS)[self.cast.cells] + np.where(moves[:, None] > 0, path, 0)

    def paint(self, room: np.ndarray) -> None:
        """Draw each dancer where it stands, over the agent too."""
        dancers = zip(self.places(), self.cast.shapes, self.cast.colours, strict=True)
        for place, shape, colour in dancers:
            room[tuple(place)] = coloured(shape_mask(SHAPES[shape]), colour)

    def symbols(self) -> np.ndarray:
        """One row a cell: dx (to the right) and dy (down) from the agent, shape, colour."""
        rows = np.zeros((len(CELLS), self.n_symbols), dtype=np.float32)
        rows[self.cast.cells, :2] = (self.places() - self.agent)[:, ::-1]
        rows[self.cast.cells, 2 + self.cast.shapes] = 1
        rows[self.cast.cells, 2 + len(SHAPES) + self.cast.colours] = 1
        return rows


# -- many episodes at once -----------------------------------------------------------------

#: Features of a step of `watch`: where the dancer is (3 x 3), its shape and colour, the language.
N_FEATURES = 9 + len(SHAPES) + len(COLOURS) + len(LANGUAGE)


def watch(
    rng: np.random.Generator,
    n_episodes: int,
    *,
    n_dancers: int = 4,
    delay: int = 16,
    questions: int = 1,
    cast: Cast | None = None,
) -> Episodes:
    """Draw episodes in symbols, and ask which dancer (which shape) danced a dance.

    A step shows the dancer whose turn it is: which of the 3 x 3 cells around its own it is in
    (dx, dy), its shape and its colour; nothing in the pauses; and what the language says. All are
    one-hot. The first question is the level's.

    Parameters
    ----------
    rng : numpy Generator
    n_episodes : int
    n_dancers, delay : int
        As in the levels.
    questions : int
        Dances named at the end, one a step, no dance twice. One in the levels; as many as there
        are dancers make the most of an episode in training.
    cast : Cast, optional
        Who dances what, in each episode; drawn by default.

    Returns
    -------
    Episodes
        Of `choice_frame` + ``questions`` steps; answers are indices into `SHAPES`.
    """
    _check(n_dancers, delay)
    if not 1 <= questions <= n_dancers:
        raise ConfigError(f"{n_dancers} dancers allow 1 to {n_dancers} questions, not {questions}")
    cast = Cast.draw(rng, n_dancers, (n_episodes,)) if cast is None else cast
    first = np.arange(n_dancers) == cast.target[:, None]
    asked = np.where(first, -1, rng.random(first.shape)).argsort(axis=1)[:, :questions]
    ask = choice_frame(n_dancers, delay)
    inputs = np.zeros((n_episodes, ask + questions, N_FEATURES), dtype=np.float32)
    place, shape, colour, language = np.split(
        inputs, np.cumsum([9, len(SHAPES), len(COLOURS)]), axis=2
    )
    path = trajectories() + 1
    path = np.eye(9, dtype=np.float32)[3 * path[..., 0] + path[..., 1]]
    each = np.arange(n_episodes)
    for j in range(n_dancers):
        begin = j * (DANCE_STEPS - 1 + delay)
        turn = slice(begin, begin + DANCE_STEPS)
        place[:, turn] = path[cast.dances[:, j]]
        shape[each, turn, cast.shapes[:, j]] = 1
        colour[each, turn, cast.colours[:, j]] = 1
    said = np.zeros(inputs.shape[:2], dtype=np.int64)
    said[:, ask:] = 1 + np.take_along_axis(cast.dances, asked, axis=1)
    language[:] = np.eye(len(LANGUAGE), dtype=np.float32)[said]
    return Episodes(inputs, cast.shapes, asked, len(SHAPES))
