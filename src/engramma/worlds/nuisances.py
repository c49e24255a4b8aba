"""What makes decoding hard or misleading by design: hidden directions and planted confounds."""

from __future__ import annotations

import numpy as np

from engramma.errors import ConfigError


def hide_directions(
    responses: np.ndarray, target: np.ndarray, share: float
) -> tuple[np.ndarray, float]:
    """Take directions of a target out of responses: what brains do not carry of it.

    The principal directions of the target that are hidden are every second one from the largest
    on, and then others, as long as their variance fits into ``share``.

    Parameters
    ----------
    responses : ndarray, shape (n_stimuli, n_units)
        Noise-free. What is linear in the hidden directions, over these stimuli, is removed from
        them, so that over all of them the correlation is zero, and not just zero on average.
    target : ndarray, shape (n_stimuli, n_dimensions)
        What is to be decoded, such as an embedding of the stimuli.
    share : float
        Of the variance of the target.

    Returns
    -------
    responses : ndarray
    hidden : float
        Share of the variance of the target that was hidden, at most ``share``.

    Raises
    ------
    ConfigError
        If there are too few stimuli to tell the directions from anything else.
    """
    if share == 0:
        return responses, 0.0
    centred = target - target.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    variance = values**2 / (values**2).sum()
    order = np.concatenate([np.arange(0, len(values), 2), np.arange(1, len(values), 2)])
    chosen, hidden = [], 0.0
    for direction in order:
        if hidden + variance[direction] <= share + 1e-9:
            chosen.append(direction)
            hidden += float(variance[direction])
    if 3 * len(chosen) > len(target):
        raise ConfigError(
            f"{len(chosen)} directions cannot be hidden in responses to {len(target)} stimuli",
            mend="use more stimuli, a smaller share of invisible variance, or a smaller target",
        )
    basis = left[:, chosen].astype(responses.dtype)
    return responses - basis @ (basis.T @ (responses - responses.mean(axis=0))), hidden


def confounded(
    labels: np.ndarray, training: np.ndarray, correlation: float, *, rng: np.random.Generator
) -> np.ndarray:
    """Draw a nuisance that goes with the class of stimuli in training runs only.

    Parameters
    ----------
    labels : ndarray, shape (n,)
        Class of each presentation.
    training : ndarray of bool, shape (n,)
        Elsewhere the nuisance has the same distribution, and nothing to do with class.
    correlation : float
        Of the nuisance with a level of its own for each class, in training runs.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n,)
        Mean 0 and variance 1.
    """
    classes, code = np.unique(labels, return_inverse=True)
    level = np.linspace(-1, 1, len(classes))[rng.permutation(len(classes))][code]
    level[~training] = rng.permutation(level[~training])
    spread = level.std()
    level = (level - level.mean()) / (spread if spread > 0 else 1.0)
    noise = rng.standard_normal(len(labels))
    nuisance = correlation * level + np.sqrt(1 - correlation**2) * noise
    return (nuisance - nuisance.mean()) / nuisance.std()
