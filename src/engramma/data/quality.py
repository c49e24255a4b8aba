"""What a reader of the results must know about the data: named warnings.

A warning is a dict ``{"name", "text"}``: a name that programs can look for and a sentence for
people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from engramma.data.recording import Recording
from engramma.data.splits import run_ids
from engramma.data.stimuli import MEDIA_COLUMNS, _some
from engramma.errors import DataError

Notice = dict[str, str]

#: Two response patterns correlated above this are called near-duplicates.
DUPLICATE = 0.9999
UNITS_PER_CHUNK = 4096
#: Near-duplicates are searched among at most this many presentations.
MOST_COMPARED = 4000
#: ... by at most this many values each.
MOST_VALUES = 4096


def notice(name: str, text: str) -> Notice:
    """Make a named warning."""
    return {"name": name, "text": text}


def drop_bad_units(recording: Recording) -> tuple[Recording, list[Notice]]:
    """Drop units that hold NaN or infinity anywhere, or never change.

    Returns
    -------
    recording : Recording
        The same one where every unit is good.
    notices : list of dict
        What was dropped.

    Raises
    ------
    DataError
        If no unit is left.
    """
    not_finite, flat = bad_units(recording)
    bad = not_finite | flat
    if not bad.any():
        return recording, []
    if bad.all():
        raise DataError(
            f"no unit is usable: {int(not_finite.sum())} hold NaN or infinity and "
            f"{int(flat.sum())} are flat",
            where=str(recording.attrs.get("source", "the recording")),
            mend="check the mask, the scaling and the file the responses came from",
        )
    units = recording.coord("unit")
    notices = []
    if not_finite.any():
        notices.append(
            notice(
                "nan-units",
                f"{int(not_finite.sum())} of {len(bad)} units hold NaN or infinity and were "
                f"dropped: {_some(units[not_finite])}.",
            )
        )
    if flat.any():
        notices.append(
            notice(
                "flat-units",
                f"{int(flat.sum())} of {len(bad)} units never change and were dropped: "
                f"{_some(units[flat])}.",
            )
        )
    return recording.select(units=np.flatnonzero(~bad)), notices


def bad_units(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Find units with NaN or infinity, and flat ones; two boolean arrays, one value a unit."""
    not_finite = np.zeros(recording.n_units, dtype=bool)
    flat = np.zeros(recording.n_units, dtype=bool)
    for chosen, values in _chunks(recording):
        axes = (0, 2) if values.ndim == 3 else (0,)
        finite = np.isfinite(values).all(axis=axes)
        not_finite[chosen] = ~finite
        if values.shape[0] * (values.shape[2] if values.ndim == 3 else 1) > 1:
            flat[chosen] = finite & (values.max(axis=axes) == values.min(axis=axes))
    return not_finite, flat


def check_recording(recording: Recording) -> list[Notice]:
    """Return warnings about repeats, classes, runs and leakage risks.

    Responses are read once, in chunks of units.
    """
    return [
        *_check_runs(recording),
        *_check_repeats(recording),
        *_check_labels(recording),
        *_check_classes(recording),
        *_check_outlier_presentations(recording),
        *_check_duplicates(recording),
    ]


def dvars(series: np.ndarray) -> np.ndarray:
    """Root mean square over units of the change from one volume to the next.

    Parameters
    ----------
    series : ndarray, shape (n_volumes, n_units)
        One run, before filtering.

    Returns
    -------
    ndarray, shape (n_volumes - 1,)
        In percent of the grand mean (Power et al. 2012, NeuroImage), or in the units of
        ``series`` where the grand mean is not positive.
    """
    total = np.zeros(max(len(series) - 1, 0))
    for start in range(0, series.shape[1], UNITS_PER_CHUNK):
        step = np.diff(series[:, start : start + UNITS_PER_CHUNK].astype(np.float64), axis=0)
        total += (step**2).sum(axis=1)
    change = np.sqrt(total / max(series.shape[1], 1))
    mean = float(series.mean(dtype=np.float64)) if series.size else 0.0
    return 100 * change / mean if mean > 0 else change


def jumps(series: np.ndarray) -> np.ndarray:
    """Volumes at which the whole signal jumps, as it does when a head moves.

    A jump is a DVARS more than three interquartile ranges above the upper quartile of its run
    (Tukey's outer fence; `fsl_motion_outliers` uses 1.5).
    """
    change = dvars(series)
    if len(change) < 8:
        return np.array([], dtype=int)
    low, high = np.percentile(change, [25, 75])
    return np.flatnonzero(change > high + 3 * (high - low)) + 1


def _chunks(recording: Recording) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, recording.n_units, UNITS_PER_CHUNK):
        chosen = slice(start, start + UNITS_PER_CHUNK)
        yield chosen, np.asarray(recording.array.isel(unit=chosen).values)


def _classes(recording: Recording) -> np.ndarray:
    """Return the labels a classifier would read out: the category where there is one."""
    table = recording.stimuli.table
    named = "category" in table and table["category"].loc[recording.coord("stimulus")].notna().all()
    return recording.labels("category" if named else None)


def _check_runs(recording: Recording) -> list[Notice]:
    if len(np.unique(run_ids(recording))) > 1:
        return []
    return [
        notice(
            "one-run",
            "The recording has one run only: no run can be left out, so results may rest on slow "
            "changes shared by neighbouring presentations.",
        )
    ]


def _check_repeats(recording: Recording) -> list[Notice]:
    repeats = recording.repeats
    if int(repeats.max()) < 2:
        text = "No stimulus is repeated, so no noise ceiling can be estimated from repeats."
    elif float(repeats.median()) < 3:
        few = int((repeats < 3).sum())
        text = (
            f"{few} of {len(repeats)} stimuli have fewer than three presentations, so the noise "
            "ceiling is uncertain."
        )
    else:
        return []
    return [notice("few-repeats", text)]


def _check_labels(recording: Recording) -> list[Notice]:
    """Find columns that sort some of the stimuli but not all: they are not analysed."""
    table = recording.stimuli.table
    found = []
    for column in table.columns.difference(list(MEDIA_COLUMNS), sort=False):
        known = table[column].dropna()
        if 0 < len(known) < len(table) and known.nunique() < len(known):
            found.append(f"{column!r} ({len(table) - len(known)} of {len(table)} empty)")
    if not found:
        return []
    return [
        notice(
            "missing-labels",
            f"Some stimuli have no value in these columns, which are therefore neither decoded nor "
            f"used as a model: {', '.join(found)}.",
        )
    ]


def _check_classes(recording: Recording) -> list[Notice]:
    labels = _classes(recording)
    counts = pd.Series(labels).value_counts()
    if len(counts) < 2 or len(counts) > recording.n_presentations // 2:
        return []
    found = []
    if counts.iloc[0] > 1.5 * counts.iloc[-1]:
        found.append(
            notice(
                "unbalanced-classes",
                f"Classes are unbalanced: {counts.index[0]!r} has {counts.iloc[0]} presentations "
                f"and {counts.index[-1]!r} has {counts.iloc[-1]}; use balanced accuracy.",
            )
        )
    table = pd.crosstab(run_ids(recording), labels)
    lacking = [
        f"{run} lacks {label}" for run, row in table.iterrows() for label in row[row == 0].index
    ]
    if len(table) > 1 and lacking:
        found.append(
            notice(
                "classes-missing-from-run",
                f"Not every run holds every class ({_some(lacking, 3)}), so a decoder may read "
                "out the run in place of the class.",
            )
        )
    return found


def _check_outlier_presentations(recording: Recording) -> list[Notice]:
    """Find presentations whose response is far larger than the others of their run."""
    power = np.zeros(recording.n_presentations)
    for _, values in _chunks(recording):
        flat = np.nan_to_num(values.reshape(len(values), -1))
        flat = flat - flat.mean(axis=0)
        power += np.einsum("pu,pu->p", flat, flat, dtype=np.float64)
    size = np.log(np.sqrt(power) + 1e-30)
    outlying = np.zeros(len(size), dtype=bool)
    runs = run_ids(recording)
    for run in np.unique(runs):
        of_run = np.flatnonzero(runs == run)
        if len(of_run) < 8:
            continue
        low, high = np.percentile(size[of_run], [25, 75])
        outlying[of_run] = size[of_run] > high + 3 * (high - low) + 1e-6
    if not outlying.any():
        return []
    return [
        notice(
            "outlier-presentations",
            f"{int(outlying.sum())} of {len(size)} presentations have a response far larger than "
            f"the others of their run (presentations {_some(np.flatnonzero(outlying))}): look for "
            "movement or an artefact.",
        )
    ]


def _check_duplicates(recording: Recording) -> list[Notice]:
    """Find presentations whose responses are the same: the same data on both sides of a split."""
    n = recording.n_presentations
    if n < 2 or n > MOST_COMPARED:
        return []
    # Copies agree everywhere, so evenly spaced values are enough to find them.
    array = recording.array
    if "time" in array.dims:
        array = array.isel(time=slice(None, None, -(-array.sizes["time"] // 64)))
    most_units = max(MOST_VALUES // array.sizes.get("time", 1), 1)
    array = array.isel(unit=slice(None, None, -(-array.sizes["unit"] // most_units)))
    flat = np.nan_to_num(np.asarray(array.values).reshape(n, -1)).astype(np.float64)
    size = flat.shape[1]
    if size < 8:
        return []
    product, total = flat @ flat.T, flat.sum(axis=1)
    covariance = product - np.outer(total, total) / size
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    correlation = covariance / np.outer(spread, spread)
    first, second = np.nonzero(np.triu(correlation > DUPLICATE, 1))
    if not len(first):
        return []
    pairs = [f"{a} and {b}" for a, b in zip(first, second, strict=True)]
    return [
        notice(
            "near-duplicate-presentations",
            f"{len(pairs)} pairs of presentations have nearly the same response ({_some(pairs, 3)})"
            ": if one is trained on and the other tested on, scores are inflated.",
        )
    ]


def merge_notices(notices: Sequence[Notice]) -> list[Notice]:
    """Join the texts of warnings of one name, so that each name stands once."""
    texts: dict[str, list[str]] = {}
    for one in notices:
        kept = texts.setdefault(one["name"], [])
        if one["text"] not in kept:
            kept.append(one["text"])
    return [notice(name, _join(parts)) for name, parts in texts.items()]


def _join(parts: list[str], most: int = 4) -> str:
    more = f" And {len(parts) - most} more of this kind." if len(parts) > most else ""
    return " ".join(parts[:most]) + more
