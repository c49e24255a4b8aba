"""A linear decoder that fulfils the contract: fit once, then classify, decode or retrieve."""

from __future__ import annotations

import numpy as np

from engramma.data.features import Features
from engramma.data.recording import Recording
from engramma.data.splits import run_ids
from engramma.data.stimuli import StimulusSet
from engramma.decoding.labels import INNER_GROUPS
from engramma.decoding.linear import Space, classifier_named, scores
from engramma.decoding.regress import FeatureDecoder
from engramma.decoding.retrieval import Similarity, similarity
from engramma.errors import ConfigError, DataError


class LinearDecoder:
    """Read out classes, feature vectors, or the stimulus itself.

    Parameters
    ----------
    column : str, optional
        Column of the stimulus table that `classify` tells; default: the stimulus id.
    targets : Features, optional
        What `features` predicts and `retrieve` compares; needed for these two.
    classifier : str
        As in `engramma.decoding.classify.decode`.
    whiten : bool
        As in `engramma.decoding.regress.FeatureDecoder`.

    Notes
    -----
    Everything is fitted to the recording given to `fit`: hold out what is to be tested. A time
    axis is taken as further units.
    """

    def __init__(
        self,
        column: str | None = None,
        targets: Features | None = None,
        *,
        classifier: str = "lda",
        whiten: bool = False,
    ) -> None:
        classifier_named(classifier)
        self.column, self.targets = column, targets
        self.classifier, self.whiten = classifier, whiten

    def fit(self, recording: Recording, stimuli: StimulusSet | None = None) -> LinearDecoder:
        """Learn from the presentations of ``recording``.

        Parameters
        ----------
        recording : Recording
        stimuli : StimulusSet, optional
            Labels come from its table in place of that of the recording.

        Raises
        ------
        DataError
            If there is neither a second class nor target features to learn.
        """
        source = recording if stimuli is None else Recording(recording.array, stimuli)
        labels = source.labels(self.column).astype(str)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2 and self.targets is None:
            raise DataError(
                f"every presentation has the label {str(labels[0])!r}: there is nothing to learn",
                mend="choose a column with at least two values, or give target features",
            )
        self._units = recording.array["unit"].values
        x = _flat(recording)
        runs = np.unique(run_ids(recording), return_inverse=True)[1]
        groups = (runs if runs.max() else np.arange(len(x))) % INNER_GROUPS
        self._space = Space.of(x[None])
        if len(self.classes_) > 1:
            onehot = np.eye(len(self.classes_))[codes][None]
            self._plane = classifier_named(self.classifier)(self._space, onehot, groups)
        if self.targets is not None:
            shown = recording.coord("stimulus")
            # Features are predicted for stimuli never met: hold whole stimuli out inside, too.
            apart = np.unique(shown, return_inverse=True)[1] % INNER_GROUPS
            self._regression = FeatureDecoder(whiten=self.whiten)
            self._regression.fit(x, self.targets.rows(shown), apart)
        return self

    def classify(self, recording: Recording) -> np.ndarray:
        """Tell the label of each presentation."""
        x = self._checked(recording)
        if len(self.classes_) < 2:
            raise ConfigError(
                "this decoder met one class only", mend="fit it to presentations of several"
            )
        values = scores(*self._plane, self._space.project(x[None]))[0, 0]
        return self.classes_[values.argmax(axis=1)]

    def features(self, recording: Recording) -> np.ndarray:
        """Decode feature vectors, presentation x feature, in the units of the targets."""
        x = self._checked(recording)
        regression = self._need_targets()
        return regression.original_space(regression.predict(x))

    def retrieve(
        self,
        recording: Recording,
        gallery: Features,
        top: int = 5,
        kind: Similarity = "correlation",
    ) -> np.ndarray:
        """Find the gallery entries nearest to what is decoded, best first.

        Parameters
        ----------
        recording : Recording
        gallery : Features
            Of the candidates, from the same model as the targets.
        top : int
        kind : {"correlation", "cosine", "euclidean"}

        Returns
        -------
        ndarray of str, shape (n_presentations, top)
        """
        x = self._checked(recording)
        regression = self._need_targets()
        if self.targets is not None and gallery.n_features != self.targets.n_features:
            raise DataError(
                f"the gallery has {gallery.n_features} features, the decoder predicts "
                f"{self.targets.n_features}",
                mend="extract both with the same model and layer",
            )
        values = similarity(regression.predict(x), regression.target_space(gallery.values), kind)
        order = np.argsort(-values, axis=1, kind="stable")[:, :top]
        return np.asarray(gallery.stimuli)[order]

    def _checked(self, recording: Recording) -> np.ndarray:
        if not hasattr(self, "_units"):
            raise ConfigError("this decoder is not fitted", mend="call fit first")
        if not np.array_equal(recording.array["unit"].values, self._units):
            raise DataError(
                "the recording does not have the units that the decoder was fitted to",
                mend="select the same units in the same order",
            )
        return _flat(recording)

    def _need_targets(self) -> FeatureDecoder:
        if self.targets is None:
            raise ConfigError(
                "this decoder was given no target features",
                mend="make it with LinearDecoder(targets=features)",
            )
        return self._regression


def _flat(recording: Recording) -> np.ndarray:
    return recording.values.reshape(recording.n_presentations, -1)
