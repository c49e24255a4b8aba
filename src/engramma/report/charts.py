"""Distributions and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engramma.report.plot import colour, need, number, plot, rounded, short, text, ticks


def histogram(
    values: Mapping[str, Any],
    xlabel: str,
    reference: float | tuple[float, str] | None = None,
    bins: int | Sequence[float] = 40,
    counted: str = "units",
) -> str:
    """Distribution over units, one outline a group.

    Parameters
    ----------
    values : mapping of str to ndarray, shape (n_units_in_group,)
        Values that are not finite are left out, and counted in the legend.
    xlabel : str
    reference : float or (float, str), optional
        A vertical line, with its name.
    bins : int or sequence of float
        Number of bins over the common range, or their edges.
    counted : str
        What a count is.
    """
    groups = {str(k): np.asarray(v, dtype=float).ravel() for k, v in values.items()}
    finite = {k: v[np.isfinite(v)] for k, v in groups.items()}
    pooled = np.concatenate([*finite.values(), np.zeros(0)])
    edges = np.histogram_bin_edges(pooled if pooled.size else np.array([0.0, 1.0]), bins)
    share = len(groups) > 1
    traces: list[dict[str, Any]] = []
    for i, (name, v) in enumerate(finite.items()):
        counts = np.histogram(v, edges)[0]
        height = counts / max(len(v), 1) * 100 if share else counts
        lost = len(groups[name]) - len(v)
        label = f"{short(name)} (n = {number(len(v))}"
        label += f", median {number(np.median(v))}" if len(v) else ""
        label += f", {number(lost)} not finite)" if lost else ")"
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": rounded(edges, 5),
                "y": [*rounded(height), rounded(height)[-1]],
                "customdata": [*counts.tolist(), int(counts[-1])],
                "line": {"shape": "hv", "width": 1.6, "color": colour(i)},
                "fill": "tozeroy",
                "fillcolor": colour(i, soft=True),
                "name": text(label),
                "hovertemplate": f"from %{{x}}: %{{customdata}} {counted}<extra>"
                + text(name)
                + "</extra>",
            }
        )
    top = max((max(t["y"]) for t in traces), default=1.0) or 1.0
    if reference is not None:
        at, label = reference if isinstance(reference, tuple | list) else (reference, "reference")
        traces.append(_dashed([at, at], [0, top * 1.05], f"{label} ({number(float(at))})"))
    return plot(
        traces,
        {
            "xaxis": {"title": {"text": text(xlabel)}},
            "yaxis": {
                "title": {"text": f"share of {counted} (%)" if share else f"number of {counted}"},
                "rangemode": "tozero",
                "range": [0, top * 1.07],
            },
            "hovermode": "x unified" if share else "closest",
        },
        alt=f"Histogram of {xlabel} for {', '.join(groups)}",
    )


def bars(
    names: Sequence[str],
    values: Any,
    low: Any = None,
    high: Any = None,
    ylabel: str = "",
    chance: float | None = None,
    ceiling: tuple[float, float] | None = None,
    p: Any = None,
    points: Any = None,
) -> str:
    """One bar a name with its interval; horizontal where names are many or long.

    Parameters
    ----------
    names : sequence of str, length n
    values, low, high : array, shape (n,)
        Values and the ends of their intervals (``None`` or NaN: no interval).
    ylabel : str
        What the values are, with unit.
    chance : float, optional
        Drawn as a dashed line, and where bars start from if all lie above it is still zero.
    ceiling : (low, high), optional
        Noise ceiling, drawn as a band.
    p : array, shape (n,), optional
        Written beside each bar.
    points : array, shape (n, n_points) or sequence of n arrays, optional
        Single values behind each bar, such as one a subject.
    """
    value = np.asarray(values, dtype=float)
    n = len(names)
    need(value.shape == (n,), f"{n} names for values of shape {value.shape}", "bars")
    flat = _lies_down(names)
    rows = [_bar(range(n), value, low, high, names, flat, fill=colour(0))]
    rows[0]["showlegend"] = False
    rows[0]["name"] = text(ylabel)
    if points is not None:
        need(len(points) == n, f"points of {len(points)} bars for {n} names", "bars")
        rows.append(_dots(points, names, flat))
    if p is not None:
        above = [
            np.max(column, initial=-np.inf) for column in ([[]] * n if points is None else points)
        ]
        top = np.fmax(value if high is None else np.asarray(high, dtype=float), above)
        lift = 0.02 * np.ptp(np.append(top[np.isfinite(top)], 0.0))  # clear of the points
        rows.append(_p_values(np.fmax(value, top) + lift, np.asarray(p, dtype=float), flat))
    return _finish(rows, names, ylabel, chance, ceiling, flat, n)


def grouped_bars(
    names: Sequence[str],
    groups: Mapping[str, tuple[Any, Any, Any]],
    ylabel: str = "",
    chance: float | None = None,
    ceiling: tuple[float, float] | None = None,
) -> str:
    """Several bars a name, one colour a group.

    Parameters
    ----------
    names : sequence of str, length n
    groups : mapping of str to (values, low, high)
        Each array of shape (n,); ``low`` and ``high`` may be None.
    ylabel, chance, ceiling
        As in `bars`.
    """
    n, k = len(names), max(len(groups), 1)
    flat = _lies_down(names) or n * k > 14
    rows = []
    for i, (group, (values, low, high)) in enumerate(groups.items()):
        value = np.asarray(values, dtype=float)
        need(value.shape == (n,), f"{n} names for {group!r} of shape {value.shape}", "grouped_bars")
        at = np.arange(n) + (i - (k - 1) / 2) * 0.8 / k
        row = _bar(at, value, low, high, names, flat, fill=colour(i), width=0.72 / k)
        rows.append({**row, "name": text(group, 40)})
    return _finish(rows, names, ylabel, chance, ceiling, flat, n * k)


def partition(
    names: Sequence[str],
    unique: Any,
    shared: Any = None,
    product: Any = None,
    groups: Sequence[str] | None = None,
    ylabel: str = "explained variance (R²)",
) -> str:
    """Explained variance, partitioned between feature spaces, as stacked bars.

    Parameters
    ----------
    names : sequence of str, length n_spaces
    unique : array, shape (n_spaces,) or (n_groups, n_spaces)
        Variance that only this space explains.
    shared : float or array, shape (n_groups,), optional
        Variance that more than one space explains.
    product : array, of the shape of ``unique``, optional
        Each space's share by the product measure, which sums to the whole; a second stack.
    groups : sequence of str, optional
        Name of each row of ``unique`` (a region, a subject).
    ylabel : str
    """
    part = np.atleast_2d(np.asarray(unique, dtype=float))
    need(part.shape[1] == len(names), f"{len(names)} names for {part.shape[1]} parts", "partition")
    groups = list(groups) if groups is not None else [""] * len(part)
    need(len(groups) == len(part), f"{len(groups)} groups for {len(part)} rows", "partition")
    both = product is not None
    first = [f"{g}: unique" if g else "unique" for g in groups] if both else groups
    bars_of: list[tuple[str, np.ndarray]] = list(zip(first, part, strict=True))
    common = None
    if shared is not None:
        common = np.broadcast_to(np.asarray(shared, dtype=float), (len(part),))
        common = np.concatenate([common, np.full(len(part), np.nan)]) if both else common
    if both:
        measure = np.atleast_2d(np.asarray(product, dtype=float))
        need(measure.shape == part.shape, "unique and product differ in shape", "partition")
        second = [f"{g}: product" if g else "product" for g in groups]
        bars_of += list(zip(second, measure, strict=True))
    table = np.stack([row for _, row in bars_of])
    labels = [label for label, _ in bars_of]
    columns: list[tuple[str, np.ndarray, str]] = [
        (str(name), table[:, i], colour(i)) for i, name in enumerate(names)
    ]
    if common is not None:
        columns.append(("shared by several", common, "var(--faint)"))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "y": list(range(len(labels))),
            "x": rounded(column),
            "width": 0.6,
            "marker": {"color": fill, "line": {"color": "var(--paper)", "width": 1}},
            "name": text(name, 40),
            "hovertemplate": "%{x:.4f}<extra>" + text(name) + "</extra>",
        }
        for name, column, fill in columns
    ]
    layout = {
        "barmode": "relative",
        "xaxis": {"title": {"text": text(ylabel)}, "zeroline": True},
        "yaxis": ticks(labels, 26, autorange="reversed"),
    }
    height = 150 + 46 * len(labels)
    return plot(traces, layout, alt=f"Stacked bars of {ylabel} by feature space", height=height)


# -- parts of bars -------------------------------------------------------------------------


def _lies_down(names: Sequence[str]) -> bool:
    """Whether bars are drawn horizontally, so that their names can be read."""
    return len(names) > 8 or sum(min(len(str(n)), 24) for n in names) > 44


def _axes(flat: bool) -> tuple[str, str]:
    """Name of the axis along which bars stand, and of that along which they grow."""
    return ("y", "x") if flat else ("x", "y")


def _bar(
    at: Any,
    value: np.ndarray,
    low: Any,
    high: Any,
    names: Sequence[str],
    flat: bool,
    fill: str,
    width: float = 0.62,
) -> dict[str, Any]:
    position, size = _axes(flat)
    none = np.full(len(value), np.nan)
    below = none if low is None else np.asarray(low, dtype=float)
    above = none if high is None else np.asarray(high, dtype=float)
    hover = [
        f"{text(name)}: {number(v)}"
        + (f" [{number(a)}, {number(b)}]" if np.isfinite(a + b) else "")
        for name, v, a, b in zip(names, value, below, above, strict=True)
    ]
    return {
        "type": "bar",
        "orientation": "h" if flat else "v",
        position: rounded(np.asarray(list(at), dtype=float)),
        size: rounded(value),
        "width": width,
        "marker": {"color": fill, "opacity": 0.9},
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        f"error_{size}": {
            "type": "data",
            "symmetric": False,
            "array": rounded(np.maximum(above - value, 0)),
            "arrayminus": rounded(np.maximum(value - below, 0)),
            "color": "var(--ink)",
            "thickness": 1.3,
            "width": 4,
        },
    }


def _dots(points: Any, names: Sequence[str], flat: bool) -> dict[str, Any]:
    """Single values, spread a little beside the middle of their bar."""
    position, size = _axes(flat)
    at: list[float] = []
    values: list[float] = []
    hover: list[str] = []
    for i, column in enumerate(points):
        column = np.asarray(column, dtype=float)
        spread = np.linspace(-0.16, 0.16, len(column)) if len(column) > 1 else np.zeros(len(column))
        at += (i + spread).tolist()
        values += rounded(column)
        hover += [text(names[i])] * len(column)
    return {
        "type": "scatter",
        "mode": "markers",
        position: at,
        size: values,
        "hovertext": hover,
        "hovertemplate": "%{hovertext}: %{" + size + "}<extra></extra>",
        "marker": {
            "size": 6,
            "color": "var(--paper)",
            "line": {"color": "var(--ink)", "width": 1.2},
        },
        "name": "single values",
    }


def _p_values(top: np.ndarray, p: np.ndarray, flat: bool) -> dict[str, Any]:
    position, size = _axes(flat)
    words = ["" if not np.isfinite(x) else "p < .001" if x < 1e-3 else f"p = {x:.3f}" for x in p]
    return {
        "type": "scatter",
        "mode": "text",
        position: list(range(len(top))),
        size: rounded(np.fmax(top, 0)),
        "text": [f"  {w}" if flat else w for w in words],
        "textposition": "middle right" if flat else "top center",
        "textfont": {"size": 11, "color": "var(--muted)"},
        "cliponaxis": False,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _dashed(x: list[Any], y: list[Any], name: str) -> dict[str, Any]:
    """Draw a reference line, named in the legend where it cannot cover anything."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"dash": "dash", "width": 1.4, "color": "var(--ink)"},
        "name": text(name, 40),
        "hoverinfo": "skip",
    }


def _finish(
    rows: list[dict[str, Any]],
    names: Sequence[str],
    ylabel: str,
    chance: float | None,
    ceiling: tuple[float, float] | None,
    flat: bool,
    n_bars: int,
) -> str:
    ends = [-0.5, len(names) - 0.5]
    under: list[dict[str, Any]] = []
    if ceiling is not None:
        lower, upper = map(float, ceiling)
        around, band = [ends[0], ends[1], ends[1], ends[0]], [lower, lower, upper, upper]
        x, y = (band, around) if flat else (around, band)
        under.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": y,
                "fill": "toself",
                "fillcolor": "var(--band)",
                "line": {"width": 1, "color": "var(--band)"},
                "hoverinfo": "skip",
                "name": f"noise ceiling ({number(lower)} to {number(upper)})",
            }
        )
    if chance is not None:
        x, y = ([chance, chance], ends) if flat else (ends, [chance, chance])
        rows.append(_dashed(x, y, f"chance ({number(float(chance))})"))
    place = ticks(names, 26, range=ends[::-1] if flat else ends)
    position, grows = _axes(flat)
    size = {"title": {"text": text(ylabel)}, "zeroline": True}
    size["range"] = _extent([*under, *rows], grows, 0.26 if flat else 0.12)
    return plot(
        [*under, *rows],
        {f"{position}axis": place, f"{grows}axis": size, "barmode": "overlay"},
        alt=f"Bar chart of {ylabel} for {len(names)} names",
        height=130 + 26 * max(n_bars, 3) if flat else 340,
        max_width=None if flat else min(240 + 90 * n_bars, 860),
    )


def _extent(traces: list[dict[str, Any]], grows: str, for_text: float) -> list[float]:
    """Range that holds zero, all values with their intervals, and what is written beside them."""
    low, high, written = 0.0, 0.0, False
    for trace in traces:
        values = np.array(trace[grows], dtype=float)
        error = trace.get(f"error_{grows}")
        arms = [np.zeros(len(values))] * 2
        if error is not None:
            arms = [np.nan_to_num(np.array(error[k], float)) for k in ("array", "arrayminus")]
        if np.isfinite(values).any():
            high = max(high, float(np.nanmax(values + arms[0])))
            low = min(low, float(np.nanmin(values - arms[1])))
        written = written or trace.get("mode") == "text"
    reach = (high - low) or 1.0
    return [low - (0.05 * reach if low < 0 else 0), high + (for_text if written else 0.05) * reach]
