"""Corrections of p values for many comparisons."""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control


def false_discovery(p: np.ndarray) -> np.ndarray:
    """Corrected p values that control the false discovery rate (Benjamini & Hochberg 1995)."""
    p = np.asarray(p, dtype=np.float64)
    return false_discovery_control(p, method="bh") if p.size else p


def holm(p: np.ndarray) -> np.ndarray:
    """Corrected p values that control the family-wise error rate by step-down (Holm 1979)."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
