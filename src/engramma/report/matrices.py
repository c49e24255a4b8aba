"""Matrices, maps of stimuli and pictures of stimuli."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from engramma.report.plot import (
    N_COLOURS,
    ON_LIGHT,
    SYMBOLS,
    colour,
    colour_bar,
    need,
    number,
    picture,
    plot,
    rounded,
    scale,
    text,
    thumbnail,
    ticks,
)


def confusion(matrix: Any, labels: Sequence[str]) -> str:
    """Confusion matrix, each row as shares of its true class.

    Parameters
    ----------
    matrix : array, shape (n, n)
        Counts; rows are true classes, columns predicted ones.
    labels : sequence of str, length n
    """
    counts = np.asarray(matrix, dtype=float)
    n = len(labels)
    need(counts.shape == (n, n), f"{n} labels for a matrix of shape {counts.shape}", "confusion")
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0) * 100
    hover = [
        [
            f"{text(true)} taken for {text(said)}: {number(share[i, j])} % "
            f"({counts[i, j]:g} of {totals[i, 0]:g})"
            for j, said in enumerate(labels)
        ]
        for i, true in enumerate(labels)
    ]
    trace = {
        "type": "heatmap",
        "z": rounded(share),
        **scale(share),
        "zmin": 0,
        "zmax": 100,
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "xgap": 1,
        "ygap": 1,
        "colorbar": colour_bar("share of the true class (%)"),
    }
    if n <= 12:
        trace["texttemplate"] = "%{z:.0f}"
    return plot(
        [trace],
        {
            "xaxis": ticks(labels, 16, title={"text": "predicted"}, tickangle=-40),
            "yaxis": ticks(labels, 16, title={"text": "true"}, autorange="reversed"),
        },
        alt=f"Confusion matrix of {n} classes",
        height=460,
        ratio=1.0,
        max_width=600,
    )


def rdm(
    matrix: Any,
    labels: Sequence[str],
    title: str | None = None,
    order: Any = None,
    label: str = "dissimilarity",
) -> str:
    """Representational dissimilarity matrix.

    Parameters
    ----------
    matrix : array, shape (n, n)
        The diagonal is left blank. Values on both sides of zero (crossnobis) get a colour
        scale that is symmetrical about zero.
    labels : sequence of str, length n
    title : str, optional
    order : array of int, shape (n,), optional
        Order in which rows and columns are drawn.
    label : str
        What the values are.
    """
    values = np.array(matrix, dtype=float)
    n = len(labels)
    need(values.shape == (n, n), f"{n} labels for an RDM of shape {values.shape}", "rdm")
    np.fill_diagonal(values, np.nan)
    if order is not None:
        order = np.asarray(order, dtype=int)
        need(sorted(order.tolist()) == list(range(n)), "order is no permutation", "rdm")
        values, labels = values[np.ix_(order, order)], [labels[i] for i in order]
    named = [text(name, 40) for name in labels]
    trace = {
        "type": "heatmap",
        "z": rounded(values, 3),
        **scale(values, 0.0 if np.nanmin(values, initial=0) < 0 else None),
        "hovertemplate": "%{customdata}: %{z}<extra></extra>",
        "colorbar": colour_bar(label),
    }
    if n <= 40:
        trace["customdata"] = [[f"{a} – {b}" for b in named] for a in named]
    else:  # names of every pair would be most of the file
        trace["hovertemplate"] = "row %{y}, column %{x}: %{z}<extra></extra>"
        trace["x"] = trace["y"] = list(range(n))
    drawing = plot(
        [trace],
        {
            # Rows and columns are the same stimuli: where they are many, one set of names does.
            "xaxis": ticks(labels, 14, tickangle=-60, showticklabels=n <= 40, ticks=""),
            "yaxis": ticks(labels, 14, autorange="reversed"),
        },
        alt=f"Dissimilarity matrix of {n} stimuli{f': {title}' if title else ''}",
        height=440,
        ratio=1.0,
        max_width=560,
    )
    return f'<div class="panel"><h4>{escape(title)}</h4>{drawing}</div>' if title else drawing


def rdms(
    matrices: Mapping[str, Any], labels: Sequence[str], order: Any = None, label: str = "rank"
) -> str:
    """Several dissimilarity matrices side by side, each as percentile ranks of its values.

    Ranks make matrices of different measures comparable by eye, as their colour scales are one.

    Parameters
    ----------
    matrices : mapping of str to array, shape (n, n)
    labels : sequence of str, length n
    order : array of int, shape (n,), optional
    label : str
    """
    from scipy.stats import rankdata

    panels = []
    for title, matrix in matrices.items():
        values = np.array(matrix, dtype=float)
        need(
            values.shape == (len(labels), len(labels)), f"{title!r} is not labels x labels", "rdms"
        )
        lower = np.tril_indices(len(labels), -1)
        pairs = values[lower]
        ranks = rankdata(pairs, nan_policy="omit")
        known = max(int(np.isfinite(pairs).sum()) - 1, 1)
        percent = np.full(values.shape, np.nan)
        percent[lower] = np.maximum((ranks - 1) / known * 100, 0)
        percent.T[lower] = percent[lower]
        panels.append(rdm(percent, labels, title=str(title), order=order, label=f"{label} (%)"))
    return f'<div class="panels">{"".join(panels)}</div>'


def heatmap(
    matrix: Any,
    xlabels: Sequence[str],
    ylabels: Sequence[str],
    label: str,
    centre: float | None = None,
) -> str:
    """Any matrix with named rows and columns.

    Parameters
    ----------
    matrix : array, shape (n_rows, n_columns)
    xlabels, ylabels : sequence of str
        Names of columns and rows.
    label : str
        What the values are.
    centre : float, optional
        Middle of a two-sided colour scale; zero is taken where values have both signs.
    """
    values = np.asarray(matrix, dtype=float)
    shape = (len(ylabels), len(xlabels))
    need(values.shape == shape, f"labels {shape} for a matrix of {values.shape}", "heatmap")
    if centre is None and np.nanmin(values, initial=0) < 0 < np.nanmax(values, initial=0):
        centre = 0.0
    trace = {
        "type": "heatmap",
        "z": rounded(values),
        **scale(values, centre),
        "hovertemplate": "%{customdata}: %{z}<extra></extra>",
        "customdata": [[f"{text(r, 40)}, {text(c, 40)}" for c in xlabels] for r in ylabels],
        "xgap": 1,
        "ygap": 1,
        "colorbar": colour_bar(label),
    }
    if values.size <= 144 and len(xlabels) <= 12:
        trace["texttemplate"] = "%{z:.2f}"
    return plot(
        [trace],
        {
            "xaxis": ticks(xlabels, 18, tickangle=-40 if len(xlabels) > 3 else 0),
            "yaxis": ticks(ylabels, 22, autorange="reversed"),
        },
        alt=f"Heat map of {label}, {shape[0]} rows by {shape[1]} columns",
        height=max(260, min(700, 150 + 30 * shape[0])),
    )


def time_matrix(
    matrix: Any,
    times: Any,
    chance: float,
    significant: Any = None,
    label: str = "score",
) -> str:
    """Temporal generalisation: trained at one time, tested at another.

    Parameters
    ----------
    matrix : array, shape (n_train_times, n_test_times)
    times : array, shape (n_times,)
        Seconds from onset, of rows and of columns.
    chance : float
        Middle of the colour scale.
    significant : bool array of the matrix's shape, optional
        Outlined.
    label : str
    """
    values, t = np.asarray(matrix, dtype=float), np.asarray(times, dtype=float)
    need(values.shape == (len(t), len(t)), f"{len(t)} times for {values.shape}", "time_matrix")
    traces: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            "x": rounded(t),
            "y": rounded(t),
            "z": rounded(values),
            **scale(values, float(chance)),
            "hovertemplate": "trained at %{y} s, tested at %{x} s: %{z}<extra></extra>",
            "colorbar": colour_bar(f"{label} (chance {number(float(chance))})"),
        }
    ]
    if significant is not None:
        mask = np.asarray(significant, dtype=bool)
        need(mask.shape == values.shape, "mask and matrix differ in shape", "time_matrix")
        if mask.any():
            traces.append(
                {
                    "type": "contour",
                    "x": rounded(t),
                    "y": rounded(t),
                    "z": mask.astype(int),
                    "contours": {"start": 0.5, "end": 0.5, "size": 1, "coloring": "none"},
                    "line": {"color": "#111111", "width": 1.6},
                    "showscale": False,
                    "hoverinfo": "skip",
                }
            )
    line = {"width": 1, "dash": "dot", "color": "#555555"}
    ends = {"x0": float(t[0]), "x1": float(t[-1]), "y0": float(t[0]), "y1": float(t[-1])}
    shapes = [{"type": "line", **ends, "line": line}]
    if t[0] < 0 < t[-1]:
        shapes.append({"type": "line", **{**ends, "x0": 0, "x1": 0}, "line": line})
        shapes.append({"type": "line", **{**ends, "y0": 0, "y1": 0}, "line": line})
    return plot(
        traces,
        {
            "xaxis": {"title": {"text": "tested at (s)"}, "showgrid": False, "zeroline": False},
            "yaxis": {"title": {"text": "trained at (s)"}, "showgrid": False, "zeroline": False},
            "shapes": shapes,
        },
        alt=f"Temporal generalisation matrix over {len(t)} times",
        height=440,
        ratio=1.0,
        max_width=520,
    )


def mds(
    points: Any,
    labels: Sequence[str],
    categories: Sequence[str] | None = None,
    images: Sequence[Any] | None = None,
) -> str:
    """Stimuli on a plane, near where they evoke like responses.

    Parameters
    ----------
    points : array, shape (n, 2)
    labels : sequence of str, length n
    categories : sequence of str, length n, optional
        Give colour and symbol.
    images : sequence of ndarray, Path or data URI, length n, optional
        Drawn in place of the symbols, framed in the colour of the category.
    """
    xy = np.asarray(points, dtype=float)
    n = len(labels)
    need(xy.shape == (n, 2), f"{n} labels for points of shape {xy.shape}", "mds")
    kinds = [str(c) for c in categories] if categories is not None else [""] * n
    need(len(kinds) == n, f"{len(kinds)} categories for {n} labels", "mds")
    levels = list(dict.fromkeys(kinds))
    traces = []
    for i, level in enumerate(levels):
        which = [j for j in range(n) if kinds[j] == level]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text" if images is None and n <= 16 else "markers",
                "x": rounded(xy[which, 0]),
                "y": rounded(xy[which, 1]),
                "text": [text(labels[j], 18) for j in which],
                "textposition": "top center",
                "textfont": {"size": 11},
                "hovertext": [text(labels[j], 60) for j in which],
                "hovertemplate": "%{hovertext}<extra>" + text(level) + "</extra>",
                "marker": {
                    "size": 9,
                    "color": colour(i),
                    "symbol": SYMBOLS[i % len(SYMBOLS)],
                },
                "name": text(level, 40),
                "showlegend": bool(level),
            }
        )
    span = float(np.ptp(xy, axis=0).max()) or 1.0
    middle = (xy.max(axis=0) + xy.min(axis=0)) / 2
    reach = np.maximum(np.ptp(xy, axis=0) / 2, span / 5) + span * 0.09
    layout: dict[str, Any] = {
        axis: {
            "range": [float(middle[i] - reach[i]), float(middle[i] + reach[i])],
            "visible": False,
        }
        for i, axis in enumerate(("xaxis", "yaxis"))
    }
    if images is not None:
        need(len(images) == n, f"{len(images)} images for {n} labels", "mds")
        side = span * float(np.clip(0.9 / np.sqrt(n), 0.06, 0.16))
        frame = [
            ON_LIGHT[levels.index(k) % N_COLOURS] if categories is not None else None for k in kinds
        ]
        layout["images"] = [
            {
                "source": thumbnail(image, 64, border=frame[j]),
                "x": float(xy[j, 0]),
                "y": float(xy[j, 1]),
                "sizex": side,
                "sizey": side,
                "xref": "x",
                "yref": "y",
                "xanchor": "center",
                "yanchor": "middle",
            }
            for j, image in enumerate(images)
        ]
    return plot(
        traces,
        layout,
        alt=f"Map of {n} stimuli by multidimensional scaling",
        height=520,
        ratio=float(min(reach[1] / reach[0], 1.5)),
        max_width=720,
    )


def image_grid(images: Sequence[Any], titles: Sequence[str]) -> str:
    """Small pictures of stimuli with their names.

    Parameters
    ----------
    images : sequence of ndarray (height x width x 3), Path or data URI
    titles : sequence of str, of the same length
    """
    need(len(images) == len(titles), f"{len(images)} images, {len(titles)} titles", "image_grid")
    cells = "".join(
        f'<li><img src="{thumbnail(image, 128)}" alt="{escape(str(title))}">'
        f"<span>{escape(str(title))}</span></li>"
        for image, title in zip(images, titles, strict=True)
    )
    return f'<ul class="images">{cells}</ul>'


def plate(image: np.ndarray, alt: str) -> str:
    """One picture, as large as it is.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, 3)
    alt : str
        What it shows, in words.
    """
    from PIL import Image

    need(image.ndim == 3 and image.dtype == np.uint8, f"a picture of {image.shape}", "picture")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return picture(buffer.getvalue(), alt)
