"""Where virtual EEG and MEG are recorded: electrodes of standard montages, coils of real helmets.

Electrode positions come from MNE's template montages, coils (position, orientation and type) from
its canonical CTF and Neuromag systems. Both are part of the MNE package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from engramma.errors import ConfigError

#: Centre (m, head coordinates: right, front, up) and radius of the spherical head.
CENTRE, RADIUS = (0.0, 0.0, 0.04), 0.095

#: A cap of 32 after the 10-20 system.
# fmt: off
CAP32 = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7", "C3", "Cz", "C4",
    "T8", "CP5", "CP1", "CP2", "CP6", "P7", "P3", "Pz", "P4", "P8", "PO7", "PO3", "POz", "PO4",
    "PO8", "O1", "O2",
)
#: Posterior channels, as decoders of seen images often take (Gifford et al. 2022, THINGS-EEG2).
POSTERIOR17 = (
    "P7", "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "P8", "PO7", "PO3", "POz", "PO4", "PO8", "O1",
    "Oz", "O2",
)
#: A cap of 63 after the 10-10 system, as in THINGS-EEG2: Fz is its reference.
CAP63 = (
    "Fp1", "Fp2", "AF7", "AF3", "AFz", "AF4", "AF8", "F7", "F5", "F3", "F1", "F2", "F4", "F6",
    "F8", "FT9", "FT7", "FC5", "FC3", "FC1", "FCz", "FC2", "FC4", "FC6", "FT8", "FT10", "T7", "C5",
    "C3", "C1", "Cz", "C2", "C4", "C6", "T8", "TP9", "TP7", "CP5", "CP3", "CP1", "CPz", "CP2",
    "CP4", "CP6", "TP8", "TP10", *POSTERIOR17,
)
# fmt: on
#: Caps by name: channels of the 10-05 system.
CAPS = {"cap32": CAP32, "posterior17": POSTERIOR17, "cap63": CAP63}
#: Helmets by name: MNE's system, and the kind of channels taken from it.
HELMETS: Mapping[str, tuple[str, str | bool]] = {
    "ctf151": ("ctf151", True),
    "ctf275": ("ctf275", True),
    "neuromag": ("neuromag", True),
    "neuromag-mag": ("neuromag", "mag"),
    "neuromag-grad": ("neuromag", "grad"),
}


@dataclass(frozen=True, eq=False)
class Sensors:
    """Sensors with their places in head coordinates.

    Parameters
    ----------
    montage : str
    info : mne.Info
        Channels, with the pose of the helmet (``dev_head_t``) where there is one.
    """

    montage: str
    info: Any

    @property
    def names(self) -> list[str]:
        """Channel names."""
        return list(self.info["ch_names"])

    @property
    def kinds(self) -> np.ndarray:
        """``eeg`` (V), ``mag`` (T; magnetometers and axial gradiometers) or ``grad`` (T/m)."""
        return np.asarray(self.info.get_channel_types())

    @property
    def modality(self) -> str:
        """``eeg`` or ``meg``."""
        return "meg" if self.montage in HELMETS else "eeg"

    @property
    def positions(self) -> np.ndarray:
        """Positions in head coordinates (m), channel x 3."""
        places = np.asarray([channel["loc"][:3] for channel in self.info["chs"]])
        if self.modality == "eeg":
            return places
        pose = self.info["dev_head_t"]["trans"]
        return np.asarray(places @ pose[:3, :3].T + pose[:3, 3])

    def posed(self, turn: np.ndarray, shift: np.ndarray) -> Sensors:
        """Return the same sensors on a head that sits otherwise in them.

        Parameters
        ----------
        turn : ndarray, shape (3,)
            Rotation vector (rad) of the sensors about the centre of the head.
        shift : ndarray, shape (3,)
            Translation (m) of a helmet. A cap stays on the scalp: it only turns.
        """
        from scipy.spatial.transform import Rotation

        rotation = Rotation.from_rotvec(turn).as_matrix()
        info, centre = self.info.copy(), np.asarray(CENTRE)
        if self.modality == "meg":
            pose = info["dev_head_t"]["trans"].copy()
            pose[:3, :3] = rotation @ pose[:3, :3]
            pose[:3, 3] = rotation @ (pose[:3, 3] - centre) + centre + shift
            info["dev_head_t"]["trans"] = pose
        else:
            for channel in info["chs"]:
                channel["loc"][:3] = rotation @ (channel["loc"][:3] - centre) + centre
        return Sensors(self.montage, info)


@lru_cache(maxsize=8)
def make_sensors(montage: str) -> Sensors:
    """Place the sensors of a montage on or around a head of average size.

    Parameters
    ----------
    montage : str
        ``cap32``, ``cap63``, ``posterior17``, any template montage of EEG that MNE knows
        (``biosemi64``, ``colin27_1020``, ...), or a helmet: ``ctf151`` and ``ctf275`` (axial
        gradiometers), ``neuromag`` (102 magnetometers and 204 planar gradiometers),
        ``neuromag-mag``, ``neuromag-grad``.

    Raises
    ------
    ConfigError
        If there is no such montage.
    """
    import mne

    if montage in HELMETS:
        return Sensors(montage, _helmet(*HELMETS[montage]))
    template = "colin27_1005" if montage in CAPS else montage
    # Names that MNE gave its templates before 1.13.
    template = template.replace("standard_", "colin27_")
    if template not in mne.channels.get_builtin_montages():
        known = [*CAPS, *HELMETS, "biosemi64"]
        raise ConfigError(
            f"there is no montage called {montage!r}",
            mend=f"use {', '.join(known)}, or a name of mne.channels.get_builtin_montages()",
        )
    places = mne.channels.make_standard_montage(template)
    names = list(CAPS.get(montage, places.ch_names))
    info = mne.create_info(names, 1000.0, "eeg")
    info.set_montage(places, verbose="error")
    for channel in info["chs"]:
        # A head of another shape is drawn onto the sphere, along the line to its centre.
        away = channel["loc"][:3] - CENTRE
        channel["loc"][:3] = CENTRE + RADIUS * away / np.linalg.norm(away)
    return Sensors(montage, info)


def _helmet(system: str, kind: str | bool) -> Any:
    """Coils around the head: the sphere through them has the centre of the head."""
    import mne

    info = mne.channels.read_meg_canonical_info(system, verbose="error")
    info = mne.pick_info(info, mne.pick_types(info, meg=kind))
    places = np.asarray([channel["loc"][:3] for channel in info["chs"]])
    # |p - c|^2 = r^2 is linear in c and r^2 - |c|^2.
    design = np.column_stack([2 * places, np.ones(len(places))])
    fitted = np.linalg.lstsq(design, (places**2).sum(axis=1), rcond=None)[0]
    info["dev_head_t"]["trans"][:3, 3] = np.asarray(CENTRE) - fitted[:3]
    return info
