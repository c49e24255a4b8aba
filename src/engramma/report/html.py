"""The report: one HTML file that needs nothing else, and asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.errors import DataError
from engramma.report.figures import draw
from engramma.report.methods import cited, methods_paragraph
from engramma.report.plot import number, plain
from engramma.study.references import bibtex

if TYPE_CHECKING:
    from engramma.study.result import Study

#: More characters of numbers than this are left to the download.
MOST_SHOWN = 200_000


def write_report(study: Study, path: str | Path) -> Path:
    """Write the report of a study, whole or not at all.

    Parameters
    ----------
    study : Study
    path : str or Path
        The file; what stood there is replaced only when the new one is complete.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If the folder cannot be written to, or a figure's data do not fit together.
    KeyError
        If a section cites an unknown reference.
    """
    path = Path(path)
    page = render(study).encode("utf-8")
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(page)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"the report cannot be written ({error.strerror or error})",
            where=str(path),
            mend="choose a folder that you may write to, on a disk with room",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def render(study: Study) -> str:
    """Return the page."""
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    scripts = [_lines(get_plotlyjs()), _asset("report.js")]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(show=show, is_number=is_number, slug=slug)
    numbers = {section.name: plain(section.numbers) for section in study.sections}
    listing = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    keys = cited(study)
    return environment.from_string(_asset("report.html.j2")).render(
        study=study,
        answer=answer(study),
        drawings=[[draw(figure) for figure in section.figures] for section in study.sections],
        data=study.data,
        history=list(study.history),
        methods=methods_paragraph(study),
        references=bibtex(keys) if keys else "",
        n_references=len(keys),
        listing=listing[:MOST_SHOWN],
        listing_cut=len(listing) > MOST_SHOWN,
        download=base64.b64encode(json.dumps(numbers, allow_nan=False).encode()).decode("ascii"),
        css=_asset("report.css"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        fingerprint=study.parameters.get("fingerprint"),
        seed=study.parameters.get("seed"),
        runtime=duration(study.seconds),
    )


def answer(study: Study) -> str:
    """One paragraph: the first sentence of every section's summary."""
    firsts = []
    for section in study.sections:
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", section.summary.strip(), maxsplit=1)
        if sentences[0]:
            firsts.append(sentences[0] if sentences[0][-1] in ".!?" else sentences[0] + ".")
    return " ".join(firsts)


def show(value: Any) -> str:
    """Write a value of a table for a reader."""
    if value is None:
        return "–"
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return number(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {show(v)}" for k, v in value.items())
    if isinstance(value, list | tuple | set | np.ndarray):
        return ", ".join(show(v) for v in value)
    return str(value)


def is_number(value: Any) -> bool:
    """Whether a table aligns this value to the right."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def slug(value: Any) -> str:
    """Turn a name into an element id."""
    return re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-") or "section"


def duration(seconds: float) -> str:
    """Write a running time for a reader."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _asset(name: str) -> str:
    return _lines(files("engramma.report").joinpath("templates", name).read_text("utf-8"))


def _lines(script: str) -> str:
    """One kind of line end, as browsers see it, so that hashes agree."""
    return script.replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    """Return what the content-security policy knows a script by: nothing else may run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
