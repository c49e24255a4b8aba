"""Drawings of objects and backgrounds: what pictures are made of."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_score

from engramma.worlds.backgrounds import BACKGROUNDS, INDOORS, depth, paint, pink_noise, windows
from engramma.worlds.canvas import Canvas
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE, SUPERORDINATES, draw

EXTENT = 1.5
SIZE = 60


def _canvas(shape, colour=None):
    n = len(shape)
    line = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1).astype(np.float32) * EXTENT
    u, v = (np.broadcast_to(g, (n, SIZE, SIZE)) for g in (line, line[:, None]))
    colour = np.full((n, 3), 0.5) if colour is None else colour
    return Canvas(u, v, np.full(n, 2 * EXTENT / SIZE), colour, shape)


@pytest.fixture(scope="module")
def drawn():
    """Each category with 24 shapes and random colours."""
    rng = np.random.default_rng(0)
    result = {}
    for category in CATEGORIES:
        canvas = _canvas(rng.uniform(-1, 1, (24, 4)), rng.uniform(0.1, 0.9, (24, 3)))
        draw(category, canvas)
        result[category] = canvas
    return result


def test_there_are_enough_categories_of_every_class():
    assert len(CATEGORIES) >= 28 and len(set(CATEGORIES)) == len(CATEGORIES)
    assert set(SUPERORDINATES) == {
        *("face", "body", "animal", "place", "food", "word", "tool", "vehicle")
    }
    classes = [SUPERORDINATE[c] for c in CATEGORIES]
    assert min(classes.count(s) for s in SUPERORDINATES) >= 3


def test_drawings_stay_within_their_canvas(drawn):
    line = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1) * EXTENT
    outside = np.hypot(line, line[:, None]) > 1.3
    for category, canvas in drawn.items():
        assert canvas.alpha[:, outside].max() == 0, category
        assert canvas.alpha.max() <= 1 and canvas.rgb.dtype == np.float32, category
        # No colour without cover: the picture is premultiplied.
        assert (canvas.rgb <= canvas.alpha + 1e-5).all(), category


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_shape_parameter_changes_the_picture(category):
    shape = np.full((9, 4), 0.2)
    for k in range(4):
        shape[1 + 2 * k, k], shape[2 + 2 * k, k] = -0.9, 0.9
    canvas = _canvas(shape)
    draw(category, canvas)
    one_of_four = [
        np.abs(canvas.rgb[:, 1 + 2 * k] - canvas.rgb[:, 2 + 2 * k]).sum() for k in range(4)
    ]
    changed = np.asarray(one_of_four) > 0.01 * canvas.rgb[:, 0].sum()
    assert changed.sum() >= 3, one_of_four


def test_mean_colour_does_not_tell_the_category(drawn):
    def mean(canvas):
        return canvas.rgb.sum(axis=(2, 3)) / canvas.alpha.sum(axis=(1, 2))

    colours = np.concatenate([mean(c).T for c in drawn.values()])
    labels = np.repeat(np.arange(len(drawn)), 24)
    chance = 1 / len(drawn)
    score = cross_val_score(LinearDiscriminantAnalysis(), colours, labels, cv=4).mean()
    assert abs(score - chance) < 0.03
    for canvas in drawn.values():
        area = canvas.alpha.sum()
        assert abs(canvas.own.sum() / area - 0.66) < 0.13
        assert abs(canvas.grey.sum() / area - 0.12) < 0.09


def test_a_disc_covers_what_geometry_says():
    canvas = _canvas(np.zeros((1, 4)))
    canvas.ellipse(0.1, -0.2, 0.7, 0.4, 0.5)
    pixel = (2 * EXTENT / SIZE) ** 2
    assert abs(canvas.alpha.sum() * pixel / (np.pi * 0.7 * 0.4) - 1) < 0.02


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_shift_is_a_crop(kind):
    """The camera moves by 8 pixels of 64 right, and 5 down; texture moves with it."""
    rng = np.random.default_rng(1)
    shape = rng.uniform(-1, 1, (6, 4)).astype(np.float32)
    texture = windows(pink_noise(128, rng), rng.integers(128, size=(6, 2)), 96)
    here = texture[:, :64, :64]
    there = texture[:, 5:69, 8:72]
    still = paint(kind, here, shape)
    moved = paint(kind, there, shape, np.tile([8 / 64, 5 / 64], (6, 1)))
    same = np.abs(moved[..., :59, :56] - still[..., 5:, 8:])
    # A pixel on the border between two houses may fall on either side.
    assert np.mean(same > 1e-3) < 2e-3
    far = depth(kind, 64, shape, np.tile([8 / 64, 5 / 64], (6, 1)))
    np.testing.assert_allclose(far[:, :59, :56], depth(kind, 64, shape)[:, 5:, 8:], rtol=1e-3)
    assert still.dtype == np.float32 and still.min() > -0.15 and still.max() < 1.15


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_the_ground_comes_nearer_and_begins_where_it_is_painted(kind):
    shape = np.random.default_rng(2).uniform(-1, 1, (12, 4)).astype(np.float32)
    far = depth(kind, 64, shape)
    assert far.dtype == np.float32
    assert far.min() >= 1 and far.max() == 10 and (far[:, 0] == 10).all()
    down = np.diff(far, axis=1)
    assert (down <= 1e-5).all() and (down[far[:, 1:] < 9.99] < 0).all()
    np.testing.assert_allclose(far[:, -1], 2, atol=0.1)
    # Along the edge of the ground, a picture changes more than elsewhere on average.
    image = paint(kind, np.zeros((12, 64, 64), np.float32), shape)
    step = np.abs(image[:, :, 2:] - image[:, :, :-2]).sum(axis=0)
    first = (far < 10).argmax(axis=1)
    rows, columns = np.indices(first.shape)
    at_edge = step[rows, np.clip(first - 1, 0, 61), columns].mean()
    assert at_edge > 0.08 and at_edge > 1.5 * step.mean()


def test_backgrounds_are_of_both_kinds():
    assert len(BACKGROUNDS) == 10
    assert sum(INDOORS.values()) >= 4 and sum(not i for i in INDOORS.values()) >= 5
