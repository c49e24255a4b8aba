"""Stimulus to features: `extract` for any model, and what it stands on."""

from __future__ import annotations

import importlib
from typing import Any

#: Public names and the module each lives in; imported at first use, since most need torch.
_PUBLIC = {
    "available_models": "extraction",
    "extract": "extraction",
    "list_layers": "extraction",
    "load_model": "extraction",
    "images": "media",
    "match_dimensions": "projection",
    "fit_pca": "projection",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
