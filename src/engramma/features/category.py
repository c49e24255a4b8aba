"""Features that the stimulus table itself holds."""

from __future__ import annotations

import numpy as np

from engramma.data.features import Features
from engramma.data.stimuli import StimulusSet
from engramma.errors import DataError


def one_hot(stimuli: StimulusSet, column: str = "category") -> Features:
    """One feature per level of a column of the stimulus table, 1 where the stimulus has it.

    Raises
    ------
    DataError
        If there is no such column, a stimulus has no value in it, or all have the same.
    """
    table = stimuli.table
    if column not in table:
        raise DataError(
            f"the stimulus table has no column {column!r}",
            where=f"it has {', '.join(map(str, table.columns)) or 'none'}",
            mend="name one of these, or add the column",
        )
    empty = table.index[table[column].isna()]
    if len(empty):
        raise DataError(
            f"{len(empty)} stimuli have no {column!r}",
            where=f"stimulus {str(empty[0])!r}",
            mend="fill in the column, or select the stimuli that have it",
        )
    levels, codes = np.unique(table[column].astype(str).to_numpy(dtype=str), return_inverse=True)
    if len(levels) < 2:
        raise DataError(
            f"column {column!r} has one value only", mend="name a column that sorts the stimuli"
        )
    values = np.eye(len(levels), dtype=np.float32)[codes]
    name = "category" if column == "category" else f"category:{column}"
    return Features(values, tuple(stimuli.ids), name, model="category", layer=column)
