"""Sort-of-CLEVR: answers against the trigonometry of the published definition, case by case."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from engramma.errors import ConfigError, DataError
from engramma.worlds.sort_of_clevr import (
    ANSWERS,
    KINDS,
    RGB,
    from_items,
    make_sort_of_clevr,
    read_sort_of_clevr,
    solve,
    write_sort_of_clevr,
)


@pytest.fixture(scope="module")
def scenes():
    return make_sort_of_clevr(150, rng=np.random.default_rng(0))


def answer(kind, centres, squares, first, second, subtype, size):
    """Answer one question by loops and angles, from the centres of six objects."""
    name = {True: "rectangle", False: "circle"}
    a, b = centres[first], centres[second]
    others = [c for c in range(6) if c not in (first, second)]
    if kind == "norel":
        if subtype == 0:
            return name[bool(squares[first])]
        return "yes" if a[subtype - 1] < size / 2 else "no"
    if kind == "binary":
        if subtype == 2:
            return sum(squares[c] == squares[first] for c in range(6)) - 1
        ranked = sorted((math.dist(a, centres[c]), c) for c in range(6) if c != first)
        chosen = ranked[0] if subtype == 0 else max(ranked, key=lambda r: (r[0], -r[1]))
        return name[bool(squares[chosen[1]])]
    if subtype == 0:
        low, high = np.minimum(a, b), np.maximum(a, b)
        return sum(bool((low <= centres[c]).all() and (centres[c] <= high).all()) for c in others)
    if subtype == 1:
        rise = (b[1] - a[1]) / (b[0] - a[0] + 1e-10)
        gaps = [abs(a[1] + rise * (centres[c][0] - a[0]) - centres[c][1]) for c in others]
        return "yes" if min(gaps) <= 12 else "no"
    count = 0
    for c in others:
        p = [np.array(centres[i], float) for i in (first, second, c)]
        angles = []
        for i in range(3):
            u, v = p[i - 1] - p[i], p[i - 2] - p[i]
            angles.append(math.degrees(math.atan2(abs(u[0] * v[1] - u[1] * v[0]), u @ v)))
        count += bool(90 - 1e-9 <= max(angles) < 180 - 1e-9)
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_definition(scenes, kind):
    questions, answers = scenes.questions[kind], scenes.answers[kind]
    for image in range(len(scenes)):
        for q, told in zip(questions[image], answers[image], strict=True):
            first, second = int(q[:6].argmax()), int(q[6:12].argmax())
            if kind != "ternary":
                second = first
            expected = answer(
                kind, scenes.centres[image], scenes.squares[image], first, second,
                int(q[15:].argmax()), 75,
            )  # fmt: skip
            if isinstance(expected, str):
                assert ANSWERS[told] == expected
            else:
                assert told == 4 + expected


def test_questions_have_eighteen_numbers(scenes):
    for index, kind in enumerate(KINDS):
        q = scenes.questions[kind]
        assert q.shape == (150, 10, 18) and q.dtype == np.float32
        assert (q[..., :6].sum(-1) == 1).all() and (q[..., 15:].sum(-1) == 1).all()
        assert (q[..., 6:12].sum(-1) == (kind == "ternary")).all()
        assert (q[..., 12:15].argmax(-1) == index).all() and (q[..., 12:15].sum(-1) == 1).all()
        assert not (q[..., :6] * q[..., 6:12]).any()


def test_objects_are_where_they_are_said_to_be(scenes):
    assert scenes.images.shape == (150, 75, 75, 3) and scenes.images.dtype == np.uint8
    apart = ((scenes.centres[:, :, None] - scenes.centres[:, None]) ** 2).sum(-1)
    assert apart[:, ~np.eye(6, dtype=bool)].min() >= 100
    assert scenes.centres.min() >= 5 and scenes.centres.max() <= 69
    # The last colour is never covered: 121 pixels are a square, fewer a disc.
    yellow = (scenes.images == RGB[5]).all(-1).sum((1, 2))
    assert (yellow[scenes.squares[:, 5]] == 121).all()
    disc = yellow[~scenes.squares[:, 5]]
    assert (disc == disc[0]).all() and abs(disc[0] - math.pi * 5.5**2) < 8
    for image, places in zip(scenes.images, scenes.centres, strict=True):
        assert (image[places[:, 1], places[:, 0]] == RGB).all()
    seen = {tuple(pixel) for pixel in scenes.images.reshape(-1, 3)[::7]}
    assert seen <= {(255, 255, 255), *map(tuple, RGB)}


def test_everything_follows_the_seed():
    a, b, c = (make_sort_of_clevr(5, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.answers["ternary"], b.answers["ternary"])
    assert not np.array_equal(a.images, c.images)


def test_published_slips_are_repeated_on_request():
    # All others are farther than 31 pixels: as published, an object is then its own nearest.
    centres = np.array([[[5, 5], [69, 69], [69, 5], [5, 69], [40, 69], [69, 40]]])
    squares = np.array([[True, False, False, False, False, False]])
    colours, subtype = np.zeros((1, 1, 2), int), np.zeros((1, 1), int)
    assert ANSWERS[solve("binary", centres, squares, colours, subtype, 75)[0, 0]] == "circle"
    slip = solve("binary", centres, squares, colours, subtype, 75, as_published=True)
    assert ANSWERS[slip[0, 0]] == "rectangle"
    asked = make_sort_of_clevr(50, rng=np.random.default_rng(0), as_published=True)
    assert not asked.questions["ternary"][..., [5, 11]].any()


def test_patches_and_objects(scenes):
    patches = scenes.patches()
    assert patches.shape == (150, 25, 675)
    expected = scenes.images[3, 15:30, 30:45].reshape(-1) / np.float32(255)
    np.testing.assert_allclose(patches[3, 5 + 2], expected)
    objects = scenes.objects()
    assert objects.shape == (150, 6, 10) and np.abs(objects).max() <= 1
    np.testing.assert_array_equal(objects[..., 6] == 1, scenes.squares)
    with pytest.raises(ConfigError, match="tile"):
        scenes.patches(16)
    with pytest.raises(ConfigError, match="may not fit"):
        make_sort_of_clevr(1, rng=np.random.default_rng(0), size=40)


def test_files_are_written_and_read(tmp_path, scenes):
    path = tmp_path / "scenes.npz"
    write_sort_of_clevr(path, scenes)
    again = read_sort_of_clevr(path)
    for kind in KINDS:
        np.testing.assert_array_equal(again.questions[kind], scenes.questions[kind])
        np.testing.assert_array_equal(again.answers[kind], scenes.answers[kind])
    np.testing.assert_array_equal(again.images, scenes.images)
    np.testing.assert_array_equal(again.centres, scenes.centres)


def test_items_of_published_files_are_arranged(scenes):
    items = [
        (
            scenes.images[i][..., ::-1] / 255.0,
            *(
                (list(scenes.questions[k][i]), [int(a) for a in scenes.answers[k][i]])
                for k in ("ternary", "binary", "norel")
            ),
        )
        for i in range(4)
    ]
    found = from_items(items)
    np.testing.assert_array_equal(found.images, scenes.images[:4])
    for kind in KINDS:
        np.testing.assert_array_equal(found.questions[kind], scenes.questions[kind][:4])
        np.testing.assert_array_equal(found.answers[kind], scenes.answers[kind][:4])
    with pytest.raises(DataError, match="not known"):
        found.objects()


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name in ("sort-of-clevr.pickle", "renamed.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(DataError, match=r"refused|cannot be read"):
            read_sort_of_clevr(tmp_path / name)
    np.savez(tmp_path / "objects.npz", images=np.array([Trap()], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        read_sort_of_clevr(tmp_path / "objects.npz")
    assert not (tmp_path / "sprung").exists()


def test_other_arrays_are_refused(tmp_path, scenes):
    path = tmp_path / "scenes.npz"
    write_sort_of_clevr(path, scenes)
    good = dict(np.load(path))
    for change, words in (
        ({"norel_answers": None}, "no array norel_answers"),
        ({"images": good["images"] / 255}, "uint8"),
        ({"binary_answers": good["binary_answers"][:3]}, "binary questions"),
        ({"ternary_answers": good["ternary_answers"] + 9}, "between 0 and 9"),
    ):
        arrays = {k: v for k, v in {**good, **change}.items() if v is not None}
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=words):
            read_sort_of_clevr(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_sort_of_clevr(tmp_path / "none.npz")


def test_leaderboard_asks_before_it_shows():
    from engramma.bench.tasks.sort_of_clevr import as_tokens
    from engramma.registry import tasks

    scenes = make_sort_of_clevr(300, rng=np.random.default_rng(1))
    tokens = as_tokens(scenes)
    assert tokens.shape == (3000, 8, 29)
    np.testing.assert_array_equal(tokens[:, 0, :18], scenes.questions["binary"].reshape(-1, 18))
    np.testing.assert_array_equal(tokens[25, 1:7, 18:28], scenes.objects()[2])
    assert tokens[0, 7].tolist() == [0.0] * 28 + [1.0]
    answers, subtype = scenes.answers["binary"], scenes.questions["binary"][..., 15:].argmax(-1)
    common = [np.bincount(answers[subtype == s]).max() / (subtype == s).sum() for s in range(3)]
    assert abs(tasks.get("sort-of-clevr").chance - np.mean(common)) < 0.03
