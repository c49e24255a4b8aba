"""From the time series of one fMRI run to one response pattern a block, trial or condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.quality import Notice, notice
from engramma.errors import ConfigError, DataError

ESTIMATES = ("blocks", "lss", "glm")
#: HRF models with one regressor a condition, which single-trial estimation needs.
SINGLE_HRFS = ("glover", "spm")
#: Events that last this long, in seconds, are blocks.
SHORTEST_BLOCK = 8.0
HRFS = (*SINGLE_HRFS, *(f"{h} + derivative" for h in SINGLE_HRFS))
HRFS = (*HRFS, *(f"{h} + derivative + dispersion" for h in SINGLE_HRFS))


@dataclass(frozen=True)
class ResponseSettings:
    """How response patterns are made of time series.

    Parameters
    ----------
    estimate : {"blocks", "lss", "glm"}
        ``"blocks"``: the mean of the volumes of each block, shifted by ``delay``. ``"lss"``: one
        least-squares-separate estimate a trial (Mumford et al. 2012, NeuroImage 59:2636).
        ``"glm"``: one estimate a condition and run.
    detrend : bool
        Remove a linear trend from each run.
    high_pass : float, None or "auto"
        Cut-off in Hz; ``"auto"`` is the rule of `suggest_high_pass`.
    filter : {"cosine", "butterworth"}
        The high-pass filter. A GLM always models drifts by cosines.
    zscore : bool
        Give the time series of each unit mean 0 and standard deviation 1 within each run.
    hrf : str
        HRF model of nilearn.
    delay : float
        Haemodynamic delay of a block, in seconds.
    statistic : {"beta", "t"}
        What ``"glm"`` returns.
    noise_model : {"ar1", "ols"}
        Of ``"glm"``.
    """

    estimate: str = "blocks"
    detrend: bool = True
    high_pass: float | str | None = "auto"
    filter: str = "cosine"
    zscore: bool = True
    hrf: str = "glover"
    delay: float = 5.0
    statistic: str = "beta"
    noise_model: str = "ar1"

    def __post_init__(self) -> None:
        hrfs = HRFS if self.estimate == "glm" else SINGLE_HRFS
        for name, allowed in (
            ("estimate", ESTIMATES),
            ("filter", ("cosine", "butterworth")),
            ("hrf", hrfs),
            ("statistic", ("beta", "t")),
            ("noise_model", ("ar1", "ols")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is not possible"
                    + (f" with estimate={self.estimate!r}" if name == "hrf" else ""),
                    mend=f"use one of {', '.join(map(repr, allowed))}",
                )
        if self.high_pass in (None, "auto"):
            return
        if isinstance(self.high_pass, str) or not 0 < self.high_pass < 0.5:
            raise ConfigError(
                f"high_pass={self.high_pass} is no high-pass cut-off for fMRI",
                mend="give it in Hz, for example 0.0078 (1/128), or 'auto', or None",
            )

    @property
    def cut_off(self) -> float | None:
        """The high-pass cut-off in Hz, or None for no filter."""
        if isinstance(self.high_pass, str):
            raise ConfigError(
                "high_pass='auto' depends on the events",
                mend="resolve it first with suggest_high_pass",
            )
        return self.high_pass

    def history(self) -> list[str]:
        """Return one sentence a step, for a methods paragraph."""
        engine = f"nilearn {version('nilearn')}"
        steps = []
        if self.detrend:
            steps.append("detrended linearly")
        if self.cut_off is not None:
            kind = "discrete cosine regressors"
            if self.filter == "butterworth" and self.estimate == "blocks":
                kind = "a fifth-order Butterworth filter"
            steps.append(f"high-pass filtered at {self.cut_off:.4g} Hz with {kind}")
        if self.zscore:
            steps.append("z-scored within run")
        joined = ", ".join(steps[:-1]) + (" and " if len(steps) > 1 else "") + "".join(steps[-1:])
        if self.estimate == "blocks":
            before = [f"The time series of each voxel was {joined} ({engine})."] if steps else []
            return [
                *before,
                "One response pattern a block was computed as the mean of the volumes acquired "
                f"during the block, shifted by {self.delay:g} s for the haemodynamic delay.",
            ]
        drifts = [s.replace("detrended linearly", "a linear trend") for s in steps if "z-" not in s]
        drifts = [s.replace("high-pass filtered at", "drifts slower than") for s in drifts]
        drifts = [s.replace(" with discrete cosine regressors", " (cosines)") for s in drifts]
        modelled = " and ".join([*drifts, "a constant"])
        before = ["The time series of each voxel was z-scored within run."] if self.zscore else []
        if self.estimate == "lss":
            what = (
                "The response to each trial was estimated by least squares separate (Mumford et "
                "al., 2012): one general linear model a trial, with a regressor for the trial and "
                "one for all other trials of the run"
            )
        else:
            what = (
                f"One {'t value' if self.statistic == 't' else 'response amplitude'} a condition "
                f"and run was estimated by a general linear model with {self.noise_model.upper()} "
                "noise"
            )
        return [
            *before,
            f"{what}; events were convolved with the {self.hrf} HRF, and {modelled} "
            f"were modelled ({engine}).",
        ]


def estimate_responses(
    series: np.ndarray,
    events: pd.DataFrame,
    tr: float,
    settings: ResponseSettings,
    confounds: np.ndarray | None = None,
    where: str = "",
) -> tuple[np.ndarray, pd.DataFrame, list[Notice]]:
    """Estimate the response patterns of one run.

    Parameters
    ----------
    series : ndarray, shape (n_volumes, n_units)
    events : DataFrame
        Columns ``onset`` and ``duration`` in seconds, and ``stimulus``.
    tr : float
        Seconds from one volume to the next.
    settings : ResponseSettings
    confounds : ndarray, shape (n_volumes, n_confounds), optional
        Regressed out.
    where : str
        Name of the run, for messages.

    Returns
    -------
    patterns : ndarray, shape (n_patterns, n_units), float32
    presentations : DataFrame
        One row a pattern, with the columns of ``events``.
    notices : list of dict

    Raises
    ------
    DataError
        If the events lie outside the run.
    """
    events, notices = events_within(events, len(series) * tr, where)
    if settings.estimate == "blocks":
        events, merged = merge_blocks(events, gap=max(tr, 2.0))
        if merged:
            notices.append(
                notice("merged-blocks", f"Neighbouring events of one kind were merged ({where}).")
            )
        clean = clean_series(series, tr, settings, confounds)
        patterns, usable = block_patterns(clean, events, tr, settings.delay)
    elif settings.estimate == "lss":
        patterns, usable = lss_patterns(series, events, tr, settings, confounds)
    else:
        patterns, events = glm_patterns(series, events, tr, settings, confounds)
        usable = np.ones(len(events), dtype=bool)
    if not usable.all():
        notices.append(
            notice(
                "events-without-response",
                f"{int((~usable).sum())} events end too close to the end of the run to have a "
                f"measured response and were left out ({where}).",
            )
        )
    if not usable.any():
        raise DataError("no event of the run has a measured response", where=where)
    return patterns[usable], events[usable].reset_index(drop=True), notices


def events_within(
    events: pd.DataFrame, length: float, where: str = ""
) -> tuple[pd.DataFrame, list[Notice]]:
    """Leave out events past the end of a run of ``length`` seconds, with a warning.

    Raises
    ------
    DataError
        If more than a quarter lie past the end: then the TR or the unit of the onsets is wrong.
    """
    events = events.sort_values("onset", kind="stable").reset_index(drop=True)
    past = (events["onset"] >= length).to_numpy()
    if past.mean() > 0.25:
        raise DataError(
            f"{int(past.sum())} of {len(events)} events start after the end of the run "
            f"({length:g} s; the last starts at {events['onset'].max():g} s)",
            where=where,
            mend="check the TR, that onsets are in seconds, and that the events are of this run",
        )
    found = []
    if past.any():
        found.append(
            notice(
                "events-past-end",
                f"{int(past.sum())} of {len(events)} events start after the end of the run "
                f"({length:g} s) and were left out ({where}).",
            )
        )
    kept = events[~past].reset_index(drop=True)
    over = (kept["onset"] + kept["duration"] > length + 1e-6).to_numpy()
    if over.any():
        found.append(
            notice(
                "events-cut-short",
                f"{int(over.sum())} events end after the end of the run ({length:g} s); the part "
                f"within the run was used ({where}).",
            )
        )
    return kept, found


def merge_blocks(events: pd.DataFrame, gap: float) -> tuple[pd.DataFrame, bool]:
    """Join neighbouring events of one stimulus that lie at most ``gap`` seconds apart."""
    if len(events) < 2:
        return events, False
    end = (events["onset"] + events["duration"]).to_numpy()
    apart = events["onset"].to_numpy()[1:] - end[:-1] > gap
    other = events["stimulus"].to_numpy()[1:] != events["stimulus"].to_numpy()[:-1]
    block = np.concatenate([[0], np.cumsum(apart | other)])
    if block[-1] == len(events) - 1:
        return events, False
    merged = events.groupby(block).first()
    merged["duration"] = pd.Series(end).groupby(block).max() - merged["onset"]
    return merged.reset_index(drop=True), True


def suggest_high_pass(
    events: Sequence[pd.DataFrame], n_volumes: Sequence[int], tr: float
) -> tuple[float | None, str]:
    """Choose a high-pass cut-off that leaves the differences between conditions in.

    A block design needs a cut-off period as long as its cycle, the time until a condition comes
    again (FSL's FEAT manual, "high pass filter cutoff"): a condition that comes once in a run
    has the run for its period, and leaves room for a linear trend only. A design of short
    events gets 1/128 Hz.

    Parameters
    ----------
    events : sequence of DataFrame
        Of each run; columns ``onset``, ``duration``, ``stimulus`` and ``category``.
    n_volumes : sequence of int
    tr : float

    Returns
    -------
    cut_off : float or None
        In Hz.
    why : str
        A sentence for the methods paragraph; empty for the usual 1/128 Hz.
    """
    usual, cycle = 128.0, 0.0
    longest = max(n_volumes) * tr
    blocks = [merge_blocks(e.sort_values("onset"), gap=max(tr, 2.0))[0] for e in events]
    if float(np.median(np.concatenate([b["duration"] for b in blocks]))) < SHORTEST_BLOCK:
        return 1 / usual, ""
    for table, n in zip(blocks, n_volumes, strict=True):
        for _, onsets in table.groupby("category")["onset"]:
            gaps = np.diff(np.sort(onsets.to_numpy()))
            cycle = max(cycle, float(gaps.max()) if len(gaps) else n * tr)
    if cycle <= usual:
        return 1 / usual, ""
    if cycle >= longest:
        return None, (
            "Since conditions come once in a run, slow drifts cannot be told from responses by a "
            "high-pass filter, and only the linear trend was removed."
        )
    return 1 / cycle, (
        f"The high-pass cut-off was set to the longest time until a condition comes again, "
        f"{cycle:.0f} s."
    )


def clean_series(
    series: np.ndarray,
    tr: float,
    settings: ResponseSettings,
    confounds: np.ndarray | None = None,
) -> np.ndarray:
    """Detrend, high-pass filter and z-score one run with ``nilearn.signal.clean``.

    Units that never change come out as zeros.
    """
    from nilearn.signal import clean

    high_pass = settings.cut_off
    cleaned = clean(
        series,
        detrend=settings.detrend,
        standardize="zscore_sample" if settings.zscore else None,
        confounds=confounds,
        filter=settings.filter if high_pass is not None else False,
        high_pass=high_pass,
        t_r=tr,
    )
    return np.asarray(cleaned, dtype=np.float32)


def block_patterns(
    series: np.ndarray, events: pd.DataFrame, tr: float, delay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Average the volumes of each block, shifted by the haemodynamic delay.

    A block shorter than a TR takes the volume nearest to its shifted middle.

    Returns
    -------
    patterns : ndarray, shape (n_events, n_units), float32
    usable : ndarray of bool
        Whether any volume was acquired in the shifted block.
    """
    times = np.arange(len(series)) * tr
    weights = np.zeros((len(events), len(series)), dtype=np.float32)
    usable = np.ones(len(events), dtype=bool)
    starts = events["onset"].to_numpy(dtype=float) + delay
    ends = starts + events["duration"].to_numpy(dtype=float)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        chosen = np.flatnonzero((times >= start - 1e-6) & (times < end - 1e-6))
        if not len(chosen):
            middle = (start + end) / 2
            nearest = int(np.argmin(np.abs(times - middle)))
            usable[row] = abs(times[nearest] - middle) <= tr
            chosen = np.array([nearest])
        weights[row, chosen] = 1 / len(chosen)
    return weights @ np.asarray(series, dtype=np.float32), usable


def lss_patterns(
    series: np.ndarray,
    events: pd.DataFrame,
    tr: float,
    settings: ResponseSettings,
    confounds: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Estimate single trials by least squares separate, all trials at once.

    For trial :math:`i` the model holds its regressor :math:`x_i`, the sum :math:`o_i` of the
    regressors of all other trials, and nuisance regressors :math:`N` (Mumford et al. 2012). After
    projecting :math:`N` out of everything, the two normal equations have the solution

    .. math:: \beta_i = \frac{(o_i^2)(x_i y) - (x_i o_i)(o_i y)}{(x_i^2)(o_i^2) - (x_i o_i)^2}

    so one matrix product over all trials replaces one model fit a trial.

    Returns
    -------
    patterns : ndarray, shape (n_events, n_units), float32
    usable : ndarray of bool
        False where the regressor of a trial vanishes or equals the others.
    """
    names = [f"trial{i:06d}" for i in range(len(events))]
    design = design_matrix(len(series), tr, events.assign(trial_type=names), settings, confounds)
    trials = design[names].to_numpy(dtype=np.float64)
    nuisance = design.drop(columns=names).to_numpy(dtype=np.float64)
    basis = _orthonormal(nuisance)
    energy = (trials**2).sum(axis=0)
    trials = trials - basis @ (basis.T @ trials)
    data = _standardised(series, settings)
    # Nuisance lies outside the span of the projected trials, so the data need no projection.
    with_data = (trials.astype(np.float32).T @ data).astype(np.float64)
    gram = trials.T @ trials
    own = np.diag(gram)
    with_others = gram.sum(axis=1) - own
    others = gram.sum() - 2 * gram.sum(axis=1) + own
    others_data = with_data.sum(axis=0) - with_data
    if len(events) == 1:
        return (with_data / own[:, None]).astype(np.float32), own > 1e-6 * energy
    determinant = own * others - with_others**2
    usable = (own > 1e-6 * np.maximum(energy, 1e-12)) & (determinant > 1e-6 * own * others)
    scale = np.where(usable, determinant, 1.0)[:, None]
    patterns = (others[:, None] * with_data - with_others[:, None] * others_data) / scale
    return patterns.astype(np.float32), usable


def glm_patterns(
    series: np.ndarray,
    events: pd.DataFrame,
    tr: float,
    settings: ResponseSettings,
    confounds: np.ndarray | None = None,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Estimate one pattern a stimulus with ``nilearn.glm.first_level.run_glm``.

    Returns
    -------
    patterns : ndarray, shape (n_stimuli, n_units), float32
    presentations : DataFrame
        The first event of each stimulus.
    """
    from nilearn.glm.contrasts import compute_contrast
    from nilearn.glm.first_level import run_glm

    stimuli = sorted(events["stimulus"].unique())
    names = {s: f"condition{i:06d}" for i, s in enumerate(stimuli)}
    named = events.assign(trial_type=events["stimulus"].map(names))
    design = design_matrix(len(series), tr, named, settings, confounds)
    values = design.to_numpy(dtype=np.float64)
    if np.linalg.matrix_rank(values) < values.shape[1]:
        raise DataError(
            f"the design of {len(stimuli)} conditions over {len(series)} volumes is not full rank",
            where=f"conditions {', '.join(map(str, stimuli[:8]))}",
            mend="leave out a rest condition with exclude=, use fewer confounds, or estimate='lss'",
        )
    labels, results = run_glm(
        _standardised(series, settings), values, noise_model=settings.noise_model
    )
    patterns = np.empty((len(stimuli), series.shape[1]), dtype=np.float32)
    for row, stimulus in enumerate(stimuli):
        contrast = np.zeros(values.shape[1])
        contrast[design.columns.get_loc(names[stimulus])] = 1.0
        fitted = compute_contrast(labels, results, contrast, stat_type="t")
        patterns[row] = fitted.stat() if settings.statistic == "t" else fitted.effect_size()
    return patterns, events.groupby("stimulus", sort=True).first().reset_index()


def design_matrix(
    n_volumes: int,
    tr: float,
    events: pd.DataFrame,
    settings: ResponseSettings,
    confounds: np.ndarray | None = None,
) -> pd.DataFrame:
    """Build the nilearn design matrix of one run: events, drifts, trend, confounds, constant."""
    from nilearn.glm.first_level import make_first_level_design_matrix

    extra = [] if confounds is None else [np.asarray(confounds, dtype=float)]
    if settings.detrend:
        extra.append(np.linspace(-1, 1, n_volumes)[:, None])
    regressors: Any = np.hstack(extra) if extra else None
    return make_first_level_design_matrix(
        np.arange(n_volumes) * tr,
        events[["onset", "duration", "trial_type"]],
        hrf_model=settings.hrf,
        drift_model="cosine" if settings.cut_off is not None else None,
        high_pass=settings.cut_off or 0.01,
        add_regs=regressors,
    )


def _standardised(series: np.ndarray, settings: ResponseSettings) -> np.ndarray:
    """Z-score where asked for; constant units stay at zero."""
    series = np.asarray(series, dtype=np.float32)
    centred = series - series.mean(axis=0)
    if not settings.zscore:
        return centred
    spread = centred.std(axis=0, ddof=1)
    return centred / np.where(spread > 0, spread, 1)


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the span of ``columns``, which may be collinear."""
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, values > values[0] * 1e-10]
