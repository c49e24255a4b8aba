"""engramma: an open laboratory for how brains and machines encode, remember and decode."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public names and the module each lives in; imported at first use, so that
#: ``import engramma`` and ``engramma --help`` stay fast.
_PUBLIC = {
    "Cohort": "engramma.data.recording",
    "Features": "engramma.data.features",
    "RDMs": "engramma.data.rdms",
    "Recording": "engramma.data.recording",
    "StimulusSet": "engramma.data.stimuli",
    "open_recording": "engramma.data.store",
    "probe": "engramma.bench.probes",
    "read": "engramma.data.read",
    "run_system": "engramma.bench.runs",
    "verify": "engramma.bench.claims",
}

#: Rooms that are called by their name: ``engramma.study(data)``, ``engramma.bench(task)``.
_CALLABLE = ("bench", "study")

__all__ = [*_PUBLIC, *_CALLABLE, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _CALLABLE:
        return importlib.import_module(f"engramma.{name}")
    raise AttributeError(f"module 'engramma' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
