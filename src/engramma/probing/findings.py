"""What an examination of a language model finds, in a form that a report can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from engramma.contracts import Estimate
from engramma.probing.model import LanguageModel


@dataclass(frozen=True)
class Finding:
    """One number about a model, and what becomes of it when its supposed cause is changed.

    Parameters
    ----------
    name : str
        Short: "heads that retrieve".
    sentence : str
        What was found, for a reader who does not know the paper.
    value : Estimate
        With its interval.
    unit : str
        "share of heads", "percentage points".
    chance : float, optional
        What a model that has none of it would give.
    caused : Estimate, optional
        Effect on the behaviour when what was located is removed, clamped or exchanged.
    control : Estimate, optional
        The same for as many randomly chosen, matched places, or what ``intervention`` names.
    intervention : str
        What was done: "output of the 10 best heads set to zero".
    """

    name: str
    sentence: str
    value: Estimate
    unit: str = ""
    chance: float | None = None
    caused: Estimate | None = None
    control: Estimate | None = None
    intervention: str = ""


@dataclass(frozen=True)
class Panel:
    """A picture of numbers.

    Parameters
    ----------
    kind : {"matrix", "curves", "bars"}
        ``"matrix"``: ``values`` (row, column), such as layer x head. ``"curves"``: ``values``
        maps names to (x, y) or (x, y, low, high). ``"bars"``: ``values`` maps names to Estimate.
    title, caption : str
    x, y : str
        Axis titles; what rows and columns of a matrix are, which are numbered unless named.
    unit : str
        Of the numbers of a matrix.
    rows, columns : sequence of str
        Names of the rows and columns of a matrix.
    """

    kind: Literal["matrix", "curves", "bars"]
    title: str
    values: np.ndarray | Mapping[str, Any]
    x: str = ""
    y: str = ""
    caption: str = ""
    unit: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text, such as the words that neurons write."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Examination:
    """All that one system finds in one model.

    Parameters
    ----------
    findings : sequence of Finding
    panels : sequence of Panel
    tables : sequence of Table
    notes : sequence of str
        What a reader must know: what was left out, what the model cannot do.
    """

    findings: Sequence[Finding] = ()
    panels: Sequence[Panel] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = field(default_factory=tuple)


@runtime_checkable
class Examiner(Protocol):
    """A system that can be asked about any language model: ``engramma probe``."""

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Look for what the system is about in a model.

        Parameters
        ----------
        model : LanguageModel
            With a tokenizer, unless the system works on token numbers.
        seed : int
        quick : bool
            Whether to use fewer prompts: about a quarter of the time.

        Raises
        ------
        NotTestableError
            If the model does not show the behaviour whose mechanism is sought.
        """
        ...
