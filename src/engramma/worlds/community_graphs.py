r"""Weighted graphs with planted communities: the LFR benchmark.

Lancichinetti, Fortunato & Radicchi (2008) for the topology, Lancichinetti & Fortunato (2009) for
the weights. Degrees and sizes of communities follow power laws; of the degree :math:`k_i` of a
node a share :math:`\mu_t` leaves its community; its strength is :math:`s_i = k_i^\beta`, of which
a share :math:`\mu_w` leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError

_DRAWS, _SWEEPS = 30, 200


@dataclass(frozen=True, eq=False)
class CommunityGraph:
    """An undirected weighted graph and its planted partition.

    Parameters
    ----------
    weights : ndarray of float64, shape (n_nodes, n_nodes)
        Symmetric, 0 where there is no edge.
    partition : ndarray of int, shape (n_nodes,)
        Community of each node.
    """

    weights: np.ndarray
    partition: np.ndarray

    def mixing(self) -> tuple[float, float]:
        """Shares of edges and of weight between communities, averaged over nodes."""
        between = self.partition[:, None] != self.partition[None]
        shares = []
        for matrix in (self.weights > 0, self.weights):
            total = matrix.sum(axis=1)
            crossing = (matrix * between).sum(axis=1)
            shares.append(float((crossing[total > 0] / total[total > 0]).mean()))
        return shares[0], shares[1]


def lfr_graph(
    n_nodes: int = 125,
    *,
    rng: np.random.Generator,
    mean_degree: float = 25,
    max_degree: int = 100,
    mu_t: float = 0.5,
    mu_w: float = 0.25,
    beta: float = 1.0,
    degree_exponent: float = 2.0,
    size_exponent: float = 1.0,
) -> CommunityGraph:
    """Draw a weighted graph with planted communities.

    Parameters
    ----------
    n_nodes : int
    rng : numpy.random.Generator
    mean_degree, max_degree : float, int
    mu_t, mu_w : float
        Share of a node's edges, and of its strength, that leave its community.
    beta : float
        Strength is degree to this power.
    degree_exponent, size_exponent : float
        Of the power laws of degrees and of community sizes.

    Returns
    -------
    CommunityGraph
        Degrees, mixing and strengths are met as nearly as a graph can: hubs of few nodes leave
        little choice. `CommunityGraph.mixing` says what was reached.

    Raises
    ------
    ConfigError
        If a number is out of range, or the largest degree fits in no community.
    """
    if not (0 <= mu_t < 1 and 0 <= mu_w < 1):
        raise ConfigError("mu_t and mu_w are shares", mend="use 0 <= mu < 1")
    if not 1 < mean_degree < max_degree < n_nodes:
        raise ConfigError(
            f"a graph of {n_nodes} nodes cannot have mean degree {mean_degree:g} and largest "
            f"degree {max_degree}",
            mend="use 1 < mean_degree < max_degree < n_nodes",
        )
    for _ in range(_DRAWS):
        degrees = _degrees(n_nodes, mean_degree, max_degree, degree_exponent, rng)
        inner = _round(degrees * (1 - mu_t), rng)
        sizes = _sizes(n_nodes, int(degrees.min()), int(inner.max()) + 1, size_exponent, rng)
        partition = _assign(inner, sizes, rng)
        leaving = np.bincount(partition, degrees - inner)
        near = abs(degrees.mean() / mean_degree - 1) < 0.05
        if near and leaving.max() <= leaving.sum() / 2:
            break  # else edges that leave the largest community would find no other end
    edges = np.zeros((n_nodes, n_nodes), dtype=bool)
    same = partition[:, None] == partition[None]
    np.fill_diagonal(same, False)
    for community in range(len(sizes)):
        members = np.flatnonzero(partition == community)
        _connect(edges, np.repeat(members, inner[members]), same, rng)
    nodes = np.arange(n_nodes)
    _connect(edges, np.repeat(nodes, degrees - inner), ~same & ~np.eye(n_nodes, dtype=bool), rng)
    return CommunityGraph(_weigh(edges, same, mu_w, beta), partition)


def _power_law(low: int, high: int, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    values = np.arange(low, high + 1)
    chance = values.astype(float) ** -exponent
    return values, chance / chance.sum()


def _degrees(
    n: int, mean: float, most: int, exponent: float, rng: np.random.Generator
) -> np.ndarray:
    """Power-law degrees; the least degree is the one that brings the mean nearest."""
    lows = range(1, int(mean) + 1)
    means = [np.dot(*_power_law(low, most, exponent)) for low in lows]
    low = lows[int(np.abs(np.asarray(means) - mean).argmin())]
    values, chance = _power_law(low, most, exponent)
    return rng.choice(values, n, p=chance)


def _round(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round up or down by chance, so that the mean stays."""
    below = np.floor(values)
    return (below + (rng.random(len(values)) < values - below)).astype(int)


def _sizes(n: int, low: int, most: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Power-law sizes of communities that add up to ``n``; the largest holds ``most``."""
    low = min(max(low, 3), most)
    if most > n:
        raise ConfigError(
            f"a node with {most - 1} edges inside its community fits in none of {n} nodes",
            mend="lower max_degree, or raise mu_t",
        )
    sizes = [most]
    values, chance = _power_law(low, most, exponent)
    while sum(sizes) < n:
        sizes.append(int(rng.choice(values, p=chance)))
    excess = sum(sizes) - n
    last = sizes.pop() - excess
    if last >= low or not sizes:
        sizes.append(last)
    else:  # too small to stand alone: spread it over the others
        for i in range(last):
            sizes[i % len(sizes)] += 1
    return np.asarray(sizes)


def _assign(inner: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put each node, the most connected first, at random where its inner degree fits."""
    partition = np.full(len(inner), -1)
    room = sizes.copy()
    for node in np.argsort(-inner, kind="stable"):
        fits = np.flatnonzero((room > 0) & (sizes > inner[node]))
        if not len(fits):
            fits = np.flatnonzero(room > 0)
        partition[node] = rng.choice(fits, p=room[fits] / room[fits].sum())
        room[partition[node]] -= 1
    return partition


def _connect(
    edges: np.ndarray, stubs: np.ndarray, allowed: np.ndarray, rng: np.random.Generator
) -> None:
    """Join stubs at random (configuration model), and rewire pairs that may not be joined."""
    stubs = rng.permutation(stubs)
    pairs = stubs[: len(stubs) // 2 * 2].reshape(-1, 2)
    placed: list[tuple[int, int]] = []
    waiting: list[tuple[int, int]] = []

    def try_to_join(a: int, b: int) -> bool:
        if not allowed[a, b] or edges[a, b]:
            return False
        edges[a, b] = edges[b, a] = True
        placed.append((a, b))
        return True

    for a, b in pairs.tolist():
        if not try_to_join(a, b):
            waiting.append((a, b))
    for _ in range(_SWEEPS * (len(waiting) + 1)):
        if not waiting or not placed:
            break
        # Swap ends with an edge that stands: (a, b) + (c, d) -> (a, c) + (b, d).
        a, b = waiting.pop()
        at = int(rng.integers(len(placed)))
        c, d = placed[at] if rng.random() < 0.5 else placed[at][::-1]
        free = len({a, b, c, d}) == 4 or (a == b and len({a, c, d}) == 3)
        if free and allowed[a, c] and allowed[b, d] and not edges[a, c] and not edges[b, d]:
            edges[c, d] = edges[d, c] = False
            placed[at] = (a, c)
            edges[a, c] = edges[c, a] = True
            try_to_join(b, d)
        else:
            waiting.insert(0, (a, b))


def _weigh(edges: np.ndarray, same: np.ndarray, mu_w: float, beta: float) -> np.ndarray:
    r"""Weights that bring each node near its inner and outer strength.

    Minimises :math:`\sum_i (\rho_i^{in} - s_i^{in})^2 + (\rho_i^{out} - s_i^{out})^2` over
    non-negative weights, each of which is in one sum only: inner and outer weights are two
    separate problems, solved by non-negative coordinate descent.
    """
    strength = edges.sum(axis=1).astype(float) ** beta
    weights = np.zeros(edges.shape)
    for chosen, share in ((same, 1 - mu_w), (~same, mu_w)):
        i, j = np.nonzero(np.triu(edges & chosen))
        wanted = share * strength
        degree = np.bincount(np.r_[i, j], minlength=len(edges))
        # Start from weights that would be right if all neighbours were alike.
        value = wanted / np.maximum(degree, 1)
        w = (value[i] + value[j]) / 2
        gap = wanted - np.bincount(np.r_[i, j], np.r_[w, w], minlength=len(edges))
        for _ in range(_SWEEPS):
            before = w.copy()
            for e in range(len(w)):
                a, b = i[e], j[e]
                new = max(w[e] + (gap[a] + gap[b]) / 2, 1e-6)
                gap[a] -= new - w[e]
                gap[b] -= new - w[e]
                w[e] = new
            if len(w) == 0 or np.abs(w - before).max() < 1e-3 * w.mean():
                break
        weights[i, j] = w
    return weights + weights.T
