"""Topological RSA.

Run once beside the released code (doerlbh/TopologicalRSA, ``utils_transform.py`` and
``utils_stats.py``) on random RDMs of 10, 30 and 62 stimuli: RGTM agrees exactly on the grid of
l and u in steps of 0.1, the sigmoid exactly, leave-one-subject-out accuracy exactly (0.71875 on
32 RDMs), and the pairs kept by a bootstrap of the stimuli exactly. RGDM correlates with ours
at 0.945 to 0.996 for l = 0, since the released code loses the edge of length zero; with that edge
taken out here too, ranks agree but for ties broken by rounding (correlation > 0.99998).
"""

from __future__ import annotations

import h5py
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import NearestCentroid

from engramma.bench.claims import judge, mean_interval
from engramma.contracts import Comparison
from engramma.errors import ConfigError, DataError, DataWarning
from engramma.geometry.identification import nearest_centroid
from engramma.geometry.published_rdms import ROI_NAMES, load_rdms
from engramma.registry import systems
from engramma.systems.geometry.trsa import (
    SUMMARIES,
    TopologicalRSA,
    add_noise,
    draw,
    embed,
    grid,
    region_of,
    resampled_pairs,
    run,
)
from engramma.worlds.manifolds import manifold, manifold_recording
from engramma.worlds.seed_zoo import seed_zoo_cohort


def claim(name):
    card = systems.get("trsa")
    return next(c for c in card.claims if c.name == name)


def rank_rdm(d):
    ranks = rankdata(d)
    return (ranks - ranks.min()) / np.ptp(ranks)


# -- transforms ----------------------------------------------------------------------------


def test_whole_range_is_the_rank_rdm(rng):
    d = pdist(rng.standard_normal((12, 5)))
    np.testing.assert_allclose(TopologicalRSA(0, 1).transform(d), rank_rdm(d))
    np.testing.assert_allclose(TopologicalRSA(kind="rank").transform(d), rank_rdm(d))


def test_equal_quantiles_give_the_graph_of_the_nearest_pairs(rng):
    d = pdist(rng.standard_normal((12, 5)))
    found = TopologicalRSA(0.3, 0.3).transform(d)
    np.testing.assert_array_equal(found, (d > np.quantile(d, 0.3, method="lower")).astype(float))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(grid(0.1)))
def test_between_it_is_the_published_formula_and_ignores_monotone_changes(seed, pair):
    d = pdist(np.random.default_rng(seed).standard_normal((10, 4)))
    method, r = TopologicalRSA(*pair), rank_rdm(d)
    low, high = np.quantile(r, pair)
    expected = np.clip((r - low) / (high - low), 0, 1)
    np.testing.assert_allclose(method.transform(d), expected, atol=1e-12)
    np.testing.assert_allclose(method.transform(np.exp(d)), expected, atol=1e-12)


def test_geodesics_are_those_of_networkx(rng):
    d = pdist(rng.standard_normal((20, 5)))
    g = TopologicalRSA(0.05, 0.5).transform(d)
    graph = nx.Graph()
    square = squareform(g)
    graph.add_weighted_edges_from(
        (i, j, square[i, j]) for i in range(20) for j in range(i) if square[i, j] < 1
    )
    expected = squareform(np.asarray(nx.floyd_warshall_numpy(graph, range(20))), checks=False)
    found = TopologicalRSA(0.05, 0.5, kind="rgdm").transform(d)
    # Sums in another order differ by rounding, which may break ties.
    np.testing.assert_allclose(found, rankdata(expected.round(9)), atol=2)


def test_geodesic_of_a_ring_is_the_way_around_it(rng):
    points = manifold("ring", 60, 100, 0.02, rng=rng)
    steps = np.abs(np.subtract.outer(np.arange(60), np.arange(60)))
    around = squareform(np.minimum(steps, 60 - steps), checks=False)
    found = SUMMARIES["geodesic"].transform(pdist(points.astype(float)))
    assert np.corrcoef(rankdata(around), found)[0, 1] > 0.98


@pytest.mark.parametrize("kind", ["p-shortest", "p-nearest"])
def test_all_edges_leave_ranks_that_obey_the_triangle(kind, rng):
    d = pdist(rng.standard_normal((10, 4)))
    found = TopologicalRSA(kind=kind, neighbours=0.9).transform(d)
    assert found.shape == d.shape and np.isfinite(found).all()


def test_a_graph_that_falls_apart_is_refused_or_capped(rng):
    x = rng.standard_normal((10, 3))
    x[5:] += 100
    with pytest.raises(DataError, match="2 parts"):
        TopologicalRSA(0, 0.3, kind="rgdm").transform(pdist(x))
    with pytest.warns(DataWarning, match="2 parts"):
        capped = TopologicalRSA(0, 0.3, kind="rgdm", disconnected="cap").transform(pdist(x))
    far = squareform(capped)[:5, 5:]
    assert (far == capped.max()).all() and far.min() > squareform(capped)[:5, :5].max()


def test_zero_edges_that_join_everything_are_refused(rng):
    with pytest.raises(DataError, match="lower l"):
        TopologicalRSA(0.5, 0.8, kind="rgdm").transform(pdist(rng.standard_normal((30, 3))))


def test_bad_input_is_refused(rng):
    with pytest.raises(ConfigError, match="in order"):
        TopologicalRSA(0.6, 0.4)
    with pytest.raises(ConfigError, match="in order"):
        TopologicalRSA().transform(pdist(rng.standard_normal((6, 3))), l=0.9, u=0.1)
    with pytest.raises(ConfigError, match="no transform"):
        TopologicalRSA(kind="persistence")
    with pytest.raises(DataError, match="4 are needed"):
        TopologicalRSA().transform(np.arange(3.0))
    with pytest.raises(DataError, match="stimuli"):
        TopologicalRSA().compare(rng.random((6, 3)), rng.random((7, 3)))
    with pytest.raises(DataError, match="NaN"):
        TopologicalRSA().transform(np.full(6, np.nan))


def test_regions_tile_the_plane_as_published(rng):
    assert [region_of(*p) for p in ((0, 0.3), (0.7, 1), (0, 1), (0.4, 0.6), (0.2, 0.5))] == [
        "local", "global", "geometry", "topology", "intermediate"
    ]  # fmt: skip
    assert len(grid()) == 210 and all(pair[0] < pair[1] for pair in grid())
    for name in ("local", "topology", "geometry"):
        assert {region_of(*p) for p in draw(name, 5, rng)} == {name}
    with pytest.raises(ConfigError, match="no region"):
        draw("north", 1, rng)


# -- comparison and identification ---------------------------------------------------------


def test_comparison_ignores_rotation_and_order_of_units(rng):
    a = rng.standard_normal((15, 6))
    turned = a @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    b = np.concatenate([turned, np.zeros((15, 3))], axis=1)[:, rng.permutation(9)]
    for method in (TopologicalRSA(), SUMMARIES["rank"], TopologicalRSA(0.0, 0.5, kind="rgdm")):
        assert isinstance(method, Comparison)
        assert method.compare(a, b).value > 0.999
    estimate = TopologicalRSA(n_bootstrap=50).compare(a, a + rng.standard_normal(a.shape))
    assert estimate.low < estimate.value < estimate.high + 0.05 and estimate.high <= 1


def made_up(rng, n_subjects=6, noise=1.0):
    """Three regions with RDMs of their own, in several subjects."""
    truth = np.stack([pdist(rng.standard_normal((12, 4))) for _ in range(3)])
    region = np.tile(["x", "y", "z"], n_subjects)
    subject = np.repeat(np.arange(n_subjects), 3)
    rdms = np.tile(truth, (n_subjects, 1))
    return add_noise(rdms, noise, rng), subject, region


def test_identification_equals_scikit_learn(rng):
    rdms, subject, region = made_up(rng)
    x = TopologicalRSA().transform(rdms)
    predicted = cross_val_predict(
        NearestCentroid(), x, region, groups=subject, cv=LeaveOneGroupOut()
    )
    found = TopologicalRSA().identify(rdms, subject, region)
    np.testing.assert_array_equal(found.predicted, predicted)
    assert (
        found.accuracy == accuracy_score(region, predicted) > found.chance == pytest.approx(1 / 3)
    )


def test_copies_of_a_subject_are_left_out_together(rng):
    rdms, subject, region = made_up(rng, noise=50.0)
    x = rng.standard_normal(rdms.shape)
    doubled = np.r_[np.arange(18), np.arange(18)]
    found = nearest_centroid(x[doubled], subject[doubled], region[doubled])
    np.testing.assert_array_equal(found.predicted[:18], found.predicted[18:])
    assert found.accuracy < 0.8  # a copy in training would give 1


def test_bootstrap_drops_pairs_of_copies_and_pairs_its_differences(rng):
    position = squareform(np.arange(6 * 5 // 2))
    pairs = resampled_pairs(6, np.random.default_rng(3))
    drawn = np.random.default_rng(3).integers(6, size=6)
    expected = [position[a, b] for i, a in enumerate(drawn) for b in drawn[i + 1 :] if a != b]
    np.testing.assert_array_equal(pairs, expected)
    rdms, subject, region = made_up(rng, noise=0.5)
    one = TopologicalRSA().bootstrap(rdms, subject, region, rng=rng, n_bootstrap=40)
    assert 0 < one.low <= one.high <= 1
    same = TopologicalRSA().bootstrap(
        rdms, subject, region, rng=rng, n_bootstrap=20, against=TopologicalRSA()
    )
    assert same.value == same.low == same.high == 0


def test_l_and_u_are_chosen_without_the_subject_left_out(rng):
    """Pure noise: choosing on the subject that is scored would find far more than chance."""
    region = np.tile(["x", "y"], 12)
    subject = np.repeat(np.arange(12), 2)
    accuracies = []
    for _ in range(8):
        rdms = rng.random((24, 45))
        found, chosen = TopologicalRSA().choose(rdms, subject, region, grid(0.2))
        accuracies.append(found.accuracy)
        assert set(chosen) == set(range(12))
    best = np.mean(accuracies)
    assert 0.3 < best < 0.62


def test_identification_needs_other_subjects(rng):
    rdms, subject, region = made_up(rng)
    with pytest.raises(DataError, match="nothing to identify"):
        TopologicalRSA().identify(rdms[:3], subject[:3], region[:3])
    with pytest.raises(DataError, match="'z'"):
        keep = (region != "z") | (subject == 0)
        TopologicalRSA().identify(rdms[keep], subject[keep], region[keep])
    with pytest.raises(DataError, match="at least three"):
        TopologicalRSA().choose(rdms[:6], subject[:6], region[:6])
    with pytest.raises(DataError, match="18 RDMs"):
        TopologicalRSA().identify(rdms, subject[:4], region)


def test_noise_has_the_published_size_and_never_falls_below_zero(rng):
    rdms = 10 + rng.standard_normal((4, 4950))
    noisy = add_noise(rdms, 0.4, rng)
    assert (noisy - rdms).std() == pytest.approx(0.4 * rdms.std(), rel=0.03)
    assert add_noise(rng.random((2, 45)), 5, rng).min() == 0


def test_display_recovers_the_plane_and_aligns_what_is_turned(rng):
    points = rng.standard_normal((10, 2))
    placed = embed(np.stack([pdist(points), pdist(3 * points)]), rng=rng)
    np.testing.assert_allclose(placed[1], placed[0] / np.linalg.norm(placed[0]), atol=0.02)
    assert np.corrcoef(pdist(placed[0]), pdist(points))[0, 1] > 0.999


# -- files ---------------------------------------------------------------------------------


def struct(rng):
    return {
        "rdm": rng.random((4, 45)),
        "subj": np.array([[1], [1], [2], [2]], dtype=float),
        "roi": np.array([[1], [8], [1], [8]], dtype=float),
    }


def save_v73(path, fields):
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("D")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for name, values in fields.items():
            group[name] = values.T  # MATLAB stores columns first
            group[name].attrs["MATLAB_class"] = np.bytes_("double")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(header)


@pytest.mark.parametrize("save", [lambda p, f: savemat(p, {"D": f}), save_v73], ids=["v5", "v7.3"])
def test_matlab_struct_is_read(save, rng, tmp_path):
    fields = struct(rng)
    save(tmp_path / "d.mat", fields)
    found = load_rdms(tmp_path / "d.mat")
    np.testing.assert_allclose(found.rdms, fields["rdm"])
    assert list(found.subject) == ["1", "1", "2", "2"]
    assert list(found.region) == [ROI_NAMES[0], ROI_NAMES[7]] * 2


def test_layers_of_networks_are_read_from_vectors_and_squares(rng, tmp_path):
    rdms = rng.random((2, 3, 45))
    np.save(tmp_path / "a.npy", rdms[0])
    np.save(tmp_path / "b.npy", np.stack([squareform(r) for r in rdms[1]]))
    found = load_rdms(tmp_path / "a.npy", tmp_path / "b.npy")
    np.testing.assert_allclose(found.rdms, rdms.reshape(6, 45))
    assert list(found.region[:3]) == ["layer01", "layer02", "layer03"]
    assert list(found.subject) == ["1"] * 3 + ["2"] * 3


def test_broken_files_are_refused(rng, tmp_path):
    bad = tmp_path / "bad.mat"
    bad.write_bytes(b"nothing")
    savemat(tmp_path / "other.mat", {"E": 1})
    fields = struct(rng)
    savemat(tmp_path / "roi.mat", {"D": {**fields, "roi": fields["roi"] + 1}})
    savemat(tmp_path / "short.mat", {"D": {**fields, "subj": fields["subj"][:3]}})
    for name in ("bad.mat", "other.mat", "roi.mat", "short.mat", "absent.mat"):
        with pytest.raises(DataError, match=name):
            load_rdms(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "cube.npy", rng.random((2, 5, 5)))
    for name in ("objects.npy", "cube.npy"):
        with pytest.raises(DataError, match=name):
            load_rdms(tmp_path / name)


# -- whole runs ----------------------------------------------------------------------------


def test_run_identifies_the_layers_of_a_zoo(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ENGRAMMA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    result = run(seed_zoo_cohort(n_networks=5, n_stimuli=40))
    accuracy = result.metrics["accuracy (rank RDM)"]
    assert accuracy.value > 0.4 and accuracy.low <= accuracy.high
    assert result.arrays["rdms"].shape == (20, 780)
    with pytest.raises(DataError, match="nothing to identify"):
        run(manifold_recording(n_runs=1, n_points=12))


def test_geodesics_see_topology_where_ranks_do_not():
    """Three seeds of two claims; `engramma verify trsa` runs them all."""
    sees, misses = claim("geodesic-sees-topology"), claim("rank-misses-topology")
    tasks = [sees.prepare(seed) for seed in range(3)]
    effect = mean_interval([sees.system(t) for t in tasks])
    control = mean_interval([sees.control.measure(t) for t in tasks])
    assert effect.value > sees.margin > control.high
    effect = mean_interval([misses.system(t) for t in tasks])
    control = mean_interval([misses.control.measure(t) for t in tasks])
    assert judge(misses, effect, control)[0] == "holds"
