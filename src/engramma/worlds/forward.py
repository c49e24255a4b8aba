"""From currents in a head to sensors: MNE's sphere models, and a homogeneous medium.

Potentials on the scalp come from a sphere of four shells (Berg and Scherg, *Electroencephalogr.
Clin. Neurophysiol.* 90, 1994), magnetic fields from Sarvas' formula (*Phys. Med. Biol.* 32, 1987),
both as MNE-Python computes them; intracranial potentials from current sources in an infinite
homogeneous conductor (Malmivuo and Plonsey, *Bioelectromagnetism*, 1995, ch. 8).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from engramma.errors import ConfigError
from engramma.worlds.sensors import CENTRE, RADIUS, Sensors

#: Radius of the brain, the innermost shell, as a share of the head's.
BRAIN = 0.9
#: Conductivity of brain tissue and of the body (S/m).
CONDUCTIVITY = 0.33
#: Where the eyes are, as directions from the centre of the head.
EYES = ((-0.32, 0.92, -0.45), (0.32, 0.92, -0.45))
#: The heart, the centre of the torso and its radius (m, head coordinates).
HEART, TORSO, TORSO_RADIUS = (-0.03, 0.07, -0.36), (0.0, 0.0, -0.42), 0.2

_kept: OrderedDict[tuple[Any, ...], np.ndarray] = OrderedDict()
_KEEP = 64  # of a few hundred kB each


def lead_field(sensors: Sensors, places: np.ndarray) -> np.ndarray:
    """Return what dipoles of 1 A m in three directions bring about at the sensors.

    Lead fields are kept: the same sensors and places are computed once.

    Parameters
    ----------
    sensors : Sensors
    places : ndarray, shape (n_dipoles, 3)
        Head coordinates (m), inside the brain.

    Returns
    -------
    ndarray of float64, shape (n_sensors, n_dipoles, 3)
        V, T or T/m per A m, along x, y and z. EEG has the average reference.

    Raises
    ------
    ConfigError
        If a dipole lies outside the brain.
    """
    places = np.asarray(places, dtype=float).reshape(-1, 3)
    outside = np.linalg.norm(places - CENTRE, axis=1) >= BRAIN * RADIUS
    if outside.any():
        raise ConfigError(
            f"{outside.sum()} of {len(places)} dipoles lie outside the brain",
            where=f"dipole {np.flatnonzero(outside)[0]} at {places[outside][0].round(3)} m",
            mend=f"place them within {BRAIN * RADIUS:.4f} m of {CENTRE}",
        )
    return _kept_field(sensors, places, CENTRE, RADIUS)


def eye_field(sensors: Sensors) -> np.ndarray:
    """Return the field of a blink, shape (n_sensors,): both eyes, 1 A m each.

    The cornea is positive against the retina: dipoles that point to the front, as long as the
    lid conducts that charge to the forehead. A sphere has no face: the eyes lie on the border of
    its brain, in their true directions.
    """
    places = np.asarray(EYES)
    places = places / np.linalg.norm(places, axis=1, keepdims=True) * 0.98 * BRAIN * RADIUS
    direction = np.asarray([0.0, 1.0, 0.0])
    return np.asarray(lead_field(sensors, places + CENTRE).sum(axis=1) @ direction)


def heart_field(sensors: Sensors) -> np.ndarray:
    """Return the field of a cardiac dipole of 1 A m at the sensors, shape (n_sensors,).

    For MEG the torso is a sphere of its own, below the helmet; for EEG head and torso are one
    homogeneous conductor, in which a far dipole leaves a gradient along the scalp.
    """
    direction = np.asarray([-0.6, 0.5, -0.6]) / np.linalg.norm([0.6, 0.5, 0.6])
    heart = np.asarray([HEART])
    if sensors.modality == "meg":
        field = _kept_field(sensors, heart, TORSO, TORSO_RADIUS)[:, 0] @ direction
    else:
        field = homogeneous_potential(sensors.positions, heart, direction[None])[:, 0]
        field = field - field.mean()
    return np.asarray(field)


def homogeneous_potential(
    contacts: np.ndarray,
    places: np.ndarray,
    directions: np.ndarray | None = None,
    *,
    conductivity: float = CONDUCTIVITY,
) -> np.ndarray:
    r"""Potential of point sources in an infinite homogeneous conductor.

    .. math:: \phi = \frac{p \cdot r}{4 \pi \sigma r^3} \quad\text{or}\quad
              \phi = \frac{I}{4 \pi \sigma r}

    Parameters
    ----------
    contacts : ndarray, shape (n_contacts, 3)
        Where it is measured (m).
    places : ndarray, shape (n_sources, 3)
        Where the sources are (m).
    directions : ndarray, shape (n_sources, 3), optional
        Of dipoles; without them the sources are monopoles.
    conductivity : float
        S/m.

    Returns
    -------
    ndarray, shape (n_contacts, n_sources)
        V per A m of dipoles, V per A of monopoles.

    Raises
    ------
    ConfigError
        If a contact lies within 0.1 mm of a source, where the formula has its pole.
    """
    apart = np.asarray(contacts, float)[:, None] - np.asarray(places, float)[None]
    distance = np.linalg.norm(apart, axis=2)
    if (distance < 1e-4).any():
        contact, source = np.argwhere(distance < 1e-4)[0]
        raise ConfigError(
            "a contact touches a point source, whose potential is infinite there",
            where=f"contact {contact}, source {source}",
            mend="move one of them by at least 0.1 mm",
        )
    if directions is None:
        return np.asarray(1 / (4 * np.pi * conductivity * distance))
    along = np.einsum("csx,sx->cs", apart, np.asarray(directions, float))
    return np.asarray(along / (4 * np.pi * conductivity * distance**3))


def _kept_field(
    sensors: Sensors, places: np.ndarray, centre: tuple[float, float, float], radius: float
) -> np.ndarray:
    key = (sensors.montage, sensors.positions.tobytes(), places.tobytes(), centre)
    if key not in _kept:
        _kept[key] = _sphere_field(sensors, places, centre, radius)
        _kept[key].flags.writeable = False
        if len(_kept) > _KEEP:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def _sphere_field(
    sensors: Sensors, places: np.ndarray, centre: tuple[float, float, float], radius: float
) -> np.ndarray:
    import mne

    sphere = mne.make_sphere_model(centre, radius, verbose="error")
    ups = np.tile([0.0, 0.0, 1.0], (len(places), 1))
    space = mne.setup_volume_source_space(
        pos={"rr": places, "nn": ups}, sphere=sphere, mindist=0.0, verbose="error"
    )
    meg = sensors.modality == "meg"
    solution = mne.make_forward_solution(
        sensors.info, None, space, sphere, meg=meg, eeg=not meg, mindist=0.0, verbose="error"
    )
    gain = solution["sol"]["data"].reshape(len(sensors.names), len(places), 3)
    return np.asarray(gain if meg else gain - gain.mean(axis=0))
