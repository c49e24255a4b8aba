"""Bootstrap of stimuli and subjects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramma.geometry.ceiling import prepare_ceiling
from engramma.geometry.compare import prepare
from engramma.geometry.pairs import n_stimuli_of
from engramma.progress import track

BOTH = ("stimuli", "subjects")
#: Stimuli that a sample must hold for an RDM to be compared.
FEWEST = 3
#: Samples that are compared together, which Kendall's tau makes use of.
BATCH = 32


def bootstrap(
    data: np.ndarray,
    models: np.ndarray,
    method: str,
    n_bootstrap: int,
    over: Sequence[str],
    *,
    rng: np.random.Generator,
    single: bool = True,
) -> dict[tuple[str, ...], np.ndarray]:
    """Similarity of models to resampled data, and the noise ceiling of the latter.

    Stimuli are drawn with replacement; dissimilarities between copies of one stimulus are left
    out. All bootstraps share the same draws.

    Parameters
    ----------
    data : ndarray, shape (n_subjects, n_pairs)
    models : ndarray, shape (n_models, n_pairs)
    method : str
    n_bootstrap : int
    over : sequence of {"stimuli", "subjects"}
    rng : numpy.random.Generator
    single : bool
        Where ``over`` names both, also bootstrap each alone.

    Returns
    -------
    mapping of tuple of str to ndarray, shape (n_bootstrap, n_models + 2)
        For each set of factors: mean similarity of each model, lower and upper bound of the
        ceiling. NaN where a sample does not define it.
    """
    over = tuple(f for f in BOTH if f in over)
    n, n_subjects = n_stimuli_of(data.shape[1]), len(data)
    compared, bounds = prepare(models, data, method), prepare_ceiling(data, method)
    wanted = [over, *([(f,) for f in over] if single and len(over) == 2 else [])]
    out = {f: np.full((n_bootstrap, len(models) + 2), np.nan) for f in wanted}
    counts = draw(n, n_bootstrap, rng)
    times = draw(n_subjects, n_bootstrap, rng)

    if ("subjects",) in out:
        # Few subjects can be drawn in few ways: the ceiling of each way is computed once.
        ways, which = np.unique(times, axis=0, return_inverse=True)
        ceilings = np.asarray(bounds(np.ones(n), ways))
        whole = compared(np.ones((1, n)))[0]
        out[("subjects",)][:] = np.hstack([_mean(whole, times), ceilings[which.reshape(-1)]])
    resampled = [f for f in wanted if "stimuli" in f]
    subjects = {f: times if "subjects" in f else np.ones_like(times) for f in resampled}
    usable = np.flatnonzero((counts > 0).sum(axis=1) >= FEWEST)
    usable = usable[: len(usable) if resampled else 0]
    for start in track(range(0, len(usable), BATCH), "bootstrap"):
        batch = usable[start : start + BATCH]
        similarity = compared(counts[batch])
        for i, similar in zip(batch, similarity, strict=True):
            ceilings = np.asarray(bounds(counts[i], np.stack([subjects[f][i] for f in resampled])))
            for f, ceiling in zip(resampled, ceilings, strict=True):
                out[f][i] = np.append(_mean(similar, subjects[f][i]), ceiling)
    return out


def draw(n: int, n_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of ``n`` is drawn in ``n`` draws, shape (n_bootstrap, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(np.float64)


def _mean(similarity: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean over drawn subjects, shape (..., n_models)."""
    return times @ similarity.T / times.shape[-1]
