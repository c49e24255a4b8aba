"""What the data are, in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engramma.data.rdms import RDMs
from engramma.data.recording import Cohort, Recording
from engramma.data.splits import run_ids

MODALITIES = {
    "fmri": "functional MRI",
    "eeg": "EEG",
    "meg": "MEG",
    "meeg": "MEG and EEG",
    "ieeg": "intracranial EEG",
    "spikes": "spike counts",
    "calcium": "calcium imaging",
    "simulated": "simulated responses",
}


def title_of(loaded: Recording | Cohort | RDMs, data: Any) -> str:
    """Title of the report."""
    if isinstance(data, str | Path):
        name = Path(data).resolve().name if Path(data).exists() else f"the world {str(data)!r}"
    else:
        name = str(loaded.attrs.get("name", "a recording"))
    return f"Study of {name}"


def describe(loaded: Recording | Cohort | RDMs) -> dict[str, Any]:
    """Facts about the data, one ``label: value`` each."""
    if isinstance(loaded, RDMs):
        facts = {
            "kind": "representational dissimilarities",
            "stimuli": len(loaded.stimuli),
            "subjects": len(set(loaded.subject)),
            "matrices": len(loaded),
            "references": ", ".join(loaded.references) or "none",
        }
        return _finish(facts, loaded.attrs)
    members = list(loaded.values()) if isinstance(loaded, Cohort) else [loaded]
    first = members[0]
    modality = str(first.attrs.get("modality", "unknown"))
    facts = {
        "kind": MODALITIES.get(modality, modality),
        "subjects": _subjects(members),
        "presentations": _range([m.n_presentations for m in members]),
        "stimuli": _range([len(np.unique(m.coord("stimulus"))) for m in members]),
        "presentations of a stimulus": _range(
            np.concatenate([m.repeats.to_numpy() for m in members])
        ),
        "runs": _range([len(np.unique(run_ids(m))) for m in members]),
        "units": _range([m.n_units for m in members]),
    }
    if first.has_time:
        time = first.coord("time")
        facts["time"] = f"{time[0]:.3f} to {time[-1]:.3f} s, {len(time)} samples"
    if "tr" in first.attrs:
        facts["repetition time"] = f"{first.attrs['tr']:g} s"
    if "sfreq" in first.attrs:
        facts["sampling rate"] = f"{first.attrs['sfreq']:g} Hz"
    if "roi" in first.array.coords:
        names = sorted({str(r) for m in members for r in m.coord("roi")})
        if len(names) > 1:
            facts["regions"] = ", ".join(names)
    return _finish(facts, first_attrs(loaded))


def _finish(facts: dict[str, Any], attrs: Any) -> dict[str, Any]:
    if attrs.get("source"):
        facts["source"] = str(attrs["source"])
    return facts


def first_attrs(loaded: Recording | Cohort | RDMs) -> dict[str, Any]:
    """Attributes of the data, those of the first subject included."""
    inner = next(iter(loaded.values())).attrs if isinstance(loaded, Cohort) else {}
    return {**inner, **loaded.attrs}


def _subjects(members: list[Recording]) -> int:
    return len({s for m in members for s in np.unique(m.coord("subject"))})


def _range(values: Any) -> str:
    low, high = int(np.min(values)), int(np.max(values))
    return str(low) if low == high else f"{low} to {high}"
