"""Patterns of regions: one stimulus x unit array for each region of each subject."""

from __future__ import annotations

from typing import Any

import numpy as np

from engramma.data.recording import Cohort, Recording
from engramma.errors import DataError


def patterns_by_region(data: Any) -> tuple[dict[tuple[str, str], np.ndarray], list[str]]:
    """Average repeats, and take the units of each region apart.

    Parameters
    ----------
    data : Recording or Cohort
        Without a time axis. Units without a region (coordinate ``roi``) form the region
        ``"all"``.

    Returns
    -------
    patterns : dict of (subject, region) to ndarray, shape (n_stimuli, n_units)
        Over the stimuli that every subject saw, in the same order.
    stimuli : list of str

    Raises
    ------
    DataError
        If the data are no responses, have a time axis, or subjects share fewer than four stimuli.
    """
    if not isinstance(data, Recording | Cohort):
        raise DataError(
            f"{type(data).__name__} hold no responses of units",
            mend="give a Recording or a Cohort",
        )
    recordings = list(data.values()) if isinstance(data, Cohort) else [data]
    by_subject: dict[str, Recording] = {}
    for recording in recordings:
        if recording.values.ndim != 2:
            raise DataError(
                "responses have a time axis", mend="select or average a time window first"
            )
        for subject in np.unique(recording.coord("subject")):
            of_subject = recording.select(presentations=recording.coord("subject") == subject)
            by_subject[str(subject)] = of_subject.mean_over("stimulus")
    seen = [set(map(str, r.coord("stimulus"))) for r in by_subject.values()]
    stimuli = sorted(set.intersection(*seen))
    if len(stimuli) < 4:
        raise DataError(
            f"the subjects share {len(stimuli)} stimuli, and at least four are needed",
            mend="use subjects that saw the same stimuli",
        )
    patterns = {}
    for subject, recording in by_subject.items():
        place = {str(s): i for i, s in enumerate(recording.coord("stimulus"))}
        values = recording.values[[place[s] for s in stimuli]]
        labelled = "roi" in recording.array.coords
        region = recording.coord("roi").astype(str) if labelled else np.full(values.shape[1], "all")
        for name in np.unique(region):
            patterns[subject, str(name)] = values[:, region == name]
    return patterns, stimuli
