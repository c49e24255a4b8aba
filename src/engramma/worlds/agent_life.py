"""The life of an agent in a house: what it did, saw, heard, and put where.

The agent walks from one piece of furniture to another and looks at each for a while; at some it
hears a sound, in some it puts an item. Each such stay is an event; between events it walks, in
silence. From this one truth come views and poses (`engramma.worlds.ray_casting`), streams of
features (`engramma.worlds.life_streams`), triples over time (`AgentLife.triples`), dialogue
(`engramma.worlds.life_dialogue`), and questions (`engramma.worlds.life_questions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import breadth_first_order
from sklearn.feature_extraction.image import grid_to_graph

from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.house import CELL, House, make_house
from engramma.worlds.ray_casting import EYE, Views, render
from engramma.worlds.tables import rows

SOUNDS = ("bell", "rain", "music", "clock", "whistle", "laughter", "thunder", "engine")
ITEMS = ("key", "letter", "coin", "ring", "lamp", "map")
#: One cell is walked a frame.
FRAME_RATE = 2.0
#: Distance from which things are looked at, in metres.
VIEWING = 1.5


@dataclass(frozen=True, eq=False)
class AgentLife:
    """A life, frame by frame and event by event.

    Parameters
    ----------
    house : House
    frames : DataFrame
        A row each: ``time`` in seconds, ``x``, ``y``, ``z`` and ``heading`` of the camera,
        ``room``, ``event`` (-1 between events), ``sound`` (empty in silence), ``day``.
    events : DataFrame
        A row each: ``start`` and ``stop`` in seconds, ``object`` (row of the house's objects),
        ``name``, ``room``, ``sound``, ``item`` (that is put there; both may be empty), ``day``,
        and ``look_alike``: the latest earlier event that had the same object and another sound,
        or the same sound and another object; else -1.
    """

    house: House
    frames: pd.DataFrame
    events: pd.DataFrame

    @property
    def boundaries(self) -> np.ndarray:
        """Seconds at which events start and stop, sorted."""
        return np.unique(self.events[["start", "stop"]].to_numpy())

    @property
    def duration(self) -> float:
        """In seconds."""
        return len(self.frames) / FRAME_RATE

    def views(self, frames: slice | np.ndarray, **options: object) -> Views:
        """Render what the agent sees; options are those of `render`."""
        chosen = self.frames.iloc[frames]
        return render(self.house, chosen[["x", "y", "z"]].to_numpy(),
                      chosen["heading"].to_numpy(), **options)  # type: ignore[arg-type]  # fmt: skip

    def triples(self) -> pd.DataFrame:
        """Say all that is true as subject, predicate, object, from ``start`` to ``stop``.

        Returns
        -------
        DataFrame
            Objects are called by their invented names. What is true throughout runs from 0 to
            infinity, and so does what stays true to the end. Sorted by ``start``.
        """
        found: list[tuple[str, str, str, float, float]] = []
        for o in rows(self.house.objects):
            for predicate, value in (("is a", o.category), ("has colour", o.colour),
                                     ("is in", o.room)):  # fmt: skip
                found.append((o.name, predicate, value, 0.0, np.inf))
        rooms = self.frames["room"].to_numpy()
        starts = np.flatnonzero(np.r_[True, rooms[1:] != rooms[:-1]])
        times = np.r_[self.frames["time"].to_numpy()[starts], self.duration]
        found += [
            ("agent", "is in", rooms[i], float(times[k]), float(times[k + 1]))
            for k, i in enumerate(starts)
        ]
        for e in rows(self.events):
            found.append(("agent", "looks at", e.name, e.start, e.stop))
            if e.sound:
                found.append(("agent", "hears", e.sound, e.start, e.stop))
        for item, group in self.events[self.events["item"] != ""].groupby("item"):
            since = [*group["stop"], np.inf]
            found += [
                (str(item), "is kept in", name, since[k], since[k + 1])
                for k, name in enumerate(group["name"])
            ]
        table = pd.DataFrame(found, columns=["subject", "predicate", "object", "start", "stop"])
        return table.sort_values("start", kind="stable", ignore_index=True)


@world("agent-life")
def agent_life(
    seed: int = 0,
    *,
    n_events: int = 40,
    n_days: int = 5,
    rooms: tuple[int, int] = (2, 3),
    objects_per_room: int = 3,
    dwell: tuple[float, float] = (4.0, 12.0),
    gap: float = 2.0,
    unevenness: float = 0.0,
    sound_rate: float = 0.7,
    item_rate: float = 0.4,
    look_alike_rate: float = 0.2,
) -> AgentLife:
    """Let an agent live in a house.

    Parameters
    ----------
    seed : int
        Of the house and of what happens.
    n_events, n_days : int
        Events are spread evenly over the days.
    rooms : tuple of int
        Rows and columns of rooms.
    objects_per_room : int
    dwell : tuple of float
        Shortest and longest event, in seconds.
    gap : float
        Seconds of silence in which the agent stands still after each event, before it walks on.
    unevenness : float
        The n-th of the rooms (in random order) is visited with a weight of n to the power of
        minus this: at 0 all alike, at 2 mostly one.
    sound_rate, item_rate : float
        Share of events with a sound, and with an item that is put there.
    look_alike_rate : float
        How often an event repeats the object of an earlier one with another sound, or its sound
        at another object. At 0 some do so by chance; ``events["look_alike"]`` has them all.

    Raises
    ------
    ConfigError
        If a number is out of range, or there is no furniture to look at.
    """
    rates = {"sound_rate": sound_rate, "item_rate": item_rate, "look_alike_rate": look_alike_rate}
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ConfigError(f"a rate lies between 0 and 1, not at {rate}", where=name)
    if n_events < 1 or not 1 <= n_days <= n_events:
        raise ConfigError(f"{n_events} events cannot be spread over {n_days} days",
                          where="n_events, n_days")  # fmt: skip
    if not 1 / FRAME_RATE <= dwell[0] <= dwell[1] or gap < 0 or unevenness < 0:
        raise ConfigError(
            f"an agent cannot stay for {dwell[0]} to {dwell[1]} seconds, with gaps of {gap}",
            where="dwell, gap", mend=f"events last {1 / FRAME_RATE} s at least",
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    house = make_house(rng, rooms=rooms, objects_per_room=objects_per_room)
    if len(house.objects) < 2:
        raise ConfigError("an agent needs two things to look at", where="objects_per_room",
                          mend="furnish the house")  # fmt: skip
    plan = _plan(house, rng, n_events, unevenness, sound_rate, item_rate, look_alike_rate)
    plan["day"] = np.arange(n_events) * n_days // n_events
    seconds = rng.uniform(*dwell, n_events)
    frames, spans = _walk_and_stay(house, plan, seconds, gap)
    plan.insert(0, "start", spans[:, 0])
    plan.insert(1, "stop", spans[:, 1])
    return AgentLife(house, frames, plan)


def _plan(
    house: House,
    rng: np.random.Generator,
    n_events: int,
    unevenness: float,
    sound_rate: float,
    item_rate: float,
    look_alike_rate: float,
) -> pd.DataFrame:
    """Objects, sounds and items of all events."""
    rank = rng.permutation(len(house.rooms)) + 1.0
    weight = dict(zip(house.rooms, rank**-unevenness, strict=True))
    chance = np.array([weight[room] for room in house.objects["room"]])
    chosen: list[tuple[int, str]] = []
    alike = []
    for _ in range(n_events):
        last = chosen[-1][0] if chosen else -1
        p = np.where(np.arange(len(chance)) == last, 0, chance)  # the agent always goes on
        thing = int(rng.choice(len(p), p=p / p.sum()))
        sound = SOUNDS[int(rng.integers(len(SOUNDS)))] if rng.random() < sound_rate else ""
        if chosen and rng.random() < look_alike_rate:
            earlier = chosen[int(rng.integers(len(chosen)))]
            if rng.random() < 0.5 and earlier[1]:
                sound = earlier[1]
            elif earlier[0] != last:
                thing = earlier[0]
        similar = [i for i, (t, s) in enumerate(chosen)
                   if s and sound and (t == thing) != (s == sound)]  # fmt: skip
        alike.append(similar[-1] if similar else -1)
        chosen.append((thing, sound))
    put = rng.random(n_events) < item_rate
    items = np.where(put, rng.choice(ITEMS, n_events), "")
    objects = house.objects.iloc[[thing for thing, _ in chosen]]
    return pd.DataFrame(
        {
            "object": [thing for thing, _ in chosen],
            "name": objects["name"].to_numpy(),
            "room": objects["room"].to_numpy(),
            "sound": [sound for _, sound in chosen],
            "item": items,
            "look_alike": alike,
        }
    )


def _walk_and_stay(
    house: House, plan: pd.DataFrame, seconds: np.ndarray, gap: float
) -> tuple[pd.DataFrame, np.ndarray]:
    """Frames of the whole life, and start and stop of each event in seconds."""
    free = np.argwhere(house.free)
    graph = grid_to_graph(*house.free.shape, mask=house.free).tocsr()
    stands = [_before(house, free, int(i)) for i in range(len(house.objects))]
    at = stands[int(plan["object"].iloc[-1])]
    where: list[int] = []  # free cell of each frame
    heading: list[float] = []
    event: list[int] = []
    spans = []
    for number, (thing, stay) in enumerate(zip(plan["object"], seconds, strict=True)):
        path = _path(graph, at, stands[thing])
        for a, b in pairwise(path):
            where.append(b)
            heading.append(_towards(free[a], free[b]))
            event.append(-1)
        at = stands[thing]
        n_stay, n_gap = max(1, round(stay * FRAME_RATE)), round(gap * FRAME_RATE)
        target = house.objects.iloc[thing]
        look = _towards(free[at] + 0.5, np.array([target["z"], target["x"]]) / CELL)
        spans.append((len(where) / FRAME_RATE, (len(where) + n_stay) / FRAME_RATE))
        where += [at] * (n_stay + n_gap)
        heading += [look] * (n_stay + n_gap)
        event += [number] * n_stay + [-1] * n_gap
    cells = free[where]
    numbers = np.array(event)
    sound = np.where(numbers >= 0, plan["sound"].to_numpy()[numbers], "")
    # Frames between events belong to the day of the event before them.
    latest = np.maximum.accumulate(np.where(numbers >= 0, numbers, 0))
    frames = pd.DataFrame(
        {
            "time": np.arange(len(cells)) / FRAME_RATE,
            "x": (cells[:, 1] + 0.5) * CELL,
            "y": EYE,
            "z": (cells[:, 0] + 0.5) * CELL,
            "heading": heading,
            "room": np.array(house.rooms)[house.room_of[cells[:, 0], cells[:, 1]]],
            "event": numbers,
            "sound": sound,
            "day": plan["day"].to_numpy()[latest],
        }
    )
    return frames, np.array(spans)


def _before(house: House, free: np.ndarray, thing: int) -> int:
    """Free cell of the same room from which a piece of furniture is seen best.

    It is about `VIEWING` away, with nothing in between where there is such a cell.
    """
    target = house.objects.iloc[thing]
    row, column = house.cell_of(target["x"], target["z"])
    centre = np.array([target["z"], target["x"]]) / CELL
    offset = centre - (free + 0.5)
    misfit = np.abs(np.linalg.norm(offset, axis=1) - VIEWING / CELL)
    steps = np.linspace(0, 1, 16)[:, None, None]
    between = np.floor(free + 0.5 + steps * offset).astype(int)
    heights, instances = (
        a[between[..., 0], between[..., 1]] for a in (house.heights, house.instances)
    )
    misfit[((heights > 0) & (instances != thing)).any(axis=0)] += sum(house.classes.shape)
    misfit[house.room_of[free[:, 0], free[:, 1]] != house.room_of[row, column]] = np.inf
    return int(misfit.argmin())


def _path(graph: object, start: int, goal: int) -> list[int]:
    """Shortest way over free cells, both ends included."""
    _, before = breadth_first_order(graph, start)
    path = [goal]
    while path[-1] != start:
        path.append(int(before[path[-1]]))
    return path[::-1]


def _towards(a: np.ndarray, b: np.ndarray) -> float:
    """Heading from one place to another (row, column): 0 is north, growing to the west."""
    return float(np.arctan2(a[1] - b[1], a[0] - b[0]))
