"""Houses, views of them, and the life of an agent: all that is given agrees with the truth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from engramma.errors import ConfigError, DataError
from engramma.registry import worlds
from engramma.worlds.agent_life import SOUNDS, agent_life
from engramma.worlds.house import CELL, CLASSES, HEIGHT, invented_names, make_house
from engramma.worlds.life_dialogue import dialogue
from engramma.worlds.life_questions import KINDS, ask_life
from engramma.worlds.life_streams import SenseMap, described, life_streams, place_tokens
from engramma.worlds.ray_casting import EYE, class_features, project_labels, render, unproject


@pytest.fixture(scope="module")
def house():
    return make_house(np.random.default_rng(3))


@pytest.fixture(scope="module")
def life():
    return agent_life(1, n_events=60)


@pytest.fixture(scope="module")
def everywhere(house):
    """Views to all sides from every sixth free cell."""
    cells = np.repeat(np.argwhere(house.free)[::6], 8, axis=0)
    places = np.stack([cells[:, 1] + 0.5, np.full(len(cells), EYE / CELL), cells[:, 0] + 0.5], 1)
    headings = np.arange(len(cells)) % 8 * np.pi / 4 + 0.2
    return render(house, places * CELL, headings, size=(48, 64))


def test_a_house_is_connected_and_its_tables_agree(house):
    assert ndimage.label(house.free)[1] == 1
    assert set(np.unique(house.instances)) == set(range(-1, len(house.objects)))
    for i, row in enumerate(house.objects.itertuples()):
        cells = house.instances == i
        assert {CLASSES[c] for c in house.classes[cells]} == {row.category}
        assert {house.rooms[r] for r in house.room_of[cells]} == {row.room}
        centre = (np.argwhere(cells).mean(axis=0) + 0.5) * CELL
        np.testing.assert_allclose(centre, [row.z, row.x])
    assert house.objects["name"].is_unique
    assert len(set(invented_names(500, np.random.default_rng(0)))) == 500


def test_depth_of_an_empty_room_is_that_of_a_box():
    room = make_house(np.random.default_rng(0), rooms=(1, 1), objects_per_room=0)
    n = 12
    rng = np.random.default_rng(1)
    places = rng.uniform(1.0, 4.0, (n, 3))
    places[:, 1] = rng.uniform(0.4, 2.0, n)
    headings = rng.uniform(-4, 4, n)
    views = render(room, places, headings, size=(20, 30), field_of_view=80)
    # By hand: rotate the pixels' directions, and meet the six planes of the box.
    focal = 15 / np.tan(np.radians(40))
    v, u = np.mgrid[:20, :30]
    local = np.stack([(u + 0.5 - 15) / focal, -(v + 0.5 - 10) / focal, np.full(u.shape, -1.0)], -1)
    inner = 0.5, 0.5 + 8 * CELL
    for i in range(n):
        direction = Rotation.from_quat(views.rotations[i]).apply(local.reshape(-1, 3))
        low, high = np.array([inner[0], 0, inner[0]]), np.array([inner[1], HEIGHT, inner[1]])
        wall = np.where(direction > 0, high, low)
        expected = ((wall - places[i]) / direction).min(axis=1).reshape(20, 30)
        np.testing.assert_allclose(views.depth[i], expected, rtol=2e-4)
    points = unproject(views.depth, views.positions, views.headings, views.focal)
    assert (points > -1e-3).all() and points[..., 1].max() < HEIGHT + 1e-3


def test_the_map_follows_from_depth_pose_and_labels(house, everywhere):
    found = project_labels(house.classes.shape, everywhere, everywhere.classes)
    seen = found >= 0
    assert seen[house.classes > 2].mean() > 0.97
    assert (found == house.classes)[seen].mean() > 0.995
    numbers = project_labels(house.classes.shape, everywhere, everywhere.instances)
    assert (numbers == house.instances)[seen].mean() > 0.995
    wrong = np.roll(everywhere.headings, 3)
    moved = type(everywhere)(**(vars(everywhere) | {"headings": wrong}))
    lost = project_labels(house.classes.shape, moved, everywhere.classes)
    objects = (house.classes > 2) & (lost >= 0)
    assert (lost == house.classes)[objects].mean() < 0.4


def test_confusion_depends_on_the_side_from_which_a_thing_is_seen(everywhere):
    rng = np.random.default_rng(0)
    features, prototypes = class_features(everywhere, rng=rng, noise=0.0, confusion=0.4, dim=16)
    taken_for = (features @ prototypes.T).argmax(axis=-1)
    thing = everywhere.instances >= 0
    right = taken_for == everywhere.classes
    assert right[~thing].all()
    # Whole sides are mistaken: about 0.4 of them, weighted by how much of each is seen.
    assert 0.4 < right[thing].mean() < 0.8
    rows = everywhere.instances[thing].astype(int)
    kinds = [len(np.unique(taken_for[thing][rows == i])) for i in np.unique(rows)]
    assert 1.5 < np.mean(kinds) < 6
    clean, _ = class_features(everywhere, rng=np.random.default_rng(0), confusion=0.0, noise=0.0)
    assert len(np.unique(clean[thing].round(4), axis=0)) == len(
        np.unique(everywhere.classes[thing])
    )


def test_a_life_follows_its_seed_and_options(life):
    again, other = agent_life(1, n_events=60), agent_life(2, n_events=60)
    assert life.events.equals(again.events) and life.frames.equals(again.frames)
    assert not life.events.equals(other.events)
    stays = life.events["stop"] - life.events["start"]
    assert stays.between(3.5, 12.5).all() and stays.std() > 1
    uneven = [agent_life(4, unevenness=u).events["room"].value_counts(normalize=True).iloc[0]
              for u in (0.0, 3.0)]  # fmt: skip
    assert uneven[0] < 0.45 < 0.6 < uneven[1]
    step = np.abs(life.frames[["x", "z"]].diff().dropna()).sum(axis=1)
    assert step.max() <= CELL + 1e-9  # nobody jumps, or walks through walls
    rows, columns = life.house.cell_of(life.frames["x"], life.frames["z"])
    assert life.house.free[rows, columns].all()
    alike = [(agent_life(5, look_alike_rate=r).events["look_alike"] >= 0).mean() for r in (0, 0.9)]
    assert alike[1] > alike[0]
    for e in life.events[life.events["look_alike"] >= 0].itertuples():
        before = life.events.iloc[e.look_alike]
        assert (before["object"] == e.object) != (before["sound"] == e.sound)


def test_the_agent_sees_what_it_looks_at(life):
    starts = life.frames.groupby("event").head(1)
    rows = starts.index[starts["event"] >= 0].to_numpy()
    views = life.views(rows)
    seen = [
        (views.instances[i, :, 24:40] == life.events["object"][life.frames["event"][row]]).any()
        for i, row in enumerate(rows)
    ]
    assert np.mean(seen) > 0.9


def test_streams_show_events_and_hide_symbols(life):
    streams = life_streams(life, rng=np.random.default_rng(0))
    again = life_streams(life, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(streams.frames, again.frames)
    assert streams.frames.dtype == np.float32
    silent = life.frames["sound"].to_numpy() == ""
    assert streams.loudness[silent].max() < -50 < -30 < streams.loudness[~silent].min()
    assert silent[life.frames["event"] < 0].all()
    edges = np.flatnonzero(life.frames["event"].diff().fillna(0) != 0) / 2
    np.testing.assert_array_equal(edges, streams.boundaries[: len(edges)])
    # What is heard is retrieved from its name, in the frames in which it is heard.
    senses = SenseMap()
    names = np.array([senses(s) for s in SOUNDS])
    heard = np.array(SOUNDS)[(streams.audio[~silent] @ names.T).argmax(axis=1)]
    assert (heard == life.frames["sound"][~silent]).mean() > 0.99
    assert all(described(life, t) in c for t, c in zip(life.events["object"], streams.captions,
                                                       strict=True))  # fmt: skip
    # Not linear: what two words give together is not the sum of what each gives.
    both, parts = senses("kitchen", "sofa"), senses("kitchen") + senses("sofa")
    assert 1 - both @ parts / np.linalg.norm(parts) > 0.01


def test_triples_say_where_everything_is_at_any_time(life):
    table = life.triples()
    rooms = table[(table["subject"] == "agent") & (table["predicate"] == "is in")]
    for time, room in zip(life.frames["time"][::37], life.frames["room"][::37], strict=True):
        now = rooms[(rooms["start"] <= time) & (time < rooms["stop"])]
        assert list(now["object"]) == [room]
    kept = table[table["predicate"] == "is kept in"]
    for item, group in kept.groupby("subject"):
        last = life.events[life.events["item"] == item].iloc[-1]
        assert group.iloc[-1]["object"] == last["name"] and np.isinf(group.iloc[-1]["stop"])
        assert (group["stop"].to_numpy()[:-1] == group["start"].to_numpy()[1:]).all()


def test_tokens_are_the_walk_grouped_by_place(life):
    walk, by_place = place_tokens(life, width=32)
    assert len(by_place) % 32 == 0
    real = by_place[by_place[:, 1] >= 0]
    np.testing.assert_array_equal(real[real[:, 1].argsort()], walk)
    assert all(len(set(chunk[:, 0])) == 1 for chunk in by_place.reshape(-1, 32, 2))
    assert (np.array(life.house.rooms)[walk[:, 0]] == life.frames["room"]).all()


def test_answers_about_a_life_follow_from_its_events(life):
    questions = ask_life(life, 50, rng=np.random.default_rng(0))
    assert {q.kind for q in questions} == set(KINDS)
    events = life.events
    for q in questions:
        query, want = q.query, q.query["find"]
        if want == "object":
            found = events[(events["sound"] == query["sound"]) & (events["day"] == query["day"])]
            assert [described(life, i) for i in found["object"]] == [q.answer]
        elif want == "sound":
            found = events[(events["object"] == query["object"]) & (events["day"] == query["day"])]
            assert list(found["sound"]) == [q.answer] and q.evidence == tuple(found.index)
        elif want == "room":
            day = life.frames[life.frames["day"] == query["day"]]
            assert day.groupby("room").size().idxmax() == q.answer
        elif want == "first":
            firsts = {t: events.index[events["object"] == t][0] for t in query["objects"]}
            assert described(life, min(firsts, key=firsts.get)) == q.answer
        else:
            assert events.loc[events["item"] == query["item"], "name"].iloc[-1] == q.answer
        assert q.choices.count(q.answer) == 1 and len(set(q.choices)) == len(q.choices)


def test_in_a_dialogue_the_latest_fact_wins():
    talks = [dialogue(agent_life(s, item_rate=0.8), rng=np.random.default_rng(s), n_likings=12)
             for s in range(4)]  # fmt: skip
    again = dialogue(agent_life(2, item_rate=0.8), rng=np.random.default_rng(2), n_likings=12)
    assert again.turns.equals(talks[2].turns) and again.probes == talks[2].probes
    contradicted = 0
    for talk in talks:
        turns, facts = talk.turns, talk.facts
        assert turns["day"].is_monotonic_increasing
        for probe in talk.probes:
            fact = facts.iloc[probe.fact]
            same = facts[(facts["kind"] == fact["kind"]) & (facts["subject"] == fact["subject"])]
            told = same.sort_values("turn")
            assert told["value"].iloc[-1] == probe.answer
            earlier = set(told["value"]) - {probe.answer}
            contradicted += bool(earlier)
            assert not earlier or earlier & set(probe.choices)
            for turn in probe.turns:
                assert probe.answer in turns["query"][turn]
                assert fact["subject"] in turns["query"][turn]
            assert not any(probe.text in q for q in turns["query"])
        recalls = turns[turns["kind"] == "recall"]
        lags = recalls["day"].to_numpy() - facts["day"].to_numpy()[recalls["fact"]]
        assert set(lags) <= {1, 3}
        user = talk.history()[talk.user]
        assert sum(map(len, user["history"].values())) == len(turns)
    assert contradicted > 20


def test_the_world_is_known_by_name():
    assert worlds.get("agent-life") is agent_life


def test_nothing_leaks_from_one_life_to_another():
    """Where things stand and what is heard there in one life says nothing about another's."""
    lives = [agent_life(s) for s in range(12)]
    hits, chances = [], []
    for a, b in pairwise(lives):
        where = dict(zip(a.house.objects["category"], a.house.objects["room"], strict=True))
        for o in b.house.objects.itertuples():
            if where.get(o.category) in b.house.rooms:
                hits.append(where[o.category] == o.room)
                chances.append(1 / len(b.house.rooms))
    assert abs(np.mean(hits) - np.mean(chances)) < 3.5 * np.sqrt(0.14 / len(hits))
    names = [set(life.house.objects["name"]) for life in lives]
    assert sum(len(a & b) for a, b in pairwise(names)) <= 2


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda house: make_house(np.random.default_rng(0), rooms=(9, 9)), ConfigError, "rooms"),
        (lambda house: make_house(np.random.default_rng(0), room_cells=2), ConfigError, "4 cells"),
        (lambda house: agent_life(n_events=3, n_days=5), ConfigError, "n_events"),
        (lambda house: agent_life(sound_rate=2), ConfigError, "sound_rate"),
        (lambda house: agent_life(dwell=(5, 2)), ConfigError, "dwell"),
        (lambda house: agent_life(objects_per_room=0), ConfigError, "furnish"),
        (lambda house: render(house, [[0.1, 1.2, 0.1]], [0.0]), DataError, "frame 0"),
        (lambda house: render(house, [[-3, 1.2, 1]], [0.0]), DataError, "frame 0"),
        (lambda house: render(house, [[1, 1, 1]], [0], field_of_view=180), ConfigError, "180"),
        (lambda house: SenseMap()("unicorn"), DataError, "unicorn"),
        (lambda house: ask_life(agent_life(), 3, rng=None, kinds=("why",)), ConfigError, "why"),
        (
            lambda house: dialogue(
                agent_life(), rng=np.random.default_rng(0), recall_schedule=(0,)
            ),
            ConfigError,
            "later day",
        ),
    ],
)
def test_what_is_wrong_is_said(house, make, error, says):
    with pytest.raises(error, match=says):
        make(house)
