"""Shared fixtures. Nothing here or in any test may download anything."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MNE_LOGGING_LEVEL", "ERROR")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of small real recordings; tests that use it skip where it is absent."""
    place = os.environ.get("ENGRAMMA_REAL_DATA") or REPOSITORY.parent / "shared" / "data"
    folder = Path(place)
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder} (set ENGRAMMA_REAL_DATA)")
    return folder
