"""Rows of tables whose columns are known to hold what they hold."""

from __future__ import annotations

from typing import Any

import pandas as pd


def rows(table: pd.DataFrame) -> list[Any]:
    """Rows as named tuples, with the index as ``Index``."""
    return list(table.itertuples())
