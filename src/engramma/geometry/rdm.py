"""RDMs of recordings and cohorts.

`rdm` computes them from plain arrays of patterns; the functions here find the patterns, folds
and noise in a recording first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from engramma.data.rdms import RDMs
from engramma.data.recording import Cohort, Recording
from engramma.data.splits import run_ids
from engramma.data.stimuli import StimulusSet
from engramma.data.store import UNITS_PER_CHUNK
from engramma.errors import ConfigError, DataError
from engramma.geometry.dissimilarity import (
    METHODS,
    Method,
    crossnobis_between,
    rdm,
    rdm_from_blocks,
)
from engramma.geometry.noise import Noise, NoiseMethod, estimate_noise
from engramma.geometry.pairs import n_stimuli_of, pair_indices, to_pairs, to_square
from engramma.progress import track

__all__ = [
    "METHODS",
    "Method",
    "n_stimuli_of",
    "pair_indices",
    "rdm",
    "rdm_from_recording",
    "rdm_movie",
    "to_pairs",
    "to_square",
]

Per = Literal["subject", "session", "run"]


def rdm_from_recording(
    data: Recording | Cohort,
    method: Method = "crossnobis",
    *,
    cv: str = "run",
    noise: Noise | NoiseMethod | None = None,
    condition: str | None = None,
    per: Per = "subject",
) -> RDMs:
    """Compute the RDM of each subject (session, run) of a recording.

    Parameters
    ----------
    data : Recording or Cohort
        Without a time axis.
    method : str
        See `rdm`. All but ``"crossnobis"`` average the repeats of a stimulus first.
    cv : str
        Folds of ``"crossnobis"``: ``"run"``, ``"session"`` or another coordinate, each value of
        which must hold every stimulus; or ``"repetition"``, which deals the repeats of each
        stimulus out to as many folds as the rarest stimulus has repeats (where runs hold
        different stimuli; repeats that share a run share its noise).
    noise : Noise or str, optional
        ``"diagonal"``, ``"ledoit-wolf"``, ``"shrinkage-diagonal"``, ``"full"`` estimate the noise
        covariance from the residuals of repeats. For ``"crossnobis"`` each fold is compared with
        the others under the noise of those others, so that the distance stays unbiased: residuals
        that know the test fold would push it above zero.
    condition : str, optional
        Column of the stimulus table that gives the rows of the RDM; the stimulus by default.
    per : {"subject", "session", "run"}
        One RDM each.

    Returns
    -------
    RDMs
        Stimuli in the order of the stimulus table (conditions sorted). ``attrs`` say how the
        RDMs were made.

    Raises
    ------
    DataError
        If a stimulus is missing from a subject or fold, there is one fold only, or a pattern is
        not usable (see `rdm`).
    """
    recordings = list(data.values()) if isinstance(data, Cohort) else [data]
    if any(r.has_time for r in recordings):
        raise ConfigError(
            "the recording has a time axis",
            mend="use rdm_movie, or average a time window first",
        )
    stimuli, levels = _rows(data, recordings, condition)
    rows, subjects, sessions = [], [], []
    for recording in recordings:
        for group in _groups(recording, per):
            part = _Patterns.of(recording, group, levels, condition, method, cv)
            rows.append(_one_rdm(part, method, noise))
            subjects.append(group.subject)
            sessions.append(group.session)
    attrs = _attrs(recordings[0].attrs, method, cv, noise)
    return RDMs(np.stack(rows), stimuli, tuple(subjects), tuple(sessions), attrs=attrs)


def rdm_movie(
    recording: Recording,
    method: Method = "correlation",
    *,
    cv: str = "run",
    noise: Noise | NoiseMethod | None = None,
    condition: str | None = None,
    per: Per = "subject",
) -> list[RDMs]:
    """Compute an RDM at every time point.

    Parameters are those of `rdm_from_recording`; noise is estimated at each time point.

    Returns
    -------
    list of RDMs
        One a subject (session, run), each with one row a time point and the times, in seconds,
        as ``attrs["time"]``.
    """
    if not recording.has_time:
        raise ConfigError("the recording has no time axis", mend="use rdm_from_recording")
    stimuli, levels = _rows(recording, [recording], condition)
    times = recording.coord("time")
    movies = []
    for group in _groups(recording, per):
        part = _Patterns.of(recording, group, levels, condition, method, cv)
        values = part.values
        rows = []
        for t in track(range(len(times)), "RDM movie"):
            part.values = np.ascontiguousarray(values[:, :, t])
            rows.append(_one_rdm(part, method, noise))
        attrs = _attrs(recording.attrs, method, cv, noise) | {"time": times.tolist()}
        n = len(times)
        movies.append(
            RDMs(np.stack(rows), stimuli, (group.subject,) * n, (group.session,) * n, attrs=attrs)
        )
    return movies


# -- what the rows and the RDMs are --------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Presentations that make one RDM."""

    subject: str
    session: str
    members: np.ndarray

    def __str__(self) -> str:
        return f"subject {self.subject!r}, session {self.session!r}"


def _groups(recording: Recording, per: Per) -> Iterator[_Group]:
    names = {"subject": ["subject"], "session": ["subject", "session"]}.get(
        per, ["subject", "session", "run"]
    )
    table = pd.DataFrame({n: recording.coord(n) for n in ("subject", "session", "run")})
    for _, rows in table.groupby(names, sort=False):
        sessions = rows["session"].unique()
        session = str(sessions[0]) if len(sessions) == 1 else "all"
        if per == "run":
            session += f"/{rows['run'].iloc[0]}"
        yield _Group(str(rows["subject"].iloc[0]), session, rows.index.to_numpy())


def _rows(
    data: Recording | Cohort, recordings: list[Recording], condition: str | None
) -> tuple[StimulusSet, list[str]]:
    """Return the stimuli (or conditions) that are the rows of the RDMs."""
    held: set[str] = set()
    for recording in recordings:
        held |= set(map(str, recording.labels(condition)))
    if condition in (None, "stimulus"):
        stimuli = data.stimuli.select([i for i in data.stimuli.ids if i in held])
        levels = stimuli.ids
    else:
        levels = sorted(held)
        stimuli = StimulusSet(pd.DataFrame({condition: levels}, index=levels))
    if len(levels) < 3:
        raise DataError(
            f"{len(levels)} stimuli make no geometry",
            where=f"rows are {condition or 'stimuli'}",
            mend="an RDM needs at least 3 rows",
        )
    return stimuli, levels


def _attrs(attrs: dict[str, Any], method: str, cv: str, noise: Any) -> dict[str, Any]:
    made = {"method": method, "noise": noise if isinstance(noise, str) else bool(noise)}
    return {**attrs, **made, **({"cv": cv} if method == "crossnobis" else {})}


# -- patterns and folds --------------------------------------------------------------------


@dataclass
class _Patterns:
    """Responses of one group, with the row and fold of each presentation."""

    values: Any  # presentation x unit[ x time]: numpy, or a lazy xarray
    row: np.ndarray
    fold: np.ndarray | None
    levels: list[str]

    @classmethod
    def of(
        cls,
        recording: Recording,
        group: _Group,
        levels: list[str],
        condition: str | None,
        method: str,
        cv: str,
    ) -> _Patterns:
        labels = recording.labels(condition)[group.members].astype(str)
        row = pd.Index(levels).get_indexer(labels)
        absent = np.setdiff1d(np.arange(len(levels)), row)
        if len(absent):
            raise DataError(
                f"{len(absent)} stimuli were not presented, for example {levels[absent[0]]!r}",
                where=str(group),
                mend="compare the stimuli that all have seen (select them first)",
            )
        fold = None
        if method == "crossnobis":
            fold = _folds(recording, group, row, levels, cv)
        array = recording.array
        whole = len(group.members) == recording.n_presentations
        array = array if whole else array.isel(presentation=group.members)
        lazy = array.chunks is not None and not recording.has_time
        return cls(array if lazy else np.asarray(array.values), row, fold, levels)

    @property
    def n_folds(self) -> int:
        return 1 if self.fold is None else int(self.fold.max()) + 1

    def mean(self, values: np.ndarray, members: np.ndarray | None = None) -> np.ndarray:
        """Mean pattern of each row over some presentations, shape (n_rows, n_units)."""
        rows = self.row if members is None else self.row[members]
        return _means(values if members is None else values[members], rows, len(self.levels))

    def means_by_fold(self, values: np.ndarray) -> np.ndarray:
        """Mean pattern of each row and fold, shape (n_folds, n_rows, n_units)."""
        n = len(self.levels)
        assert self.fold is not None
        means = _means(values, self.fold * n + self.row, self.n_folds * n)
        return means.reshape(self.n_folds, n, -1)


def _means(values: np.ndarray, codes: np.ndarray, n: int) -> np.ndarray:
    """Mean of the rows of each code, every one of which occurs."""
    counts = np.bincount(codes, minlength=n)
    if (counts == 1).all():
        return values[np.argsort(codes)]
    weights = (1.0 / counts[codes]).astype(values.dtype)
    return csr_array((weights, (codes, np.arange(len(codes)))), shape=(n, len(codes))) @ values


def _folds(
    recording: Recording, group: _Group, row: np.ndarray, levels: list[str], cv: str
) -> np.ndarray:
    """Fold of each presentation; every fold holds every row."""
    if cv == "repetition":
        count = pd.Series(row).groupby(row).cumcount().to_numpy()
        fold = count % np.bincount(row).min()
    else:
        names = run_ids(recording) if cv == "run" else recording.coord(cv)
        fold = pd.factorize(names[group.members])[0]
    n_folds = int(fold.max()) + 1
    if n_folds < 2:
        raise DataError(
            f"crossnobis cannot be cross-validated over one {cv}",
            where=str(group),
            mend='use another coordinate, cv="repetition", or a method without cross-validation',
        )
    held = np.zeros((n_folds, len(levels)), dtype=bool)
    held[fold, row] = True
    if not held.all():
        f, r = map(int, np.argwhere(~held)[0])
        name = str(recording.coord(cv)[group.members][np.flatnonzero(fold == f)[0]])
        raise DataError(
            f"stimulus {levels[r]!r} was not presented in {cv} {name!r}",
            where=f"{group} ({int((~held).sum())} such gaps)",
            mend=f'leave the stimulus or the {cv} out, or use cv="repetition"',
        )
    return fold


def _one_rdm(part: _Patterns, method: Method, noise: Noise | NoiseMethod | None) -> np.ndarray:
    if not isinstance(part.values, np.ndarray):
        if noise is None and method != "mahalanobis":
            return rdm_from_blocks(lambda: _blocks(part), method, stimuli=part.levels)
        part.values = np.asarray(part.values.values)
    if isinstance(noise, str) and method == "crossnobis":
        return _crossnobis_with_training_noise(part, noise)
    if isinstance(noise, str):
        residuals = part.values - part.mean(part.values)[part.row]
        dof = len(part.row) - len(part.levels)
        noise = estimate_noise(residuals, dof=dof, method=noise)
    patterns = part.mean if part.fold is None else part.means_by_fold
    return rdm(patterns(part.values), method, noise=noise, stimuli=part.levels)


def _blocks(part: _Patterns) -> Iterator[np.ndarray]:
    """Mean patterns of some units at a time, read from disk."""
    patterns = part.mean if part.fold is None else part.means_by_fold
    for start in range(0, part.values.sizes["unit"], UNITS_PER_CHUNK):
        yield patterns(
            np.asarray(part.values.isel(unit=slice(start, start + UNITS_PER_CHUNK)).values)
        )


def _crossnobis_with_training_noise(part: _Patterns, method: NoiseMethod) -> np.ndarray:
    """Compare each fold with the mean of the others under the noise of those others.

    In the training folds the mean of a stimulus and the residuals around it are independent,
    and the test fold is independent of both; so the mean distance under no difference is zero.
    """
    assert part.fold is not None
    values, total = part.values, np.zeros(len(part.levels) * (len(part.levels) - 1) // 2)
    by_fold = part.means_by_fold(values)
    for fold in range(part.n_folds):
        train = np.flatnonzero(part.fold != fold)
        dof = len(train) - len(part.levels)
        if dof < 1:
            raise DataError(
                "the noise cannot be estimated from one training fold without repeats",
                where=f"fold {fold}",
                mend="use three or more folds, noise=None, or a Noise estimated elsewhere",
            )
        center = part.mean(values, train)
        noise = estimate_noise(values[train] - center[part.row[train]], dof=dof, method=method)
        others = np.delete(by_fold, fold, axis=0).mean(axis=0)
        total += crossnobis_between(others, by_fold[fold], noise)
    return total / part.n_folds
