"""Find which stimulus was seen: retrieval in a gallery from predicted vectors.

The vectors may be responses predicted by an encoder, compared with measured ones, or features
decoded from responses, compared with those of the stimuli.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engramma.contracts import Estimate
from engramma.errors import ConfigError, DataError

Similarity = Literal["correlation", "cosine", "euclidean"]


@dataclass(frozen=True, eq=False)
class Identification:
    """How well vectors point to their own entry of a gallery.

    Parameters
    ----------
    top : mapping of int to Estimate
        Share of queries whose own entry is among the first k.
    two_way : Estimate
        Share of (query, other entry) pairs in which its own entry is the more similar; ties
        count half.
    median_rank : Estimate
        1 is best.
    chance : mapping of str to float
        Of ``"top-k"``, ``"two_way"`` and ``"median_rank"``.
    ranks : ndarray, shape (n_queries,)
        1 is best; the mean rank of tied entries.
    gallery : tuple of str
    retrieved : ndarray of str, shape (n_queries, largest k)
        Entries, the most similar first.
    """

    top: Mapping[int, Estimate]
    two_way: Estimate
    median_rank: Estimate
    chance: Mapping[str, float] = field(default_factory=dict)
    ranks: np.ndarray = field(default_factory=lambda: np.empty(0))
    gallery: tuple[str, ...] = ()
    retrieved: np.ndarray = field(default_factory=lambda: np.empty(0))


def similarity(
    queries: np.ndarray, gallery: np.ndarray, kind: Similarity = "correlation"
) -> np.ndarray:
    """Similarity of each query to each entry, larger is more alike.

    Parameters
    ----------
    queries : ndarray, shape (n, d)
    gallery : ndarray, shape (m, d)
    kind : {"correlation", "cosine", "euclidean"}
        ``"euclidean"`` is the negative distance. A vector without direction has similarity 0.

    Returns
    -------
    ndarray, shape (n, m)
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (queries, gallery))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(
            f"queries {a.shape} and gallery {b.shape} do not have the same features",
            mend="give two matrices with the same number of columns",
        )
    for name, x in (("queries", a), ("gallery", b)):
        if not np.isfinite(x).all():
            raise DataError(f"{name} hold NaN or infinity", mend="check what predicted them")
    if kind == "euclidean":
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
        return -np.sqrt(np.maximum(squared, 0))
    if kind not in ("correlation", "cosine"):
        raise ConfigError(
            f"similarity {kind!r} is not known", mend="use 'correlation', 'cosine' or 'euclidean'"
        )
    if kind == "correlation":
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    a, b = (x / np.where(n > 1e-12, n, np.inf) for x, n in zip((a, b), lengths, strict=True))
    return a @ b.T


def csls(similarities: np.ndarray, neighbours: int = 10) -> np.ndarray:
    """Correct similarities for hubs: entries that are near to every query.

    Twice the similarity minus its mean over the nearest neighbours of query and of entry
    (Conneau et al., *Word translation without parallel data*, ICLR 2018). It looks at all
    queries together, so it is not for queries that are answered one by one.
    """
    n, m = similarities.shape
    if neighbours < 1:
        raise ConfigError("csls needs at least one neighbour")
    k, j = min(neighbours, m), min(neighbours, n)
    of_query = np.partition(similarities, m - k, axis=1)[:, m - k :].mean(axis=1)
    of_entry = np.partition(similarities, n - j, axis=0)[n - j :].mean(axis=0)
    return 2 * similarities - of_query[:, None] - of_entry


def identify(
    predicted: np.ndarray,
    actual: np.ndarray | Sequence[int] | Sequence[str],
    gallery: np.ndarray,
    *,
    rng: np.random.Generator,
    names: Sequence[str] | None = None,
    kind: Similarity = "correlation",
    ks: Sequence[int] = (1, 5, 10),
    hubness: bool = False,
    n_bootstrap: int = 2000,
) -> Identification:
    """Rank a gallery for each predicted vector, and see where its own entry comes.

    Parameters
    ----------
    predicted : ndarray, shape (n_queries, d)
    actual : sequence of int or str, shape (n_queries,)
        Each query's own entry: its row in the gallery, or its name.
    gallery : ndarray, shape (n_entries, d)
        Everything that could have been the answer.
    rng : numpy.random.Generator
    names : sequence of str, optional
        Names of the entries, unique.
    kind : {"correlation", "cosine", "euclidean"}
    ks : sequence of int
        For the top-k accuracies; those beyond the gallery are left out.
    hubness : bool
        Correct with `csls`.
    n_bootstrap : int
        Draws of stimuli (own entries, with all their queries) for the 95 % intervals.

    Raises
    ------
    DataError
        If an entry is unknown, or shapes do not match.
    ConfigError
        If the gallery has fewer than two entries.
    """
    values = similarity(predicted, gallery, kind)
    return rank(
        values, actual, rng=rng, names=names, ks=ks, hubness=hubness, n_bootstrap=n_bootstrap
    )


def rank(
    similarities: np.ndarray,
    actual: np.ndarray | Sequence[int] | Sequence[str],
    *,
    rng: np.random.Generator,
    names: Sequence[str] | None = None,
    ks: Sequence[int] = (1, 5, 10),
    hubness: bool = False,
    n_bootstrap: int = 2000,
) -> Identification:
    """As `identify`, from similarities (n_queries, n_entries) that are known already."""
    values = np.asarray(similarities, dtype=np.float64)
    n, m = values.shape
    if m < 2 or n < 1:
        raise ConfigError(
            f"nothing can be identified with {n} queries in a gallery of {m}",
            mend="give at least one query and two gallery entries",
        )
    labels = tuple(map(str, names)) if names is not None else tuple(map(str, range(m)))
    own = _own(actual, labels, n)
    values = csls(values) if hubness else values
    mine = values[np.arange(n), own][:, None]
    above = (values > mine).sum(axis=1)
    tied = (values == mine).sum(axis=1) - 1
    ranks = 1 + above + tied / 2
    two_way = 1 - (ranks - 1) / (m - 1)
    kept = [int(k) for k in ks if 1 <= k <= m]
    # A tied entry is among the first k as often as a random order of the tie would put it there.
    hits = {k: np.clip((k - above) / (tied + 1), 0, 1) for k in kept}
    draws = _draws(own, rng, n_bootstrap)
    order = np.argsort(-values, axis=1, kind="stable")[:, : max(kept, default=1)]
    return Identification(
        top={k: _estimate(hits[k], draws) for k in kept},
        two_way=_estimate(two_way, draws),
        median_rank=_median(ranks, own, rng, n_bootstrap),
        chance={
            **{f"top-{k}": k / m for k in kept},
            "two_way": 0.5,
            "median_rank": (m + 1) / 2,
        },
        ranks=ranks,
        gallery=labels,
        retrieved=np.asarray(labels)[order],
    )


def _own(actual: object, labels: tuple[str, ...], n: int) -> np.ndarray:
    """Row in the gallery of each query's own entry."""
    if len(set(labels)) != len(labels):
        raise DataError("the gallery names an entry twice", mend="give each entry its own name")
    values = np.asarray(actual)
    if values.shape != (n,):
        raise DataError(
            f"{n} predicted vectors, but own entries of shape {values.shape}",
            mend="name the gallery entry of each predicted vector",
        )
    if values.dtype.kind in "iu":
        bad = np.flatnonzero((values < 0) | (values >= len(labels)))
        own = values
    else:
        rows = {name: i for i, name in enumerate(labels)}
        own = np.asarray([rows.get(str(v), -1) for v in values])
        bad = np.flatnonzero(own < 0)
    if len(bad):
        raise DataError(
            f"{len(bad)} queries have no entry in the gallery",
            where=f"for example {str(values[bad[0]])!r}",
            mend="put every stimulus that was shown into the gallery",
        )
    return own


def _draws(own: np.ndarray, rng: np.random.Generator, n_bootstrap: int) -> np.ndarray:
    """How often each query counts in each bootstrap sample of stimuli."""
    codes = np.unique(own, return_inverse=True)[1]
    n = codes.max() + 1
    return rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap)[:, codes]


def _estimate(values: np.ndarray, draws: np.ndarray) -> Estimate:
    means = draws @ values / draws.sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


def _median(
    ranks: np.ndarray, own: np.ndarray, rng: np.random.Generator, n_bootstrap: int
) -> Estimate:
    order = np.argsort(ranks, kind="stable")
    count = np.cumsum(_draws(own, rng, n_bootstrap)[:, order], axis=1)
    middle = (count >= count[:, -1:] / 2).argmax(axis=1)
    low, high = np.quantile(ranks[order][middle], [0.025, 0.975])
    return Estimate(float(np.median(ranks)), float(low), float(high))
