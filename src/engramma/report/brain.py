"""Maps on the brain, through nilearn, and slices to leaf through."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.report.plot import (
    colour_bar,
    colour_map,
    need,
    picture,
    plot,
    png,
    rounded,
    scale,
)

if TYPE_CHECKING:
    import nibabel as nib

#: Cells of the interactive slices, which bounds their part of the file to about half a megabyte.
SLICE_BUDGET = 100_000


def brain(
    values: Any,
    i: Any,
    j: Any,
    k: Any,
    affine: Any,
    volume_shape: Sequence[int],
    title: str,
    label: str,
    threshold: float | None = None,
    background: Any = None,
) -> str:
    """One value a voxel: slices drawn by nilearn, and slices to leaf through.

    Parameters
    ----------
    values : array, shape (n_voxels,)
        NaN leaves a voxel empty.
    i, j, k : array of int, shape (n_voxels,)
        Voxel indices.
    affine : array, shape (4, 4)
        Voxel indices to millimetres.
    volume_shape : (int, int, int)
    title : str
    label : str
        What the values are, with unit.
    threshold : float, optional
        Absolute values below it are not drawn in the still picture.
    background : array, shape ``volume_shape``, optional
        Anatomy or mean image beneath.
    """
    value = np.asarray(values, dtype=np.float32).ravel()
    index = np.stack([np.asarray(axis).astype(int).ravel() for axis in (i, j, k)])
    shape = tuple(int(s) for s in volume_shape)
    need(index.shape == (3, len(value)), "values and voxel indices differ in number", "brain")
    inside = (index >= 0).all() and (index < np.array(shape)[:, None]).all()
    need(bool(inside), f"voxel indices lie outside a volume of {shape}", "brain")
    need(bool(np.isfinite(value).any()), "no value is finite", "brain")
    volume = np.full(shape, np.nan, dtype=np.float32)
    volume[tuple(index)] = value
    still = _still(volume, np.asarray(affine, dtype=float), label, threshold, background)
    alt = f"{title}: {label} on slices of the brain"
    return (
        f'<div class="stack">{picture(still, alt)}'
        f"<details class='leaf' open><summary>{escape('Leaf through the slices')}</summary>"
        f"{_slices(volume, np.asarray(affine, dtype=float), label)}</details></div>"
    )


def _still(
    volume: np.ndarray,
    affine: np.ndarray,
    label: str,
    threshold: float | None,
    background: Any,
) -> bytes:
    """Slices through the middle of what has values, along every axis that has extent."""
    import nibabel as nib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from nilearn import plotting

    image = nib.Nifti1Image(np.nan_to_num(volume), affine)
    beneath = None
    if background is not None:
        under = np.asarray(background, dtype=np.float32)
        need(under.shape == volume.shape, f"background is {under.shape}", "brain")
        beneath = nib.Nifti1Image(under, affine)
    finite = volume[np.isfinite(volume)]
    signed = bool(finite.min() < 0)
    top = float(np.abs(finite).max()) or 1.0
    direction, cuts = _cuts(volume, affine)
    rows = [cuts] if len(cuts) < 4 else [cuts[: len(cuts) // 2], cuts[len(cuts) // 2 :]]
    limits = (-top if signed else 0.0, top)
    figure = Figure(figsize=(5.0, 2.0 * len(rows) if len(cuts) > 1 else 2.9))
    for number_of, row in enumerate(rows):
        display = plotting.plot_stat_map(
            image,
            bg_img=beneath,
            display_mode=direction,
            cut_coords=row,
            figure=figure,
            axes=(0, 1 - (number_of + 1) / len(rows), 1, 1 / len(rows)),
            black_bg=False,
            annotate=False,
            draw_cross=False,
            colorbar=False,
            threshold=1e-6 if threshold is None else float(threshold),
            cmap=colour_map(signed),
            vmin=limits[0],
            vmax=limits[1],
        )
        display.annotate(size=11, scalebar=False)
    colours = ScalarMappable(Normalize(*limits), colour_map(signed))
    place = figure.add_axes((0.25, -0.06, 0.5, 0.025))
    bar = figure.colorbar(colours, cax=place, orientation="horizontal")
    hidden = "" if threshold is None else f", drawn from {float(threshold):g}"
    bar.set_label(f"{label}{hidden}".replace("$", r"\$"), fontsize=12)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
    return png(figure, dpi=180)


def _cuts(volume: np.ndarray, affine: np.ndarray) -> tuple[str, list[float]]:
    """Which way to cut: a stack of axial slices, or only along the axis of a single slice."""
    import nibabel as nib

    held = np.argwhere(np.isfinite(volume))
    world = nib.affines.apply_affine(affine, held)
    towards = nib.io_orientation(affine)[:, 0].astype(int)  # world axis of each voxel axis
    single = [axis for axis in range(3) if volume.shape[axis] == 1]
    if single:
        axis = int(towards[single[0]])
        return "xyz"[axis], [float(world[0, axis])]
    levels = np.unique(np.round(world[:, 2], 2))
    if len(levels) <= 6:
        return "z", levels.tolist()
    return "z", np.round(np.quantile(levels, np.linspace(0.08, 0.92, 6)), 1).tolist()


def _slices(volume: np.ndarray, affine: np.ndarray, label: str) -> str:
    """Interactive axial (or, of one slice, that) view in plotly, left shown on the left."""
    import nibabel as nib

    image = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    data = np.asarray(image.dataobj, dtype=np.float32)
    # The plane is spanned by the two long axes: usually left-right and back-front.
    across = int(np.argmin(data.shape)) if 1 in data.shape else 2
    flat = [axis for axis in range(3) if axis != across]
    data = np.moveaxis(data, across, 0)  # slice x horizontal x vertical
    held = np.isfinite(data)
    boxes = [np.flatnonzero(held.any(axis=tuple(a for a in range(3) if a != d))) for d in range(3)]
    h, v = (slice(b[0], b[-1] + 1) for b in boxes[1:])
    levels = boxes[0]
    n_h, n_v = h.stop - h.start, v.stop - v.start
    stride = int(np.ceil(np.sqrt(n_h * n_v / SLICE_BUDGET)))
    most = max(1, SLICE_BUDGET // max(1, (n_h // stride) * (n_v // stride)))
    if len(levels) > most:
        levels = levels[np.linspace(0, len(levels) - 1, most).astype(int)]
    planes = [data[level, h, v][::stride, ::stride].T for level in levels]
    axes = [_millimetres(image, axis) for axis in range(3)]
    where = [axes[across][level] for level in levels]
    finite = data[held]
    names = ("left to right (mm)", "back to front (mm)", "down to up (mm)")
    letter = "xyz"[across]
    first = len(planes) // 2
    trace = {
        "type": "heatmap",
        "x": rounded(axes[flat[0]][h][::stride], 5),
        "y": rounded(axes[flat[1]][v][::stride], 5),
        "z": rounded(planes[first], 3),
        **scale(finite, 0.0 if finite.min() < 0 else None),
        "hovertemplate": "(%{x:.0f}, %{y:.0f}) mm: %{z}<extra></extra>",
        "hoverongaps": False,
        "colorbar": colour_bar(label),
    }
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": names[flat[0]]}, "showgrid": False, "zeroline": False},
        "yaxis": {"title": {"text": names[flat[1]]}, "showgrid": False, "zeroline": False},
    }
    if len(planes) > 1:
        layout["sliders"] = [
            {
                "active": first,
                "currentvalue": {"prefix": f"{letter} = ", "suffix": " mm"},
                "pad": {"t": 55},
                "steps": [
                    {
                        "method": "restyle",
                        "label": f"{mm:.0f}",
                        "args": [{"z": [rounded(plane, 3)]}],
                    }
                    for mm, plane in zip(where, planes, strict=True)
                ],
            }
        ]
    sizes = image.header.get_zooms()
    ratio = float((n_v * sizes[flat[1]]) / (n_h * sizes[flat[0]]))
    return plot(
        [trace],
        layout,
        alt=f"{label} on slices through {letter}, {len(planes)} slices",
        height=380,
        ratio=min(max(ratio, 0.3), 1.6),
        max_width=560,
    )


def _millimetres(image: nib.Nifti1Image, axis: int) -> np.ndarray:
    """Position of every voxel along one axis, at the middle of the others."""
    n = image.shape[axis]
    points = np.tile((np.array(image.shape) - 1) / 2, (n, 1))
    points[:, axis] = np.arange(n)
    assert image.affine is not None
    return (points @ image.affine[:3, :3].T + image.affine[:3, 3])[:, axis]
