"""Which region or layer a representation is of, told by those of other subjects or networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import DataError


@dataclass(frozen=True)
class Identification:
    """Which region each RDM was taken for.

    Parameters
    ----------
    accuracy : float
        Share of RDMs taken for the region they come from.
    predicted, actual : ndarray, shape (n_rdms,)
    chance : float
    """

    accuracy: float
    predicted: np.ndarray
    actual: np.ndarray
    chance: float


def nearest_centroid(x: np.ndarray, subject: np.ndarray, region: np.ndarray) -> Identification:
    """Identify the region of each row by the nearest mean of the other subjects' rows."""
    if not len(x) == len(subject) == len(region):
        raise DataError(
            f"{len(x)} RDMs have {len(subject)} subjects and {len(region)} regions",
            mend="name the subject and the region of each RDM",
        )
    names, code = np.unique(region, return_inverse=True)
    people = np.unique(subject)
    if len(people) < 2 or len(names) < 2:
        raise DataError(
            f"{len(people)} subject(s) and {len(names)} region(s) leave nothing to identify",
            mend="give RDMs of at least two regions in at least two subjects",
        )
    centred = x - x.mean(axis=0)
    inner = centred @ centred.T  # all distances to means follow from inner products
    predicted = np.empty(len(x), dtype=np.intp)
    for person in people:
        train, test = np.flatnonzero(subject != person), np.flatnonzero(subject == person)
        member = (code[train][:, None] == np.arange(len(names))).astype(float)
        if not member.any(axis=0).all():
            missing = names[~member.any(axis=0)][0]
            raise DataError(
                f"region {missing!r} is there in subject {person!r} only",
                mend="leave the region out, or add subjects that have it",
            )
        weight = member / member.sum(axis=0)
        length = (weight * (inner[np.ix_(train, train)] @ weight)).sum(axis=0)
        predicted[test] = np.argmin(length - 2 * inner[np.ix_(test, train)] @ weight, axis=1)
    accuracy = float((predicted == code).mean())
    return Identification(accuracy, names[predicted], region, 1 / len(names))
