"""Calcium traces and weighted LFR graphs: planted communities, kernels, mixing and power laws."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import normalized_mutual_info_score

from engramma.data.recording import Cohort
from engramma.errors import ConfigError
from engramma.registry import worlds
from engramma.worlds.calcium import calcium, fluorescence
from engramma.worlds.community_graphs import lfr_graph


def _agreement(cohort: Cohort, epochs) -> float:
    """NMI with the first epoch's partition of clusters by correlation, meaned over animals."""
    truth = cohort.attrs["truth"]
    within = np.isin(truth["epoch"], epochs)
    total, count = np.zeros((2, 24, 24))
    for recording, found in zip(cohort.values(), truth["present"], strict=True):
        both = np.ix_(found, found)
        total[both] += np.corrcoef(recording.values[0][:, within])
        count[both] += 1
    similarity = total / np.maximum(count, 1)
    clusters = AgglomerativeClustering(3, metric="precomputed", linkage="average")
    labels = clusters.fit_predict(1 - similarity)
    return normalized_mutual_info_score(truth["partitions"][0], labels)


@pytest.mark.parametrize("indicator", ["none", "ar1", "ar2"])
def test_communities_are_found_within_their_epoch_only(indicator):
    own, other, whole, control = [], [], [], []
    for seed in range(4):
        cohort = calcium(seed, indicator=indicator)
        own.append(_agreement(cohort, [0]))
        other.append(_agreement(cohort, [1]))
        whole.append(_agreement(cohort, [0, 1, 2]))
        control.append(_agreement(calcium(seed, indicator=indicator, signal=False), [0]))
    assert np.mean(own) > 0.85
    assert np.mean(other) < 0.35 and np.mean(control) < 0.35
    assert np.mean(whole) < 0.65


def test_partitions_epochs_and_missing_neurons_are_as_declared():
    cohort = calcium(2, missing=0.3)
    truth = cohort.attrs["truth"]
    for partition in truth["partitions"]:
        assert np.bincount(partition).tolist() == [8, 8, 8]
    assert np.bincount(truth["epoch"]).tolist() == [80, 80, 80]
    assert 0.5 < truth["present"].mean() < 0.9
    for recording, found in zip(cohort.values(), truth["present"], strict=True):
        assert recording.values.shape == (1, found.sum(), 240)
        assert [int(u[1:]) for u in recording.coord("unit")] == np.flatnonzero(found).tolist()
    loud = calcium(2, missing=0.3, noise=3.0)
    ratio = [np.var(loud[a].values) / np.var(cohort[a].values) for a in cohort]
    np.testing.assert_allclose(ratio, 10 / 2, rtol=0.1)  # 1 + 9 against 1 + 1


def test_one_spike_leaves_the_kernel_of_its_indicator():
    spikes = np.eye(1, 40)
    t = np.arange(40) / 10
    d, r = np.exp(-1 / (0.6 * 10)), np.exp(-1 / (0.1 * 10))
    np.testing.assert_allclose(fluorescence(spikes, (0.6,), 10.0)[0], np.exp(-t / 0.6))
    n = np.arange(40)
    closed = (d ** (n + 1) - r ** (n + 1)) / (d - r)
    np.testing.assert_allclose(fluorescence(spikes, (0.1, 0.6), 10.0)[0], closed, atol=1e-12)


def test_calcium_follows_the_seed_and_the_reported_spikes():
    a, b = worlds.get("calcium")(5, indicator="ar1"), calcium(5, indicator="ar1")
    assert a.fingerprint() == b.fingerprint() != calcium(6, indicator="ar1").fingerprint()
    quiet = calcium(5, indicator="ar1", noise=0.0, missing=0.0)
    expected = fluorescence(quiet.attrs["truth"]["spikes"][0], (0.6,), 4.0)
    for mine, theirs in zip(quiet["animal-01"].values[0], expected, strict=True):
        assert np.corrcoef(mine, theirs)[0, 1] > 0.9999


@pytest.fixture(scope="module")
def graph():
    return lfr_graph(rng=np.random.default_rng(1))


def test_lfr_graphs_mix_as_much_as_asked(graph):
    np.testing.assert_array_equal(graph.weights, graph.weights.T)
    assert not graph.weights.diagonal().any() and (graph.weights >= 0).all()
    degree, strength = (graph.weights > 0).sum(axis=1), graph.weights.sum(axis=1)
    assert degree.mean() == pytest.approx(25, rel=0.06) and degree.max() <= 100
    assert np.ptp(degree) > 40
    mu_t, mu_w = graph.mixing()
    assert mu_t == pytest.approx(0.5, abs=0.02) and mu_w == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(strength, degree, rtol=0.05)  # beta = 1
    rooted = lfr_graph(rng=np.random.default_rng(1), beta=0.5, mu_t=0.75, mu_w=0.5)
    degree, strength = (rooted.weights > 0).sum(axis=1), rooted.weights.sum(axis=1)
    np.testing.assert_allclose(strength, np.sqrt(degree), rtol=0.05)
    assert rooted.mixing()[0] == pytest.approx(0.75, abs=0.02)


def test_degrees_follow_their_power_law():
    big = lfr_graph(2000, rng=np.random.default_rng(0), mean_degree=15, max_degree=60, mu_t=0.6)
    degree = (big.weights > 0).sum(axis=1)
    low = np.quantile(degree, 0.02)
    tail = degree[degree >= low]
    # Expected number above twice the lowest degree, under the exponent 2.
    k = np.arange(int(low), 61)
    chance = (k**-2.0) / (k**-2.0).sum()
    assert (tail >= 2 * low).mean() == pytest.approx(chance[k >= 2 * low].sum(), abs=0.04)


def test_a_reference_method_finds_clear_communities_and_none_in_shuffled_ones(graph):
    def louvain(weights):
        parts = nx.community.louvain_communities(nx.from_numpy_array(weights), seed=0)
        labels = np.zeros(len(weights), dtype=int)
        for number, members in enumerate(parts):
            labels[list(members)] = number
        return normalized_mutual_info_score(graph.partition, labels)

    order = np.random.default_rng(0).permutation(len(graph.weights))
    assert louvain(graph.weights) > 0.8
    assert louvain(graph.weights[np.ix_(order, order)]) < 0.3


def test_errors_say_what_to_mend():
    with pytest.raises(ConfigError, match="none, ar1 or ar2"):
        calcium(indicator="gcamp")
    with pytest.raises(ConfigError, match="too few for 3 communities"):
        calcium(n_neurons=5)
    with pytest.raises(ConfigError, match="rise < decay"):
        calcium(rise=2.0)
    with pytest.raises(ConfigError, match="0 <= mu < 1"):
        lfr_graph(mu_t=1.0, rng=np.random.default_rng(0))
    with pytest.raises(ConfigError, match="125 nodes"):
        lfr_graph(max_degree=130, rng=np.random.default_rng(0))
