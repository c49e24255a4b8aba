"""A cohort of virtual subjects who see shared and own stimuli: the virtual fMRI brains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.recording import Cohort
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.brains import Brain, draw_brain
from engramma.worlds.scenes import Scenes, make_scenes
from engramma.worlds.subject_options import SubjectOptions, subject_options
from engramma.worlds.subjects import make_subject
from engramma.worlds.tuning import SharedCode, shared_code


@world("cohort")
def cohort(
    stimuli: StimulusSet | Scenes | None = None,
    *,
    seed: int = 0,
    n_subjects: int = 4,
    n_shared: int | None = None,
    n_own: int | None = None,
    size: int = 64,
    n_units: int = 1000,
    n_repeats: int = 3,
    ceiling: float = SubjectOptions.ceiling,
    signal: bool = True,
    target: np.ndarray | None = None,
    **options: Any,
) -> Cohort:
    """Record virtual subjects who look at rendered scenes.

    Parameters
    ----------
    stimuli : StimulusSet or Scenes, optional
        What is shown; by default new scenes. The first ``n_shared`` are shown to all, and each
        subject gets the next ``n_own`` for itself.
    seed : int
        A subject is the same whatever the number of subjects.
    n_subjects : int
    n_shared : int, optional
        Stimuli that all subjects see, ``n_repeats`` times each; by default 100 new scenes, or all
        of ``stimuli``.
    n_own : int, optional
        Further stimuli of each subject, seen ``own_repeats`` times (1 by default) and by nobody
        else; by default 300 new scenes, or none of ``stimuli``.
    size : int
        Pixels a side of new scenes.
    n_units : int
        Vertices or voxels, give or take a tenth between subjects.
    n_repeats : int
        Presentations of each shared stimulus, in different sessions.
    ceiling : float
        Mean, over units that carry signal, of the share of variance in single presentations
        that is signal.
    signal : bool
        False makes every unit pure noise: the control in which nothing is to be found.
    target : ndarray, shape (n_stimuli, n_dimensions), optional
        Of ``stimuli``: what is to be decoded, such as an embedding, of which brains do not
        carry the share ``invisible``; by default the meaning of scenes.
    **options
        Further fields of `engramma.worlds.subjects.SubjectOptions`.

    Returns
    -------
    Cohort
        See `engramma.worlds.subjects.make_subject` for what its recordings carry.

    Raises
    ------
    ConfigError
        If an option is unknown or out of range, or there are too few stimuli.
    DataError
        If ``stimuli`` lack images or columns of scenes.
    """
    chosen = subject_options(
        {
            "n_units": n_units,
            "n_repeats": n_repeats,
            "ceiling": ceiling,
            "signal": signal,
            **options,
        },
        "cohort",
    )
    if target is not None and stimuli is None:
        raise ConfigError(
            "a target without stimuli describes nothing", mend="pass the stimuli it belongs to"
        )
    if n_subjects < 1:
        raise ConfigError("a cohort needs at least one subject", mend="use n_subjects >= 1")
    if stimuli is None:
        n_shared, n_own = 100 if n_shared is None else n_shared, 300 if n_own is None else n_own
    else:
        n_shared = len(stimuli) if n_shared is None else n_shared
        n_own = 0 if n_own is None else n_own
    if min(n_shared, n_own) < 0 or n_shared + n_own < 2:
        raise ConfigError(
            f"subjects cannot see {n_shared} shared and {n_own} own stimuli",
            mend="use at least two stimuli a subject",
        )
    streams = _streams(seed, n_subjects)
    if stimuli is None:
        gallery = _new_scenes(n_shared, n_own, size, streams)
    else:
        gallery = _given(stimuli, n_shared, n_own, n_subjects)
    common = next(gallery)
    shared = common.code(chosen) if n_shared else None
    members = {}
    for name, own, stream in zip(_names(n_subjects), gallery, streams[1:], strict=True):
        code = shared
        if n_own:
            code = own.code(chosen) if shared is None else shared + own.code(chosen)
        seen = common if not n_own else own if not n_shared else common.joined(own)
        members[name] = make_subject(
            seen.stimuli,
            name,
            chosen,
            np.random.default_rng(stream),
            n_shared=n_shared,
            code=code,
            target=None if target is None else np.asarray(target)[seen.rows],
        )
    facts = {"world": "cohort", "seed": seed, "modality": "simulated"}
    return Cohort(members, attrs=facts | {"history": _history(n_subjects, n_shared, n_own, chosen)})


def cohort_brains(*, seed: int = 0, n_subjects: int = 4, **options: Any) -> list[Brain]:
    """Return the brains of a cohort: to show them anything else, without noise.

    Parameters
    ----------
    seed, n_subjects
        As of `cohort`.
    **options
        Fields of `engramma.worlds.subjects.SubjectOptions`, as of `cohort`.
    """
    chosen = subject_options(options, "cohort")
    return [
        draw_brain(name, chosen, rng=np.random.default_rng(stream).spawn(1)[0])
        for name, stream in zip(_names(n_subjects), _streams(seed, n_subjects)[1:], strict=True)
    ]


def percent_ceiling(share: np.ndarray, n_averaged: int = 1) -> np.ndarray:
    """Noise ceiling in percent of the variance of averages over repeats.

    ``100 * s^2 / (s^2 + 1/n)`` with the noise-ceiling signal-to-noise ratio ``s`` (Allen et al.,
    *Nat. Neurosci.* 25, 2022, Methods).

    Parameters
    ----------
    share : ndarray
        Share of variance in single presentations that is signal (``true_ceiling``).
    n_averaged : int
        Repeats averaged.
    """
    ratio = share / (1 - share)
    return np.asarray(100 * ratio / (ratio + 1 / n_averaged))


@dataclass(frozen=True, eq=False)
class _Gallery:
    """Stimuli, the objects in them, and the rows they have among those that were given."""

    stimuli: StimulusSet
    objects: pd.DataFrame | None
    rows: np.ndarray

    def code(self, options: SubjectOptions) -> SharedCode:
        return shared_code(
            self.stimuli,
            options.brain,
            objects=self.objects,
            normalisation=options.normalisation,
        )

    def part(self, rows: np.ndarray) -> _Gallery:
        objects = self.objects
        if objects is not None:
            new = np.full(len(self.stimuli), -1)
            new[rows] = np.arange(len(rows))
            objects = objects.assign(scene=new[objects["scene"]])
            objects = objects[objects["scene"] >= 0]
        ids = [self.stimuli.ids[r] for r in rows]
        return _Gallery(self.stimuli.select(ids), objects, self.rows[rows])

    def joined(self, other: _Gallery) -> _Gallery:
        """Join the stimuli of two galleries, whose codes are known already."""
        a, b = self.stimuli, other.stimuli
        assert a.images is not None and b.images is not None
        both = replace(
            a, table=pd.concat([a.table, b.table]), images=np.concatenate([a.images, b.images])
        )
        return _Gallery(both, None, np.concatenate([self.rows, other.rows]))


def _names(n: int) -> list[str]:
    return [f"sub-{i:02d}" for i in range(1, n + 1)]


def _streams(seed: int, n_subjects: int) -> list[np.random.SeedSequence]:
    """One stream for shared stimuli and one a subject: more subjects leave the others be."""
    return np.random.SeedSequence(seed).spawn(n_subjects + 1)


def _new_scenes(
    n_shared: int, n_own: int, size: int, streams: list[np.random.SeedSequence]
) -> Iterator[_Gallery]:
    """Render the shared scenes, and then those of each subject."""
    yield _rendered(n_shared or 1, size, streams[0], "")
    for name, stream in zip(_names(len(streams) - 1), streams[1:], strict=True):
        # A stream of its own, so that scenes do not depend on how brains are drawn.
        own = np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, 1))
        yield _rendered(n_own or 1, size, own, f"{name}-")


def _rendered(n: int, size: int, stream: np.random.SeedSequence, prefix: str) -> _Gallery:
    scenes = make_scenes(n, rng=np.random.default_rng(stream), size=size)
    table = scenes.stimuli.table.rename(index=lambda i: f"{prefix}{i}")
    return _Gallery(replace(scenes.stimuli, table=table), scenes.objects, np.arange(n))


def _given(
    stimuli: StimulusSet | Scenes, n_shared: int, n_own: int, n_subjects: int
) -> Iterator[_Gallery]:
    """Deal given stimuli out."""
    needed = n_shared + n_subjects * n_own
    if needed > len(stimuli):
        raise ConfigError(
            f"{n_shared} shared and {n_own} own stimuli of {n_subjects} subjects are {needed}",
            where=f"{len(stimuli)} stimuli are given",
            mend="give more stimuli, or use fewer",
        )
    rows = np.arange(len(stimuli))
    if isinstance(stimuli, Scenes):
        everything = _Gallery(stimuli.stimuli, stimuli.objects, rows)
    else:
        everything = _Gallery(stimuli, None, rows)
    yield everything if n_shared == len(rows) else everything.part(rows[:n_shared])
    for i in range(n_subjects):
        start = n_shared + i * n_own
        yield everything.part(rows[start : start + n_own])


def _history(n_subjects: int, n_shared: int, n_own: int, options: SubjectOptions) -> list[str]:
    """Return sentences for a methods paragraph."""
    o = options
    what = "scenes" if o.signal else "scenes, without any signal in the responses"
    seen = [f"{n_shared} shared {what}, {o.n_repeats} times each"] if n_shared else []
    seen += [f"{n_own} {what} of their own, {o.own_repeats} times each"] if n_own else []
    where = "vertices of fsaverage5" if o.layout == "surface" else "voxels of 3 mm"
    lines = [
        f"{n_subjects} virtual subjects viewed {' and '.join(seen)}, in {o.sessions} sessions of "
        f"{o.runs_per_session} runs.",
        f"Responses of {where} were simulated from a code that subjects share, which each mixes "
        "in its own way: orientation energy, contours and hue in receptive fields (retinotopic "
        "areas), categories (category-selective areas) and meaning (language and default areas).",
        f"Noise is correlated over time (AR(1) coefficient {o.temporal:g}) and between neighbours "
        f"({o.correlated:.0%} of its variance), and drifts within runs and between sessions; "
        f"signal is {o.ceiling:.0%} of the variance of a single presentation on average.",
    ]
    if o.time == "hrf":
        lines.append(
            f"Time courses have a TR of {o.tr:g} s; stimuli were on for {o.duration:g} s, every "
            f"{o.interval:g} s, and responses follow a double-gamma haemodynamic response."
        )
    if o.invisible:
        lines.append(
            f"Up to {o.invisible:.0%} of the variance of what is to be decoded lies in directions "
            "that responses do not carry."
        )
    if o.confound:
        lines.append(
            f"A measured nuisance takes {o.confound:.0%} of the noise variance; it goes with the "
            "class of stimuli in training runs, and not in held-out ones."
        )
    if o.n_imagined:
        lines.append(
            f"{o.n_imagined} stimuli were imagined as well, with {o.imagery:.0%} of the signal "
            "variance of perception."
        )
    return lines
