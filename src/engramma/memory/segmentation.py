r"""Cutting a stream of tokens into events: at surprises, refined by the graph of key similarities.

A segmentation is the sorted array of the first tokens of its events; the first one is 0.

**Surprise** (`surprise_cuts`). Token t begins an event where :math:`s_t = -\log p(x_t | x_{<t})`
exceeds :math:`\mu + \gamma\sigma` of the tokens before the block of tokens that t was processed in.

**Sizes** (`limit_sizes`). Events below the smallest size join the next one; those above the largest
are cut.

**Refinement** (`refine`). Tokens are nodes of a graph with weights
:math:`A_{ij} = \max(0, \sum K_i^T K_j)`. From left to right each cut :math:`\beta` moves to the
best place after the one before it: where the two sides have the largest modularity
:math:`Q = \frac{1}{2m} \sum_{ij} [A_{ij} - \frac{k_i k_j}{2m}] \delta(c_i, c_j)`
(:math:`k_i = \sum_j A_{ij}`, :math:`2m = \sum_i k_i`), or the smallest conductance
:math:`\mathrm{cut}(S, \bar S) / \min(\mathrm{vol}\,S, \mathrm{vol}\,\bar S)`.

Negative similarities would make degrees and volumes zero or negative, for which neither measure is
defined: they are set to 0 (`similarity`).

Source: Fountas et al. 2025 (arXiv:2407.09450), who write half of the modularity above, which has
its maximum at the same place.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from engramma.errors import ConfigError, DataError

#: What refinement optimises.
Measure = Literal["modularity", "conductance"]
#: Which edges count into the volume of a set: all of its nodes', or those inside it only.
Volume = Literal["degrees", "inner"]


# -- surprise ------------------------------------------------------------------------------


def surprise_cuts(
    surprise: np.ndarray,
    *,
    block: int = 512,
    window: int = 4096,
    gamma: float = 1.0,
    before: np.ndarray | None = None,
) -> np.ndarray:
    """Tokens that are surprising by the measure of those before.

    Parameters
    ----------
    surprise : ndarray, shape (token,)
        NaN where there is none (the very first token).
    block : int
        Tokens that are processed at once, and judged by the same threshold.
    window : int
        How many tokens before the block the mean and standard deviation are taken of. The first
        block, before which there is nothing, is judged by its own.
    gamma : float
        Standard deviations above the mean.
    before : ndarray, optional
        Surprise of earlier tokens, where ``surprise`` goes on with a stream.

    Returns
    -------
    ndarray of int
        Places in ``surprise``, in order. Where surprise does not vary there are none.
    """
    surprise = np.asarray(surprise, dtype=float)
    if surprise.ndim != 1 or np.isinf(surprise).any():
        raise DataError(
            f"surprise has shape {surprise.shape}"
            + (" and is infinite somewhere" if np.isinf(surprise).any() else ""),
            where="surprise_cuts",
            mend="give one finite number a token, NaN where there is none",
        )
    if block < 1 or window < 1:
        raise ConfigError(f"blocks of {block} and a window of {window} tokens hold nothing")
    past = np.concatenate([np.zeros(0) if before is None else before, surprise])
    offset = len(past) - len(surprise)
    found = []
    for start in range(offset, len(past), block):
        own = past[start : start + block]
        reference = past[max(0, start - window) : start]
        if np.isfinite(reference).sum() < 2:
            reference = own
        reference = reference[np.isfinite(reference)]
        if len(reference) < 2:
            continue
        mean, spread = reference.mean(), reference.std(ddof=1)
        # Where all values are equal nothing is surprising, but for rounding.
        if spread <= 1e-9 * abs(mean):
            continue
        found.append(start - offset + np.flatnonzero(own > mean + gamma * spread))
    return np.concatenate(found) if found else np.zeros(0, dtype=int)


def limit_sizes(
    cuts: np.ndarray, n_tokens: int, smallest: int = 8, largest: int = 128
) -> np.ndarray:
    """Make a segmentation of cuts whose events are neither too short nor too long.

    From left to right, an event below ``smallest`` is joined with the next; pieces of ``largest``
    tokens are cut off the front of an event that is longer, and what is left of it is treated as an
    event of its own. A rest at the end that is too short joins the event before, if that leaves it
    within ``largest``.

    Returns
    -------
    ndarray of int
        First tokens of the events, 0 included; empty where there are no tokens.
    """
    if not 1 <= smallest <= largest:
        raise ConfigError(
            f"events of {smallest} to {largest} tokens do not exist",
            where="limit_sizes",
            mend="give the smallest first, of at least 1",
        )
    starts = [0] if n_tokens else []
    for end in [*sorted({int(c) for c in cuts if 0 < c < n_tokens}), n_tokens]:
        while starts and end - starts[-1] > largest:
            starts.append(starts[-1] + largest)
        if starts and smallest <= end - starts[-1] and end < n_tokens:
            starts.append(end)
    if len(starts) > 1:
        rest, joined = n_tokens - starts[-1], n_tokens - starts[-2]
        if rest < smallest and joined <= largest:
            starts.pop()
    return np.array(starts, dtype=int)


def fixed_cuts(n_tokens: int, size: int) -> np.ndarray:
    """Cuts after every ``size`` tokens."""
    return np.arange(size, n_tokens, size)


# -- the graph of similarities -------------------------------------------------------------


def similarity(keys: np.ndarray) -> np.ndarray:
    """Similarity of all pairs of tokens: inner products of their keys, 0 where negative.

    Parameters
    ----------
    keys : ndarray, shape (token, feature)
        Keys before positions are put in, all heads and layers beside each other.
    """
    return np.maximum(keys @ keys.T, 0.0)


def modularity(graph: np.ndarray) -> np.ndarray:
    """Modularity of cutting a graph in two, for every cut.

    Parameters
    ----------
    graph : ndarray, shape (node, node)
        Symmetric weights, none negative. A diagonal entry counts once, as other entries do.

    Returns
    -------
    ndarray, shape (node - 1,)
        At t - 1 that of the parts before and from node t.
    """
    within, beyond, _ = _two_parts(graph)
    left = graph.sum(1).cumsum()[:-1]
    total = graph.sum()
    if total <= 0:
        return np.zeros(len(left))
    return (within + beyond) / total - (left**2 + (total - left) ** 2) / total**2


def conductance(graph: np.ndarray, volume: Volume = "degrees") -> np.ndarray:
    """Conductance of cutting a graph in two, for every cut; as `modularity`.

    With ``volume="inner"`` only edges inside a part count into its volume (and all others into that
    of the rest), and the conductance of a cut is the smaller one of its two parts: this is what
    the published code computes.
    """
    within, beyond, across = _two_parts(graph)
    total = graph.sum()
    if volume == "degrees":
        smaller = np.minimum(within, beyond) + across
    else:
        smaller = np.maximum(np.minimum(within, total - within), np.minimum(beyond, total - beyond))
    # A part without edges can be cut off for nothing, but is none: the worst there is.
    return np.divide(across, smaller, out=np.full(len(across), np.inf), where=smaller > 0)


def _two_parts(graph: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight inside the first part, inside the second and between them, for every cut."""
    corner = graph.cumsum(0).cumsum(1)
    within = np.diagonal(corner)[:-1]
    across = corner[-1, :-1] - within
    return within, corner[-1, -1] - within - 2 * across, across


def refine(
    cuts: np.ndarray,
    graph: np.ndarray,
    *,
    measure: Measure = "modularity",
    volume: Volume = "degrees",
    smallest: int = 1,
    margin: float = 0.5,
    first: int = 0,
) -> np.ndarray:
    """Move each cut to where the graph falls apart best.

    Parameters
    ----------
    cuts : ndarray of int
        In order, as surprise gave them.
    graph : ndarray, shape (token, token)
        As `similarity` returns it.
    measure : {"modularity", "conductance"}
    volume : {"degrees", "inner"}
        For conductance.
    smallest : int
        A cut comes no nearer than this to the one before.
    margin : float
        How far beyond the two neighbouring cuts the graph is looked at, in lengths of what lies
        between them (half in the published code). Without any, what follows the cut is not seen.
    first : int
        Where the event begins that the first cut ends.

    Returns
    -------
    ndarray of int
        As many cuts or fewer: those nearer than ``smallest`` to the one before are dropped.
    """
    if measure not in ("modularity", "conductance") or volume not in ("degrees", "inner"):
        raise ConfigError(
            f"nothing is refined by {measure!r} with volume {volume!r}",
            mend="say modularity or conductance, and degrees or inner",
        )
    refined = [first]
    for cut in np.asarray(cuts, dtype=int):
        last = refined[-1]
        if cut - last < max(smallest, 1):
            continue
        beyond = int(margin * (cut - last))
        start, stop = max(0, last - beyond), min(len(graph), cut + beyond)
        part = graph[start:stop, start:stop]
        places = np.arange(last + max(smallest, 1), cut + 1)
        places = places[places < stop]
        if not len(places) or not part.any():
            refined.append(int(cut))
            continue
        cost = -modularity(part) if measure == "modularity" else conductance(part, volume)
        refined.append(int(places[np.argmin(cost[places - start - 1])]))
    return np.array(refined[1:], dtype=int)


# -- how good a segmentation is ------------------------------------------------------------


def boundary_f1(found: np.ndarray, true: np.ndarray, tolerance: int) -> float:
    """F1 of boundaries that lie within ``tolerance`` tokens of a true one, each matched once.

    The first token, which begins an event in any segmentation, does not count.
    """
    left, right = (sorted(int(b) for b in side if b > 0) for side in (found, true))
    if not left or not right:
        return 0.0
    hits, j = 0, 0
    # Both are in order, so that taking the first partner in reach gives the largest matching.
    for place in left:
        while j < len(right) and right[j] < place - tolerance:
            j += 1
        if j < len(right) and right[j] <= place + tolerance:
            hits, j = hits + 1, j + 1
    return 2 * hits / (len(left) + len(right))


def similarity_gap(keys: np.ndarray, starts: np.ndarray, reach: int = 64) -> float:
    """Mean cosine of pairs within an event minus that of pairs across events.

    Parameters
    ----------
    keys : ndarray, shape (token, feature)
    starts : ndarray of int
        First tokens of events.
    reach : int
        Only pairs up to so many tokens apart count.

    Returns
    -------
    float
        NaN where all pairs are of one kind.
    """
    unit = keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-12)
    event = np.searchsorted(starts, np.arange(len(keys)), side="right")
    first, second = np.triu_indices(len(keys), 1)
    near = second - first <= reach
    first, second = first[near], second[near]
    cosines = (unit @ unit.T)[first, second]
    same = event[first] == event[second]
    if same.all() or not same.any():
        return float("nan")
    return float(cosines[same].mean() - cosines[~same].mean())
