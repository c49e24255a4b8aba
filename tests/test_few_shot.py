"""Episodes: their truth, what they must not give away, and the readers of images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from engramma.bench.tasks import few_shot_classification, few_shot_regression
from engramma.errors import ConfigError, DataError, LeakageError
from engramma.worlds.few_shot import (
    DelayedCopy,
    ImageEpisodes,
    Images,
    SinusoidEpisodes,
    digits,
    read_image_arrays,
    read_omniglot,
    split_classes,
    turned,
)


def draw(source, n=200, seed=0):
    return source.draw(np.random.default_rng(seed), n)


def test_sinusoids_are_found_from_two_points():
    episodes = draw(SinusoidEpisodes(6))
    episodes.check_delay()
    x, y = episodes.inputs[..., 0].astype(float) * 5, episodes.targets[..., 0]
    assert np.abs(x).max() <= 5
    basis = np.stack([np.sin(x), np.cos(x)], -1)
    found = np.array([np.linalg.lstsq(b, t, rcond=None)[0] for b, t in zip(basis, y, strict=True)])
    np.testing.assert_allclose((basis @ found[..., None])[..., 0], y, atol=1e-4)
    amplitude = np.hypot(*found.T)
    assert amplitude.min() >= 0.1 and 4.5 < amplitude.max() <= 5.0
    phase = np.arctan2(-found[:, 1], found[:, 0])
    assert phase.min() >= -1e-6 and phase.max() <= np.pi + 1e-6
    np.testing.assert_array_equal(episodes.shown[:, 1:], episodes.targets[:, :-1])
    assert not episodes.shown[:, 0].any()


def test_a_regression_that_knows_the_family_needs_two_shots():
    episodes = draw(SinusoidEpisodes(10), 300)
    known = few_shot_regression.errors(few_shot_regression.ridge(episodes), episodes)
    smooth = few_shot_regression.errors(few_shot_regression.gaussian_process(episodes), episodes)
    assert known[0] == smooth[0] == pytest.approx((episodes.targets[:, 0] ** 2).mean())
    assert known[3] < 0.1 < smooth[3]
    assert smooth[10] < smooth[3] / 3
    # sklearn's process with the same kernel says the same.
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    x, y = episodes.inputs[0] * 5.0, episodes.targets[0]
    process = GaussianProcessRegressor(RBF(1.5), alpha=1e-3, optimizer=None).fit(x[:7], y[:7])
    said = few_shot_regression.gaussian_process(episodes)[0, 7]
    np.testing.assert_allclose(said, process.predict(x[7:8]), atol=1e-5)


def test_labels_hold_for_one_episode():
    episodes = draw(ImageEpisodes(digits(), ways=4, length=20))
    episodes.check_delay()
    rows = zip(episodes.kind, episodes.targets, episodes.instance, strict=True)
    for kind, label, instance in rows:
        for k in np.unique(kind):
            assert len(np.unique(label[kind == k])) == 1
            assert list(instance[kind == k]) == [1, 2, 3, 4, 5]
    # Over episodes a label says nothing about the class: all pairs occur alike.
    table = np.zeros((10, 4))
    np.add.at(table, (episodes.kind[:, 0], episodes.targets[:, 0]), 1)
    assert (np.corrcoef(episodes.kind.ravel(), episodes.targets.ravel())[0, 1]) ** 2 < 0.01
    # Nor does the step: the first instance cannot be known.
    first = episodes.targets[:, 0]
    assert np.bincount(first).max() < 80


def test_images_belong_to_their_classes():
    images = digits()
    episodes = draw(ImageEpisodes(images, ways=3, length=9), 20)
    known = {v.tobytes(): int(c) for v, c in zip(images.values, images.labels, strict=True)}
    shown = episodes.inputs.reshape(-1, 64)
    for x, kind in zip(shown, episodes.kind.ravel(), strict=True):
        assert known[x.tobytes()] == kind
    assert len({x.tobytes() for x in episodes.inputs[0]}) == 9


def test_a_class_can_be_rare():
    episodes = draw(ImageEpisodes(digits(), ways=4, length=50, rare=0.02), 400)
    counts = np.array([sorted(np.bincount(t, minlength=4)) for t in episodes.targets])
    assert 0.8 < counts[:, 0].mean() < 1.2
    assert counts[:, 1].min() > 3


def test_classes_are_of_one_side():
    images = digits()
    seen, unseen = split_classes(images, range(6), range(6, 10))
    assert set(seen.labels) == set(range(6)) and set(unseen.labels) == {6, 7, 8, 9}
    with pytest.raises(LeakageError, match="class 5"):
        split_classes(images, range(6), range(5, 10))
    with pytest.raises(DataError, match="class 12"):
        split_classes(images, range(6), [12])


def test_leaking_labels_are_found():
    episodes = draw(ImageEpisodes(digits(), ways=3, length=6), 4)
    for shown in (episodes.codes, np.roll(episodes.shown, 1, axis=0), episodes.shown[:, ::-1]):
        object.__setattr__(episodes, "shown", shown)
        with pytest.raises(LeakageError, match="step before"):
            episodes.check_delay()


def test_delayed_copy():
    episodes = draw(DelayedCopy(symbols=3, items=2, delay=5))
    tokens = episodes.inputs.argmax(-1)
    np.testing.assert_array_equal(episodes.targets[:, 5:], tokens[:, :2])
    assert (tokens[:, 2:5] == 3).all() and (tokens[:, 5:] == 4).all()
    assert not episodes.scored[:, :5].any() and episodes.scored[:, 5:].all()
    np.testing.assert_array_equal(episodes.label[:, 0, 3:], np.eye(3)[tokens[:, 1]])


@pytest.mark.parametrize(
    "make",
    [
        lambda: DelayedCopy(items=9, delay=8),
        lambda: DelayedCopy(symbols=1),
        lambda: SinusoidEpisodes(0),
        lambda: ImageEpisodes(digits(), ways=11),
        lambda: ImageEpisodes(digits(), rare=1.5),
    ],
)
def test_impossible_episodes_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def omniglot(folder, rng):
    for alphabet in ("Greek", "Latin"):
        for character in ("character01", "character02"):
            place = folder / alphabet / character
            place.mkdir(parents=True)
            for drawer in range(3):
                strokes = np.full((105, 105), 255, dtype=np.uint8)
                strokes[: rng.integers(20, 60), :10] = 0
                Image.fromarray(strokes).convert("1").save(place / f"0001_{drawer:02d}.png")
    return folder


def test_omniglot_folders(tmp_path, rng):
    images = read_omniglot(omniglot(tmp_path / "images_background", rng))
    assert images.values.shape == (12, 784)
    assert images.names[0] == "Greek/character01" and len(images.names) == 4
    assert np.bincount(images.labels).tolist() == [3, 3, 3, 3]
    corner = images.values.reshape(-1, 28, 28)
    assert (corner[:, 0, 0] == 1).all() and not corner[:, -1, -1].any()
    more = read_omniglot(tmp_path / "images_background", rotations=True)
    assert len(more.names) == 16 and more.names[-1] == "Latin/character02@270"
    last = more.values[more.labels == 4].reshape(-1, 28, 28)  # turned by 90 degrees
    assert (last[:, -1, 0] == 1).all() and not last[:, 0, -1].any()
    ImageEpisodes(more, ways=5, length=10).draw(rng, 2).check_delay()
    with pytest.raises(DataError, match="Omniglot"):
        read_omniglot(tmp_path / "nowhere")
    (tmp_path / "images_background/Greek/character01/0001_00.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="0001_00"):
        read_omniglot(tmp_path / "images_background")


def test_turning_four_times_is_nothing():
    images = Images(np.arange(18, dtype=np.float32).reshape(2, 9), np.array([0, 1]), ("a", "b"))
    more = turned(images)
    assert more.names == ("a", "b", "a@90", "b@90", "a@180", "b@180", "a@270", "b@270")
    np.testing.assert_array_equal(more.values[4], images.values[0][::-1])


def test_image_arrays(tmp_path, rng):
    path, data = tmp_path / "mini.npz", rng.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    np.savez(path, image_data=data, labels=[5, 5, 7, 7, 9, 9], names=["n01", "n02", "n03"])
    images = read_image_arrays(path)
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2] and images.names == ("n01", "n02", "n03")
    np.testing.assert_allclose(images.values, data.reshape(6, -1) / 255.0, atol=1e-7)
    assert read_image_arrays(path, size=4).values.shape == (6, 48)
    np.savez(path, image_data=data, labels=np.arange(5))
    with pytest.raises(DataError, match="labels"):
        read_image_arrays(path)
    np.savez(path, image_data=data, labels=np.array(list("abcdef"), dtype=object))
    with pytest.raises(DataError, match="pickle"):
        read_image_arrays(path)
    path.write_bytes(b"\x80\x04}q\x00.")
    with pytest.raises(DataError, match="npz"):
        read_image_arrays(path)


def test_tasks_ask_what_one_example_taught():
    data = few_shot_classification.prepare(0)
    assert set(np.unique(data.test.kind)) == {6, 7, 8, 9}
    assert 0.7 < few_shot_classification.nearest_neighbour(data) < 1
    oracle = data.test.codes
    assert few_shot_classification.accuracies(oracle, data.test) == {1: 1.0, 2: 1.0, 5: 1.0}
    from engramma.memory.recurrent import LSTM

    model = few_shot_classification.fitted(LSTM(), data, steps=2)
    assert few_shot_classification.answers(model, data.test).shape == data.test.codes.shape
