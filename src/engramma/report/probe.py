"""The report on one language model: what it remembers, where, and what happens without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engramma.bench.probes import Examined, Probed, as_json
from engramma.contracts import Estimate
from engramma.probing.findings import Finding, Panel
from engramma.report.html import write_report
from engramma.study.result import Figure, Notice, Section, Study, Table

PAGE, NUMBERS = "probe.html", "probe.json"


def write_probe(probed: Probed, folder: str | Path) -> Path:
    """Write ``probe.html`` and ``probe.json``, each whole or not at all.

    Returns
    -------
    Path
        Of the page.
    """
    folder = Path(folder)
    page = write_report(as_study(probed), folder / PAGE)
    work = folder / (NUMBERS + ".part")
    work.write_text(json.dumps(numbers(probed), indent=1) + "\n")
    work.replace(folder / NUMBERS)
    return page


def numbers(probed: Probed) -> dict[str, object]:
    """Everything that was found, as JSON holds it."""
    return {
        "model": {"name": probed.name, **probed.model},
        "seed": probed.seed,
        "quick": probed.quick,
        "versions": dict(probed.versions),
        "systems": {r.system: as_json(r) for r in probed.results},
    }


def as_study(probed: Probed) -> Study:
    """Put the findings into the form that the report writes."""
    done = [r for r in probed.results if not r.problem]
    notices = [
        Notice(f"{r.system}: " + ("not in this model" if r.absent else "not examined"), r.problem)
        for r in probed.results
        if r.problem
    ]
    if probed.quick:
        notices.insert(0, Notice("quick", "Fewer prompts were used, and intervals are wider."))
    return Study(
        title=f"What {probed.name} remembers and computes",
        data=dict(probed.model),
        sections=[_overview(done), *(_section(r) for r in done)],
        notices=notices,
        parameters={"seed": probed.seed, "kicker": "engramma probe"},
        versions=probed.versions,
        seconds=sum(r.seconds for r in probed.results),
    )


def _overview(results: Sequence[Examined]) -> Section:
    rows = [
        [
            r.system,
            f.name,
            show(f.value),
            f.unit,
            "" if f.chance is None else f"{f.chance:.3g}",
            show(f.caused),
            show(f.control),
        ]
        for r in results
        for f in r.examination.findings
    ]
    columns = [
        "system",
        "finding",
        "value [95 %]",
        "unit",
        "chance",
        "effect of a change",
        "control",
    ]
    checked = [f for r in results for f in r.examination.findings if f.caused and f.control]
    causal = sum(_apart(f) for f in checked)
    return Section(
        name="overview",
        title="All findings",
        summary=f"{len(rows)} findings of {len(results)} systems; of {len(checked)} with a causal "
        f"check, {causal} have an effect that is clearly apart from its control.",
        tables=[
            Table(
                "Findings",
                columns,
                rows,
                "What was located is removed, clamped or exchanged, and the effect stands beside "
                "that of a control: as many other heads or neurons of the same layers, unless the "
                "system's own section names another.",
            )
        ],
    )


def _section(result: Examined) -> Section:
    found = result.examination
    return Section(
        name=result.system,
        title=result.title,
        summary=" ".join(f.sentence.rstrip(".") + "." for f in found.findings),
        numbers=as_json(result),
        figures=[*(_figure(p) for p in found.panels), *_causal(found.findings)],
        tables=[
            _changes(found.findings),
            *(
                Table(t.title, list(t.columns), [list(r) for r in t.rows], t.caption)
                for t in found.tables
            ),
        ],
        methods=[*([f"{result.paper}."] if result.paper else []), *found.notes],
    )


def _changes(findings: Sequence[Finding]) -> Table:
    rows = [
        [f.name, show(f.value), show(f.caused), show(f.control), f.intervention] for f in findings
    ]
    columns = ["finding", "value [95 %]", "effect of a change", "control", "what was changed"]
    return Table("Findings and what was changed", columns, rows)


def _figure(panel: Panel) -> Figure:
    if panel.kind == "matrix":
        matrix = np.asarray(panel.values, dtype=float)
        return Figure(
            "heatmap",
            panel.title,
            panel.caption,
            {
                "matrix": matrix,
                "xlabels": list(panel.columns) or _numbered(panel.x, matrix.shape[1]),
                "ylabels": list(panel.rows) or _numbered(panel.y, matrix.shape[0]),
                "label": panel.unit,
            },
        )
    assert not isinstance(panel.values, np.ndarray)
    if panel.kind == "bars":
        return Figure("bars", panel.title, panel.caption, _bars(panel.values, panel.y))
    parts = {name: [np.asarray(v, dtype=float) for v in c] for name, c in panel.values.items()}
    x = np.unique(np.concatenate([c[0] for c in parts.values()]))

    def along(places: np.ndarray, values: np.ndarray) -> np.ndarray:
        out = np.full(len(x), np.nan)
        out[np.searchsorted(x, places)] = values
        return out

    return Figure(
        "lines",
        panel.title,
        panel.caption,
        {
            "x": x,
            "series": {name: along(c[0], c[1]) for name, c in parts.items()},
            "low": {name: along(c[0], c[2]) for name, c in parts.items() if len(c) == 4},
            "high": {name: along(c[0], c[3]) for name, c in parts.items() if len(c) == 4},
            "xlabel": panel.x,
            "ylabel": panel.y,
            "onset": None,
        },
    )


def _numbered(name: str, n: int) -> list[str]:
    return [f"{name} {i}".strip() for i in range(n)]


def _bars(values: object, label: str) -> dict[str, object]:
    assert isinstance(values, dict)
    return {
        "names": list(values),
        "values": [e.value for e in values.values()],
        "low": [e.low for e in values.values()],
        "high": [e.high for e in values.values()],
        "ylabel": label,
    }


def _causal(findings: Sequence[Finding]) -> list[Figure]:
    """One picture of all causal checks of a system."""
    checked = [f for f in findings if f.caused is not None and f.control is not None]
    if not checked:
        return []
    values = {}
    for f in checked:
        values[f.name] = f.caused
        values[f"{f.name}: control"] = f.control
    done = "; ".join(dict.fromkeys(f.intervention for f in checked if f.intervention))
    return [Figure("bars", "Causal checks", done, _bars(values, "change of the behaviour"))]


def _apart(finding: Finding) -> bool:
    """Whether the intervals of effect and control do not touch."""
    a, b = finding.caused, finding.control
    assert a is not None and b is not None
    return bool(a.low > b.high or a.high < b.low)


def show(estimate: Estimate | None) -> str:
    """Write an estimate with its interval."""
    if estimate is None or not np.isfinite(estimate.value):
        return ""
    if not np.isfinite(estimate.low):
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"
