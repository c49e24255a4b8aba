"""The two large public data sets of steady-state responses: Benchmark and BETA.

*Benchmark* (Wang et al. 2017, IEEE TNSRE 25): files ``S1.mat`` ... ``S35.mat`` with ``data``,
channel x sample x target x block (64 x 1500 x 40 x 6), and ``Freq_Phase.mat`` with ``freqs`` and
``phases`` of the targets. *BETA* (Liu et al. 2020, Frontiers in Neuroscience 14): files ``S1.mat``
... ``S70.mat`` with a structure ``data`` whose ``EEG`` is channel x sample x **block x target**,
and whose ``suppl_info`` holds ``freqs`` and ``phases``. Both are sampled at 250 Hz, in microvolts,
and begin 0.5 s before the flicker. Which of the last two axes counts the targets is told from the
sizes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from engramma.data.read import decoding, reader
from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.progress import track

#: The 64 electrodes of both data sets, in the order of the files.
CHANNELS = tuple(
    """
    Fp1 Fpz Fp2 AF3 AF4 F7 F5 F3 F1 Fz F2 F4 F6 F8 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 T7 C5 C3
    C1 Cz C2 C4 C6 T8 M1 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 M2 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7
    PO5 PO3 POz PO4 PO6 PO8 CB1 O1 Oz O2 CB2
    """.split()  # noqa: SIM905
)
#: Seconds of cue before the flicker.
CUE = 0.5
SFREQ = 250.0
SUBJECT = re.compile(r"s0*(\d+)\.mat", re.IGNORECASE)
#: What scipy, h5py and pymatreader raise on damaged files.
DAMAGED = (MatReadError, OSError, ValueError, TypeError, KeyError, EOFError, IndexError, zlib.error)


def recognises(path: Path) -> bool:
    """Whether a ``.mat`` file, or the first subject's of a folder, holds such trials."""
    files = _subject_files(path) if path.is_dir() else [path]
    return bool(files) and files[0].suffix.lower() == ".mat" and _holds_trials(files[0])


@reader(
    "ssvep",
    description="folder or file S1.mat ... of the SSVEP data sets Benchmark and BETA",
    recognises=recognises,
)
def read_ssvep(
    path: str | Path,
    *,
    subjects: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    seconds: float | None = None,
) -> Recording | Cohort:
    """Read Benchmark or BETA: a folder as a cohort, one file as a recording.

    Parameters
    ----------
    path : path
        A folder of subjects' files, or one of them. ``Freq_Phase.mat`` stands beside them unless
        the files hold the frequencies themselves.
    subjects : sequence of str, optional
        Names as in the files (``"S1"``); all by default.
    channels : sequence of str, optional
        Electrodes to keep; all by default. Nine instead of 64 saves most of the memory.
    seconds : float, optional
        Keep each trial only up to so many seconds after flicker onset.

    Returns
    -------
    Recording or Cohort
        presentation x channel x time, with time in seconds from flicker onset; ``run`` is the
        block; stimuli carry ``frequency`` (Hz) and ``phase`` (radians).

    Raises
    ------
    DataError
        If frequencies are missing, or the axes of a file do not fit them.
    ConfigError
        If a subject or channel does not exist.
    """
    path = Path(path)
    files = {_subject(f): f for f in (_subject_files(path) if path.is_dir() else [path])}
    wanted = list(files) if subjects is None else [str(s) for s in subjects]
    unknown = [s for s in wanted if s not in files]
    if unknown or not wanted:
        raise ConfigError(
            f"there is no subject {unknown[0]!r}" if unknown else "no subject is asked for",
            where=str(path),
            mend=f"subjects are {', '.join(files) or 'not here: files are called S1.mat, ...'}",
        )
    members = {
        s: _read_subject(files[s], s, channels, seconds)
        for s in track(wanted, "reading subjects", total=len(wanted))
    }
    return Cohort(members) if path.is_dir() else next(iter(members.values()))


def _read_subject(
    file: Path, subject: str, channels: Sequence[str] | None, seconds: float | None
) -> Recording:
    content = _load(file, "data")["data"]
    information: Mapping[str, Any] = {}
    if isinstance(content, Mapping):
        information = content.get("suppl_info") or {}
        content = content.get("EEG")
    if getattr(content, "dtype", np.dtype(object)).kind not in "fiu":
        raise DataError(
            "there are no trials in this file",
            where=f"{file}, variable data",
            mend="give an array data (Benchmark) or a structure data with the array EEG (BETA)",
        )
    eeg = np.asarray(content, dtype=np.float32)
    frequencies, phases = _frequencies(file, information)
    eeg, swapped = _target_before_block(eeg, len(frequencies), file)
    names = _channel_names(eeg.shape[0], file)
    keep = list(range(len(names)))
    if channels is not None:
        unknown = [c for c in channels if c not in names]
        if unknown:
            raise ConfigError(
                f"there is no channel {unknown[0]!r}",
                where=str(file),
                mend=f"channels are {', '.join(names)}",
            )
        keep = [names.index(c) for c in channels]
    sfreq = float(np.ravel(information.get("srate", SFREQ))[0])
    time = np.arange(eeg.shape[1]) / sfreq - CUE
    last = len(time) if seconds is None else int(np.searchsorted(time, seconds - 1e-9))
    if last == 0:
        raise ConfigError(
            f"seconds={seconds} keeps nothing", mend=f"choose up to {time[-1]:g} seconds"
        )
    n_targets, n_blocks = eeg.shape[2:]
    trials = eeg[keep, :last].transpose(3, 2, 0, 1).reshape(-1, len(keep), last)
    ids = [f"{f:.4g}Hz" for f in frequencies]
    if len(set(ids)) < n_targets:  # targets that differ in phase only
        ids = [f"{i}/{k + 1}" for k, i in enumerate(ids)]
    layout = "channel x sample x block x target" if swapped else "channel x sample x target x block"
    return Recording.from_arrays(
        trials,
        np.tile(ids, n_blocks),
        subject=subject,
        run=np.repeat(np.arange(1, n_blocks + 1), n_targets),
        unit=[names[k] for k in keep],
        unit_coords={"kind": np.full(len(keep), "eeg")},
        time=time[:last],
        stimuli=StimulusSet(
            pd.DataFrame({"frequency": frequencies, "phase": phases}, index=pd.Index(ids))
        ),
        modality="eeg",
        source=str(file),
        sfreq=sfreq,
        history=[f"Read from {file.name}, stored as {layout}; time counts from flicker onset."],
    )


def _target_before_block(eeg: np.ndarray, n_targets: int, file: Path) -> tuple[np.ndarray, bool]:
    """Put the axes into the order channel, sample, target, block; say whether that was needed."""
    if eeg.ndim == 3:  # MATLAB drops a last axis of one
        eeg = eeg[..., None]
    if eeg.ndim != 4 or n_targets not in eeg.shape[2:]:
        raise DataError(
            f"the trials have shape {eeg.shape}, in which no axis counts the {n_targets} targets",
            where=str(file),
            mend="give channel x sample x target x block (or block x target), with one frequency a "
            "target",
        )
    if eeg.shape[2] == eeg.shape[3]:
        raise DataError(
            f"both last axes of the trials have size {n_targets}, so that targets and blocks "
            "cannot be told apart",
            where=str(file),
            mend="read some of the blocks only, or make a Recording yourself",
        )
    swapped = eeg.shape[3] == n_targets
    return (eeg.swapaxes(2, 3) if swapped else eeg), swapped


def _frequencies(file: Path, information: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and phases of the targets, from the file itself or from beside it."""
    beside = [f for f in file.parent.iterdir() if f.name.lower() == "freq_phase.mat"]
    found = information if "freqs" in information else _load(beside[0]) if beside else {}
    if "freqs" not in found or "phases" not in found:
        raise DataError(
            "the frequencies and phases of the targets are missing",
            where=str(file),
            mend="put Freq_Phase.mat (variables freqs and phases) into the same folder",
        )
    frequencies, phases = (np.ravel(found[k]).astype(float) for k in ("freqs", "phases"))
    if len(frequencies) != len(phases) or not (frequencies > 0).all():
        raise DataError(
            f"there are {len(frequencies)} frequencies and {len(phases)} phases",
            where=str(beside[0] if beside else file),
            mend="give one positive frequency and one phase a target",
        )
    return frequencies, phases


def _channel_names(n_channels: int, file: Path) -> list[str]:
    if n_channels == len(CHANNELS):
        return list(CHANNELS)
    raise DataError(
        f"the trials have {n_channels} channels, not the {len(CHANNELS)} of Benchmark and BETA",
        where=str(file),
        mend="check that the first axis counts channels; other montages go through a Recording",
    )


def _subject(file: Path) -> str:
    match = SUBJECT.fullmatch(file.name)
    return f"S{match.group(1)}" if match else file.stem


def _subject_files(folder: Path) -> list[Path]:
    """Subjects' files of a folder, S2 before S10."""
    found = {int(m.group(1)): f for f in folder.iterdir() if (m := SUBJECT.fullmatch(f.name))}
    return [found[k] for k in sorted(found)]


def _holds_trials(file: Path) -> bool:
    """Look whether ``data`` is an array of four dimensions or a structure with ``EEG``."""
    import h5py

    if h5py.is_hdf5(file):
        with h5py.File(file) as content:
            data = content.get("data")
            if isinstance(data, h5py.Group):
                return "EEG" in data
            # HDF5 files of MATLAB have their axes reversed.
            return isinstance(data, h5py.Dataset) and data.shape[3:] == (len(CHANNELS),)
    try:
        shapes = {name: (shape, kind) for name, shape, kind in whosmat(file)}
    except DAMAGED:
        return False  # a reader that takes any .mat will say what is wrong with it
    shape, kind = shapes.get("data", ((), ""))
    if kind != "struct":
        return len(shape) == 4 and shape[0] == len(CHANNELS)
    content = loadmat(file, variable_names=["data"], struct_as_record=True)["data"]
    return "EEG" in (content.dtype.names or ())


def _load(file: Path, *names: str) -> dict[str, Any]:
    from pymatreader import read_mat

    with decoding(file, "MATLAB file", *DAMAGED):
        content: dict[str, Any] = read_mat(str(file), variable_names=list(names) or None)
        missing = [n for n in names if n not in content]
        if missing:
            raise KeyError(f"there is no variable {missing[0]!r}")
    return content
