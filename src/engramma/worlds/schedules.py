"""Which stimulus a subject sees when: sessions, runs, repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Schedule:
    """Presentations in the order they are shown.

    Parameters
    ----------
    stimulus : ndarray of int, shape (n,)
        Row of the stimulus.
    run, session : ndarray of int, shape (n,)
        Counted from 1; runs over all sessions.
    imagined : ndarray of bool, shape (n,)
        Whether the subject imagined the stimulus and saw none.
    """

    stimulus: np.ndarray
    run: np.ndarray
    session: np.ndarray
    imagined: np.ndarray

    def __len__(self) -> int:
        return len(self.stimulus)


def make_schedule(
    repeats: np.ndarray,
    *,
    n_sessions: int,
    runs_per_session: int,
    n_imagined: int = 0,
    rng: np.random.Generator,
) -> Schedule:
    """Spread repeats over runs and sessions, in random order within each run.

    Repeats of one stimulus always fall in different runs, and in different sessions where there
    are enough: so noise that is common to a run or a session is never taken for signal.

    Parameters
    ----------
    repeats : ndarray of int, shape (n_stimuli,)
        How often each stimulus is shown.
    n_sessions, runs_per_session : int
    n_imagined : int
        The first so many stimuli are imagined as well, as often as they are seen, in runs that
        are added to each session.
    rng : numpy.random.Generator

    Raises
    ------
    ConfigError
        If there are fewer runs than repeats.
    """
    n_runs = n_sessions * runs_per_session
    if repeats.max() > n_runs:
        raise ConfigError(
            f"{repeats.max()} repeats do not fit into {n_runs} runs, one repeat a run",
            mend="use more sessions or runs_per_session",
        )
    seen = _spread(repeats, n_sessions, runs_per_session, rng)
    parts = [(*seen, False)]
    if n_imagined:
        parts.append((*_spread(repeats[:n_imagined], n_sessions, runs_per_session, rng), True))
    stimulus = np.concatenate([p[0] for p in parts])
    session = np.concatenate([p[1] for p in parts])
    within = np.concatenate([p[2] for p in parts])
    imagined = np.concatenate([np.full(len(p[0]), p[3]) for p in parts])
    order = np.lexsort((rng.random(len(stimulus)), within, imagined, session))
    key = np.stack([session, imagined, within], axis=1)[order]
    run = 1 + np.concatenate([[0], np.cumsum((np.diff(key, axis=0) != 0).any(axis=1))])
    return Schedule(stimulus[order], run, session[order] + 1, imagined[order])


def _spread(
    repeats: np.ndarray, n_sessions: int, runs_per_session: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stimulus, session and run within the session of each presentation, in no order."""
    n = len(repeats)
    start = rng.permutation(n)
    stimulus = np.repeat(np.arange(n), repeats)
    count = np.arange(len(stimulus)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    # Consecutive slots are in different sessions, and only then in different runs of a session.
    slot = (start[stimulus] + count) % (n_sessions * runs_per_session)
    return stimulus, slot % n_sessions, slot // n_sessions
