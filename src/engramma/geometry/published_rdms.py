"""RDMs of several regions and subjects, as Lin & Kriegeskorte 2024 store them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engramma.errors import DataError
from engramma.geometry.pairs import checked_rdms, to_pairs

#: Names of the regions 1 to 8 of the published fMRI data.
ROI_NAMES = ("V1", "V2", "V3", "LOC", "OFA", "FFA", "PPA", "aIT")


@dataclass(frozen=True)
class RegionRDMs:
    """RDMs of several regions in several subjects.

    Parameters
    ----------
    rdms : ndarray, shape (n_rdms, n_pairs)
    subject, region : ndarray of str, shape (n_rdms,)
    """

    rdms: np.ndarray
    subject: np.ndarray
    region: np.ndarray


def load_rdms(*paths: str | Path) -> RegionRDMs:
    """Read RDMs as the authors store them.

    Parameters
    ----------
    *paths : path
        Either one ``.mat`` file (v5 or v7.3) with a struct ``D`` of fields ``rdm`` (session x
        pair), ``subj`` and ``roi``; or one ``rdms.npy`` a network, layer x pair or
        layer x stimulus x stimulus, whose networks become subjects in the order given.

    Raises
    ------
    DataError
        If a file cannot be read or holds something else.
    """
    if not paths:
        raise DataError("no file of RDMs is named", mend="name a .mat file or .npy files")
    files = [Path(p) for p in paths]
    absent = [f for f in files if not f.is_file()]
    if absent:
        raise DataError("there is no such file", where=str(absent[0]), mend="check the path")
    if files[0].suffix == ".mat":
        if len(files) > 1:
            raise DataError("one .mat file holds all subjects", where=str(files[1]))
        return _load_struct(files[0])
    stacks = [_load_layers(f) for f in files]
    shapes = {x.shape for x in stacks}
    if len(shapes) > 1:
        raise DataError(
            f"networks have RDMs of different shapes: {sorted(shapes)}",
            mend="use networks with the same layers and stimuli",
        )
    n_layers = len(stacks[0])
    return RegionRDMs(
        np.concatenate(stacks),
        np.repeat([str(i + 1) for i in range(len(stacks))], n_layers),
        np.tile([f"layer{i + 1:02d}" for i in range(n_layers)], len(stacks)),
    )


def _load_struct(path: Path) -> RegionRDMs:
    from pymatreader import read_mat

    try:
        fields = read_mat(str(path))["D"]
        rdms = checked_rdms(fields["rdm"], "RDMs", min_stimuli=4)
        subject, region = (np.ravel(fields[name]).astype(int) for name in ("subj", "roi"))
    except DataError:
        raise
    except Exception as error:  # the parsers of both versions raise whatever they stumble over
        raise DataError(
            f"the file holds no struct D with fields rdm, subj and roi ({error!r})",
            where=str(path),
            mend="save D.rdm (session x pair), D.subj and D.roi with MATLAB's save",
        ) from error
    if not len(rdms) == len(subject) == len(region):
        raise DataError(
            f"{len(rdms)} RDMs have {len(subject)} subjects and {len(region)} regions",
            where=str(path),
        )
    if region.min() < 1 or region.max() > len(ROI_NAMES):
        raise DataError(
            f"roi holds {region.min()} ... {region.max()}, not 1 ... 8", where=str(path)
        )
    return RegionRDMs(rdms, subject.astype(str), np.array(ROI_NAMES)[region - 1])


def _load_layers(path: Path) -> np.ndarray:
    try:
        rdms = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"the file holds no array ({error})", where=str(path), mend="save it with numpy.save"
        ) from error
    if rdms.ndim == 3:
        if not np.allclose(rdms, rdms.swapaxes(1, 2), atol=1e-4):
            raise DataError("an RDM is not symmetric", where=str(path))
        rdms = to_pairs(rdms)
    if rdms.ndim != 2:
        raise DataError(
            f"RDMs have shape {rdms.shape}",
            where=str(path),
            mend="store layer x pair, or layer x stimulus x stimulus",
        )
    return checked_rdms(rdms, f"RDMs of {path.name}", min_stimuli=4)
