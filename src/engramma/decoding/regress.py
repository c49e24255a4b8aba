"""Decode features of the stimulus from responses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engramma.contracts import Estimate
from engramma.data.features import Features
from engramma.data.recording import Recording
from engramma.data.splits import Split, leave_one_out
from engramma.decoding.labels import check_split, inner_groups
from engramma.decoding.retrieval import Identification, Similarity, rank, similarity
from engramma.encoding.ridge import RidgeCV
from engramma.errors import ConfigError, DataError
from engramma.progress import track

#: Penalties for standardised responses.
ALPHAS = tuple(float(a) for a in np.logspace(0, 7, 15))


class FeatureDecoder:
    """Ridge regression from responses to feature vectors.

    Responses and features are standardised by their training values; the penalty of each
    feature is chosen by cross-validation within the training presentations.

    Parameters
    ----------
    alphas : sequence of float
    whiten : bool
        Regress on the principal components of the training features, each scaled to unit
        variance, and keep to that space: components that vary little count as much as those
        that vary much. Components beyond ``variance`` of the training features are dropped.
    variance : float
        Share of the variance of the training features that whitening keeps.
    """

    def __init__(
        self, alphas: Sequence[float] = ALPHAS, *, whiten: bool = False, variance: float = 0.95
    ) -> None:
        if not 0 < variance <= 1:
            raise ConfigError(
                f"variance must be a share, not {variance}", mend="use 0 < variance <= 1"
            )
        self.alphas, self.whiten, self.variance = tuple(alphas), whiten, variance

    def fit(
        self, responses: np.ndarray, features: np.ndarray, groups: np.ndarray | None = None
    ) -> FeatureDecoder:
        """Learn.

        Parameters
        ----------
        responses : ndarray, shape (n, n_units)
        features : ndarray, shape (n, n_features)
        groups : ndarray, shape (n,), optional
            Presentations of one group are held out together when penalties are chosen.
        """
        x = np.asarray(responses, dtype=np.float32)
        y = np.asarray(features, dtype=np.float64)
        if len(x) != len(y) or len(x) < 3:
            raise DataError(
                f"{len(x)} responses and {len(y)} feature vectors cannot be regressed",
                mend="give the features of each presentation, and at least three presentations",
            )
        self._x_mean, self._x_scale = x.mean(axis=0), _spread(x)
        self._y_mean = y.mean(axis=0)
        # Targets are features on these orthonormal axes (None: the features' own), over a scale.
        self._axes: np.ndarray | None = None
        if self.whiten:
            self._axes, self._scale = self._whitening(y)
        else:
            self._scale = _spread(y)
        codes = (
            np.arange(len(x)) % 5 if groups is None else np.unique(groups, return_inverse=True)[1]
        )
        if codes.max() < 1:
            codes = np.arange(len(x)) % 5
        pairs = [(np.flatnonzero(codes != g), np.flatnonzero(codes == g)) for g in np.unique(codes)]
        self._ridge = RidgeCV(self.alphas, cv=pairs, scoring="mse")
        self._ridge.fit(self._standard(x), self.target_space(y).astype(np.float32))
        self.alphas_ = self._ridge.alphas_
        return self

    def predict(self, responses: np.ndarray) -> np.ndarray:
        """Predict standardised (or whitened) features, shape (n, d)."""
        return self._ridge.predict(self._standard(np.asarray(responses, dtype=np.float32)))

    def target_space(self, features: np.ndarray) -> np.ndarray:
        """Features as the decoder predicts them: standardised, or whitened."""
        centred = np.asarray(features, dtype=np.float64) - self._y_mean
        return (centred if self._axes is None else centred @ self._axes.T) / self._scale

    def original_space(self, predicted: np.ndarray) -> np.ndarray:
        """Predictions in the units of the features; what whitening dropped is at its mean."""
        values = np.asarray(predicted, dtype=np.float64) * self._scale
        return (values if self._axes is None else values @ self._axes) + self._y_mean

    def _standard(self, x: np.ndarray) -> np.ndarray:
        return (x - self._x_mean) / self._x_scale

    def _whitening(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Principal axes of the features, component x feature, and the spread along each."""
        _, singular, axes = np.linalg.svd(y - self._y_mean, full_matrices=False)
        share = np.cumsum(singular**2) / max((singular**2).sum(), 1e-300)
        kept = int(np.searchsorted(share, self.variance - 1e-9) + 1)
        kept = min(kept, int((singular > 1e-6 * singular[0]).sum())) or 1
        return axes[:kept], np.maximum(singular[:kept], 1e-300) / np.sqrt(len(y))


def _spread(values: np.ndarray) -> np.ndarray:
    spread = values.std(axis=0)
    return np.where(spread > 1e-7 * max(float(np.abs(values).max()), 1e-30), spread, 1.0)


@dataclass(frozen=True, eq=False)
class FeatureDecoding:
    """Features decoded from presentations that the decoder was not trained on.

    Parameters
    ----------
    predicted : ndarray, shape (n_queries, n_features)
        In the units of the features. One query is one stimulus in one test set, averaged over
        its presentations there.
    stimuli : tuple of str, length n_queries
    correlation : ndarray, shape (n_features,)
        Of predicted and actual values over queries; 0 where either does not vary.
    mean_correlation : Estimate
        Over features, with a bootstrap interval over stimuli.
    identification : Identification
        In the gallery of all tested stimuli, compared in the space that each decoder predicts.
    features : str
        Their name.
    """

    predicted: np.ndarray
    stimuli: tuple[str, ...]
    correlation: np.ndarray
    mean_correlation: Estimate
    identification: Identification
    features: str


def decode_features(
    recording: Recording,
    features: Features,
    splits: Iterable[Split] | None = None,
    *,
    rng: np.random.Generator,
    alphas: Sequence[float] = ALPHAS,
    whiten: bool = False,
    kind: Similarity = "correlation",
    hubness: bool = False,
    n_bootstrap: int = 2000,
    allow: Collection[str] | None = None,
) -> FeatureDecoding:
    """Decode features across splits, and identify the stimulus from them.

    Parameters
    ----------
    recording : Recording
        A time axis is taken as further units.
    features : Features
        Of every stimulus of the recording.
    splits, allow
        As in `engramma.decoding.classify.decode`. To identify stimuli that the decoder never
        met, split by stimulus.
    rng : numpy.random.Generator
    alphas, whiten : see `FeatureDecoder`
    kind, hubness, n_bootstrap : see `engramma.decoding.retrieval.identify`

    Raises
    ------
    DataError
        If a stimulus has no features.
    LeakageError
        If a split leaks.
    """
    chosen = list(leave_one_out(recording, allow=("stimulus",)) if splits is None else splits)
    if not chosen:
        raise ConfigError("there is no split to decode with", mend="give at least one")
    for split in chosen:
        check_split(recording, split, allow)
    responses = recording.values.reshape(recording.n_presentations, -1)
    shown = recording.coord("stimulus")
    gallery = np.unique(np.concatenate([shown[s.test] for s in chosen]))
    entries = features.rows(gallery)
    queries, predicted, similarities = [], [], []
    for split in track(chosen, "decoding features"):
        decoder = FeatureDecoder(alphas, whiten=whiten)
        decoder.fit(
            responses[split.train],
            features.rows(shown[split.train]),
            inner_groups(recording, split),
        )
        stimuli, guess = _mean_by(shown[split.test], decoder.predict(responses[split.test]))
        queries.append(stimuli)
        predicted.append(decoder.original_space(guess))
        similarities.append(similarity(guess, decoder.target_space(entries), kind))
    names, values = np.concatenate(queries), np.concatenate(predicted)
    actual = features.rows(names).astype(np.float64)
    result = rank(
        np.concatenate(similarities),
        names,
        rng=rng,
        names=gallery.tolist(),
        hubness=hubness,
        n_bootstrap=n_bootstrap,
    )
    correlation = _correlate(values, actual)
    draws = _bootstrapped(values, actual, _counts(names, rng, min(n_bootstrap, 500)))
    low, high = np.quantile(draws.mean(axis=1), [0.025, 0.975])
    mean = Estimate(float(correlation.mean()), float(low), float(high))
    return FeatureDecoding(values, tuple(map(str, names)), correlation, mean, result, features.name)


def _mean_by(names: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average the rows that share a name."""
    levels, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    total = np.zeros((len(levels), values.shape[1]))
    np.add.at(total, codes, values)
    return levels, total / counts[:, None]


def _correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    length = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return (a * b).sum(axis=0) / np.where(length > 1e-12, length, np.inf)


def _counts(names: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """How often each query counts when stimuli are drawn with replacement, draw x query."""
    codes = np.unique(names, return_inverse=True)[1]
    n_stimuli = int(codes.max()) + 1
    return rng.multinomial(n_stimuli, np.full(n_stimuli, 1 / n_stimuli), size=n)[:, codes]


def _bootstrapped(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Correlation of each column under each set of weights, from weighted sums."""
    # Centred first, so that differences of sums of squares lose no digits.
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    w = counts / counts.sum(axis=1, keepdims=True)
    mean_a, mean_b = w @ a, w @ b
    covariance = w @ (a * b) - mean_a * mean_b
    variance = (w @ a**2 - mean_a**2) * (w @ b**2 - mean_b**2)
    length = np.sqrt(np.maximum(variance, 0))
    return covariance / np.where(length > 1e-12, length, np.inf)
