"""Representational dissimilarities as data, where the responses themselves are not shared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.distance import squareform

from engramma.data.stimuli import StimulusSet
from engramma.errors import DataError


@dataclass(frozen=True, eq=False)
class RDMs:
    """A stack of representational dissimilarity matrices over one stimulus set.

    Parameters
    ----------
    dissimilarities : ndarray, shape (n_rdms, n_pairs)
        Upper triangles, row by row, as ``scipy.spatial.distance.squareform`` orders them.
    stimuli : StimulusSet
    subject, session : tuple of str
        Of each RDM.
    references : mapping of str to ndarray, shape (n_pairs,)
        Other RDMs over the same stimuli to compare with (another species, behaviour).
    attrs : dict
        As for a recording.
    """

    dissimilarities: np.ndarray
    stimuli: StimulusSet
    subject: tuple[str, ...] = ()
    session: tuple[str, ...] = ()
    references: dict[str, np.ndarray] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = np.atleast_2d(np.asarray(self.dissimilarities, dtype=np.float64))
        n = len(values)
        pairs = len(self.stimuli) * (len(self.stimuli) - 1) // 2
        object.__setattr__(self, "dissimilarities", values)
        object.__setattr__(self, "subject", self.subject or tuple(str(i + 1) for i in range(n)))
        object.__setattr__(self, "session", self.session or ("1",) * n)
        if len(self.subject) != n or len(self.session) != n:
            raise DataError(f"{n} RDMs need {n} subjects and sessions")
        for name, rdm in {"dissimilarities": values, **self.references}.items():
            if np.shape(rdm)[-1] != pairs:
                raise DataError(
                    f"{name} have {np.shape(rdm)[-1]} pairs, but {len(self.stimuli)} stimuli "
                    f"make {pairs}",
                    mend="give upper triangles over exactly the stimuli of the table",
                )
            if not np.isfinite(rdm).all():
                raise DataError(f"{name} hold NaN or infinity")

    @classmethod
    def from_square(cls, matrices: np.ndarray, stimuli: StimulusSet, **kwargs: Any) -> RDMs:
        """Build from square symmetric matrices, shape (n_rdms, n_stimuli, n_stimuli)."""
        matrices = np.asarray(matrices, dtype=np.float64)
        if not np.allclose(matrices, np.swapaxes(matrices, -1, -2), atol=1e-4):
            raise DataError("an RDM is not symmetric", mend="check the order of its axes")
        vectors = np.stack([squareform(m, checks=False) for m in np.atleast_3d(matrices)])
        return cls(vectors, stimuli, **kwargs)

    def by_subject(self) -> RDMs:
        """Average the sessions of each subject."""
        names = sorted(set(self.subject))
        rows = [self.dissimilarities[np.asarray(self.subject) == s].mean(axis=0) for s in names]
        return RDMs(
            np.stack(rows), self.stimuli, tuple(names), references=self.references, attrs=self.attrs
        )

    def fingerprint(self) -> str:
        """Short hash of dissimilarities, subjects, references and stimuli."""
        digest = hashlib.sha256(np.ascontiguousarray(self.dissimilarities).tobytes())
        digest.update("\x1f".join((*map(str, self.subject), *self.stimuli.ids)).encode())
        digest.update(self.stimuli.fingerprint().encode())
        for name in sorted(self.references):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.references[name]).tobytes())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.dissimilarities)

    def __repr__(self) -> str:
        return (
            f"RDMs({len(self)} RDMs of {len(set(self.subject))} subjects, "
            f"{len(self.stimuli)} stimuli)"
        )
