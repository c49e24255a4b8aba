"""Transforms of RDMs: properties, and shortest paths against Floyd and Warshall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import rankdata

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.geometry.pairs import to_pairs, to_square
from engramma.geometry.transforms import (
    clip_transform,
    geodesic,
    min_max,
    n_components,
    nearest_edges,
    quantile_transform,
    rank_transform,
    shortest_edges,
    sigmoid_transform,
)


def floyd_warshall(lengths):
    for k in range(len(lengths)):
        lengths = np.minimum(lengths, lengths[:, [k]] + lengths[[k]])
    return to_pairs(lengths)


def test_ranks_and_ranges(rng):
    rdm = rng.integers(0, 5, (3, 21)).astype(float)
    np.testing.assert_array_equal(rank_transform(rdm)[1], rankdata(rdm[1]))
    scaled = min_max(rdm)
    assert (scaled.min(axis=1) == 0).all() and (scaled.max(axis=1) == 1).all()
    untied = quantile_transform(rng.random(21))
    np.testing.assert_allclose(np.sort(untied), np.linspace(0, 1, 21))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_clipping(seed, first, second):
    l, u = sorted((first, second))  # noqa: E741
    rdm = np.random.default_rng(seed).random(45)
    g = clip_transform(rdm, l, u)
    low, high = np.quantile(rdm, [l, u])
    assert ((g >= 0) & (g <= 1)).all()
    assert (g[rdm > high] == 1).all() and (g[rdm < low] == 0).all()
    order = np.argsort(rdm)
    assert (np.diff(g[order]) >= 0).all()


def test_clipping_at_the_ends(rng):
    rdm = rng.random(45)
    np.testing.assert_allclose(clip_transform(rdm, 0, 1), min_max(rdm))
    graph = clip_transform(rdm, 0.4, 0.4)
    assert set(graph) == {0.0, 1.0}
    assert graph.mean() == pytest.approx(0.6, abs=0.03)
    tied = np.r_[np.zeros(30), np.arange(1, 16)]
    assert set(clip_transform(tied, 0.1, 0.5)) == {0.0, 1.0}
    assert sigmoid_transform(np.array([0.5, 0.0, 1.0]))[0] == 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.6), st.floats(0.4, 0.4))
def test_geodesics_equal_floyd_warshall(seed, l, width):  # noqa: E741
    rdm = np.random.default_rng(seed).random(66)
    g = clip_transform(rdm, l, l + width)
    lengths = to_square(np.where(g < 1, g, np.inf))
    expected = floyd_warshall(lengths)
    if np.isfinite(expected).all():
        np.testing.assert_allclose(geodesic(g), expected, atol=1e-12)


def test_edges_of_no_length_are_edges():
    rdm = to_pairs(np.array([[0, 0, 1], [0, 0, 0.5], [1, 0.5, 0]]))
    np.testing.assert_array_equal(geodesic(rdm), [0, 0.5, 0.5])


def test_geodesics_unroll_a_ring():
    """Along a circle the path through neighbours is proportional to the angle."""
    angle = 2 * np.pi * np.arange(40) / 40
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rdm = pdist(ring)
    paths = geodesic(rdm, edges=nearest_edges(rdm, 2))
    steps = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    arc = to_pairs(np.minimum(steps, 40 - steps).astype(float))
    np.testing.assert_allclose(paths, arc * rdm.min(), rtol=1e-9)


def test_edges(rng):
    rdm = rng.random(45)
    assert shortest_edges(rdm, 0.2).sum() == 9
    square = to_square(rdm) + np.diag(np.full(10, np.inf))
    near = nearest_edges(rdm, 1)
    assert near[to_pairs(square == square.min(axis=1))].all()
    assert to_square(near.astype(int)).sum(axis=1).min() >= 1


def test_a_graph_in_parts_is_reported():
    points = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]])
    rdm = min_max(pdist(points))
    edges = rdm < 0.5
    assert n_components(edges) == 2
    with pytest.raises(DataError, match="2 parts: 6 pairs"):
        geodesic(rdm, edges)
    with pytest.warns(DataWarning, match="2 parts"):
        paths = geodesic(rdm, edges, disconnected="cap")
    assert np.isfinite(paths).all()
    assert (paths[~edges] > paths[edges].max()).all()


def test_bad_input(rng):
    rdm = rng.random(10)
    for l, u in ((0.5, 0.2), (-0.1, 0.5), (0, 1.1)):  # noqa: E741
        with pytest.raises(ConfigError, match="quantiles"):
            clip_transform(rdm, l, u)
    with pytest.raises(DataError, match="no range"):
        min_max(np.ones(10))
    with pytest.raises(DataError, match="negative"):
        geodesic(rdm - 0.5)
    with pytest.raises(DataError, match="upper triangle"):
        rank_transform(rdm[:7])
    with pytest.raises(DataError, match="NaN"):
        rank_transform(np.full(10, np.nan))
    with pytest.raises(DataError, match="stimuli"):
        clip_transform(np.ones(1), 0, 1)
    with pytest.raises(ConfigError, match="neighbours"):
        nearest_edges(rdm, 5)
