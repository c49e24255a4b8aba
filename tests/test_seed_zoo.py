"""Networks that differ in seed, manifolds of known topology, and streaming statistics.

Betti numbers of all shapes were checked once with ripser 0.6 (60 points for curves, 100 for the
sphere, 144 for the torus, noise 0 and 0.05): persistence bars longer than a third of the signal's
spread are as many as declared. The tests below need no such package.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.feature_selection import mutual_info_classif

from engramma.bench.tasks.layer_identification import Layers, score
from engramma.contracts import Estimate
from engramma.errors import ConfigError, DataError
from engramma.nn.small import SmallCNN, SmallMLP, layer_activations
from engramma.nn.statistics import (
    StreamingCovariance,
    mutual_information,
    percentile_bins,
    positions_as_samples,
)
from engramma.worlds.manifolds import SHAPES, manifold, manifold_recording
from engramma.worlds.seed_zoo import SeedZoo, digits, seed_zoo_cohort


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ENGRAMMA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_digits_are_those_of_scikit_learn_split_1200_to_597():
    data = digits()
    images, labels = load_digits(return_X_y=True)
    assert data.train_images.shape == (1200, 1, 8, 8) and len(data.test_images) == 597
    np.testing.assert_array_equal(np.r_[data.train_labels, data.test_labels], labels)
    np.testing.assert_allclose(data.test_images[-1].ravel(), images[-1] / 16)


def test_networks_learn_differ_in_seed_and_come_back_from_the_cache(monkeypatch):
    zoo = SeedZoo("mlp", epochs=6)
    first, second = zoo.trained(0), zoo.trained(1)
    assert zoo.accuracy(first) > 0.8 > 0.3 > zoo.accuracy(zoo.untrained(0))
    assert not torch.equal(first.fc1[0].weight, second.fc1[0].weight)
    monkeypatch.setattr(SeedZoo, "_train", lambda *_: pytest.fail("trained again"))
    assert torch.equal(zoo.trained(0).fc1[0].weight, first.fc1[0].weight)


def test_training_leaves_the_global_random_state_alone_and_repeats(monkeypatch, tmp_path):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    weights = []
    for name in ("a", "b"):
        monkeypatch.setenv("ENGRAMMA_CACHE", str(tmp_path / name))
        weights.append(SeedZoo("cnn", epochs=1).trained(3).conv2[0].weight)
    assert torch.equal(*weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_are_captured_after_their_rectification(rng):
    network = SmallCNN(8, (3, 5), 7, 10)
    images = rng.random((4, 1, 8, 8), dtype=np.float32)
    found = layer_activations(network, images, network.hidden, batch=3)
    expected = torch.relu(network.conv1[0](torch.from_numpy(images))).detach().numpy()
    np.testing.assert_allclose(found["conv1"], expected, rtol=1e-5, atol=1e-6)
    assert found["conv2"].shape == (4, 5, 4, 4) and found["fc"].shape == (4, 7)
    samples = positions_as_samples(found["conv1"])
    np.testing.assert_array_equal(samples[8 * 1 + 2], found["conv1"][0, :, 1, 2])
    assert SmallMLP(4, (3, 2), 2).hidden == ("fc1", "fc2")


def test_zoo_as_cohort_has_networks_as_subjects_and_layers_as_regions():
    cohort = seed_zoo_cohort(n_networks=2, n_stimuli=10)
    recording = cohort["network1"]
    assert list(np.unique(recording.coord("roi"))) == ["fc1", "fc2", "fc3", "fc4"]
    assert recording.values.shape == (10, 256)
    assert recording.stimuli.images.shape == (10, 8, 8, 3)
    with pytest.raises(ConfigError, match="597"):
        seed_zoo_cohort(n_stimuli=3000)


def test_impossible_zoo_is_refused():
    with pytest.raises(ConfigError, match="architecture"):
        SeedZoo("transformer")
    with pytest.raises(ConfigError, match="positive"):
        SeedZoo(epochs=0)


# -- manifolds -----------------------------------------------------------------------------


def neighbourhood_graph(points, reach):
    distance = cdist(points, points)
    spacing = np.sort(distance, axis=1)[:, 1].max()
    return distance <= reach * spacing


@pytest.mark.parametrize(
    "name", ["ring", "twisted ring", "ellipse", "open arc", "line", "two rings"]
)
def test_curves_have_their_parts_and_loops(name, rng):
    """Parts and loops of the neighbour graph of a curve: Euler's formula, loops = E - V + parts."""
    joined = neighbourhood_graph(manifold(name, 64, 20, rng=rng), 1.001)
    if name in ("twisted ring", "ellipse"):  # unevenly spaced: join points by their parameter
        joined = np.eye(64, k=1) + np.eye(64, k=63) > 0
        joined |= joined.T
    np.fill_diagonal(joined, False)
    parts = connected_components(joined)[0]
    edges = int(joined.sum() // 2)
    assert (parts, edges - 64 + parts) == SHAPES[name].betti[:2]


@pytest.mark.parametrize("name", ["sphere", "torus"])
def test_surfaces_have_their_euler_characteristic(name):
    """Curvature, summed over the surface, is 2 pi (b0 - b1 + b2): Gauss and Bonnet."""
    points = SHAPES[name].points(400)
    betti = SHAPES[name].betti
    if name == "sphere":  # curvature one over an area of 4 pi
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
        total = 4 * np.pi
    else:  # flat: a product of two circles
        np.testing.assert_allclose(points[:, :2] ** 2 @ [1, 1], 1)
        np.testing.assert_allclose(points[:, 2:] ** 2 @ [1, 1], 1)
        total = 0.0
    assert total == pytest.approx(2 * np.pi * (betti[0] - betti[1] + betti[2]))


def test_embedding_keeps_distances_and_noise_has_the_size_asked_for(rng):
    points = SHAPES["figure-8"].points(60)
    activity = manifold("figure-8", 60, 50, rng=rng)
    ratio = cdist(activity, activity)[np.triu_indices(60, 1)]
    ratio /= cdist(points, points)[np.triu_indices(60, 1)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert np.sqrt((activity**2).mean()) == pytest.approx(1, rel=1e-5)
    seeds = [np.random.default_rng(1) for _ in range(2)]
    clean, noisy = (
        manifold("ring", 60, 200, s, rng=r) for s, r in zip((0, 0.3), seeds, strict=True)
    )
    assert (noisy - clean).std() == pytest.approx(0.3, rel=0.03)


def test_manifold_world_and_bad_shapes(rng):
    recording = manifold_recording(0, "two rings", n_points=20, n_neurons=30, n_runs=2)
    assert recording.values.shape == (40, 30) and recording.attrs["betti"] == [2, 2, 0]
    for options in ({"name": "knot"}, {"name": "ring", "n_points": 3}):
        with pytest.raises(ConfigError):
            manifold(**options, rng=rng)
    with pytest.raises(ConfigError, match="at least 4"):
        manifold("torus", 20, 3, rng=rng)


# -- statistics ----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.lists(st.integers(1, 60), min_size=1, max_size=4), st.floats(0, 1e4)
)
def test_streaming_covariance_equals_numpy_however_it_is_cut(seed, cuts, offset):
    rng = np.random.default_rng(seed)
    n = sum(cuts) + 2
    x, y = rng.standard_normal((n, 3)) + offset, rng.standard_normal((n, 2)) - offset
    moments = StreamingCovariance(3, 2)
    for rows in np.split(np.arange(n), np.cumsum(cuts)):
        moments.update(x[rows], y[rows])
    full = np.cov(x.T, y.T)
    np.testing.assert_allclose(moments.covariance, full[:3, 3:], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(moments.correlation, np.corrcoef(x.T, y.T)[:3, 3:], atol=1e-9)
    np.testing.assert_allclose(moments.std_second, y.std(axis=0, ddof=1))
    np.testing.assert_allclose(moments.mean_first, x.mean(axis=0))


def test_streaming_refuses_unpaired_and_infinite_samples(rng):
    moments = StreamingCovariance(2, 2)
    with pytest.raises(DataError, match="paired"):
        moments.update(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(DataError, match="samples 0 to 2"):
        moments.update(np.full((3, 2), np.nan), np.zeros((3, 2)))
    with pytest.raises(DataError, match="0 samples"):
        _ = moments.covariance


def test_mutual_information_of_gaussians_and_of_silent_units(rng):
    """Closed form -log(1 - r^2) / 2 (binning loses some); scikit-learn for rectified units.

    The released ``estimate_mi`` gave 0.2236 nats before bias removal for 5000 rectified pairs with
    correlation 0.7, where this gives 0.224.
    """
    x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 20_000).T
    found = mutual_information(x[:, None], np.c_[y, rng.standard_normal(20_000)])[0]
    assert found[0] == pytest.approx(-np.log(1 - 0.36) / 2, abs=0.03)
    assert found[1] == pytest.approx(0, abs=0.003)
    bins = percentile_bins(np.maximum(np.c_[x, y], 0))
    assert (bins[x <= 0, 0] == 0).all() and np.ptp(np.bincount(bins[:, 0])[1:]) <= 2
    peer = mutual_info_classif(bins[:, :1], bins[:, 1], discrete_features=True)[0]
    ours = mutual_information(np.maximum(x, 0)[:, None], np.maximum(y, 0)[:, None])[0, 0]
    assert ours == pytest.approx(peer - 81 / 40_000, abs=1e-4)


# -- the task ------------------------------------------------------------------------------


class Oracle:
    """Knows the layer from the mean activation."""

    def compare(self, a, b):
        return Estimate(-abs(float(a.mean() - b.mean())))


class Ignorant:
    def compare(self, a, b):
        return Estimate(0.0)


def test_task_scores_an_oracle_at_one_and_ignorance_at_chance(rng):
    network, layer = np.repeat(np.arange(3), 4), np.tile(["a", "b", "c", "d"], 3)
    made = tuple(rng.standard_normal((5, 4)) * 0.01 + "abcd".index(name) for name in layer)
    data = Layers(made, network, layer)
    assert score(Oracle(), data) == 1.0
    assert score(Ignorant(), data) == 0.25
    with pytest.raises(DataError, match="no finite value"):
        score(type("Broken", (), {"compare": lambda *_: Estimate(np.nan)})(), data)
