"""Objects in boxes: what is seen when, where boxes go, and what the question is."""

import numpy as np
import pytest

from engramma.errors import ConfigError, DataError
from engramma.worlds.grid_room import CELLS, COLOURS, SHAPES, STEPS, shape_mask
from engramma.worlds.object_permanence import (
    JUMP,
    LEVELS,
    Hiding,
    ObjectPermanence,
    hide,
    question_frame,
)


def hiding(swaps=()):
    """Two objects: a circle in a red box at (2, 2), a plus in a blue one at (8, 8)."""
    pairs = np.array(swaps, dtype=int).reshape(-1, 2)
    return Hiding(np.array([0, 7]), np.array([6, 2]), np.array([0, 2]), np.array(1), pairs)


def go(env, place):
    """Walk to a cell once the question is asked."""
    out = None
    while out is None or not (out[2] or out[3]):
        step = np.sign(np.array(place) - env.agent) if env.asks else np.array([1, 0])
        out = env.step(int(np.flatnonzero((step == STEPS).all(1))[0]))
    return out


def test_objects_jump_in_turn_and_boxes_close_after_the_last():
    env = ObjectPermanence("2_delay16", vision="symbolic")
    env.reset(options={"hiding": hiding()})
    seen = []
    for _ in range(question_frame(2, 16)):
        seen.append((env.jumping(), env.closed, env.asks))
        env.step(0)
    out = [s[0] for s in seen]
    assert out[:4] == [(0, h) for h in JUMP]
    assert out[20:24] == [(1, h) for h in JUMP]
    assert not any(out[4:20] + out[24:])
    assert [s[1] for s in seen].index(True) == 24
    assert not any(s[2] for s in seen)
    assert env.asks
    assert env._info()["language"] == "plus"


@pytest.mark.parametrize("level", LEVELS)
def test_the_box_that_hides_the_object_is_rewarded(level):
    env = ObjectPermanence(level, vision="symbolic")
    for seed in range(3):
        env.reset(seed=seed)
        target = env.answer()[0]
        _, reward, terminated, _, info = go(env, env.places()[target])
        assert (reward, terminated) == (1.0, True)
        assert info["frame"] <= env.ask_frame + 3
        env.reset(seed=seed)
        other = (target + 1) % env.n_objects
        assert go(env, env.places()[other])[1:3] == (0.0, True)


def test_boxes_that_change_places_take_their_objects_along():
    env = ObjectPermanence("2_delay0", exchanges=1, vision="symbolic")
    env.reset(options={"hiding": hiding([(0, 1)])})
    assert env.ask_frame == 9
    before = env.places()
    for _ in range(8):
        env.step(0)
    np.testing.assert_array_equal(env.places(), before[::-1])
    _, reward, _, _, _ = go(env, CELLS[0])
    assert reward == 1.0, "the blue box is where the red one was"


def test_pixels_show_the_object_and_hide_it_again():
    env = ObjectPermanence("2_delay16")
    image = env.reset(options={"hiding": hiding()})[0]["image"]
    white = (image == 1).all(-1)
    white[45:54, 45:54] = False  # the agent
    assert white.sum() == shape_mask("circle").sum()
    assert white[13:23, 18:27].sum() == white.sum(), "half out of its box at rows 18 to 26"
    image = env.step(0)[0]["image"]
    assert (image[9:18, 18:27] == 1).all(-1).sum() == shape_mask("circle").sum()
    red = (image[18:27, 18:27] == [1, 0, 0]).all(-1)
    np.testing.assert_array_equal(red, shape_mask("u"))
    for _ in range(3):
        image = env.step(0)[0]["image"]
    assert (image == 1).all(-1).sum() == 81, "nothing is white but the agent"
    while not env.closed:
        image = env.step(0)[0]["image"]
    assert (image[18:27, 18:27] == [1, 0, 0]).all(), "a closed box is full"


def test_symbols():
    env = ObjectPermanence("2_delay16", vision="symbolic")
    rows = env.reset(options={"hiding": hiding()})[0]["symbols"]
    assert rows.shape == (8, 2 + 19 + 2 + 15)
    np.testing.assert_array_equal(rows[0, :2], [-3, -3])
    assert rows[0, 2] == rows[7, 4] == 1
    assert rows[0, 22] == 0.5
    assert rows[0, 23 + 6] == 1
    assert not rows[7, 21:].any()


def test_hide_draws_the_same_schedule():
    episodes = hide(np.random.default_rng(0), 30, n_objects=4, delay=16, questions=4)
    assert episodes.inputs.shape == (30, question_frame(4, 16) + 4, 2 + 15 + 19 + 16)
    out = episodes.inputs[..., :2].any(-1)
    assert out.sum() == 30 * 4 * len(JUMP)
    assert out[:, [0, 3, 20, 43, 60, 63]].all()
    assert episodes.n_answers == len(COLOURS)
    thing, box = episodes.inputs[..., 2:17], episodes.inputs[..., 17:36]
    for e in range(30):
        for q in range(4):
            said = episodes.inputs[e, question_frame(4, 16) + q, 36:].argmax() - 1
            shown = np.flatnonzero(thing[e, :, said])
            assert box[e, shown[0]].argmax() == episodes.choices[e, episodes.asked[e, q]]
    assert len(SHAPES) == 15


@pytest.mark.parametrize(
    "options",
    [{"level": "4_delay5"}, {"n_objects": 9}, {"delay": -1}, {"n_objects": 1, "exchanges": 1}],
)
def test_impossible_worlds_are_refused(options):
    with pytest.raises(ConfigError):
        ObjectPermanence(**options)


def test_a_hiding_of_another_size_is_refused():
    with pytest.raises(DataError, match="hiding"):
        ObjectPermanence("4_delay0").reset(options={"hiding": hiding()})
