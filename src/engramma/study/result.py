"""What a study gives: numbers, sentences and figure data, apart from how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """The data of one figure and the sentence that interprets it.

    Parameters
    ----------
    kind : str
        Which function of `engramma.report.figures` draws it.
    title : str
    caption : str
        A plain sentence of interpretation, with its interval.
    data : mapping
        What the drawing function takes as keyword arguments.
    """

    kind: str
    title: str
    caption: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A small table of results."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True)
class Notice:
    """A warning that a reader of the report must see.

    Parameters
    ----------
    name : str
        Short and stable (``"too few repeats"``).
    text : str
        What it means here, and what to do about it.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Section:
    """One question asked of the data.

    Parameters
    ----------
    name : str
        Key in ``study.json`` (``"ceiling"``, ``"encoding"``, ...).
    title : str
    summary : str
        The answer in one or two sentences.
    numbers : mapping
        Every number, nested, JSON-serialisable.
    figures : sequence of Figure
    tables : sequence of Table
    methods : sequence of str
        Sentences for the methods paragraph.
    citations : sequence of str
        Keys of `engramma.study.references.BIBTEX`.
    arrays : mapping of str to ndarray
        Saved as zarr beside the report.
    notices : sequence of Notice
        Warnings that this section gives rise to.
    """

    name: str
    title: str
    summary: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    methods: Sequence[str] = ()
    citations: Sequence[str] = ()
    arrays: Mapping[str, Any] = field(default_factory=dict)
    notices: Sequence[Notice] = ()


@dataclass(frozen=True)
class Study:
    """One recording explained.

    Parameters
    ----------
    title : str
    data : mapping
        What the data are: one ``label: value`` line each.
    sections : sequence of Section
    notices : sequence of Notice
    parameters : mapping
        Everything needed to run it again (seed, options, data fingerprint).
    versions : mapping of str to str
    seconds : float
    history : sequence of str
        What was done to the data before, one sentence a step; opens the methods paragraph.
    citations : sequence of str
        References that the data and their preprocessing call for.
    """

    title: str
    data: Mapping[str, Any]
    sections: Sequence[Section]
    notices: Sequence[Notice] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    history: Sequence[str] = ()
    citations: Sequence[str] = ()

    def __getitem__(self, name: str) -> Section:
        for section in self.sections:
            if section.name == name:
                return section
        raise KeyError(f"the study has no section {name!r}: {[s.name for s in self.sections]}")

    def report(self, path: str | Path) -> Path:
        """Write the HTML report to ``path`` (a file ending in .html, or a folder)."""
        from importlib import import_module

        path = Path(path)
        path = path if path.suffix == ".html" else path / "report.html"
        # The report room lies below this one; it is asked for by name, at the last moment.
        import_module("engramma.report.html").write_report(self, path)
        return path
