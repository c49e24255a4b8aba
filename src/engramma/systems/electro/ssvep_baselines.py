"""Linear decoders of steady-state responses, beside which every other one must stand."""

from __future__ import annotations

import numpy as np

from engramma.decoding.ssvep import (
    TaskRelatedComponents,
    canonical_correlations,
    chebyshev_bank,
    filter_bank,
    filter_bank_cca,
    harmonic_bank,
    references,
)
from engramma.decoding.ssvep_blocks import TargetDecoder, block_run
from engramma.decoding.ssvep_trials import Trials, Window, target_table
from engramma.errors import DataError
from engramma.registry import system

CCA_PAPER = (
    "Lin, Zhang, Wu & Gao (2006). Frequency recognition based on canonical correlation analysis "
    "for SSVEP-based BCIs. IEEE Transactions on Biomedical Engineering 53, 2610-2614."
)
FBCCA_PAPER = (
    "Chen, Wang, Gao, Jung & Gao (2015). Filter bank canonical correlation analysis for "
    "implementing a high-speed SSVEP-based brain-computer interface. Journal of Neural "
    "Engineering 12, 046008."
)
TRCA_PAPER = (
    "Nakanishi, Wang, Chen, Wang, Gao & Jung (2018). Enhancing detection of SSVEPs for a "
    "high-speed brain speller using task-related component analysis. IEEE Transactions on "
    "Biomedical Engineering 65, 104-112."
)


@system(
    "ssvep-cca",
    family="electro",
    title="Canonical correlation with sines and cosines",
    contract="Decoder",
    paper=CCA_PAPER,
    tasks=("ssvep",),
    run=block_run(lambda seed: SSVEPCanonicalCorrelation()),
    baseline=True,
)
class SSVEPCanonicalCorrelation(TargetDecoder):
    """Choose the target whose sines and cosines correlate best with the trial.

    Needs no training: of the training trials it takes only which targets there are.

    Parameters
    ----------
    window : Window
    n_harmonics : int
    """

    def __init__(self, window: Window | None = None, n_harmonics: int = 3) -> None:
        super().__init__(window)
        self.n_harmonics = n_harmonics

    def _learn(self, trials: Trials) -> None:
        assert self.targets_ is not None
        frequencies, _ = target_table(self.stimuli_, self.targets_)
        self.references_ = references(
            frequencies, self.window.n_samples, self.window.sfreq, self.n_harmonics
        )

    def _score(self, trials: Trials) -> np.ndarray:
        # The 8-90 Hz band takes the slow drifts away, which are no part of any reference.
        banded = filter_bank(trials.signals, chebyshev_bank(self.window.sfreq, low=(8,)))
        return canonical_correlations(banded[:, 0], self.references_)


@system(
    "ssvep-fbcca",
    family="electro",
    title="Filter-bank canonical correlation",
    contract="Decoder",
    paper=FBCCA_PAPER,
    tasks=("ssvep",),
    run=block_run(lambda seed: FilterBankCanonicalCorrelation()),
    baseline=True,
)
class FilterBankCanonicalCorrelation(SSVEPCanonicalCorrelation):
    """Canonical correlation in bands that begin at successive harmonics, summed with weights.

    Parameters
    ----------
    window : Window
    n_harmonics : int
    n_bands : int
    """

    def __init__(
        self, window: Window | None = None, n_harmonics: int = 5, n_bands: int = 5
    ) -> None:
        super().__init__(window, n_harmonics)
        self.n_bands = n_bands

    def _score(self, trials: Trials) -> np.ndarray:
        bank = harmonic_bank(self.window.sfreq, self.n_bands)
        return filter_bank_cca(filter_bank(trials.signals, bank), self.references_)


@system(
    "ssvep-trca",
    family="electro",
    title="Ensemble task-related component analysis with a filter bank",
    contract="Decoder",
    paper=TRCA_PAPER,
    tasks=("ssvep",),
    run=block_run(lambda seed: EnsembleTRCA()),
    baseline=True,
)
class EnsembleTRCA(TargetDecoder):
    """Compare a trial with each target's average, through filters that maximise repeatability.

    One model a subject.

    Parameters
    ----------
    window : Window
    n_bands : int
    ensemble : bool
        Whether each comparison uses the filters of all targets (eTRCA) or one (TRCA).
    """

    def __init__(
        self, window: Window | None = None, n_bands: int = 5, ensemble: bool = True
    ) -> None:
        super().__init__(window)
        self.n_bands, self.ensemble = n_bands, ensemble

    def _learn(self, trials: Trials) -> None:
        assert self.targets_ is not None
        banded = filter_bank(trials.signals, harmonic_bank(self.window.sfreq, self.n_bands))
        target = self._target_index(trials)
        self.models_ = {
            str(subject): TaskRelatedComponents.fit(
                banded[trials.subject == subject],
                target[trials.subject == subject],
                len(self.targets_),
            )
            for subject in np.unique(trials.subject)
        }

    def _score(self, trials: Trials) -> np.ndarray:
        assert self.targets_ is not None
        banded = filter_bank(trials.signals, harmonic_bank(self.window.sfreq, self.n_bands))
        scores = np.empty((len(trials), len(self.targets_)))
        for subject in np.unique(trials.subject):
            if subject not in self.models_:
                raise DataError(
                    f"there is no calibration of subject {subject!r}",
                    where=f"calibrated are {', '.join(self.models_)}",
                    mend="fit on blocks of this subject, or use ssvep-fbcca, which needs none",
                )
            own = trials.subject == subject
            scores[own] = self.models_[str(subject)].scores(banded[own], self.ensemble)
        return scores
