"""Means, covariances and mutual information of units over many samples; numpy only."""

from __future__ import annotations

import numpy as np

from engramma.errors import DataError


def positions_as_samples(maps: np.ndarray) -> np.ndarray:
    """Turn feature maps, input x map x height x width, into samples x maps.

    Each position of each input becomes one sample, so that a unit is a map. An array that is
    already sample x unit is returned as it is.

    Raises
    ------
    DataError
        If there are fewer than two axes.
    """
    if maps.ndim < 2:
        raise DataError(
            f"activations have shape {maps.shape}",
            mend="give stimulus x unit, or stimulus x map x height x width",
        )
    if maps.ndim == 2:
        return maps
    return np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])


class StreamingCovariance:
    """Covariance between two sets of units, from chunks of samples, in float64.

    Chunks are merged by the update of Chan, Golub & LeVeque (1983), which keeps sums of squares
    around the running mean and so does not cancel where the mean is large.

    Parameters
    ----------
    n_first, n_second : int
        Units of the two sets.
    """

    def __init__(self, n_first: int, n_second: int) -> None:
        self.n_samples = 0
        self.mean_first = np.zeros(n_first)
        self.mean_second = np.zeros(n_second)
        self._square_first = np.zeros(n_first)
        self._square_second = np.zeros(n_second)
        self._cross = np.zeros((n_first, n_second))

    def update(self, first: np.ndarray, second: np.ndarray) -> StreamingCovariance:
        """Add samples.

        Parameters
        ----------
        first : ndarray, shape (n_samples, n_first)
        second : ndarray, shape (n_samples, n_second)
            The same samples, in the same order.

        Raises
        ------
        DataError
            If the shapes do not fit, or a value is not finite.
        """
        if len(first) != len(second):
            raise DataError(
                f"{len(first)} and {len(second)} samples cannot be paired",
                mend="run both networks on the same stimuli, in the same order",
            )
        if first.shape[1:] != self.mean_first.shape or second.shape[1:] != self.mean_second.shape:
            raise DataError(
                f"chunks have shapes {first.shape} and {second.shape}, but there are "
                f"{len(self.mean_first)} and {len(self.mean_second)} units"
            )
        if not len(first):
            return self
        x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
        if not (np.isfinite(mean_x).all() and np.isfinite(mean_y).all()):
            raise DataError(
                "activations hold NaN or infinity",
                where=f"samples {self.n_samples} to {self.n_samples + len(x) - 1}",
                mend="check the network's inputs and numerical range",
            )
        x, y = x - mean_x, y - mean_y
        shift_x, shift_y = mean_x - self.mean_first, mean_y - self.mean_second
        total = self.n_samples + len(x)
        weight = self.n_samples * len(x) / total
        self._cross += x.T @ y + weight * np.outer(shift_x, shift_y)
        self._square_first += (x**2).sum(axis=0) + weight * shift_x**2
        self._square_second += (y**2).sum(axis=0) + weight * shift_y**2
        self.mean_first += shift_x * len(x) / total
        self.mean_second += shift_y * len(x) / total
        self.n_samples = total
        return self

    @property
    def covariance(self) -> np.ndarray:
        """Covariance, shape (n_first, n_second), with ``n_samples - 1`` in the denominator."""
        return self._cross / self._degrees

    @property
    def std_first(self) -> np.ndarray:
        """Standard deviations of the first units."""
        return np.sqrt(self._square_first / self._degrees)

    @property
    def std_second(self) -> np.ndarray:
        """Standard deviations of the second units."""
        return np.sqrt(self._square_second / self._degrees)

    @property
    def correlation(self) -> np.ndarray:
        """Correlation, shape (n_first, n_second); NaN for a unit that does not vary."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.covariance / np.outer(self.std_first, self.std_second)

    @property
    def _degrees(self) -> int:
        if self.n_samples < 2:
            raise DataError(f"{self.n_samples} samples have no covariance", mend="give more")
        return self.n_samples - 1


def percentile_bins(samples: np.ndarray, n_bins: int = 10) -> np.ndarray:
    """Bin of each sample, so that the bins of a unit hold equally many samples.

    All samples at the unit's smallest value share the first bin, however many they are (a
    rectified unit is silent most of the time), and the others fill the remaining bins evenly:
    the binning of Li et al. 2016.

    Parameters
    ----------
    samples : ndarray, shape (n_samples, n_units)
    n_bins : int

    Returns
    -------
    ndarray of int, shape (n_samples, n_units), 0 ... ``n_bins - 1``
    """
    bins = np.zeros(samples.shape, dtype=np.intp)
    for unit, values in enumerate(samples.T):
        above = values > values.min()
        if above.any():
            edges = np.quantile(values[above], np.linspace(0, 1, n_bins)[1:-1])
            bins[above, unit] = 1 + np.searchsorted(edges, values[above], side="left")
    return bins


def mutual_information(first: np.ndarray, second: np.ndarray, n_bins: int = 10) -> np.ndarray:
    """Mutual information of every unit of ``first`` with every unit of ``second``, in nats.

    Plug-in estimate over `percentile_bins`, minus the bias of Miller and Madow,
    ``(b_x - 1) (b_y - 1) / (2 n)`` with ``b`` occupied bins and ``n`` samples. It may be slightly
    negative for independent units.

    Parameters
    ----------
    first : ndarray, shape (n_samples, n_first)
    second : ndarray, shape (n_samples, n_second)

    Returns
    -------
    ndarray, shape (n_first, n_second)
    """
    n = len(first)
    if n != len(second) or n == 0:
        raise DataError(f"{n} and {len(second)} samples cannot be paired")
    one_hot = []
    for samples in (first, second):
        hot = np.eye(n_bins, dtype=np.float32)[percentile_bins(samples, n_bins)]
        one_hot.append(hot.reshape(n, -1))
    joint = (one_hot[0].T @ one_hot[1]).astype(np.float64) / n
    joint = joint.reshape(first.shape[1], n_bins, second.shape[1], n_bins).swapaxes(1, 2)
    p_first, p_second = joint.sum(axis=3), joint.sum(axis=2)
    bias = ((p_first > 0).sum(axis=2) - 1) * ((p_second > 0).sum(axis=2) - 1) / (2 * n)
    information = _entropy(p_first) + _entropy(p_second) - _entropy(joint.reshape(*bias.shape, -1))
    return information - bias


def _entropy(p: np.ndarray) -> np.ndarray:
    """Entropy over the last axis, in nats."""
    return -(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum(axis=-1)
