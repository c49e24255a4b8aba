"""Features: what a model says of each stimulus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.errors import DataError


@dataclass(frozen=True, eq=False)
class Features:
    """A stimulus x feature matrix, with the model and layer it comes from.

    Parameters
    ----------
    values : ndarray, shape (n_stimuli, n_features)
        Finite numbers; kept as float32.
    stimuli : sequence of str
        Stimulus id of each row, unique.
    name : str
        Short name used in figures and tables (``"gabor"``, ``"efficientnet-lite0/stage4"``).
    model, layer : str
        Where the values come from.
    """

    values: np.ndarray
    stimuli: tuple[str, ...]
    name: str
    model: str = ""
    layer: str = ""

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        values = values if values.dtype == np.float64 else values.astype(np.float32, copy=False)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "stimuli", tuple(str(s) for s in self.stimuli))
        if values.ndim != 2 or len(values) != len(self.stimuli):
            raise DataError(
                f"features {self.name!r} have shape {values.shape} for {len(self.stimuli)} stimuli",
                mend="give a stimulus x feature matrix with one row a stimulus",
            )
        if len(set(self.stimuli)) != len(self.stimuli):
            raise DataError(
                f"features {self.name!r} name a stimulus twice", mend="give one row a stimulus"
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise DataError(
                f"features {self.name!r} hold NaN or infinity",
                where=f"stimulus {self.stimuli[bad[0]]!r} ({len(bad)} stimuli in all)",
                mend="check the stimulus file and the model's numerical range",
            )

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.values.shape[1])

    def rows(self, stimuli: Iterable[str]) -> np.ndarray:
        """Feature vectors of the named stimuli, in that order; an id may repeat.

        Raises
        ------
        DataError
            If a stimulus has no features.
        """
        wanted = pd.Index([str(s) for s in stimuli], dtype=object)
        rows = pd.Index(self.stimuli, dtype=object).get_indexer(wanted)
        if (rows < 0).any():
            missing = wanted[rows < 0].unique()
            raise DataError(
                f"{len(missing)} stimuli have no features {self.name!r}",
                where=f"for example {missing[0]!r}",
                mend="extract the features for every stimulus of the recording",
            )
        return self.values[rows]
