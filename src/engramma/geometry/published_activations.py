"""Activations of two networks, and their correlations, as Li et al. 2016 store them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engramma.errors import DataError, DataWarning
from engramma.geometry.unit_correlations import Correlations, split_correlations


def load_activations(first: str | Path, second: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the activations of two networks for one stimulus set.

    Each ``.npz`` holds ``activations`` (stimulus x unit, or stimulus x map x height x width) and
    should hold ``stimuli`` (ids) and ``preprocessing`` (one text).

    Raises
    ------
    DataError
        If a file cannot be read, or the two differ in stimuli or preprocessing.
    """
    files = [_arrays(Path(p), ("activations",)) for p in (first, second)]
    where = f"{first} and {second}"
    for name, mend in (
        ("stimuli", "run both networks on the same stimuli, in the same order"),
        ("preprocessing", "scale and crop the stimuli alike for both networks"),
    ):
        stated = [name in f for f in files]
        if any(stated) and not all(stated):
            raise DataError(f"only one file states its {name}", where=where, mend=mend)
        if all(stated) and not np.array_equal(files[0][name], files[1][name]):
            raise DataError(f"the two networks differ in {name}", where=where, mend=mend)
        if not any(stated):
            warnings.warn(
                f"neither file states its {name}; they are taken to be alike: {where}",
                DataWarning,
                stacklevel=2,
            )
    a, b = (f["activations"] for f in files)
    if len(a) != len(b):
        raise DataError(f"{len(a)} and {len(b)} stimuli cannot be paired", where=where)
    return a, b


def load_statistics(first: str | Path, second: str | Path, layer: str, combo: str) -> Correlations:
    """Read the correlations that the authors store, one file a layer.

    Parameters
    ----------
    first, second : path
        Folders of two networks. Each holds ``val_cor/LAYER.npy``; the first also holds
        ``val_cor_COMBO/LAYER.npy``, the correlations between the two.
    layer, combo : str

    Returns
    -------
    Correlations
        For `engramma.geometry.matching.match_units` and the functions beside it.

    Raises
    ------
    DataError
        If a file is missing, is a pickle, or does not fit the others.
    """
    within = [_matrix(Path(folder) / "val_cor" / layer) for folder in (first, second)]
    between = _matrix(Path(first) / f"val_cor_{combo}" / layer)
    expected = (len(within[0]), len(within[1]))
    if between.shape != expected or any(w.shape != (len(w), len(w)) for w in within):
        raise DataError(
            f"correlations have shapes {within[0].shape}, {within[1].shape} and {between.shape}",
            where=f"layer {layer!r} of {first} and {second}",
            mend="name the second network that the combination was computed with",
        )
    joint = np.block([[within[0], between], [between.T, within[1]]])
    alive = np.isfinite(np.diag(joint)) & (np.diag(joint) > 0)
    return split_correlations(joint, alive, len(within[0]))


def _matrix(stem: Path) -> np.ndarray:
    """Read ``stem.npy``; a pickle is refused, since reading one runs whatever it holds."""
    path = stem.with_name(stem.name + ".npy")
    if path.is_file():
        return np.asarray(_load(path), dtype=np.float64)
    pickled = stem.with_name(stem.name + ".pkl")
    if pickled.is_file():
        raise DataError(
            "statistics are stored as a pickle, which can run any code when it is read",
            where=str(pickled),
            mend=(
                "convert it once, if you trust where it comes from: numpy.save("
                f"{path.name!r}, pickle.load(open({pickled.name!r}, 'rb'), encoding='latin1'))"
            ),
        )
    raise DataError("there is no such file", where=str(path), mend="check the folder and the layer")


def _arrays(path: Path, required: Sequence[str]) -> dict[str, np.ndarray]:
    archive = _load(path)
    if isinstance(archive, np.ndarray):
        return {"activations": archive}
    with archive:
        missing = [name for name in required if name not in archive.files]
        if missing:
            raise DataError(
                f"the file holds {', '.join(archive.files) or 'nothing'}, but no {missing[0]!r}",
                where=str(path),
                mend="save it with numpy.savez(path, activations=..., stimuli=...)",
            )
        return {name: archive[name] for name in archive.files}


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the file holds no array ({error})",
            where=str(path),
            mend="save activations with numpy.savez, and no object arrays",
        ) from error
