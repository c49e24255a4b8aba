"""Scenes of several objects: captions that can be read back, occlusion, depth, splits, pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engramma.errors import ConfigError
from engramma.worlds.captions import (
    Description,
    Thing,
    agreement,
    captions,
    mentions,
    misdescribe,
    read,
    roles,
    tokens,
    vocabulary,
)
from engramma.worlds.layouts import SEEN, ZERO_SHOT, held_out_compositions
from engramma.worlds.miniatures import mistake
from engramma.worlds.objects import CATEGORIES, SUPERORDINATES
from engramma.worlds.rendering import render
from engramma.worlds.scene_pairs import alike_in_meaning, alike_in_pixels
from engramma.worlds.scenes import draw_scenes, make_scenes

CROWDED = (0.1, 0.3, 0.3, 0.3)


@pytest.fixture(scope="module")
def crowded():
    return make_scenes(300, rng=np.random.default_rng(1), object_counts=CROWDED)


def test_every_caption_is_read_back_without_a_mistake(crowded):
    words = set(vocabulary())
    for i, scene in enumerate(crowded.descriptions):
        for name in ("caption", "caption_2", "caption_3"):
            text = crowded.stimuli.table[name].iloc[i]
            assert set(tokens(text)) <= words
            said = read(text)
            assert len(said.things) == len(scene.things)
            for right, stated in agreement(said, scene).values():
                assert right == stated, text


def test_a_misdescription_differs_and_is_found_out(crowded):
    rng = np.random.default_rng(0)
    for scene in crowded.descriptions:
        wrong = misdescribe(scene, rng)
        assert wrong != scene and len(wrong.things) == len(scene.things)


def test_mentions_stand_where_the_words_are(crowded):
    text = "a big red cat to the left of a blue puppy, and a red boat behind the puppy in a kitchen"
    words = tokens(text)
    found = [(" ".join(words[a:b]), thing) for a, b, thing in mentions(text)]
    assert found == [
        ("a big red cat", Thing("cat", "red", "large")),
        ("a blue puppy", Thing("dog", "blue")),
        ("a red boat", Thing("boat", "red")),
        ("the puppy", Thing("dog", "")),
    ]
    # Of each scene every thing is told once, and nothing is referred to that it does not show.
    rng = np.random.default_rng(0)
    for scene in crowded.descriptions[:50]:
        text = captions(scene, rng, 1)[0]
        words = tokens(text)
        told = [t for start, _, t in mentions(text) if words[start] != "the"]
        shown = [(t.category, t.colour) for t in scene.things]
        assert sorted((t.category, t.colour) for t in told) == sorted(shown)
        assert {t.category for _, _, t in mentions(text)} == {t.category for t in scene.things}


def test_roles_are_those_that_are_read(crowded):
    text = "a red cat left of a blue dog, and a small green car above the cat in a kitchen"
    words = tokens(text)
    assert [(" ".join(words[a:b]), name, subject) for a, b, name, subject in roles(text)] == [
        ("a red cat", "left of", True),
        ("a blue dog", "left of", False),
        ("a small green car", "above", True),
        ("the cat", "above", False),
    ]
    rng = np.random.default_rng(0)
    for scene in crowded.descriptions[:50]:
        text = captions(scene, rng, 1)[0]
        assert [name for _, _, name, subject in roles(text) if subject] == [
            name for _, name, _ in read(text).relations
        ]


def test_a_mistake_is_named():
    cat, dog = Thing("cat", "red", "small"), Thing("dog", "blue", "large")
    scene = Description("kitchen", (cat, dog), ((0, "above", 1),))
    exchanged = replace(cat, colour="blue"), replace(dog, colour="red")
    for name, wrong in {
        "background": replace(scene, background="beach"),
        "relation": replace(scene, relations=((1, "above", 0),)),
        "exchange": replace(scene, things=exchanged),
        "category": replace(scene, things=(replace(cat, category="car"), dog)),
        "colour": replace(scene, things=(cat, replace(dog, colour="red"))),
        "size": replace(scene, things=(replace(cat, size="large"), dog)),
    }.items():
        assert mistake(scene, wrong) == name


def test_agreement_counts_what_is_wrong():
    scene = Description(
        "room", (Thing("cat", "red", "small"), Thing("car", "blue", "large")), ((0, "left of", 1),)
    )
    text = "a little blue cat right of a blue car in a kitchen"
    assert agreement(read(text), scene) == {
        "category": (2, 2),
        "colour": (1, 2),
        "size": (1, 1),
        "background": (0, 1),
        "relation": (0, 1),
    }
    assert read("a blue car to the right of a red cat") == Description(
        "", (Thing("car", "blue"), Thing("cat", "red")), ((0, "right of", 1),)
    )
    assert agreement(read("nonsense"), scene)["category"] == (0, 2)


def test_the_scene_graph_holds_attributes_and_both_sides_of_relations():
    scene = Description(
        "room", (Thing("cat", "red", "small"), Thing("car", "blue", "large")), ((0, "behind", 1),)
    )
    triples = scene.triples()
    assert ("cat#0", "has colour", "red") in triples
    assert ("cat#0", "behind", "car#1") in triples
    assert ("car#1", "in front of", "cat#0") in triples
    assert ("car#1", "is at", "room") in triples


def test_nearer_objects_hide_farther_ones(crowded):
    """Where two discs overlap, the mask shows the one that the depth says is nearer."""
    hidden = crowded.objects[crowded.objects["visible"] < 0.8]
    assert len(hidden) > 10
    for _, row in hidden.iterrows():
        others = crowded.objects[
            (crowded.objects["scene"] == row["scene"])
            & (crowded.objects["distance"] < row["distance"])
        ]
        if row["x"] ** 2 > 0.01:  # not cut by the edge
            assert (
                len(others) or min(row["x"], row["y"], 1 - row["x"], 1 - row["y"]) < row["radius"]
            )
    for i in range(50):
        for _, row in crowded.objects[crowded.objects["scene"] == i].iterrows():
            seen = crowded.masks[i] == row["number"] + 1
            if seen.any():
                assert np.allclose(crowded.depth[i][seen], row["distance"], atol=1e-3)


def test_new_compositions_are_never_shown_in_training():
    out = held_out_compositions()
    assert 0.15 < out.mean() < 0.25 and out.any(axis=1).all()
    pairs = {}
    for kind in ("common", "held out"):
        scenes = make_scenes(400, rng=np.random.default_rng(2), compositions=kind, caption=False)
        pairs[kind] = set(zip(scenes.objects["category"], scenes.objects["colour"], strict=True))
        first = scenes.objects[scenes.objects["number"] == 0]
        pairs[f"first, {kind}"] = set(zip(first["category"], first["colour"], strict=True))
    assert not pairs["common"] & pairs["first, held out"]
    with pytest.raises(ConfigError, match="compositions"):
        make_scenes(2, rng=np.random.default_rng(0), compositions="new")


def test_whole_categories_can_be_held_out():
    assert len(ZERO_SHOT) == len(SUPERORDINATES) and not set(ZERO_SHOT) & set(SEEN)
    rng = np.random.default_rng(4)
    train = make_scenes(200, rng=rng, categories=SEEN, others=SEEN, caption=False)
    test = make_scenes(50, rng=rng, categories=ZERO_SHOT, caption=False)
    assert not set(train.objects["category"]) & set(ZERO_SHOT)
    assert set(test.stimuli.table["category"]) == set(ZERO_SHOT)


def test_the_same_layout_gives_the_same_picture_but_for_grain(crowded):
    few = crowded.layout[:20]
    a, b = (render(few, rng=np.random.default_rng(s)) for s in (1, 2))
    difference = a.images.astype(int) - b.images
    assert np.array_equal(a.masks, b.masks)
    assert 3 < difference.std() < 12 and np.abs(difference).mean() < 8
    still = draw_scenes(few, rng=np.random.default_rng(1), caption=False)
    assert np.array_equal(still.images, a.images)


def test_pixels_and_meaning_come_apart():
    rng = np.random.default_rng(3)
    first = make_scenes(120, rng=rng, object_counts=(1,))
    pixels = alike_in_pixels(first, rng=rng)
    meaning = alike_in_meaning(first, rng=rng)
    assert (pixels.stimuli.table["category"].values != first.stimuli.table["category"].values).all()
    assert (
        meaning.stimuli.table["category"].values == first.stimuli.table["category"].values
    ).all()

    def distance(other):
        gap = first.images.astype(np.float32) - other.images
        return (gap**2).mean(axis=(1, 2, 3))

    assert (distance(pixels) < distance(meaning)).mean() > 0.95


def test_bad_numbers_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="object_counts"):
        make_scenes(2, rng=rng, object_counts=(1, 1, 1, 1, 1))
    with pytest.raises(ConfigError, match="8 pixels"):
        make_scenes(2, rng=rng, size=8)


def test_captions_of_one_scene_differ():
    scene = Description("room", (Thing("man", "red", "small"),))
    rng = np.random.default_rng(0)
    assert len({c for _ in range(20) for c in captions(scene, rng)}) > 8
    assert all("in a room" in c for c in captions(scene, rng))
    assert len(CATEGORIES) >= 24
