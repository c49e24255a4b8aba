"""Convergent learning, unit matching, and the baselines of its leaderboard.

Run once beside the released code (YixuanLi/convergent_learning): its ``max_match_order`` (networkx)
and our bipartite matching choose the same pairs on a 20 x 20 matrix. Its Caffe logs, where 0.5 is
the loss of the mean, go from 0.17 to 0.235 to 0.485 as the weight decay of 96 conv1 units goes from
0 to 10^-2.6 to 10^-2: penalties a target of 0, 0.24 and 0.96, and at the last only units that
correlate above 0.96 may keep a weight, as the lasso has it.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso
from sklearn.metrics import adjusted_rand_score

from engramma.contracts import Comparison
from engramma.errors import ConfigError, DataError, DataWarning
from engramma.geometry.matching import (
    bipartite_affinity,
    hierarchical_blocks,
    joint_affinity,
    match_units,
    sparse_map,
    spectral_blocks,
)
from engramma.geometry.published_activations import load_activations, load_statistics
from engramma.registry import systems
from engramma.systems.geometry.baselines import Alignment, linear_cka
from engramma.systems.geometry.convergent_learning import (
    ConvergentLearning,
    run,
    sparse_map_by_descent,
)
from engramma.worlds.seed_zoo import seed_zoo_cohort


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ENGRAMMA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


# -- matching ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (4, 6), (6, 4)])
def test_bipartite_matching_is_the_best_of_all(shape, rng):
    similarity = rng.standard_normal(shape)
    found = match_units(similarity)
    wide = similarity if shape[0] <= shape[1] else similarity.T
    rows = range(wide.shape[0])
    best = max(
        sum(wide[i, p[i]] for i in rows) for p in permutations(range(wide.shape[1]), len(rows))
    )
    assert found.similarity.sum() == pytest.approx(best)
    assert len(found.first) == min(shape) == len(set(found.second)) == len(set(found.first))


def test_semi_matching_takes_the_best_with_repeats(rng):
    similarity = rng.standard_normal((5, 3))
    found = match_units(similarity, "semi")
    np.testing.assert_array_equal(found.similarity, similarity.max(axis=1))
    assert found.mean >= match_units(similarity.T).similarity.sum() / 5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["bipartite", "semi"]))
def test_permuting_units_permutes_the_matching_and_nothing_else(seed, kind):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((30, 5)), rng.standard_normal((30, 7))
    p, q = rng.permutation(5), rng.permutation(7)
    method = ConvergentLearning(kind)
    before, after = method.match(a, b), method.match(a[:, p], b[:, q])
    assert method.compare(a, b).value == pytest.approx(method.compare(a[:, p], b[:, q]).value)
    pairs = set(zip(before.first, before.second, strict=True))
    assert pairs == set(zip(p[after.first], q[after.second], strict=True))
    copy = method.match(a, a[:, p])
    assert copy.mean == pytest.approx(1) and (p[copy.second] == copy.first).all()


def test_unknown_matchings_and_infinite_similarities_are_refused():
    with pytest.raises(DataError, match="units 0 and 1"):
        match_units(np.array([[1.0, np.nan]]))
    with pytest.raises(ConfigError, match="bipartite or semi"):
        match_units(np.eye(2), "stable")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        ConvergentLearning("stable")  # type: ignore[arg-type]


# -- correlations --------------------------------------------------------------------------


def test_maps_are_correlated_over_images_and_positions(rng):
    a = rng.standard_normal((6, 3, 4, 5)).astype(np.float32)
    b = rng.standard_normal((6, 2, 4, 5)).astype(np.float32) + a[:, :2]
    found = ConvergentLearning().correlate(a, b)
    flat = [np.moveaxis(x, 1, 0).reshape(x.shape[1], -1) for x in (a, b)]
    expected = np.corrcoef(*flat)
    np.testing.assert_allclose(found.between, expected[:3, 3:], atol=1e-6)
    np.testing.assert_allclose(found.within_second, expected[3:, 3:], atol=1e-6)


def test_dead_units_are_dropped_and_listed(rng):
    a, b = rng.standard_normal((40, 5)), rng.standard_normal((40, 4))
    a[:, 1], b[:, [0, 3]] = 0.3, 7.1
    found = ConvergentLearning().correlate(a.astype(np.float32), b)
    assert found.dead_first.tolist() == [1] and found.dead_second.tolist() == [0, 3]
    pairs = ConvergentLearning().match(a, b)
    assert 1 not in pairs.first and set(pairs.second) <= {1, 2}
    result = ConvergentLearning().report(a, b)
    assert any("[1] of the first" in note for note in result.notes)
    with pytest.raises(DataError, match="second network"):
        ConvergentLearning().correlate(a, np.ones((40, 2)))


def test_unpaired_samples_are_refused(rng):
    with pytest.raises(DataError, match="paired"):
        ConvergentLearning().compare(rng.random((5, 2)), rng.random((6, 2)))
    with pytest.raises(DataError, match="NaN"):
        ConvergentLearning().compare(np.full((5, 2), np.nan), rng.random((5, 2)))
    with pytest.raises(DataError, match="shape"):
        ConvergentLearning().compare(rng.random(5), rng.random((5, 2)))


def test_interval_covers_the_estimate_and_matching_finds_what_is_shared(rng):
    shared = rng.standard_normal((400, 6))
    a, b = (shared[:, rng.permutation(6)] + rng.standard_normal((400, 6)) for _ in range(2))
    estimate = ConvergentLearning(n_bootstrap=50).compare(a, b)
    assert estimate.value == pytest.approx(0.5, abs=0.05)
    assert estimate.low < estimate.value < estimate.high
    assert isinstance(ConvergentLearning(), Comparison)


# -- sparse maps ---------------------------------------------------------------------------


def standardised(x):
    return (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)


@pytest.mark.parametrize("penalty", [0.0, 0.01, 0.1, 0.5])
def test_sparse_map_is_the_lasso_of_scikit_learn(penalty, rng):
    mixing = rng.standard_normal((8, 8))
    a = rng.standard_normal((300, 8)) @ mixing
    b = a @ rng.standard_normal((8, 3)) + 3 * rng.standard_normal((300, 3))
    found = ConvergentLearning().sparse_map(a, b, penalty)
    x, y = standardised(a), standardised(b)
    for unit in range(3):
        peer = Lasso(
            max(penalty, 1e-9) * 299 / 300, tol=1e-9, max_iter=200_000, fit_intercept=False
        )
        peer.fit(x, y[:, unit])
        np.testing.assert_allclose(found.weights[:, unit], peer.coef_, atol=2e-5)
        assert found.loss[unit] == pytest.approx(
            0.5 * np.mean((y[:, unit] - peer.predict(x)) ** 2), abs=1e-5
        )
    if penalty:
        assert (found.n_inputs == (np.abs(found.weights) > 1e-3).sum(axis=0)).all()


def test_more_penalty_leaves_fewer_inputs_and_more_loss(rng):
    a = rng.standard_normal((200, 10))
    b = a[:, :4] + a[:, 4:8] + 0.5 * rng.standard_normal((200, 4))
    maps = ConvergentLearning().sweep(a, b, (0.0, 0.1, 0.3, 0.6, 2.0))
    losses = [m.loss.mean() for m in maps]
    assert losses == sorted(losses) and losses[-1] == pytest.approx(0.5, abs=0.01)
    assert maps[2].n_inputs.tolist() == [2, 2, 2, 2] and maps[-1].n_inputs.sum() == 0
    other = (a[:50], b[::-1][:50])
    tested = ConvergentLearning().sparse_map(a, b, 0.0, test=other)
    assert tested.loss.mean() > 2 * losses[0]
    with pytest.raises(ConfigError, match="negative"):
        ConvergentLearning().sparse_map(a, b, -1.0)


def test_published_descent_comes_near_the_exact_optimum(rng):
    a = np.maximum(rng.standard_normal((60, 6, 3, 3)), 0)
    b = a[:, :4] + 0.7 * a[:, 2:6] + 0.3 * rng.standard_normal((60, 4, 3, 3))
    exact = ConvergentLearning().sparse_map(a, b, 0.05)
    descended = sparse_map_by_descent(a, b, 0.05, rng=rng)
    objective = [m.loss.sum() + 0.05 * np.abs(m.weights).sum() for m in (exact, descended)]
    assert objective[0] <= objective[1] < 1.02 * objective[0]


def test_copies_of_units_are_no_obstacle(rng):
    x = standardised(rng.standard_normal((100, 3)))
    twice = np.c_[x, x]
    within, between = np.corrcoef(twice.T), np.corrcoef(twice.T)[:, :3]
    np.testing.assert_allclose(twice @ sparse_map(within, between, 0.0), x, atol=1e-8)
    sparse = sparse_map(within, between, 0.1)
    np.testing.assert_allclose(
        sparse[:3] + sparse[3:], sparse_map(within[:3, :3], between[:3], 0.1), atol=1e-6
    )


# -- blocks --------------------------------------------------------------------------------


def planted(rng, sizes=(5, 8, 4), noise=0.4):
    label = np.repeat(np.arange(len(sizes)), sizes)
    factor = rng.standard_normal((500, len(sizes)))
    return factor[:, label] + noise * rng.standard_normal((500, len(label))), label, factor


@pytest.mark.parametrize("affinity", ["between", "joint"])
def test_planted_groups_of_units_are_found_with_their_number(affinity, rng):
    a, label, factor = planted(rng)
    p = rng.permutation(17)
    b = (factor[:, label] + 0.4 * rng.standard_normal(a.shape))[:, p]
    blocks, levels = ConvergentLearning().cluster(a, b, affinity=affinity)
    assert blocks.n_blocks == 3
    assert adjusted_rand_score(np.r_[label, label[p]], blocks.labels) == 1
    assert (blocks.cohesion > 1).all()
    np.testing.assert_array_equal(levels[0], blocks.labels)
    assert abs(blocks.eigenvalues[0]) < 1e-10
    with pytest.raises(ConfigError, match="between or joint"):
        ConvergentLearning().cluster(a, b, affinity="other")  # type: ignore[arg-type]


def test_blocks_within_blocks_are_split_and_stay_inside(rng):
    outer, inner = np.repeat([0, 1], 16), np.repeat([0, 1, 2, 3], 8)
    affinity = 0.02 + 0.13 * (outer[:, None] == outer) + 0.6 * (inner[:, None] == inner)
    affinity += 0.01 * rng.random((32, 32))
    affinity = (affinity + affinity.T) / 2
    np.fill_diagonal(affinity, 0)
    levels = hierarchical_blocks(affinity, max_blocks=3, rng=rng)
    assert adjusted_rand_score(levels[0], outer) == 1
    assert adjusted_rand_score(levels[1], inner) == 1


def test_loose_units_and_impossible_numbers_are_refused(rng):
    with pytest.raises(DataError, match="unit 2"):
        spectral_blocks(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]]), rng=rng)
    with pytest.raises(ConfigError, match="not 9"):
        spectral_blocks(bipartite_affinity(np.ones((2, 2))), 9, rng=rng)
    with pytest.raises(DataError, match="symmetric"):
        spectral_blocks(np.array([[0, 1], [0.5, 0]]), rng=rng)
    joint = joint_affinity(np.eye(2), np.eye(3), -np.ones((2, 3)))
    assert joint.shape == (5, 5) and np.trace(joint) == 0 and joint.min() == 0


# -- files ---------------------------------------------------------------------------------


def test_activations_must_agree_in_stimuli_and_preprocessing(rng, tmp_path):
    a, b = rng.random((4, 2)), rng.random((4, 3))
    save = lambda name, x, **more: np.savez(tmp_path / name, activations=x, **more)  # noqa: E731
    same = {"stimuli": ["a", "b", "c", "d"], "preprocessing": "0 to 1"}
    save("a.npz", a, **same)
    save("b.npz", b, **same)
    loaded = load_activations(tmp_path / "a.npz", tmp_path / "b.npz")
    np.testing.assert_array_equal(loaded[1], b)
    save("other.npz", b, stimuli=same["stimuli"], preprocessing="z-scored")
    with pytest.raises(DataError, match="differ in preprocessing"):
        load_activations(tmp_path / "a.npz", tmp_path / "other.npz")
    save("order.npz", b, stimuli=["b", "a", "c", "d"], preprocessing="0 to 1")
    with pytest.raises(DataError, match="differ in stimuli"):
        load_activations(tmp_path / "a.npz", tmp_path / "order.npz")
    save("bare.npz", b)
    with pytest.raises(DataError, match="only one"):
        load_activations(tmp_path / "a.npz", tmp_path / "bare.npz")
    with pytest.warns(DataWarning, match="neither"):
        load_activations(tmp_path / "bare.npz", tmp_path / "bare.npz")
    np.savez(tmp_path / "named.npz", x=a)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("named.npz", "text.npz", "absent.npz"):
        with pytest.raises(DataError, match=name):
            load_activations(tmp_path / "a.npz", tmp_path / name)


def test_stored_statistics_are_read_and_pickles_are_refused(rng, tmp_path):
    x = rng.standard_normal((50, 7))
    x[:, 2] = 0
    with np.errstate(invalid="ignore"):
        full = np.corrcoef(x.T)
    for folder, name, part in (
        ("net0", "val_cor", full[:4, :4]),
        ("net1", "val_cor", full[4:, 4:]),
        ("net0", "val_cor_net0_net1", full[:4, 4:]),
    ):
        place = tmp_path / folder / name
        place.mkdir(parents=True)
        np.save(place / "conv1.npy", part)
    found = load_statistics(tmp_path / "net0", tmp_path / "net1", "conv1", "net0_net1")
    assert found.dead_first.tolist() == [2]
    np.testing.assert_allclose(found.between, full[np.ix_([0, 1, 3], [4, 5, 6])])
    (tmp_path / "net0" / "val_cor" / "conv2.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"pickle.*numpy\.save"):
        load_statistics(tmp_path / "net0", tmp_path / "net1", "conv2", "net0_net1")
    with pytest.raises(DataError, match="no such file"):
        load_statistics(tmp_path / "net0", tmp_path / "net1", "conv9", "net0_net1")
    np.save(tmp_path / "net1" / "val_cor" / "conv1.npy", np.eye(2))
    with pytest.raises(DataError, match="shapes"):
        load_statistics(tmp_path / "net0", tmp_path / "net1", "conv1", "net0_net1")


# -- whole runs ----------------------------------------------------------------------------


def test_report_shows_chance_beside_every_level(rng):
    a, _, factor = planted(rng)
    b = factor[:, np.repeat(np.arange(3), (6, 6, 5))] + 0.4 * rng.standard_normal((500, 17))
    result = ConvergentLearning().report(a, b)
    value = {name: estimate.value for name, estimate in result.metrics.items()}
    assert value["bipartite correlation"] > 0.7
    assert value["semi-matching correlation"] > value["bipartite correlation"]
    assert 0 < value["bipartite correlation, samples shuffled"] < 0.15
    assert value["loss at penalty 0"] < value["loss at penalty 0.3"] < 0.5
    assert value["blocks"] == 3


def test_run_matches_networks_layer_by_layer(cache):
    result = run(seed_zoo_cohort(n_networks=2, n_stimuli=40))
    for layer in ("fc1", "fc4"):
        bipartite = result.metrics[f"{layer}: bipartite correlation"].value
        shuffled = result.metrics[f"{layer}: bipartite, stimuli shuffled correlation"].value
        assert bipartite > shuffled + 0.1
    with pytest.raises(DataError, match="one subject"):
        run(seed_zoo_cohort(n_networks=1, n_stimuli=10))


def test_a_claim_holds_and_its_control_breaks_it(cache):
    """One seed of one claim; `engramma verify convergent-learning` runs them all."""
    card = systems.get("convergent-learning")
    assert len(card.claims) == 12
    claim = next(c for c in card.claims if c.name == "fc-matches")
    task = claim.prepare(0)
    assert claim.system(task) - claim.baseline(task) > claim.margin > claim.control.measure(task)


# -- baselines -----------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["rsa-rank", "rsa-correlation", "cka", "procrustes", "svcca"])
def test_baselines_know_a_rotated_copy_from_noise(slug, rng):
    card = systems.get(slug)
    assert card.baseline and "layer-identification" in card.tasks
    a = rng.standard_normal((40, 8)) * np.arange(1, 9)
    method = card.factory()
    if slug == "rsa-correlation":  # centring over units is not invariant to rotation
        same = method.compare(a, a[:, rng.permutation(8)]).value
    else:
        same = method.compare(a, a @ np.linalg.qr(rng.standard_normal((8, 8)))[0]).value
    other = method.compare(a, rng.standard_normal((40, 8))).value
    assert same == pytest.approx(1, abs=1e-4) and other < 0.6
    with pytest.raises(DataError):
        method.compare(a, a[:20])


def test_jackknife_covers(rng):
    a = rng.standard_normal((40, 5))
    found = Alignment(linear_cka, interval=True).compare(a, a + rng.standard_normal(a.shape))
    assert found.low < found.value < found.high < found.low + 0.6
