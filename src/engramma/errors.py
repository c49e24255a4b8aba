"""Errors that say what is wrong, where, and how to mend it."""

from __future__ import annotations


class EngrammaError(Exception):
    """Base of every error a user can mend.

    Parameters
    ----------
    what : str
        What is wrong, in one sentence.
    where : str, optional
        The file, row, unit or option it was found at.
    mend : str, optional
        What the user can do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        parts = [what.rstrip(".") + "."]
        if where:
            parts.append(f"Where: {where.rstrip('.')}.")
        if mend:
            parts.append(f"To mend it: {mend.rstrip('.')}.")
        super().__init__(" ".join(parts))


class DataError(EngrammaError):
    """A recording, stimulus set or file is not what it should be."""


class ConfigError(EngrammaError):
    """An option, name or combination of options cannot be carried out."""


class MissingPackageError(ConfigError):
    """A package that an extra brings is not installed."""


class LeakageError(EngrammaError):
    """A stimulus, run or subject stands in training and in test."""


class NotTestableError(EngrammaError):
    """What a claim or an analysis presupposes is absent."""


class DataWarning(UserWarning):
    """Something in the data that a reader of the results must know."""
