"""Topographic maps of sensors on the scalp, through MNE."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from engramma.errors import DataError
from engramma.report.curves import scatter
from engramma.report.plot import colour_map, need, number, picture, png


def sensors(values: Any, x: Any, y: Any, names: Sequence[str], label: str, z: Any = None) -> str:
    """Topographic map of one value a sensor.

    Parameters
    ----------
    values : array, shape (n_sensors,)
    x, y, z : array, shape (n_sensors,)
        Positions, x to the right ear and y to the nose, in metres or millimetres. With ``z``
        they are flattened by azimuthal-equidistant projection, without it they are taken as
        flat.
    names : sequence of str, length n_sensors
    label : str
    """
    value = np.asarray(values, dtype=float).ravel()
    drawn = _maps([value], x, y, z, [""], label)
    if drawn is None:
        return scatter(
            x, y, color=value, xlabel="left to right", ylabel="back to front", labels=names
        )
    extremes = np.argsort(np.abs(np.nan_to_num(value)))[::-1][:5]
    told = ", ".join(f"{names[s]} ({number(value[s])})" for s in extremes)
    alt = f"Topographic map of {label}; largest at {told}"
    return picture(drawn, alt, "plate small") + (
        f'<p class="aside">Largest in absolute value: {escape(told)}.</p>'
    )


def topomaps(
    values: Any,
    times: Any,
    x: Any,
    y: Any,
    z: Any = None,
    names: Sequence[str] = (),
    label: str = "",
) -> str:
    """Topographic maps at several times, on one colour scale.

    Parameters
    ----------
    values : array, shape (n_times, n_sensors)
    times : array, shape (n_times,)
        Seconds from onset.
    x, y, z : array, shape (n_sensors,)
        As in `sensors`.
    names : sequence of str, length n_sensors
    label : str
        What the values are, with unit.
    """
    value = np.atleast_2d(np.asarray(values, dtype=float))
    need(len(value) == len(times), f"{len(times)} times for {len(value)} maps", "topomaps")
    titles = [f"{t * 1000:.0f} ms" for t in np.asarray(times, dtype=float)]
    drawn = _maps(list(value), x, y, z, titles, label)
    if drawn is None:
        panels = "".join(
            f'<div class="panel"><h4>{escape(title)}</h4>'
            f"{scatter(x, y, color=row, labels=names or None)}</div>"
            for title, row in zip(titles, value, strict=True)
        )
        return f'<div class="panels">{panels}</div>'
    return picture(drawn, f"Topographic maps of {label or 'values'} at {', '.join(titles)}")


def flatten(x: Any, y: Any, z: Any = None) -> np.ndarray:
    """Project sensor positions onto a disc whose edge (radius 1) is the equator of the head.

    Parameters
    ----------
    x, y, z : array, shape (n,)
        Any unit of length.

    Returns
    -------
    ndarray, shape (n, 2)
        Azimuthal-equidistant: the distance from the middle is the angle from the vertical, in
        units of 90 degrees, about the centre of the sphere that fits the sensors best. Without
        ``z``, or where no sphere fits, positions are only centred and scaled to 0.9.
    """
    plane = np.stack([np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()], 1)
    if z is not None and len(plane) >= 8:
        points = np.column_stack([plane, np.asarray(z, dtype=float).ravel()])
        # |p|^2 = 2 c.p + (R^2 - |c|^2) is linear in the centre c and in the last term.
        design = np.column_stack([2 * points, np.ones(len(points))])
        solution, _, rank, _ = np.linalg.lstsq(design, (points**2).sum(axis=1), rcond=1e-6)
        centre = solution[:3]
        radius = float(np.sqrt(max(solution[3] + centre @ centre, 0.0)))
        if rank == 4 and 0 < radius < 3 * float(np.ptp(points, axis=0).max()):
            offset = points - centre
            angle = np.arccos(np.clip(offset[:, 2] / np.linalg.norm(offset, axis=1), -1, 1))
            azimuth = np.arctan2(offset[:, 1], offset[:, 0])
            reach = angle / (np.pi / 2)
            return np.column_stack([reach * np.cos(azimuth), reach * np.sin(azimuth)])
    plane = plane - (plane.max(axis=0) + plane.min(axis=0)) / 2
    return plane / (np.linalg.norm(plane, axis=1).max() or 1.0) * 0.9


def _maps(
    rows: list[np.ndarray], x: Any, y: Any, z: Any, titles: list[str], label: str
) -> bytes | None:
    """Draw maps in rows of four; None where sensors are too few or in one line."""
    n = len(np.asarray(x).ravel())
    if any(len(row) != n for row in rows):
        raise DataError(
            f"{n} sensor positions for {len(rows[0])} values",
            where="figure 'sensors'",
            mend="give one position per value",
        )
    known = np.isfinite(np.asarray(x, float)) & np.isfinite(np.asarray(y, float))
    known &= np.isfinite(np.sum(rows, axis=0))
    if z is not None:
        known &= np.isfinite(np.asarray(z, float))
    if known.sum() < 4:
        return None
    import mne
    from matplotlib.figure import Figure
    from scipy.spatial import QhullError

    at = flatten(*(None if a is None else np.asarray(a, dtype=float)[known] for a in (x, y, z)))
    if np.linalg.matrix_rank(at - at.mean(axis=0), tol=1e-3) < 2:
        return None  # sensors in one line span no surface
    shown = [row[known] for row in rows]
    top = float(np.abs(np.concatenate(shown)).max()) or 1.0
    signed = bool(min(row.min() for row in shown) < 0)
    limits = (-top, top) if signed else (float(min(row.min() for row in shown)), top)
    columns = min(len(rows), 4)
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(1.35 * columns if len(rows) > 1 else 3.0, 1.65 * lines + 0.7))
    panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    image: Any = None
    try:
        for panel, row, title in zip(panels, shown, titles, strict=False):
            image, _ = mne.viz.plot_topomap(
                row,
                at,
                axes=panel,
                show=False,
                cmap=colour_map(signed),
                vlim=limits,
                sphere=(0.0, 0.0, 0.0, 1.0),
                extrapolate="local" if len(row) > 20 else "head",
                contours=4,
            )
            panel.set_title(title, fontsize=9)
    except QhullError:  # sensors at too few distinct places
        return None
    for panel in panels[len(rows) :]:
        panel.set_visible(False)
    bar = figure.colorbar(
        image, ax=panels.tolist(), orientation="horizontal", aspect=24, shrink=0.7, pad=0.06
    )
    bar.set_label(label.replace("$", r"\$"), fontsize=10)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return png(figure, dpi=180)
