"""Versions of what a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

#: Packages whose version can change a number.
PACKAGES = ("engramma", "numpy", "scipy", "torch", "scikit-learn", "nilearn", "mne", "xarray")


def versions(extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the Python version and the versions of the packages installed here."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *extra):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
