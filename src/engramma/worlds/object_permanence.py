r"""Object permanence: see objects jump out of boxes, then go to the box that hides one of them.

After the task of Lampinen et al. (2021, arXiv:2105.14039, section 4.2), which plays in a room in
Unity that was not released. The agent is held in place while objects, each hidden in a box of its
own, jump out and fall back, one at a time, with pauses. Then the boxes are closed, a question
names an object, and the agent is free to go to a box: reward 1 for the one that hides the object.

What is simplified: the room is that of `engramma.worlds.grid_room`, seen from above as the ballet
is; a jump takes four steps (half out, out, out, half out), in which the object is drawn over its
box and then in the cell above it; shapes stand for everyday objects; numbers of objects, pauses,
and boxes that change places after they were closed are options of this module, the paper's exact
schedule being unpublished.

Time (n objects, pause d, m exchanges): object j jumps in the observations :math:`j(4+d)` to
:math:`j(4+d)+3`; the boxes close when the last pause begins; exchanges take one step each after
that pause; observation :math:`n(4+d)+m` has the question.

A level is named ``{2,4,8}_delay{0,16,48}``. `ObjectPermanence` has the interface of gymnasium;
`hide` draws many episodes at once, in symbols and without the walk, for supervised training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.worlds.episodes import Episodes
from engramma.worlds.grid_room import (
    CELLS,
    COLOURS,
    PIXELS,
    SHAPES,
    GridRoom,
    check_things,
    coloured,
    shape_mask,
    some_of,
)

#: How far the object is out of its box, step by step: 1 is half out, 2 is out.
JUMP = (1, 2, 2, 1)
LANGUAGE = ("watch", *SHAPES)
LEVELS = tuple(f"{n}_delay{delay}" for delay in (0, 16, 48) for n in (2, 4, 8))


def level_options(name: str) -> tuple[int, int]:
    """Take the number of objects and the pause out of a level's name, ``4_delay16``.

    Raises
    ------
    ConfigError
        If the name is another.
    """
    if name not in LEVELS:
        raise ConfigError(f"there is no level {name!r}", mend=f"say one of {', '.join(LEVELS)}")
    objects, delay = name.split("_delay")
    return int(objects), int(delay)


def question_frame(n_objects: int, delay: int, exchanges: int = 0) -> int:
    """Observation in which the language names an object."""
    return n_objects * (len(JUMP) + delay) + exchanges


def _check(n_objects: int, delay: int, exchanges: int = 0) -> None:
    check_things(n_objects)
    if delay < 0 or exchanges < 0:
        raise ConfigError(f"pauses and exchanges are not negative: {delay}, {exchanges}")
    if exchanges and n_objects < 2:
        raise ConfigError("one box has no other to change places with", where="exchanges")


@dataclass(frozen=True)
class Hiding:
    """What is hidden where, in the order of the jumps: indices into the lists of this module.

    Parameters
    ----------
    cells, objects, boxes : ndarray of int, shape (..., object)
        Where the box is at first; the shape of the object; the colour of the box.
    target : ndarray of int, shape (...)
        The object that is asked for.
    swaps : ndarray of int, shape (..., exchange, 2)
        Which boxes change places.
    """

    cells: np.ndarray
    objects: np.ndarray
    boxes: np.ndarray
    target: np.ndarray
    swaps: np.ndarray

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        n_objects: int,
        exchanges: int = 0,
        shape: tuple[int, ...] = (),
    ) -> Hiding:
        """Draw episodes, each independently."""
        counts = (len(CELLS), len(SHAPES), len(COLOURS))
        cells, objects, boxes = (some_of(rng, n, n_objects, shape) for n in counts)
        target = np.asarray(rng.integers(n_objects, size=shape))
        swaps = some_of(rng, n_objects, 2, (*shape, exchanges))
        return cls(cells, objects, boxes, target, swaps)


class ObjectPermanence(GridRoom):
    """The environment, with the interface of gymnasium.

    Parameters
    ----------
    level : str
        One of `LEVELS`; the next two override it.
    n_objects : int, optional
        One to eight, each in its box.
    delay : int, optional
        Steps between the end of a jump and the next.
    exchanges : int
        Pairs of closed boxes that change places, in view of the agent.
    max_steps : int, optional
        Steps after which the episode is truncated; by default 200 more than there are to watch.
    vision : {"pixels", "symbolic"}
    seed : int
        Of the first episode; later ones follow from it unless `reset` is given another.
    """

    language = LANGUAGE
    n_symbols = 2 + len(COLOURS) + 2 + len(SHAPES)

    def __init__(
        self,
        level: str = "4_delay16",
        *,
        n_objects: int | None = None,
        delay: int | None = None,
        exchanges: int = 0,
        max_steps: int | None = None,
        vision: Literal["pixels", "symbolic"] = "pixels",
        seed: int = 0,
    ) -> None:
        of_level = level_options(level)
        self.n_objects = of_level[0] if n_objects is None else n_objects
        self.delay = of_level[1] if delay is None else delay
        self.exchanges = exchanges
        _check(self.n_objects, self.delay, exchanges)
        if max_steps is None:
            max_steps = self.ask_frame + 200
        super().__init__(max_steps=max_steps, vision=vision, seed=seed)

    @property
    def ask_frame(self) -> int:
        """Observation in which the language names an object."""
        return question_frame(self.n_objects, self.delay, self.exchanges)

    @property
    def closed(self) -> bool:
        """Whether the boxes are closed: from the end of the last jump."""
        return self.frame >= question_frame(self.n_objects, self.delay) - self.delay

    def begin(self, options: Mapping[str, Any]) -> None:
        """Hide objects, or take ``options["hiding"]``."""
        hiding = options.get("hiding")
        if hiding is None:
            hiding = Hiding.draw(self._rng, self.n_objects, self.exchanges)
        self.hiding: Hiding = hiding
        has = (hiding.cells.shape, hiding.swaps.shape)
        if has != ((self.n_objects,), (self.exchanges, 2)):
            raise DataError(
                f"cells and swaps have shapes {has}, where {self.n_objects} objects and "
                f"{self.exchanges} exchanges are needed",
                where="options['hiding']",
            )

    def answer(self) -> tuple[int, int]:
        """Say which box is asked for, and the name of the object in it."""
        target = int(self.hiding.target)
        return target, 1 + int(self.hiding.objects[target])

    def places(self) -> np.ndarray:
        """Row and column of each box now, in the order of the jumps."""
        places = np.array(CELLS)[self.hiding.cells]
        done = self.frame + 1 - question_frame(self.n_objects, self.delay)
        for swap in self.hiding.swaps[: max(done, 0)]:
            places[swap] = places[swap[::-1]]
        return places

    def jumping(self) -> tuple[int, int] | None:
        """Which object is out of its box, and how far (1 or 2); None in the pauses."""
        turn, step = divmod(self.frame, len(JUMP) + self.delay)
        return (turn, JUMP[step]) if turn < self.n_objects and step < len(JUMP) else None

    def paint(self, room: np.ndarray) -> None:
        """Boxes are open at the top or full; the object is white."""
        places = self.places()
        box = np.ones((PIXELS, PIXELS), dtype=bool) if self.closed else shape_mask("u")
        for place, colour in zip(places, self.hiding.boxes, strict=True):
            room[tuple(place)] = coloured(box, colour)
        out = self.jumping()
        if out is not None:
            thing, height = out
            row, column = places[thing]
            mask = shape_mask(SHAPES[self.hiding.objects[thing]])[..., None]
            above, inside = room[row - 1, column], room[row, column]
            if height == 2:
                above[:] = mask
            else:
                half = PIXELS // 2
                above[-half:], inside[: PIXELS - half] = mask[:half], mask[half:]

    def symbols(self) -> np.ndarray:
        """One row a cell where a box began: dx, dy, colour; closed, height, object in view."""
        rows = np.zeros((len(CELLS), self.n_symbols), dtype=np.float32)
        cells, n = self.hiding.cells, len(COLOURS)
        rows[cells, :2] = (self.places() - self.agent)[:, ::-1]
        rows[cells, 2 + self.hiding.boxes] = 1
        rows[cells, 2 + n] = self.closed
        out = self.jumping()
        if out is not None:
            thing, height = out
            rows[cells[thing], 3 + n] = height / 2
            rows[cells[thing], 4 + n + self.hiding.objects[thing]] = 1
        return rows


# -- many episodes at once -----------------------------------------------------------------

#: Features of a step of `hide`: height (half out, out), object, box, language.
N_FEATURES = 2 + len(SHAPES) + len(COLOURS) + len(LANGUAGE)


def hide(
    rng: np.random.Generator,
    n_episodes: int,
    *,
    n_objects: int = 4,
    delay: int = 16,
    questions: int = 1,
) -> Episodes:
    """Draw episodes in symbols, and ask which box (which colour) hides an object.

    A step shows the object that is out, how far, and the colour of its box; nothing in the pauses;
    and what the language says. All are one-hot. Boxes are told by their colours, so that it does
    not matter whether they change places.

    Parameters
    ----------
    rng : numpy Generator
    n_episodes : int
    n_objects, delay : int
        As in the levels.
    questions : int
        Objects named at the end, one a step, none twice; the first is the level's.

    Returns
    -------
    Episodes
        Of `question_frame` + ``questions`` steps; answers are indices into `COLOURS`.
    """
    _check(n_objects, delay)
    if not 1 <= questions <= n_objects:
        raise ConfigError(f"{n_objects} objects allow 1 to {n_objects} questions, not {questions}")
    hiding = Hiding.draw(rng, n_objects, shape=(n_episodes,))
    first = np.arange(n_objects) == hiding.target[:, None]
    asked = np.where(first, -1, rng.random(first.shape)).argsort(axis=1)[:, :questions]
    ask = question_frame(n_objects, delay)
    inputs = np.zeros((n_episodes, ask + questions, N_FEATURES), dtype=np.float32)
    height, thing, box, language = np.split(
        inputs, np.cumsum([2, len(SHAPES), len(COLOURS)]), axis=2
    )
    each = np.arange(n_episodes)
    for j in range(n_objects):
        turn = slice(j * (len(JUMP) + delay), j * (len(JUMP) + delay) + len(JUMP))
        height[:, turn] = np.eye(2, dtype=np.float32)[np.array(JUMP) - 1]
        thing[each, turn, hiding.objects[:, j]] = 1
        box[each, turn, hiding.boxes[:, j]] = 1
    said = np.zeros(inputs.shape[:2], dtype=np.int64)
    said[:, ask:] = 1 + np.take_along_axis(hiding.objects, asked, axis=1)
    language[:] = np.eye(len(LANGUAGE), dtype=np.float32)[said]
    return Episodes(inputs, hiding.boxes, asked, len(COLOURS))
