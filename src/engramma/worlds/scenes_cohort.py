"""A cohort of virtual subjects who view rendered scenes."""

from __future__ import annotations

from typing import Any

import numpy as np

from engramma.data.recording import Cohort
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.scenes import make_scenes
from engramma.worlds.subjects import SubjectOptions, make_subject


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
    known = set(SubjectOptions.__dataclass_fields__)
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(
            f"the world 'scenes' has no option {unknown[0]!r}",
            mend=f"further options are {', '.join(sorted(known))}",
        )
    if n_subjects < 1:
        raise ConfigError("a cohort needs at least one subject", mend="use n_subjects >= 1")
    chosen = SubjectOptions(
        n_units=n_units, n_repeats=n_repeats, ceiling=ceiling, signal=signal, **options
    )
    # One stream for the stimuli and one a subject: more subjects leave the others as they were.
    streams = np.random.SeedSequence(seed).spawn(n_subjects + 1)
    stimuli = make_scenes(n_stimuli, rng=np.random.default_rng(streams[0]), size=size).stimuli
    members = {}
    for i, stream in enumerate(streams[1:], start=1):
        name = f"sub-{i:02d}"
        members[name] = make_subject(stimuli, name, chosen, np.random.default_rng(stream))
    what = "scenes" if signal else "scenes, without any signal in the responses"
    history = [
        f"{n_subjects} virtual subjects viewed {n_stimuli} rendered {what} ({size} x {size} "
        f"pixels), {n_repeats} times each, once in a run.",
        "Responses were simulated from orientation energy (early area), pooled combinations of "
        "it (middle area), categories (category-selective areas) and meaning (language area), "
        f"with spatially correlated noise and drift; signal is {ceiling:.0%} of the variance of "
        "a single presentation.",
    ]
    facts = {"world": "scenes", "seed": seed, "modality": "simulated", "history": history}
    return Cohort(members, attrs=facts)
