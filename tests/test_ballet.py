"""The ballet, against its authors' environment: tables, frames, pixels, rewards, caps."""

import hashlib
import json

import numpy as np
import pytest

from engramma.errors import ConfigError, DataError
from engramma.worlds.ballet import (
    CELLS,
    DANCES,
    LANGUAGE,
    LEVELS,
    Ballet,
    Cast,
    choice_frame,
    trajectories,
    watch,
)
from engramma.worlds.grid_room import COLOURS, DIRECTIONS, ROOM, SHAPES, STEPS, shape_mask


def test_there_are_13_dances_of_16_moves_that_end_where_they_began_or_near():
    assert len(DANCES) == 13
    assert {len(dance) for dance in DANCES.values()} == {16}
    assert len(set(DANCES.values())) == 13
    paths = trajectories()
    assert paths.shape == (13, 16, 2)
    assert np.abs(paths).max() == 1, "a dancer stays in the 3 x 3 cells around its own"


def test_known_dances():
    assert DANCES["circle_cw"][:8] == ("N", "E", "S", "S", "W", "W", "N", "N")
    circle = trajectories()[list(DANCES).index("circle_cw")][:8]
    expected = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
    assert [tuple(p) for p in circle.tolist()] == expected
    mirrored = {"E": "W", "W": "E", "N": "N", "S": "S"}
    assert tuple(mirrored[m] for m in DANCES["circle_cw"]) == DANCES["circle_ccw"]


def test_tables_are_those_of_the_authors():
    # SHA-256 of the tables as JSON, taken from ballet_environment.py and _core.py themselves.
    tables = [
        {name: list(moves) for name, moves in DANCES.items()},
        list(SHAPES),
        {name: list(rgb) for name, rgb in COLOURS.items()},
        [list(cell) for cell in CELLS],
        {name: shape_mask(name).astype(int).tolist() for name in SHAPES},
    ]
    digest = hashlib.sha256(json.dumps(tables).encode()).hexdigest()
    assert digest == "e6ccf3b456c903cd4ff9603cf34be117901b907551ea71310ac458a6a0067f97"
    assert (len(SHAPES), len(COLOURS), len(CELLS), len(LANGUAGE)) == (15, 19, 8, 14)


@pytest.mark.parametrize(("level", "asked"), [("2_delay16", 62), ("4_delay48", 252)])
def test_time_is_that_of_the_authors(level, asked):
    env = Ballet(level, vision="symbolic")
    _, info = env.reset(seed=1)
    home = np.array(CELLS)[env.cast.cells]
    moved = []
    frame = 0
    while info["language"] == "watch":
        moved.append((env.places() != home).any())
        _, reward, terminated, truncated, info = env.step(frame % 8)
        assert (reward, terminated, truncated) == (0.0, False, False)
        assert tuple(env.agent) == (5, 5), "the agent can only watch"
        frame += 1
    assert frame == asked == choice_frame(env.n_dancers, env.delay)
    assert moved[0], "the first observation shows the first move"
    assert info["language"] == list(DANCES)[env.cast.dances[env.cast.target]]


def walk(env, to):
    """Go to a dancer; return the last step's outcome."""
    out = None
    while out is None or not (out[2] or out[3]):
        step = np.sign(env.places()[to] - env.agent) if env.asks else np.array([-1, 0])
        out = env.step(int(np.flatnonzero((step == STEPS).all(1))[0]))
    return out


@pytest.mark.parametrize("right", [True, False])
def test_touching_a_dancer_ends_the_episode_and_the_right_one_is_rewarded(right):
    env = Ballet("4_delay16", vision="symbolic")
    env.reset(seed=4)
    target = int(env.cast.target)
    _, reward, terminated, truncated, info = walk(env, target if right else (target + 1) % 4)
    assert (reward, terminated, truncated) == (float(right), True, False)
    assert info["frame"] <= choice_frame(4, 16) + 3
    with pytest.raises(DataError, match="over"):
        env.step(0)


def test_walls_stop_the_agent_and_the_step_cap_the_episode():
    for level in LEVELS:
        env = Ballet(level)
        assert env.max_steps == (320 if level.endswith("16") else 1024)
    cells = Cast(*(np.array([i]) for i in (3, 0, 0, 0)), target=np.array(0))
    env = Ballet(n_dancers=1, delay=1, max_steps=40, vision="symbolic")
    env.reset(options={"cast": cells})
    truncated = False
    while not truncated:
        _, _, terminated, truncated, info = env.step(2)  # east, away from the dancer
        assert not terminated
    assert tuple(env.agent) == (5, ROOM - 2)
    assert info["frame"] == 40


def test_casts_are_distinct_and_the_room_is_filled():
    rng = np.random.default_rng(0)
    casts = Cast.draw(rng, 8, (500,))
    for rows in (casts.cells, casts.dances, casts.shapes, casts.colours):
        assert all(len(set(row)) == 8 for row in rows.tolist())
    assert sorted(casts.cells[0].tolist()) == list(range(8))
    few = Cast.draw(rng, 2, (4000,))
    counts = np.bincount(few.cells.ravel(), minlength=8)
    assert np.abs(counts / counts.sum() - 1 / 8).max() < 0.02
    assert abs(few.target.mean() - 0.5) < 0.05


def test_pixels():
    # Numbers of a picture rendered by the authors' environment for this very cast.
    cast = Cast(np.array([0, 7]), np.array([0, 6]), np.array([6, 0]), np.array([0, 8]), np.array(1))
    env = Ballet("2_delay16")
    image = env.reset(options={"cast": cast})[0]["image"]
    assert image.shape == (99, 99, 3)
    assert image.dtype == np.float32
    np.testing.assert_allclose(
        image.sum(axis=(0, 1), dtype=float), [638.2353121, 630.2353121, 630.2353121], rtol=1e-5
    )
    assert (image[45:54, 45:54] == 1).all(), "the agent is in the middle, white"
    np.testing.assert_allclose(image[0, 0], 40 / 255, rtol=1e-6)
    red = (image[..., 0] > 0.9) & (image[..., 1] < 0.1)
    # One move north of (2, 2): rows 9 to 17, columns 18 to 26.
    assert red[9:18, 18:27].sum() == red.sum() == shape_mask("circle").sum()
    for _ in range(choice_frame(2, 16)):
        env.step(0)
    for action in (1, 2):
        image = env.step(action)[0]["image"]
    np.testing.assert_allclose(
        image.sum(axis=(0, 1), dtype=float), [358.7058904, 350.7058904, 350.7058904], rtol=1e-5
    )
    assert (image[45:54, 45:54] == 1).all(), "the view moves with the agent"
    assert (image[:, 81:] == 0).all(), "black beyond the wall"


def test_symbols_say_where_everyone_is():
    env = Ballet("4_delay16", vision="symbolic")
    observation, _ = env.reset(seed=2)
    rows = observation["symbols"]
    assert rows.shape == (8, 36)
    assert (rows[:, 2:].sum(1) == np.isin(np.arange(8), env.cast.cells) * 2).all()
    for i, cell in enumerate(env.cast.cells):
        dx, dy = rows[cell, :2]
        np.testing.assert_array_equal(env.places()[i], env.agent + np.array([dy, dx]))


def test_watch_draws_what_the_environment_shows():
    rng = np.random.default_rng(3)
    cast = Cast.draw(rng, 4, (1,))
    episodes = watch(rng, 1, n_dancers=4, delay=16, cast=cast)
    assert episodes.inputs.shape == (1, choice_frame(4, 16) + 1, 9 + 15 + 19 + 14)
    env = Ballet("4_delay16", vision="symbolic")
    single = Cast(
        *(
            np.asarray(getattr(cast, n)[0])
            for n in ("cells", "dances", "shapes", "colours", "target")
        )
    )
    observation, _ = env.reset(options={"cast": single})
    home = np.array(CELLS)[single.cells]
    for frame in range(choice_frame(4, 16) + 1):
        x = episodes.inputs[0, frame]
        turn = [j for j in range(4) if 31 * j <= frame < 31 * j + 16]
        assert x[43:].argmax() == observation["language"]
        if turn:
            row = observation["symbols"][single.cells[turn[0]]]
            np.testing.assert_array_equal(x[9:43], row[2:])
            dy, dx = env.places()[turn[0]] - home[turn[0]]
            assert x[:9].argmax() == 3 * (dy + 1) + dx + 1
        else:
            assert not x[:43].any()
        observation = env.step(0)[0]
    assert episodes.asked[0, 0] == single.target


def test_questions_are_asked_once_each_and_scored_among_the_dancers():
    episodes = watch(np.random.default_rng(0), 50, n_dancers=4, questions=4)
    assert (np.sort(episodes.asked, 1) == np.arange(4)).all()
    truth = np.take_along_axis(episodes.choices, episodes.asked, 1)
    scores = np.eye(15)[truth]
    assert episodes.correct(scores).all()
    absent = scores + 9.0 * (1 - np.eye(15)[episodes.choices].sum(1))[:, None]
    assert episodes.correct(absent).all(), "who did not dance is no choice"
    guesses = episodes.correct(np.random.default_rng(1).random(scores.shape))
    assert guesses.mean() == pytest.approx(episodes.chance, abs=0.1)


def test_spaces_need_no_gymnasium():
    env = Ballet(vision="symbolic")
    assert env.action_space == len(DIRECTIONS) or env.action_space.n == 8
    assert set(env.observation_space) == {"symbols", "language"}


@pytest.mark.parametrize(
    "options",
    [{"level": "3_delay16"}, {"n_dancers": 9}, {"delay": 0}, {"vision": "smell"}, {"max_steps": 0}],
)
def test_impossible_worlds_are_refused(options):
    with pytest.raises(ConfigError):
        Ballet(**options)


def test_unknown_actions_and_casts_are_refused():
    env = Ballet("2_delay16", vision="symbolic")
    with pytest.raises(DataError, match="reset"):
        env.step(0)
    env.reset()
    with pytest.raises(DataError, match="action"):
        env.step(8)
    with pytest.raises(DataError, match="cast"):
        env.reset(options={"cast": Cast.draw(np.random.default_rng(0), 3)})
    with pytest.raises(ConfigError, match="questions"):
        watch(np.random.default_rng(0), 1, n_dancers=2, questions=3)
