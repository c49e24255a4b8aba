"""Recordings: responses of units to presentations of stimuli."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from engramma.data.stimuli import StimulusSet, _some
from engramma.errors import DataError

#: Coordinates that every recording carries on its presentations.
PRESENTATION_COORDS = ("stimulus", "subject", "session", "run", "repetition")


@dataclass(frozen=True, eq=False)
class Recording:
    """Responses, presentation x unit or presentation x unit x time, validated on construction.

    Parameters
    ----------
    array : xarray.DataArray
        Dims ``presentation, unit`` or ``presentation, unit, time``. The presentation coordinate
        ``stimulus`` is required; ``subject``, ``session`` and ``run`` default to ``"1"`` and
        ``repetition`` counts how often the subject has met the stimulus. Units carry ``unit``
        (unique names), and where known ``roi``, ``kind`` and positions (``i, j, k`` voxel
        indices, or ``x, y, z`` in metres or millimetres). ``time`` is in seconds from stimulus
        onset. ``attrs`` may hold ``modality`` (fmri, eeg, meg, ieeg, spikes, calcium,
        simulated), ``source``, ``tr``, ``sfreq``, ``affine``, ``volume_shape``, and two lists
        that the report prints: ``history`` (one sentence a preprocessing step) and ``warnings``.
    stimuli : StimulusSet, optional
        What was presented. Without one, a set that holds just the ids is made.

    Raises
    ------
    DataError
        If dims, coordinates or stimulus ids do not fit together.
    """

    array: xr.DataArray
    stimuli: StimulusSet = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        array = _complete(self.array)
        object.__setattr__(self, "array", array)
        used = pd.unique(array["stimulus"].values)
        if self.stimuli is None:
            ids = pd.Index(sorted(used), dtype=object)
            object.__setattr__(self, "stimuli", StimulusSet(pd.DataFrame(index=ids)))
        else:
            self.stimuli.select(used)  # raises where an id is unknown

    @classmethod
    def from_arrays(
        cls,
        responses: np.ndarray,
        stimulus: Any,
        *,
        subject: Any = "1",
        session: Any = "1",
        run: Any = "1",
        unit: Any = None,
        time: Any = None,
        unit_coords: Mapping[str, Any] | None = None,
        presentation_coords: Mapping[str, Any] | None = None,
        stimuli: StimulusSet | None = None,
        **attrs: Any,
    ) -> Recording:
        """Build a recording from plain arrays.

        Parameters
        ----------
        responses : ndarray, shape (n_presentations, n_units[, n_times])
        stimulus, subject, session, run : array of str or one value
            Per presentation.
        unit : array of str, optional
            Names of the units.
        time : array of float, optional
            Seconds from onset; required where ``responses`` has a time axis.
        unit_coords, presentation_coords : mapping of str to array
            Further coordinates (``roi``, ``i``, ``j``, ``k``, ...).
        stimuli : StimulusSet, optional
        **attrs
            Facts about the recording.
        """
        n, n_units = responses.shape[:2]
        presentation = {"stimulus": stimulus, "subject": subject, "session": session, "run": run}
        presentation.update(presentation_coords or {})
        coords: dict[str, Any] = {}
        for name, values in presentation.items():
            values = np.full(n, values) if np.ndim(values) == 0 else np.asarray(values)
            coords[name] = ("presentation", values)
        coords["unit"] = (
            [f"u{i:05d}" for i in range(n_units)] if unit is None else [str(u) for u in unit]
        )
        for name, values in (unit_coords or {}).items():
            coords[name] = ("unit", np.asarray(values))
        dims = ["presentation", "unit"]
        if responses.ndim == 3:
            if time is None:
                raise DataError(
                    "responses have a time axis but no time coordinate",
                    mend="pass time= in seconds from stimulus onset",
                )
            dims.append("time")
            coords["time"] = np.asarray(time, dtype=float)
        try:
            array = xr.DataArray(responses, dims=dims, coords=coords, attrs=dict(attrs))
        except ValueError as error:
            raise DataError(
                f"responses and coordinates do not fit together ({error})",
                where=f"responses have shape {responses.shape}",
                mend="give one coordinate value per presentation, unit or time point",
            ) from error
        return cls(array, stimuli)  # type: ignore[arg-type]

    # -- what is in it ---------------------------------------------------------------------

    @property
    def values(self) -> np.ndarray:
        """Responses as a numpy array (loads a recording that lies on disk)."""
        return np.asarray(self.array.values)

    @property
    def attrs(self) -> dict[str, Any]:
        """Facts about the recording."""
        return self.array.attrs

    @property
    def n_presentations(self) -> int:
        """Number of presentations."""
        return int(self.array.sizes["presentation"])

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.array.sizes["unit"])

    @property
    def has_time(self) -> bool:
        """Whether responses have a time axis."""
        return "time" in self.array.dims

    def coord(self, name: str) -> np.ndarray:
        """Values of one coordinate (``stimulus``, ``run``, ``roi``, ...).

        Raises
        ------
        DataError
            If the recording has no such coordinate.
        """
        if name not in self.array.coords:
            raise DataError(
                f"the recording has no coordinate {name!r}",
                where=f"it has {', '.join(sorted(map(str, self.array.coords)))}",
                mend="add it when the recording is made",
            )
        return np.asarray(self.array[name].values)

    def labels(self, column: str | None = None) -> np.ndarray:
        """Label of each presentation: its stimulus id, or a column of the stimulus table.

        Raises
        ------
        DataError
            If there is no such column, or a stimulus that was shown has no value in it.
        """
        if column is None or column == "stimulus":
            return self.coord("stimulus")
        if column not in self.stimuli.table:
            raise DataError(
                f"the stimulus table has no column {column!r}",
                where=f"it has {', '.join(map(str, self.stimuli.table.columns)) or 'none'}",
                mend="name one of these, or add the column",
            )
        values = self.stimuli.table[column].loc[self.coord("stimulus")]
        empty = values.index[values.isna()].unique()
        if len(empty):
            raise DataError(
                f"{len(empty)} stimuli that were shown have no {column!r}",
                where=f"stimulus {str(empty[0])!r}",
                mend="fill in the column, or select the presentations that have it",
            )
        return np.asarray(values.astype(str))

    @property
    def repeats(self) -> pd.Series:
        """Number of presentations of each stimulus."""
        return pd.Series(self.coord("stimulus")).value_counts()

    # -- smaller recordings ----------------------------------------------------------------

    def select(self, presentations: Any = None, units: Any = None) -> Recording:
        """Return some presentations and units, by index or mask."""
        array = self.array
        if presentations is not None:
            array = array.isel(presentation=np.asarray(presentations))
        if units is not None:
            array = array.isel(unit=np.asarray(units))
        return replace(self, array=array)

    def with_values(self, values: Any) -> Recording:
        """Return the same recording with other responses of the same shape."""
        return replace(self, array=self.array.copy(data=values))

    def mean_over(self, *names: str) -> Recording:
        """Average the presentations that share the coordinates ``names``.

        ``mean_over("stimulus")`` averages all repeats, ``mean_over("run", "stimulus")`` gives
        one pattern per run and stimulus. Coordinates that are not constant within a group
        become ``"mixed"``.
        """
        keys = pd.MultiIndex.from_arrays([self.coord(n) for n in names])
        codes, levels = pd.factorize(keys, sort=True)
        weights = np.zeros((len(levels), self.n_presentations), dtype=np.float64)
        weights[codes, np.arange(self.n_presentations)] = 1.0
        counts = weights.sum(axis=1)
        values = np.tensordot(weights / counts[:, None], self.values.astype(np.float64), axes=1)
        coords: dict[str, Any] = {}
        for name, coord in self.array.coords.items():
            if coord.dims != ("presentation",):
                coords[str(name)] = coord
                continue
            per_group = pd.Series(np.asarray(coord.values)).groupby(codes)
            constant = (per_group.nunique(dropna=False) == 1).all()
            merged = per_group.first().to_numpy() if constant else np.full(len(levels), "mixed")
            coords[str(name)] = ("presentation", merged)
        coords.pop("repetition", None)
        array = xr.DataArray(
            values.astype(np.float32), dims=self.array.dims, coords=coords, attrs=self.attrs
        )
        return Recording(array, self.stimuli)

    # -- identity --------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """Short hash of responses, coordinates and the stimuli shown: equal data, equal hash."""
        digest = hashlib.sha256(self.stimuli.fingerprint(self.coord("stimulus")).encode())
        for name in sorted(map(str, self.array.coords)):
            digest.update(name.encode())
            digest.update("\x1f".join(map(str, self.array[name].values)).encode())
        for start in range(0, self.n_units, 4096):
            chunk = self.array.isel(unit=slice(start, start + 4096)).values
            digest.update(np.ascontiguousarray(chunk, dtype=np.float32).tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        shape = " x ".join(f"{size} {dim}" for dim, size in self.array.sizes.items())
        return f"Recording({shape}, {len(self.stimuli)} stimuli, {self.attrs.get('modality', '?')})"


@dataclass(frozen=True, eq=False)
class Cohort(Mapping[str, Recording]):
    """Recordings of several subjects over one stimulus set; unit counts may differ.

    Parameters
    ----------
    recordings : mapping of str to Recording
        One recording a subject, by subject id.

    Raises
    ------
    DataError
        If the cohort is empty, or a recording holds presentations of another subject.
    """

    recordings: Mapping[str, Recording]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.recordings:
            raise DataError("a cohort needs at least one recording")
        for subject, recording in self.recordings.items():
            held = set(recording.coord("subject"))
            if held != {subject}:
                raise DataError(
                    f"the recording of subject {subject!r} holds presentations of "
                    f"{_some(sorted(held))}",
                    where="Cohort.recordings",
                    mend="give each subject one recording under its own id",
                )

    def __getitem__(self, subject: str) -> Recording:
        return self.recordings[subject]

    def __iter__(self) -> Iterator[str]:
        return iter(self.recordings)

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def stimuli(self) -> StimulusSet:
        """The stimuli of all subjects."""
        sets = [r.stimuli for r in self.recordings.values()]
        if all(s is sets[0] for s in sets):
            return sets[0]
        table = pd.concat([s.table for s in sets])
        table = table[~table.index.duplicated()]
        media: dict[str, Any] = {}
        for name in set.intersection(*(set(s.in_memory) for s in sets)):
            rows: dict[str, np.ndarray] = {}
            for s in sets:
                rows.update(zip(s.ids, s.in_memory[name], strict=True))
            media[name] = [rows[str(i)] for i in table.index]
        if "images" in media:
            media["images"] = np.stack(media["images"])
        return StimulusSet(table, root=sets[0].root, attrs=sets[0].attrs, **media)

    def fingerprint(self) -> str:
        """Short hash over all recordings."""
        parts = "".join(f"{s}:{r.fingerprint()};" for s, r in self.recordings.items())
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Cohort({len(self)} subjects, {len(self.stimuli)} stimuli)"


def _complete(array: xr.DataArray) -> xr.DataArray:
    """Check dims and coordinates; fill in what has a default."""
    if tuple(array.dims) not in (("presentation", "unit"), ("presentation", "unit", "time")):
        raise DataError(
            f"a recording has dims (presentation, unit[, time]), not {tuple(array.dims)}",
            mend="transpose or rename the dims",
        )
    empty = [str(d) for d, size in array.sizes.items() if size == 0]
    if empty:
        raise DataError(
            f"the recording has no {' and no '.join(empty)}",
            mend="check the file, the mask and the selection it was made with",
        )
    if "stimulus" not in array.coords:
        raise DataError(
            "presentations have no coordinate 'stimulus'",
            mend="give the stimulus id of each presentation",
        )
    if array.dtype.kind not in "fiu":
        raise DataError(f"responses are {array.dtype}, not numbers")
    if array.dtype != np.float32:
        array = array.astype(np.float32)
    n = array.sizes["presentation"]
    fixed: dict[str, Any] = {}
    for name in ("stimulus", "subject", "session", "run"):
        values = array[name].values if name in array.coords else np.full(n, "1")
        text = np.asarray([_text(v) for v in np.broadcast_to(values, (n,))], dtype=object)
        missing = np.flatnonzero([t in ("", "nan", "None") for t in text])
        if len(missing):
            raise DataError(
                f"coordinate {name!r} is empty for {len(missing)} presentations",
                where=f"presentation {missing[0]}",
                mend="give every presentation a value",
            )
        fixed[name] = ("presentation", text.astype(str))
    if "repetition" not in array.coords:
        keys = pd.DataFrame({k: fixed[k][1] for k in ("subject", "stimulus")})
        count = keys.groupby(["subject", "stimulus"]).cumcount().to_numpy()
        fixed["repetition"] = ("presentation", count)
    if "unit" not in array.coords:
        fixed["unit"] = ("unit", [f"u{i:05d}" for i in range(array.sizes["unit"])])
    array = array.assign_coords(fixed)
    units = pd.Index(array["unit"].values)
    if units.has_duplicates:
        raise DataError(
            f"unit names repeat: {_some(units[units.duplicated()].unique())}",
            mend="give each unit one name",
        )
    if "time" in array.dims and (np.diff(array["time"].values) <= 0).any():
        raise DataError("the time coordinate does not increase", mend="sort the time axis")
    return array


def _text(value: Any) -> str:
    """Write a label so that 1, 1.0 and "1" are the same."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip()
