"""What the worlds of stimulus vectors share: stimuli, features and the voxels that follow them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.data.features import Features
from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError


@dataclass(frozen=True, eq=False)
class VectorView:
    """Stimuli as vectors, and voxels whose tuning to them is known.

    Parameters
    ----------
    stimuli : StimulusSet
    cohort : Cohort
        One recording a subject. Units carry ``roi``, which names what they follow, and
        ``true_ceiling``, the share of the variance of a single presentation that is signal.
    features : mapping of str to Features
        What a model may be given.
    truth : mapping of str to array or table
        What it must find; each world lists it.
    """

    stimuli: StimulusSet
    cohort: Cohort
    features: Mapping[str, Features]
    truth: Mapping[str, Any]

    @property
    def recording(self) -> Recording:
        """Recording of the first subject."""
        return next(iter(self.cohort.values()))


def record(
    clean: np.ndarray,
    roi: np.ndarray,
    stimuli: StimulusSet,
    *,
    snr: float,
    rng: np.random.Generator,
    subject: str = "sub-01",
    n_repeats: int = 1,
    shown: np.ndarray | None = None,
    **attrs: Any,
) -> Recording:
    """Present stimuli to voxels of known noise-free responses.

    Parameters
    ----------
    clean : ndarray, shape (n_stimuli, n_voxels)
        Brought to mean 0 and variance 1 over stimuli; voxels in which all are equal stay 0.
    roi : ndarray of str, shape (n_voxels,)
    stimuli : StimulusSet
        In the order of ``clean``.
    snr : float
        Variance of the signal over that of the noise, which is white and of variance 1.
    rng : numpy.random.Generator
    subject : str
    n_repeats : int
        Presentations of each stimulus, one a run, in a new order each time.
    shown : ndarray of int, optional
        Stimuli that this subject sees; else all.
    **attrs
        Facts about the recording.

    Raises
    ------
    ConfigError
        If ``snr`` is negative or there is no presentation.
    """
    if snr < 0 or n_repeats < 1:
        raise ConfigError(
            "voxels cannot be recorded with these numbers", mend="use snr >= 0 and n_repeats >= 1"
        )
    spread = clean.std(axis=0)
    told = spread > 1e-9
    signal = np.sqrt(snr) * (clean - clean.mean(axis=0)) / np.where(told, spread, 1.0) * told
    which = np.arange(len(clean)) if shown is None else shown
    order = np.concatenate([rng.permutation(which) for _ in range(n_repeats)])
    noise = rng.standard_normal((len(order), clean.shape[1]), dtype=np.float32)
    return Recording.from_arrays(
        (signal[order] + noise).astype(np.float32),
        np.asarray(stimuli.ids, dtype=object)[order],
        subject=subject,
        run=np.repeat(np.arange(1, n_repeats + 1), len(which)),
        unit_coords={"roi": roi.astype(str), "true_ceiling": told * snr / (snr + 1)},
        stimuli=stimuli,
        modality="simulated",
        **attrs,
    )


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))
