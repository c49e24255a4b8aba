"""From plain numbers to safe HTML: what all drawing functions share.

A plot is a plotly specification held as JSON in the page; `templates/report.js` draws it. Colours
are written as CSS variables (``var(--c1)``), which the page resolves to the reader's light or
dark theme. Everything that comes from data is escaped here: text for plotly, which reads a little
markup of its own, and JSON for HTML, where ``</script>`` would end the element.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from engramma.errors import DataError

#: Okabe & Ito's colour-blind-safe palette, in an order that keeps neighbours apart; `report.css`
#: gives each a value for light and for dark paper, and ``-soft`` a translucent one.
N_COLOURS = 8
#: The same on light paper, for images that are drawn once for both themes.
ON_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b5548c", "#b07d00", "#3a9bd0", "#6b7280", "#7b5d3a")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")

SEQUENTIAL: list[list[Any]] = [
    [0.0, "#f3f1ea"],
    [0.25, "#a9cfd0"],
    [0.5, "#4c9db0"],
    [0.75, "#226286"],
    [1.0, "#132a4d"],
]
DIVERGING: list[list[Any]] = [
    [0.0, "#08467e"],
    [0.25, "#5e9fcb"],
    [0.5, "#f4f2ee"],
    [0.75, "#e0884a"],
    [1.0, "#8c3404"],
]

_DATA_URI = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+\Z")


def colour(number: int, soft: bool = False) -> str:
    """Colour of the n-th group; colours recur after eight, with another symbol."""
    return f"var(--c{number % N_COLOURS + 1}{'-soft' if soft else ''})"


def text(value: Any, most: int | None = None) -> str:
    """Escape a label for plotly, shortened in its middle to ``most`` characters."""
    return escape(" ".join(str(value).split()) if most is None else short(value, most), quote=False)


def short(value: Any, most: int = 36) -> str:
    """Shorten a label in its middle, since names of layers and files differ at their ends."""
    label = " ".join(str(value).split())
    if len(label) <= most:
        return label
    head = (most - 1) // 2
    return f"{label[:head].rstrip()}…{label[head + 1 - most :].lstrip()}"


def number(value: Any) -> str:
    """Write a number for a reader: three significant digits, no needless zeros."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        whole = int(value)
        return f"{whole:,}".replace(",", "\u202f") if abs(whole) >= 10_000 else str(whole)
    if not math.isfinite(value):
        return "–"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e+").replace("-", "−")
    if value == 0:
        return "0"
    written = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return written.replace("-", "−")


def plain(value: Any) -> Any:
    """Turn arrays and numpy scalars into what JSON holds; numbers that are not finite to null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    if isinstance(value, Iterable):
        return [plain(v) for v in value]
    return str(value)


def rounded(values: Any, digits: int = 4) -> list[Any]:
    """List of numbers with few significant digits, which keeps the file small."""
    array = np.asarray(values)
    if array.dtype.kind not in "f":
        return plain(array)
    flat = [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in array.ravel().tolist()]
    return np.array(flat, dtype=object).reshape(array.shape).tolist()


def safe_json(value: Any) -> str:
    """JSON that may stand inside a ``<script>`` element, whatever strings it holds."""
    written = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


def plot(
    traces: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    *,
    alt: str,
    height: int = 340,
    ratio: float | None = None,
    max_width: int | None = None,
) -> str:
    """Return the HTML of one plotly figure.

    Parameters
    ----------
    traces : sequence of mapping
    layout : mapping
        Plotly specification; theme, fonts and margins are added in the page.
    alt : str
        What a reader who cannot see it is told.
    height : int
        Pixels; with ``ratio`` only the height until the first drawing.
    ratio : float, optional
        Height of the plot area over its width (1 for a square matrix).
    max_width : int, optional
        Pixels.
    """
    spec = {"data": list(traces), "layout": {**layout, "height": int(height)}}
    style = f"min-height:{int(height)}px" + (f";max-width:{int(max_width)}px" if max_width else "")
    shape = "" if ratio is None else f' data-ratio="{float(ratio):.4f}"'
    return (
        f'<div class="plot" role="img" aria-label="{escape(alt)}" style="{style}"{shape}>'
        f'<script type="application/json">{safe_json(spec)}</script></div>'
    )


def ticks(labels: Sequence[Any], most: int = 24, **more: Any) -> dict[str, Any]:
    """Axis of named positions 0 ... n-1 (names may repeat, so positions are numbers)."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(labels))),
        "ticktext": [text(label, most) for label in labels],
        "zeroline": False,
        "showgrid": False,
        **more,
    }


def colour_bar(title: str) -> dict[str, Any]:
    """Colour scale above the plot, where it takes no width from it."""
    return {
        "orientation": "h",
        "y": 1.0,
        "yanchor": "bottom",
        "x": 0,
        "xanchor": "left",
        "len": 0.6,
        "thickness": 9,
        "ypad": 4,
        "outlinewidth": 0,
        "nticks": 5,
        "title": {"text": text(title), "side": "top"},
    }


def scale(values: np.ndarray, centre: float | None = None) -> dict[str, Any]:
    """Colour scale of a matrix: symmetrical about ``centre`` where one is given."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return {"colorscale": SEQUENTIAL, "zmin": 0, "zmax": 1}
    if centre is None:
        low, high = float(finite.min()), float(finite.max())
        return {"colorscale": SEQUENTIAL, "zmin": low, "zmax": high if high > low else low + 1}
    reach = float(np.abs(finite - centre).max()) or 1.0
    return {"colorscale": DIVERGING, "zmin": centre - reach, "zmax": centre + reach}


def colour_map(signed: bool) -> Any:
    """Return the same colour scales for matplotlib."""
    from matplotlib.colors import LinearSegmentedColormap

    # The lightest step of the one-sided scale is left out: it would vanish on white paper.
    steps = DIVERGING if signed else SEQUENTIAL[1:]
    return LinearSegmentedColormap.from_list("engramma", [str(c) for _, c in steps])


def need(condition: bool, what: str, where: str) -> None:
    """Raise where figure data do not fit together."""
    if not condition:
        raise DataError(what, where=f"figure {where!r}", mend="give arrays of matching shape")


# -- images --------------------------------------------------------------------------------


def data_uri(content: bytes, kind: str) -> str:
    """Image bytes as an address that needs no file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture(content: bytes, alt: str, css: str = "plate") -> str:
    """Return the HTML of a PNG on light paper (in both themes, since its ink is dark)."""
    return f'<img class="{css}" src="{data_uri(content, "png")}" alt="{escape(alt)}">'


def thumbnail(image: Any, size: int = 96, border: str | None = None) -> str:
    """Return a small copy of an image as a data URI.

    Parameters
    ----------
    image : ndarray, Path or str
        Height x width [x 3 or 4], uint8 or floats in 0 to 1; a file; or a data URI.
    size : int
        Longest side in pixels.
    border : str, optional
        Colour of a frame, drawn inside.

    Raises
    ------
    DataError
        If it is no image.
    """
    from PIL import Image, ImageOps

    try:
        if isinstance(image, str) and image.startswith("data:"):
            if not _DATA_URI.match(image):
                raise ValueError("not a base64 PNG, JPEG, GIF or WebP")
            image = io.BytesIO(base64.b64decode(image.split(",", 1)[1]))
        if isinstance(image, str | Path | io.BytesIO):
            with Image.open(image) as opened:
                small = opened.convert("RGBA")
        else:
            array = np.asarray(image)
            if array.dtype.kind == "f":
                array = np.clip(np.nan_to_num(array) * 255.0, 0, 255).round()
            small = Image.fromarray(array.astype(np.uint8).squeeze()).convert("RGBA")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"an image for the report does not decode ({error})",
            mend="give height x width x 3 arrays, image files or image data URIs",
        ) from error
    small.thumbnail((size, size))
    paper = Image.new("RGBA", small.size, "white")
    flat = Image.alpha_composite(paper, small).convert("RGB")
    if border is not None:
        flat = ImageOps.expand(flat, border=max(2, size // 20), fill=border)
    buffer = io.BytesIO()
    flat.save(buffer, format="JPEG", quality=85)
    return data_uri(buffer.getvalue(), "jpeg")


def png(figure: Any, dpi: int = 150) -> bytes:
    """Render a matplotlib figure, cropped to its content."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        dpi=dpi,
        bbox_inches="tight",
        facecolor="white",
        metadata={"Software": None},
    )
    return buffer.getvalue()
