"""From a continuous M/EEG recording to clean epochs, through MNE-Python."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engramma.data.quality import Notice, notice
from engramma.data.stimuli import _some
from engramma.errors import ConfigError, DataError

if TYPE_CHECKING:
    import mne

#: Types of channel that hold responses.
DATA_TYPES = ("eeg", "mag", "grad", "seeg", "ecog", "dbs")
#: Names that tell a channel's type, where the file says "eeg" of all channels.
NAMED_TYPES = (
    ("eog", r".*EOG.*"),
    ("ecg", r".*[EV]CG.*|.*EKG.*"),
    ("emg", r".*EMG.*"),
    ("stim", r"STI.*|STATUS|TRIG.*|MARKER"),
    ("resp", r"RESP(IRATION)?"),
    ("misc", r"GSR.*|TEMP|EXG?\d+|ERGO.*|PLET.*"),
)
#: Event names that are behaviour, bookkeeping or damage, and no stimulus.
NOT_STIMULI = re.compile(
    r"(rt|resp.*|response.*|button.*|key.*|press.*|boundary|bad.*|edge.*|sync.*|new segment.*|"
    r"comment.*|start.*|stop.*|end|impedance.*|n/a)$",
    re.IGNORECASE,
)
SCALE = {"eeg": (1e6, "µV"), "seeg": (1e6, "µV"), "ecog": (1e6, "µV"), "dbs": (1e6, "µV")} | {
    "mag": (1e15, "fT"),
    "grad": (1e13, "fT/cm"),
}


@dataclass(frozen=True)
class EpochSettings:
    """How epochs are made.

    Parameters
    ----------
    tmin, tmax : float
        Seconds around the event.
    baseline : tuple of float or None, or None
        Interval whose mean is subtracted, in seconds; a None in it is the edge of the epoch.
    l_freq, h_freq : float, optional
        Pass band in Hz.
    notch : float, optional
        Frequency of the mains, removed with its harmonics below ``h_freq``.
    reference : str, list of str or None
        ``"average"``, names of channels, or None to leave it. Of EEG alone.
    eog : {"regress", "ica"} or None
        How eye movements are removed, where there are EOG channels.
    reject : "auto", float or None
        Largest peak-to-peak amplitude of an epoch, in volts, for EEG. ``"auto"`` chooses one a
        channel type by cross-validation.
    resample : float, optional
        New sampling rate in Hz.
    seed : int
        Of ICA.
    """

    tmin: float = -0.2
    tmax: float = 0.8
    baseline: tuple[float | None, float | None] | None = (None, 0.0)
    l_freq: float | None = 0.1
    h_freq: float | None = 40.0
    notch: float | None = None
    reference: str | list[str] | None = "average"
    eog: str | None = "regress"
    reject: str | float | None = "auto"
    resample: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tmin >= self.tmax:
            raise ConfigError(f"tmin={self.tmin} is not before tmax={self.tmax}")
        if self.eog not in ("regress", "ica", None):
            raise ConfigError(
                f"eog={self.eog!r} is not possible", mend="use 'regress', 'ica', None"
            )
        if isinstance(self.reject, str) and self.reject != "auto":
            raise ConfigError(
                f"reject={self.reject!r} is not possible", mend="use 'auto', volts, or None"
            )
        if self.l_freq is not None and self.h_freq is not None and self.l_freq >= self.h_freq:
            raise ConfigError(f"l_freq={self.l_freq} is not below h_freq={self.h_freq}")


@dataclass
class Log:
    """What was done, for the methods paragraph, and what must be known of it."""

    history: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    citations: list[str] = field(default_factory=list)

    def did(self, sentence: str) -> None:
        """Add a step."""
        if sentence not in self.history:
            self.history.append(sentence)

    def warn(self, name: str, text: str) -> None:
        """Add a warning."""
        self.notices.append(notice(name, text))


def make_epochs(
    raw: mne.io.BaseRaw, events: pd.DataFrame, settings: EpochSettings, log: Log
) -> mne.BaseEpochs:
    """Filter, reference, cut, and clean a continuous recording.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Changed in place.
    events : DataFrame
        Columns ``onset`` (seconds from the first sample) and ``stimulus``.
    settings : EpochSettings
    log : Log
        Told what was done.

    Returns
    -------
    mne.BaseEpochs
        Data channels only; ``metadata`` holds the rows of ``events`` that are left.

    Raises
    ------
    DataError
        If there is no data channel, or no epoch is left.
    """
    import mne

    raw.load_data()
    type_channels(raw, log)
    drop_flat_channels(raw, log)
    locate_channels(raw, log)
    filter_raw(raw, settings, log)
    reference(raw, settings, log)
    sfreq = float(raw.info["sfreq"])
    samples = np.round(events["onset"].to_numpy(dtype=float) * sfreq).astype(int)
    inside = (samples >= 0) & (samples < raw.n_times)
    if not inside.all():
        missing = int((~inside).sum())
        if missing > 0.25 * len(events):
            raise DataError(
                f"{missing} of {len(events)} events lie outside the recording of "
                f"{raw.n_times / sfreq:.1f} s",
                mend="check that onsets are in seconds and belong to this recording",
            )
        log.warn("events-past-end", f"{missing} events lie outside the recording.")
        events, samples = events[inside], samples[inside]
    # MNE refuses two events in one sample.
    events = events.reset_index(drop=True)
    first = ~pd.Series(samples).duplicated().to_numpy()
    if not first.all():
        log.warn("simultaneous-events", f"{int((~first).sum())} events share a sample.")
        events, samples = events[first].reset_index(drop=True), samples[first]
    codes, names = pd.factorize(events["stimulus"], sort=True)
    table = np.column_stack([samples + raw.first_samp, np.zeros_like(samples), codes + 1])
    epochs = mne.Epochs(
        raw,
        table,
        event_id={str(n): i + 1 for i, n in enumerate(names)},
        tmin=settings.tmin,
        tmax=settings.tmax,
        baseline=None,
        metadata=events,
        preload=True,
        reject_by_annotation=True,
    )
    _left(epochs, "inside the recording and its good segments")
    lost = len(events) - len(epochs)
    if lost:
        log.warn("epochs-incomplete", f"{lost} epochs run over an edge or a bad segment.")
    log.did(
        f"Epochs from {1000 * settings.tmin:.0f} to {1000 * settings.tmax:.0f} ms around the "
        f"events were cut (MNE-Python {version('mne')})."
    )
    epochs = remove_eye_movements(epochs, raw, settings, log)
    if settings.baseline is not None:
        low, high = (
            edge if bound is None else bound
            for bound, edge in zip(settings.baseline, (settings.tmin, settings.tmax), strict=True)
        )
        if low < epochs.tmax and high > epochs.tmin:
            epochs.apply_baseline(settings.baseline)
            log.did(f"The mean from {1000 * low:.0f} to {1000 * high:.0f} ms was subtracted.")
    epochs.pick([epochs.ch_names[i] for i in data_channels(epochs.info)])
    reject_epochs(epochs, settings, log)
    if settings.resample is not None and settings.resample != epochs.info["sfreq"]:
        epochs.resample(settings.resample)
        log.did(f"Epochs were resampled to {settings.resample:g} Hz.")
    log.citations += ["mne"]
    return epochs


def data_channels(info: Any) -> list[int]:
    """Return the indices of the good channels that hold responses."""
    import mne

    bad = set(info["bads"])
    return [
        i
        for i, name in enumerate(info["ch_names"])
        if name not in bad and mne.channel_type(info, i) in DATA_TYPES
    ]


def type_channels(raw: Any, log: Log) -> None:
    """Give EOG, ECG and other channels their type by name, where the file calls all EEG."""
    types = {}
    for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True):
        if kind not in ("eeg", "misc"):
            continue
        for told, pattern in NAMED_TYPES:
            if re.fullmatch(pattern, name.strip(), flags=re.IGNORECASE) and told != kind:
                types[name] = told
                break
    if types:
        raw.set_channel_types(types, on_unit_change="ignore")
        log.did(
            "Channels were given their type by name: "
            + ", ".join(f"{name} is {kind}" for name, kind in types.items())
            + "."
        )
    if not data_channels(raw.info):
        raise DataError(
            "there is no EEG, MEG or intracranial channel",
            where=f"channels {_some(raw.ch_names)}",
            mend="check the channel types of the file",
        )


def drop_flat_channels(raw: Any, log: Log) -> None:
    """Leave out data channels that never change or hold NaN."""
    picks = data_channels(raw.info)
    values = raw.get_data(picks=picks)
    bad = ~np.isfinite(values).all(axis=1) | (np.ptp(values, axis=1) == 0)
    names = [raw.ch_names[p] for p, b in zip(picks, bad, strict=True) if b]
    if len(names) == len(picks):
        raise DataError("every channel is flat or holds NaN", where=f"channels {_some(names)}")
    if names:
        raw.drop_channels(names)
        log.warn(
            "flat-channels",
            f"{len(names)} channels are flat or hold NaN and were left out: {_some(names)}.",
        )


def locate_channels(raw: Any, log: Log) -> None:
    """Give EEG channels the standard 10-05 positions by name, where the file has none."""
    import mne

    eeg = mne.pick_types(raw.info, eeg=True, exclude=())
    if not len(eeg):
        return
    located = [_has_position(raw.info["chs"][i]["loc"]) for i in eeg]
    if any(located):
        if not all(located):
            missing = [raw.ch_names[i] for i, there in zip(eeg, located, strict=True) if not there]
            log.warn("channels-without-position", f"No position is known of {_some(missing)}.")
        return
    montage = mne.channels.make_standard_montage("standard_1005")
    known = {n.lower() for n in montage.ch_names}
    names = [raw.ch_names[i] for i in eeg]
    found = [n for n in names if n.lower() in known]
    if not found:
        log.warn(
            "channels-without-position",
            "No channel has a position, and no name is one of the 10-05 system.",
        )
        return
    raw.set_montage(montage, match_case=False, on_missing="ignore")
    log.did(f"{len(found)} channels were given standard 10-05 positions by name.")
    if len(found) < len(names):
        missing = [n for n in names if n.lower() not in known]
        log.warn("channels-without-position", f"No position is known of {_some(missing)}.")


def filter_raw(raw: Any, settings: EpochSettings, log: Log) -> None:
    """Band-pass and notch filter, as far as length and sampling rate allow."""
    nyquist = float(raw.info["sfreq"]) / 2
    low, high = settings.l_freq, settings.h_freq
    if high is not None and high >= nyquist:
        log.warn(
            "no-low-pass",
            f"The low-pass at {high:g} Hz was left out: half the sampling rate is {nyquist:g} Hz.",
        )
        high = None
    # A windowed-sinc filter is 3.3 times as long as the inverse of its transition band.
    if low is not None:
        needed = 3.3 / min(max(0.25 * low, 2.0), low)
        if raw.times[-1] < needed:
            log.warn(
                "no-high-pass",
                f"The high-pass at {low:g} Hz was left out: it needs {needed:.0f} s of signal, and "
                f"there are {raw.times[-1]:.1f} s.",
            )
            low = None
    if settings.notch is not None and settings.notch < nyquist:
        raw.notch_filter(np.arange(settings.notch, min(high or nyquist, nyquist), settings.notch))
        log.did(f"{settings.notch:g} Hz mains and its harmonics were removed with a notch filter.")
    if low is None and high is None:
        return
    raw.filter(low, high, picks=_filtered(raw))
    band = {
        (True, True): f"band-pass filtered from {low} to {high} Hz",
        (True, False): f"high-pass filtered at {low} Hz",
        (False, True): f"low-pass filtered at {high} Hz",
    }[(low is not None, high is not None)]
    log.did(f"The recording was {band} (zero-phase FIR, Hamming window).")


def reference(raw: Any, settings: EpochSettings, log: Log) -> None:
    """Re-reference the EEG."""
    import mne

    if len(mne.pick_types(raw.info, eeg=True)) < 2:
        return
    if settings.reference is None:
        raw.set_eeg_reference([])  # tells MNE that the reference is meant as it is
        log.did("The EEG reference was left as recorded.")
        return
    named = settings.reference
    channels = named if named == "average" or isinstance(named, list) else named.split(",")
    if isinstance(channels, list):
        absent = [c for c in channels if c not in raw.ch_names]
        if absent:
            raise ConfigError(
                f"the reference channel {absent[0]!r} is not there",
                where=f"channels {_some(raw.ch_names, 40)}",
            )
    raw.set_eeg_reference(channels, projection=False)
    shown = "the average of all EEG channels" if channels == "average" else ", ".join(channels)
    log.did(f"EEG was re-referenced to {shown}.")


def remove_eye_movements(epochs: Any, raw: Any, settings: EpochSettings, log: Log) -> Any:
    """Remove eye movements with the EOG channels, by regression or ICA."""
    import mne

    eog = mne.pick_types(epochs.info, meg=False, eog=True)
    if settings.eog is None or not len(eog):
        return epochs
    picks = data_channels(epochs.info)
    if settings.eog == "regress":
        # Weights come from epochs without their average, so that the evoked response stays.
        model = mne.preprocessing.EOGRegression(picks=picks, picks_artifact="eog")
        model.fit(epochs.copy().subtract_evoked())
        cleaned = model.apply(epochs)
        log.did(
            f"Eye movements were removed by regression of {len(eog)} EOG channels, with weights "
            "from the epochs without their average (Gratton et al., 1983)."
        )
        log.citations += ["gratton1983"]
        return cleaned
    fitted = raw.copy().filter(1.0, None) if raw.times[-1] > 4 else raw
    n_components = min(len(picks) - 1, 30)
    ica = mne.preprocessing.ICA(n_components, random_state=settings.seed, max_iter="auto")
    ica.fit(fitted, picks=picks)
    ica.exclude, _ = ica.find_bads_eog(fitted, measure="correlation", threshold=0.5)
    log.did(
        f"Eye movements were removed by FastICA: {len(ica.exclude)} of {n_components} components "
        "correlated with the EOG above 0.5."
    )
    log.citations += ["hyvarinen1999"]
    return ica.apply(epochs)


def reject_epochs(epochs: Any, settings: EpochSettings, log: Log) -> None:
    """Drop epochs with a large peak-to-peak amplitude or a flat channel."""
    if settings.reject is None:
        return
    kinds = np.asarray(epochs.get_channel_types())
    values = epochs.get_data(copy=False)
    swing = np.ptp(values, axis=2)
    bad = np.zeros(len(epochs), dtype=bool)
    used = []
    for kind in sorted(set(kinds)):
        largest = swing[:, kinds == kind].max(axis=1)
        if settings.reject == "auto":
            limit = peak_to_peak_limit(values[:, kinds == kind])
        elif kind in ("mag", "grad"):
            continue  # a number is in volts
        else:
            limit = float(settings.reject)
        bad |= largest > limit
        factor, unit = SCALE[kind]
        used.append(f"{factor * limit:.0f} {unit} ({kind.upper()})")
    n = len(epochs)
    if bad.all():
        raise DataError(
            f"all {n} epochs exceed the rejection limit of {', '.join(used)}",
            mend="raise it with reject= (in volts), or reject=None; check the unit of the file",
        )
    epochs.drop(np.flatnonzero(bad), reason="peak-to-peak")
    how = ""
    if settings.reject == "auto":
        how = ", chosen by cross-validation (Jas et al., 2017)"
        log.citations += ["jas2017"]
    log.did(
        f"{int(bad.sum())} of {n} epochs were rejected for a peak-to-peak amplitude above "
        f"{', '.join(used)}{how}."
    )
    if bad.mean() > 0.3:
        log.warn("many-epochs-rejected", f"{int(bad.sum())} of {n} epochs were rejected.")


def peak_to_peak_limit(values: np.ndarray, n_folds: int = 5, n_candidates: int = 30) -> float:
    """Choose the peak-to-peak limit of epochs by cross-validation.

    The limit whose average of the good training epochs comes nearest to the median of the
    validation epochs (the global threshold of Jas et al. 2017, NeuroImage 159:417, section 2.1).

    Parameters
    ----------
    values : ndarray, shape (n_epochs, n_channels, n_times)

    Returns
    -------
    float
        In the unit of ``values``.
    """
    largest = np.ptp(values, axis=2).max(axis=1)
    if len(values) < 2 * n_folds:
        return float(largest.max())
    candidates = np.unique(np.quantile(largest, np.linspace(0.3, 1.0, n_candidates)))
    folds = np.array_split(np.arange(len(values)), n_folds)
    error = np.zeros(len(candidates))
    for fold in folds:
        train = np.setdiff1d(np.arange(len(values)), fold)
        target = np.median(values[fold], axis=0)
        order = train[np.argsort(largest[train])]
        total = np.zeros(values.shape[1:])
        used = 0
        for c, limit in enumerate(candidates):
            while used < len(order) and largest[order[used]] <= limit:
                total += values[order[used]]
                used += 1
            error[c] += np.sqrt(np.mean((total / used - target) ** 2)) if used else np.inf
    return float(candidates[int(np.argmin(error))])


def stimulus_ids(events: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Name each event by its type and by the values of some fields: ``square/position-1``."""
    names = events["category"].astype(str).to_numpy(dtype=object)
    for column in columns:
        values = [label(v) for v in events[column]]
        names = np.asarray([f"{n}/{column}-{v}" for n, v in zip(names, values, strict=True)])
    return names.astype(str)


def condition_fields(events: pd.DataFrame) -> list[str]:
    """Event fields that sort the events into a few groups of at least two."""
    aside = ("onset", "duration", "category", "stimulus", "sample", "value", "latency", "urevent")
    chosen = []
    for name in events.columns:
        if name in aside or re.search(r"(^|_)(rt|time|index|id|epoch|number|code)$", str(name)):
            continue
        counts = events[name].dropna().map(label).value_counts()
        full = events[name].notna().all()
        if full and 2 <= len(counts) <= 20 and counts.min() >= 2:
            chosen.append(str(name))
    return chosen


def contiguous_blocks(n: int, blocks: int) -> np.ndarray:
    """Cut ``n`` presentations into contiguous blocks of nearly equal size, numbered from 1."""
    sizes = np.array_split(np.arange(n), max(1, min(blocks, n)))
    return np.concatenate([np.full(len(s), i + 1) for i, s in enumerate(sizes)])


def _filtered(raw: Any) -> list[int]:
    """Channels to filter: data and EOG, so that they still go together."""
    import mne

    kinds = (*DATA_TYPES, "eog")
    return [i for i in range(len(raw.ch_names)) if mne.channel_type(raw.info, i) in kinds]


def _has_position(location: np.ndarray) -> bool:
    return bool(np.isfinite(location[:3]).all() and np.any(location[:3] != 0))


def _left(epochs: Any, what: str) -> None:
    if not len(epochs):
        raise DataError(f"no epoch is {what}", mend="shorten the epochs with tmin= and tmax=")


def label(value: Any) -> str:
    """Write a label so that 1, 1.0 and "1" are the same."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip()
