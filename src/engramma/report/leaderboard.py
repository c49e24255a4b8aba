"""A leaderboard as a page: the table, scores under each condition, scores against cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from engramma.bench.leaderboard import Entry, Leaderboard, as_json
from engramma.report.html import write_report
from engramma.study.result import Figure, Section, Study, Table
from engramma.study.storage import plain
from engramma.versions import versions

PAGE, NUMBERS = "leaderboard.html", "leaderboard.json"


def write_leaderboard(board: Leaderboard, folder: str | Path) -> Path:
    """Write ``leaderboard.html`` and ``leaderboard.json``, each whole or not at all.

    Returns
    -------
    Path
        Of the page.
    """
    folder = Path(folder)
    path = write_report(as_study(board), folder / PAGE)
    work = folder / (NUMBERS + ".part")
    work.write_text(json.dumps(plain(as_json(board)), indent=1) + "\n")
    work.replace(folder / NUMBERS)
    return path


def as_study(board: Leaderboard) -> Study:
    """Put a leaderboard into the form that the report writes."""
    able = [e for e in board.entries if not e.problem]
    figures = [f for f in (_curves(board, able), *_costs(board, able)) if f is not None]
    section = Section(
        name="ranking",
        title="Ranking",
        summary=_summary(board, able),
        numbers=as_json(board),
        figures=figures,
        tables=[_table(board)],
        methods=[
            f"{len(board.entries)} contestants were scored on {board.seeds} seeds, each of which "
            "generates data and initial weights anew; all contestants met the same data. Intervals "
            "are 95 % over seeds, the wider of bootstrap and Student's t."
        ],
    )
    return Study(
        title=f"Leaderboard: {board.task.name}",
        data={
            "question": board.task.description,
            "score": board.task.metric,
            "chance": board.task.chance,
            "seeds": board.seeds,
        },
        sections=[section],
        parameters={"kicker": "engramma leaderboard"},
        versions=versions(),
        seconds=sum(e.seconds for e in board.entries),
    )


def _summary(board: Leaderboard, able: list[Entry]) -> str:
    if not able:
        return "No contestant could do the task."
    best = able[0]
    words = f"{best.system} is first with {_show(best)}"
    others = [e for e in able if e.baseline != best.baseline]
    if others:
        kind = "baseline" if others[0].baseline else "published system"
        words += f"; the best {kind} is {others[0].system} with {_show(others[0])}"
    return f"{words}. Chance is {board.task.chance:.3g}."


def _show(entry: Entry) -> str:
    e = entry.score
    return f"{e.value:.3f}" + ("" if np.isnan(e.low) else f" [{e.low:.3f}, {e.high:.3f}]")


def _table(board: Leaderboard) -> Table:
    extra = list(dict.fromkeys(name for e in board.entries for name in e.details))
    columns = ["system", "kind", "score", "low", "high", *extra, "seconds in all", "remark"]
    rows = [
        [
            e.system,
            "baseline" if e.baseline else "system",
            e.score.value,
            e.score.low,
            e.score.high,
            *(e.details.get(name) for name in extra),
            e.seconds,
            e.problem or e.title,
        ]
        for e in board.entries
    ]
    return Table("All contestants", columns, rows, "Costs depend on the machine, scores do not.")


def _curves(board: Leaderboard, able: list[Entry]) -> Figure | None:
    entries = [e for e in able if len(e.curve) > 1]
    if not entries:
        return None
    places = list(entries[0].curve)
    return Figure(
        "lines",
        f"Score by {board.task.axis}",
        f"Means over {board.seeds} seeds, best first; the dashed line is chance. A click "
        "on a name hides it. Intervals are in the table of numbers.",
        {
            "x": places,
            "series": {e.system: [e.curve[p].value for p in places] for e in entries},
            "xlabel": board.task.axis,
            "ylabel": board.task.metric.partition(" (")[0],
            "chance": board.task.chance,
            "onset": None,
        },
    )


def _costs(board: Leaderboard, able: list[Entry]) -> list[Figure]:
    figures = []
    for name in ("state", "parameters", "tokens a second"):
        entries = [e for e in able if e.details.get(name, 0) > 0]
        if len(entries) < 2:
            continue
        data: dict[str, Any] = {
            "x": np.log10([e.details[name] for e in entries]),
            "y": [e.score.value for e in entries],
            "labels": [e.system for e in entries],
            "color": ["baseline" if e.baseline else "system" for e in entries],
            "xlabel": f"log10 of {name}" + (" (numbers a sequence)" if name == "state" else ""),
            "ylabel": board.task.metric.partition(" (")[0],
        }
        figures.append(
            Figure("scatter", f"Score against {name}", "One point a contestant; point to it.", data)
        )
    return figures
