"""How virtual subjects are made: options, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from engramma.errors import ConfigError
from engramma.worlds.cortex import AREAS, BINDING_AREA, Area
from engramma.worlds.fluctuations import NoiseOptions
from engramma.worlds.haemodynamics import ScanOptions

Layout = Literal["surface", "volume"]
Time = Literal["trials", "hrf"]


@dataclass(frozen=True)
class SubjectOptions(NoiseOptions, ScanOptions):
    """How virtual subjects are made; also what noise is made of and how a scan goes.

    Parameters
    ----------
    n_units : int
        Vertices or voxels, give or take a tenth between subjects.
    n_repeats : int
        Presentations of each stimulus that all subjects see.
    own_repeats : int
        Presentations of each stimulus that is a subject's own.
    n_sessions, runs_per_session : int, optional
        By default as many sessions as repeats, and two runs in each.
    layout : {"surface", "volume"}
        Vertices of fsaverage5 (coordinate ``vertex``), or voxels (``i, j, k``).
    time : {"trials", "hrf"}
        One response a presentation, or continuous runs of volumes.
    ceiling : float
        Mean, over units that carry signal, of the share of variance in single presentations
        that is signal; of single-trial estimates with ``time="hrf"``.
    spread : float
        Standard deviation of that share between units.
    idiosyncrasy : float
        Size, against its planted tuning, of each unit's private mixture of its area's code.
    gain : float
        Standard deviation of the logarithm of the size of responses and noise between units.
    gain_drift : float
        Standard deviation of the size of a unit's responses between sessions.
    signal : bool
        False makes every unit pure noise: a control in which nothing is to be found.
    dmn : bool
        False makes the areas of the default network silent.
    binding : float
        Share of units in a further area that binds colour to object.
    invisible : float
        Largest share of the variance of what is to be decoded (``target`` of `make_subject`, or
        the meaning of scenes) that brains do not carry.
    nonlinearity : float
        Share of rectified, squared drive in the output of units; 0 is linear.
    normalisation : bool
        Divisive normalisation in areas with receptive fields.
    confound : float
        Share of the noise variance that a measured nuisance takes, such as arousal, which goes
        with the superordinate class of stimuli in the training runs, and not in held-out ones.
    confound_correlation : float
        Of the nuisance with class in training runs.
    held_out_runs : float
        Share of runs, the last of all, that are held out.
    n_imagined : int
        The first so many stimuli are imagined as well.
    imagery : float
        Signal variance in imagery against that in perception.
    areas : tuple of Area
    """

    n_units: int = 1000
    n_repeats: int = 3
    own_repeats: int = 1
    n_sessions: int | None = None
    runs_per_session: int = 2
    layout: Layout = "surface"
    time: Time = "trials"
    ceiling: float = 0.15
    spread: float = 0.1
    idiosyncrasy: float = 0.3
    gain: float = 0.2
    gain_drift: float = 0.1
    signal: bool = True
    dmn: bool = True
    binding: float = 0.0
    invisible: float = 0.0
    nonlinearity: float = 0.0
    normalisation: bool = False
    confound: float = 0.0
    confound_correlation: float = 0.9
    held_out_runs: float = 0.25
    n_imagined: int = 0
    imagery: float = 0.2
    areas: tuple[Area, ...] = AREAS

    def __post_init__(self) -> None:
        NoiseOptions.__post_init__(self)
        ScanOptions.__post_init__(self)
        if self.n_units < 2 * len(self.areas) or min(self.n_repeats, self.own_repeats) < 1:
            raise ConfigError(
                f"a subject cannot have {self.n_units} units and {self.n_repeats} repeats",
                mend=f"use at least {2 * len(self.areas)} units and one repeat",
            )
        if min(self.sessions, self.runs_per_session) < 1 or self.n_imagined < 0:
            raise ConfigError(
                "a subject needs at least one session with one run",
                mend="use n_sessions >= 1, runs_per_session >= 1 and n_imagined >= 0",
            )
        shares = ("ceiling", "binding", "invisible", "confound")
        within = all(0 <= getattr(self, name) < 1 for name in shares)
        wide = ("nonlinearity", "held_out_runs", "imagery", "confound_correlation")
        if not within or not all(0 <= getattr(self, name) <= 1 for name in wide):
            raise ConfigError(
                f"{', '.join(shares)} are shares of variance or units, and {', '.join(wide)} too",
                mend="use numbers from 0 to less than 1 for the former, and from 0 to 1 else",
            )
        if min(self.spread, self.gain, self.gain_drift, self.idiosyncrasy) < 0:
            raise ConfigError(
                "spread, gain, gain_drift and idiosyncrasy are standard deviations",
                mend="use numbers that are not negative",
            )
        if self.confound and self.time == "hrf":
            raise ConfigError(
                "a planted confound is made for single trials, not for time courses",
                mend="use time='trials' or confound=0",
            )
        for name, known in (("layout", get_args(Layout)), ("time", get_args(Time))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is not known",
                    mend=f"use {' or '.join(map(repr, known))}",
                )

    @property
    def sessions(self) -> int:
        """Number of sessions."""
        if self.n_sessions is None:
            return max(self.n_repeats, self.own_repeats)
        return self.n_sessions

    @property
    def brain(self) -> tuple[Area, ...]:
        """Areas as the options change them."""
        areas = self.areas
        if self.binding:
            total = sum(a.share for a in areas)
            share = total * self.binding / (1 - self.binding)
            areas = (*areas, replace(BINDING_AREA, share=share))
        if not self.dmn:
            areas = tuple(replace(a, kind="silent") if a.network == "Default" else a for a in areas)
        return areas


def subject_options(given: dict[str, Any], world: str) -> SubjectOptions:
    """Make options of keywords.

    Raises
    ------
    ConfigError
        If a keyword is none of the options, or a value is out of range.
    """
    known = [f.name for f in fields(SubjectOptions)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(
            f"the world {world!r} has no option {unknown[0]!r}",
            mend=f"further options are {', '.join(sorted(known))}",
        )
    return SubjectOptions(**given)
