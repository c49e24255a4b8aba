"""Extracted features on disk, found again by what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engramma.errors import DataError, DataWarning

#: Raised whenever extraction changes what it returns, so that old entries are not used.
VERSION = 1


def default_folder() -> Path:
    """Folder of this user's cache: ``ENGRAMMA_CACHE``, or where the system keeps caches."""
    named = os.environ.get("ENGRAMMA_CACHE")
    if named:
        return Path(named).expanduser() / "features"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "engramma" / "features"


def key_of(**parts: Any) -> str:
    """Hash of everything that features depend on."""
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


class FeatureCache:
    """A folder of arrays, each under the hash of what it was made from.

    Entries are written whole or not at all, and carry a checksum: one that was truncated or
    changed is taken as absent and computed again.

    Parameters
    ----------
    folder : path, False or None
        None: the user's cache folder, given up with a warning where it cannot be written to.
        False: no cache.

    Raises
    ------
    DataError
        If a folder was named and cannot be written to.
    """

    def __init__(self, folder: str | Path | bool | None = None) -> None:
        self.folder: Path | None = None
        if folder is False:
            return
        named = folder is not None and folder is not True
        path = Path(str(folder)) if named else default_folder()
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            reason = f"features cannot be cached ({error.strerror})"
            mend = "name another folder, or set ENGRAMMA_CACHE"
            if named:
                raise DataError(reason, where=str(path), mend=mend) from error
            warnings.warn(f"{reason}: {path}; {mend}", DataWarning, stacklevel=3)
            return
        self.folder = path

    def get(self, key: str) -> np.ndarray | None:
        """Return the array under ``key``, or None where there is none that is whole."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            with safe_open(path, framework="numpy") as entry:
                values: np.ndarray = entry.get_tensor("values")
                stored = (entry.metadata() or {}).get("checksum")
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError):
            return None  # truncated or foreign: computed again, and replaced by `put`
        return values if stored == _checksum(values) else None

    def put(self, key: str, values: np.ndarray) -> None:
        """Write ``values`` under ``key``.

        Raises
        ------
        DataError
            If the disk is full or the folder has gone.
        """
        if self.folder is None:
            return
        path = self._path(key)
        values = np.ascontiguousarray(values)
        data = save({"values": values}, metadata={"checksum": _checksum(values)})
        work = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, work = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(work).replace(path)
        except OSError as error:
            raise DataError(
                f"features cannot be cached ({error.strerror})",
                where=str(path),
                mend="free some space, name another folder, or pass cache=False",
            ) from error
        finally:
            if work:
                Path(work).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.safetensors"


def _checksum(values: np.ndarray) -> str:
    digest = hashlib.blake2b(f"{values.dtype.str}{values.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
