"""Feature decoding, retrieval, and the decoder that fulfils the contract."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances

from engramma.contracts import Decoder
from engramma.data.features import Features
from engramma.data.recording import Recording
from engramma.data.splits import leave_one_out, stimulus_folds
from engramma.decoding.decoder import LinearDecoder
from engramma.decoding.regress import FeatureDecoder, decode_features
from engramma.decoding.retrieval import csls, identify, similarity
from engramma.errors import ConfigError, DataError, LeakageError


def make(rng, n_stimuli=60, n_units=80, n_runs=3, n_features=10, noise=1.0):
    ids = [f"im{i:03d}" for i in range(n_stimuli)]
    values = rng.standard_normal((n_stimuli, n_features)) * np.geomspace(3, 0.3, n_features) + 4
    x = (values / values.std(0)) @ rng.standard_normal((n_features, n_units))
    x = np.tile(x, (n_runs, 1)) + noise * 3 * rng.standard_normal((n_runs * n_stimuli, n_units))
    recording = Recording.from_arrays(
        x, np.tile(ids, n_runs), run=np.repeat(range(n_runs), n_stimuli)
    )
    return recording, Features(values, tuple(ids), "truth")


def test_similarities_are_the_textbook_ones(rng):
    a, b = rng.standard_normal((5, 7)), rng.standard_normal((9, 7))
    np.testing.assert_allclose(similarity(a, b, "cosine"), cosine_similarity(a, b))
    np.testing.assert_allclose(similarity(a, b, "euclidean"), -euclidean_distances(a, b))
    np.testing.assert_allclose(similarity(a, b), np.corrcoef(a, b)[:5, 5:])
    assert (similarity(np.ones((1, 7)), b) == 0).all()


def test_ranks_by_hand():
    gallery = np.eye(4)
    predicted = np.asarray([[3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0], [1, 1, 1, 1.0]])
    result = identify(
        predicted, ["a", "b", "d", "c"], gallery, names=list("abcd"), kind="cosine",
        ks=(1, 2, 9), rng=np.random.default_rng(0),
    )  # fmt: skip
    np.testing.assert_allclose(result.ranks, [1, 2, 4, 2.5])
    assert result.two_way.value == pytest.approx(np.mean([1, 2 / 3, 0, 1 / 2]))
    assert result.top[1].value == pytest.approx((1 + 0 + 0 + 1 / 4) / 4)
    assert result.top[2].value == pytest.approx((1 + 1 + 0 + 2 / 4) / 4)
    assert 9 not in result.top
    assert list(result.retrieved[0]) == ["a", "b"]


@pytest.mark.parametrize("k", [1, 5, 10])
def test_top_k_chance_is_analytic(k):
    """Random vectors meet the chance level, which is that of drawing k of m without return."""
    rng = np.random.default_rng(k)
    predicted, gallery = rng.standard_normal((4000, 12)), rng.standard_normal((50, 12))
    own = rng.integers(50, size=4000)
    result = identify(predicted, own, gallery, ks=(k,), rng=rng, n_bootstrap=200)
    chance = result.chance[f"top-{k}"]
    assert chance == pytest.approx(hypergeom(50, 1, k).pmf(1))
    assert abs(result.top[k].value - chance) < 4 * np.sqrt(chance * (1 - chance) / 4000)
    assert abs(result.two_way.value - 0.5) < 0.02
    assert abs(result.median_rank.value - result.chance["median_rank"]) < 2.5


def test_csls_brings_down_hubs(rng):
    own = rng.standard_normal((40, 8))
    gallery = np.vstack([own, 20 * np.ones((1, 8))])
    queries = own + 0.5 * rng.standard_normal((40, 8)) + 1.0
    plain = similarity(queries, gallery, "cosine")
    corrected = csls(plain, 5)
    assert (corrected.argmax(1) == 40).mean() < (plain.argmax(1) == 40).mean()
    assert (corrected.argmax(1) == np.arange(40)).mean() > (plain.argmax(1) == np.arange(40)).mean()
    near = np.sort(plain, axis=1)[:, -5:].mean(1)[:, None]
    expected = 2 * plain - near - np.sort(plain, axis=0)[-5:].mean(0)
    np.testing.assert_allclose(corrected, expected)


def test_interval_covers_stimuli_not_queries(rng):
    """Repeating each query must not narrow the interval."""
    predicted, gallery = rng.standard_normal((30, 5)), rng.standard_normal((30, 5))
    predicted[:15] = gallery[:15]
    once = identify(predicted, range(30), gallery, rng=rng).top[1]
    many = identify(np.tile(predicted, (8, 1)), np.tile(range(30), 8), gallery, rng=rng).top[1]
    assert once.value == many.value
    assert abs((once.high - once.low) - (many.high - many.low)) < 0.05


def test_feature_decoder_is_ridge_on_standardised_data(rng):
    recording, features = make(rng)
    x, y = recording.values, features.rows(recording.coord("stimulus"))
    decoder = FeatureDecoder(alphas=(50.0,)).fit(x, y)
    z, target = (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)
    expected = Ridge(alpha=50.0).fit(z, target).predict(z)
    np.testing.assert_allclose(decoder.predict(x), expected, atol=2e-3)
    np.testing.assert_allclose(decoder.original_space(decoder.target_space(y)), y, atol=1e-4)


def test_whitened_targets_are_white(rng):
    recording, features = make(rng)
    y = features.rows(recording.coord("stimulus")) @ rng.standard_normal((10, 10))
    decoder = FeatureDecoder(whiten=True, variance=0.99).fit(recording.values, y)
    white = decoder.target_space(y)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(white.shape[1]), atol=1e-5)
    assert white.shape[1] < 10


@pytest.mark.parametrize("whiten", [False, True])
def test_features_are_decoded_and_identify_their_stimulus(rng, whiten):
    recording, features = make(rng)
    splits = list(stimulus_folds(recording, 5, rng=rng, allow=("run",)))
    result = decode_features(recording, features, splits, whiten=whiten, rng=rng, n_bootstrap=200)
    assert result.mean_correlation.value > 0.6
    assert result.identification.top[1].value > 20 / 60
    assert result.identification.chance["top-1"] == 1 / 60
    assert len(result.stimuli) == 60
    order = rng.permutation(60)
    shuffled = Features(features.values[order], features.stimuli, "shuffled")
    null = decode_features(recording, shuffled, splits, whiten=whiten, rng=rng, n_bootstrap=200)
    assert abs(null.identification.two_way.value - 0.5) < 0.15
    assert null.identification.top[1].value < 0.1


def test_feature_decoding_guards_its_splits(rng):
    recording, features = make(rng)
    with pytest.raises(LeakageError, match="stimulus"):
        runs = leave_one_out(recording, allow=("stimulus",))
        decode_features(recording, features, runs, allow=(), rng=rng)
    few = Features(features.values[:10], features.stimuli[:10], "few")
    with pytest.raises(DataError, match="no features"):
        decode_features(recording, few, rng=rng)


def test_linear_decoder_fulfils_the_contract(rng):
    recording, features = make(rng)
    table = recording.stimuli.table.assign(bright=np.where(features.values[:, 0] > 4, "yes", "no"))
    stimuli = type(recording.stimuli)(table)
    recording = Recording(recording.array, stimuli)
    split = next(iter(stimulus_folds(recording, 5, rng=rng, allow=("run",))))
    train, test = recording.select(split.train), recording.select(split.test)
    decoder = LinearDecoder("bright", features)
    assert isinstance(decoder, Decoder)
    decoder.fit(train, stimuli)
    assert (decoder.classify(test) == test.labels("bright")).mean() > 0.7
    decoded = decoder.features(test)
    actual = features.rows(test.coord("stimulus"))
    assert decoded.shape == actual.shape
    assert np.corrcoef(decoded[:, 0], actual[:, 0])[0, 1] > 0.5
    found = decoder.retrieve(test, features, top=5)
    assert found.shape == (len(split.test), 5)
    assert (found == test.coord("stimulus")[:, None]).any(axis=1).mean() > 0.4
    with pytest.raises(DataError, match="units"):
        decoder.classify(test.select(units=np.arange(5)))
    with pytest.raises(ConfigError, match="not fitted"):
        LinearDecoder().classify(test)
    with pytest.raises(ConfigError, match="target features"):
        LinearDecoder().fit(train).features(test)


def test_bad_galleries_are_named(rng):
    with pytest.raises(DataError, match="'x'"):
        identify(np.eye(3), ["a", "x", "b"], np.eye(3), names=list("abc"), rng=rng)
    with pytest.raises(ConfigError, match="gallery of 1"):
        identify(np.ones((2, 3)), [0, 0], np.ones((1, 3)), rng=rng)
    with pytest.raises(DataError, match="same features"):
        identify(np.eye(3), [0, 1, 2], np.eye(4), rng=rng)
