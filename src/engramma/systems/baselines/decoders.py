"""Plain decoders: linear discriminants, ridge on class indicators, the nearest class mean.

Each classifies stimuli, and with ``targets`` (features of every stimulus) also decodes features
by ridge and retrieves stimuli that it never met.
"""

from __future__ import annotations

from engramma.data.features import Features
from engramma.decoding.decoder import LinearDecoder
from engramma.registry import system

TASKS = ("scene-decoding", "evoked-decoding")


@system(
    "linear-decoder",
    family="baselines",
    title="Linear discriminants with Ledoit-Wolf shrinkage",
    contract="Decoder",
    paper=(
        "Ledoit O, Wolf M (2004). A well-conditioned estimator for large-dimensional covariance "
        "matrices. Journal of Multivariate Analysis 88:365-411"
    ),
    tasks=TASKS,
    baseline=True,
)
class DiscriminantDecoder(LinearDecoder):
    """Classify by linear discriminants.

    Parameters
    ----------
    targets : Features, optional
        What `features` predicts and `retrieve` compares.
    """

    def __init__(self, targets: Features | None = None) -> None:
        super().__init__(targets=targets, classifier="lda")


@system(
    "ridge-decoder",
    family="baselines",
    title="Ridge regression on class indicators; retrieval in whitened features",
    contract="Decoder",
    paper=(
        "Hoerl AE, Kennard RW (1970). Ridge regression: biased estimation for nonorthogonal "
        "problems. Technometrics 12:55-67"
    ),
    tasks=TASKS,
    baseline=True,
)
class RidgeDecoder(LinearDecoder):
    """Classify by ridge, the penalty chosen within the training part; whiten target features.

    Parameters
    ----------
    targets : Features, optional
        What `features` predicts and `retrieve` compares.
    """

    def __init__(self, targets: Features | None = None) -> None:
        super().__init__(targets=targets, classifier="ridge", whiten=True)


@system(
    "centroid-decoder",
    family="baselines",
    title="Nearest class mean",
    contract="Decoder",
    tasks=TASKS,
    baseline=True,
)
class CentroidDecoder(LinearDecoder):
    """Classify by the nearest mean of the training patterns, each unit scaled to unit variance.

    Parameters
    ----------
    targets : Features, optional
        What `features` predicts and `retrieve` compares.
    """

    def __init__(self, targets: Features | None = None) -> None:
        super().__init__(targets=targets, classifier="centroid")
