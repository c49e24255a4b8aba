"""Which function draws which kind of figure."""

from __future__ import annotations

from collections.abc import Callable

from engramma.errors import ConfigError, DataError, EngrammaError
from engramma.report import brain, charts, curves, matrices, scalp
from engramma.study.result import Figure

#: One drawing function a `Figure.kind`. Each takes `Figure.data` as keyword arguments and
#: returns an HTML fragment; its docstring says which arguments and of what shape.
FIGURES: dict[str, Callable[..., str]] = {
    "histogram": charts.histogram,
    "bars": charts.bars,
    "grouped_bars": charts.grouped_bars,
    "partition": charts.partition,
    "lines": curves.lines,
    "scatter": curves.scatter,
    "ranking": curves.ranking,
    "confusion": matrices.confusion,
    "rdm": matrices.rdm,
    "rdms": matrices.rdms,
    "time_matrix": matrices.time_matrix,
    "heatmap": matrices.heatmap,
    "mds": matrices.mds,
    "image_grid": matrices.image_grid,
    "picture": matrices.plate,
    "brain": brain.brain,
    "sensors": scalp.sensors,
    "topomaps": scalp.topomaps,
}


def draw(figure: Figure) -> str:
    """Return the HTML fragment of one figure.

    Raises
    ------
    ConfigError
        If nothing draws figures of this kind.
    DataError
        If the data are not what the drawing function takes.
    """
    if figure.kind not in FIGURES:
        raise ConfigError(
            f"no figure is of kind {figure.kind!r}",
            where=figure.title,
            mend=f"use one of {', '.join(FIGURES)}",
        )
    try:
        return FIGURES[figure.kind](**figure.data)
    except EngrammaError:
        raise
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"a figure of kind {figure.kind!r} cannot be drawn from these data ({error})",
            where=figure.title,
            mend=f"see engramma.report.figures.FIGURES[{figure.kind!r}] for what it takes",
        ) from error
