"""Curves over time and rank, and scatter plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engramma.report.charts import _dashed
from engramma.report.plot import (
    SEQUENTIAL,
    SYMBOLS,
    colour,
    colour_bar,
    need,
    number,
    plot,
    rounded,
    short,
    text,
)

Span = tuple[float, float, float]


def lines(
    x: Any,
    series: Mapping[str, Any],
    low: Mapping[str, Any] | None = None,
    high: Mapping[str, Any] | None = None,
    xlabel: str = "time (s)",
    ylabel: str = "",
    chance: float | None = None,
    spans: Sequence[Span] | Mapping[str, Sequence[Span]] = (),
    onset: float | None = 0.0,
) -> str:
    """Curves with bands; significant stretches are bars under the curves.

    Parameters
    ----------
    x : array, shape (n,)
    series : mapping of str to array, shape (n,)
    low, high : mapping of str to array, shape (n,), optional
        Ends of the interval of the series of the same name.
    xlabel, ylabel : str
    chance : float, optional
    spans : sequence of (start, stop, p), or mapping of str to such a sequence
        Significant clusters, of the first series or of the series named.
    onset : float, optional
        Where a vertical line is drawn (stimulus onset); None for none.
    """
    x = np.asarray(x, dtype=float)
    low, high = low or {}, high or {}
    by_series = spans if isinstance(spans, Mapping) else {next(iter(series), ""): spans}
    traces: list[dict[str, Any]] = []
    seen: list[float] = [] if chance is None else [float(chance)]
    for i, (name, y) in enumerate(series.items()):
        y = np.asarray(y, dtype=float)
        need(y.shape == x.shape, f"{name!r} has shape {y.shape}, x has {x.shape}", "lines")
        group = {"legendgroup": str(i)}
        seen += y[np.isfinite(y)].tolist()
        if low.get(name) is not None and high.get(name) is not None:
            a, b = np.asarray(low[name], dtype=float), np.asarray(high[name], dtype=float)
            usable = np.isfinite(a + b)
            seen += [*a[usable], *b[usable]]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": rounded(np.concatenate([x[usable], x[usable][::-1]]), 5),
                    "y": rounded(np.concatenate([b[usable], a[usable][::-1]])),
                    "fill": "toself",
                    "fillcolor": colour(i, soft=True),
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "showlegend": False,
                    **group,
                }
            )
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": rounded(x, 5),
                "y": rounded(y),
                "line": {"width": 2, "color": colour(i), "dash": "solid" if i < 8 else "dot"},
                "name": text(name, 40),
                **group,
            }
        )
    bottom, top = (min(seen), max(seen)) if seen else (0.0, 1.0)
    step = 0.05 * ((top - bottom) or 1.0)
    row = bottom
    for i, name in enumerate(series):
        clusters = list(by_series.get(name, ()))
        row -= step if clusters else 0.0
        for number_of, (start, stop, p) in enumerate(clusters):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [float(start), float(stop)],
                    "y": [row, row],
                    "line": {"width": 5, "color": colour(i)},
                    "name": "significant",
                    "showlegend": number_of == 0 and len(series) == 1,
                    "hovertemplate": f"{number(float(start))} to {number(float(stop))}: "
                    f"p = {number(float(p))}<extra>{text(name)}</extra>",
                }
            )
    extent = [row - step, top + step]
    if chance is not None and len(x):
        traces.append(_dashed([x[0], x[-1]], [chance, chance], f"chance ({number(float(chance))})"))
    shapes = []
    if onset is not None and len(x) and x[0] <= onset <= x[-1]:
        shapes.append(
            {
                "type": "line",
                "x0": onset,
                "x1": onset,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "layer": "below",
                "line": {"width": 1, "color": "var(--muted)"},
            }
        )
    return plot(
        traces,
        {
            "xaxis": {"title": {"text": text(xlabel)}, "zeroline": False},
            "yaxis": {"title": {"text": text(ylabel)}, "range": extent, "zeroline": False},
            "shapes": shapes,
            "showlegend": len(series) > 1 or len(traces) > len(series),
        },
        alt=f"Curves of {ylabel} over {xlabel}: {', '.join(map(str, series))}",
        height=360,
    )


def scatter(
    x: Any,
    y: Any,
    color: Any = None,
    xlabel: str = "",
    ylabel: str = "",
    diagonal: bool = False,
    labels: Sequence[str] | None = None,
) -> str:
    """Points.

    Parameters
    ----------
    x, y : array, shape (n,)
    color : array, shape (n,), optional
        Numbers give a colour scale, strings give groups.
    xlabel, ylabel : str
    diagonal : bool
        Draw the line of equality, over equal axes.
    labels : sequence of str, length n, optional
        Shown where a reader points.
    """
    x, y = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    need(x.shape == y.shape, f"x has {x.size} points, y has {y.size}", "scatter")
    # More points than this cannot be told apart, and make the file heavy.
    keep = np.unique(np.linspace(0, len(x) - 1, 4000).astype(int)) if len(x) > 4000 else None
    keep = np.arange(len(x)) if keep is None else keep
    names = np.array([text(label, 60) for label in labels]) if labels is not None else None
    need(names is None or len(names) == len(x), "labels and points differ in number", "scatter")
    values = None if color is None else np.asarray(color)
    need(values is None or len(values) == len(x), "colours and points differ in number", "scatter")
    size = 8 if len(keep) < 60 else 5 if len(keep) < 1000 else 3

    def points(which: np.ndarray, marker: Mapping[str, Any], name: str = "") -> dict[str, Any]:
        given = "" if names is None else "%{hovertext}<br>"
        return {
            "type": "scatter",
            "mode": "markers",
            "x": rounded(x[which]),
            "y": rounded(y[which]),
            "marker": {"size": size, "opacity": 0.75, **marker},
            "hovertext": None if names is None else names[which].tolist(),
            "hovertemplate": given + "(%{x}, %{y})<extra>" + text(name) + "</extra>",
            "name": text(name, 40),
            "showlegend": bool(name),
        }

    traces: list[dict[str, Any]] = []
    if values is None:
        traces.append(points(keep, {"color": colour(0)}))
    elif values.dtype.kind in "fiu":
        bar = colour_bar("")
        marker = {"color": rounded(values[keep]), "colorscale": SEQUENTIAL, "colorbar": bar}
        marker["line"] = {"width": 0.6, "color": "var(--muted)"}
        traces.append(points(keep, marker))
    else:
        for i, level in enumerate(dict.fromkeys(values.tolist())):
            which = keep[values[keep] == level]
            marker = {"color": colour(i), "symbol": SYMBOLS[i % len(SYMBOLS)]}
            traces.append(points(which, marker, str(level)))
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": text(xlabel)}},
        "yaxis": {"title": {"text": text(ylabel)}},
    }
    if diagonal:
        both = np.concatenate([x, y])
        both = both[np.isfinite(both)]
        ends = [float(both.min()), float(both.max())] if both.size else [0.0, 1.0]
        traces.append(_dashed(ends, ends, "equal"))
        margin = 0.04 * (ends[1] - ends[0] or 1.0)
        extent = [ends[0] - margin, ends[1] + margin]
        layout["xaxis"]["range"] = layout["yaxis"]["range"] = extent
    return plot(
        traces,
        layout,
        alt=f"Scatter plot of {ylabel} against {xlabel}, {len(x)} points",
        height=420,
        ratio=1.0 if diagonal else None,
        max_width=520 if diagonal else 720,
    )


def ranking(ranks: Any, n_candidates: int, ylabel: str = "identified among the first k (%)") -> str:
    """How often the right stimulus is among the first k candidates, for every k.

    Parameters
    ----------
    ranks : array of int, shape (n,), or mapping of str to such arrays
        Rank of the right candidate, 1 is best.
    n_candidates : int
    ylabel : str
    """
    groups = ranks if isinstance(ranks, Mapping) else {"decoded": ranks}
    k = np.unique(np.geomspace(1, max(n_candidates, 2), 120).round().astype(int))
    k = k[k <= n_candidates]
    traces: list[dict[str, Any]] = []
    for i, (name, values) in enumerate(groups.items()):
        found = np.sort(np.asarray(values, dtype=float).ravel())
        need(len(found) > 0, f"{name!r} has no ranks", "ranking")
        need(found[0] >= 1 and found[-1] <= n_candidates, "ranks lie outside 1 to n", "ranking")
        share = np.searchsorted(found, k, side="right") / len(found) * 100
        middle = number(float(np.median(found)))
        label = f"{short(name)} (first: {share[0]:.0f} %, median rank {middle})"
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": k.tolist(),
                "y": rounded(share),
                "line": {"width": 2, "color": colour(i), "shape": "hv"},
                "name": text(label),
                "hovertemplate": "first %{x}: %{y:.1f} %<extra>" + text(name) + "</extra>",
            }
        )
    traces.append(_dashed(k.tolist(), rounded(k / n_candidates * 100), "chance"))
    return plot(
        traces,
        {
            "xaxis": {
                "title": {"text": f"k (of {number(n_candidates)} candidates)"},
                "type": "log" if n_candidates > 20 else "linear",
                "dtick": "D1" if n_candidates > 20 else None,
            },
            "yaxis": {"title": {"text": text(ylabel)}, "range": [0, 102]},
        },
        alt=f"Share of stimuli identified among the first k of {n_candidates} candidates",
        max_width=720,
    )
