"""A small cohort of virtual subjects who view rendered scenes: few areas, one repeat a run."""

from __future__ import annotations

from typing import Any

from engramma.data.recording import Cohort
from engramma.registry import world
from engramma.worlds.cohort import cohort
from engramma.worlds.cortex import FEW_AREAS


@world("scenes")
def scenes(
    seed: int = 0,
    *,
    n_subjects: int = 4,
    n_stimuli: int = 120,
    n_repeats: int = 3,
    n_units: int = 400,
    ceiling: float = 0.3,
    signal: bool = True,
    size: int = 64,
    **options: Any,
) -> Cohort:
    """Make virtual subjects who all view the same rendered scenes.

    The world `engramma.worlds.cohort.cohort` with areas ``early``, ``middle``, one for each of
    six classes of objects, ``language`` and ``noise``, in voxels, and one session with a run for
    each repeat.

    Parameters
    ----------
    seed : int
    n_subjects, n_stimuli : int
    n_repeats : int
        Presentations of each stimulus, one a run.
    n_units : int
        Voxels, give or take a tenth between subjects.
    ceiling : float
        Mean, over units that carry signal, of the share of variance in single presentations
        that is signal.
    signal : bool
        False makes every unit pure noise: the control in which nothing is to be found. With
        True only the area ``noise`` is.
    size : int
        Pixels a side.
    **options
        Further fields of `engramma.worlds.subjects.SubjectOptions`.

    Raises
    ------
    ConfigError
        If an option is unknown or out of range.
    """
    few: dict[str, Any] = {
        "areas": FEW_AREAS,
        "layout": "volume",
        "n_sessions": 1,
        "runs_per_session": n_repeats,
    }
    made = cohort(
        seed=seed,
        n_subjects=n_subjects,
        n_shared=n_stimuli,
        n_own=0,
        size=size,
        n_units=n_units,
        n_repeats=n_repeats,
        ceiling=ceiling,
        signal=signal,
        **(few | options),
    )
    return Cohort(made.recordings, attrs=made.attrs | {"world": "scenes"})
