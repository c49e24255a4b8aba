"""Ask a language model everything that the probing systems can ask: ``engramma probe``."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engramma.bench.claims import tidy
from engramma.contracts import Estimate, SystemCard
from engramma.errors import ConfigError, EngrammaError, NotTestableError
from engramma.probing.findings import Examination, Examiner, Finding, Panel, Table
from engramma.probing.model import LanguageModel
from engramma.progress import track
from engramma.registry import systems
from engramma.versions import versions

#: Raised whenever kept results would mean something else.
FORMAT = 1


@dataclass(frozen=True)
class Examined:
    """What one system found.

    Parameters
    ----------
    system, title, paper : str
    examination : Examination
        Empty where it could not be carried out.
    problem : str
        Why it could not.
    absent : bool
        Whether the model lacks what is sought, which is a finding, too.
    seconds : float
    """

    system: str
    title: str
    paper: str
    examination: Examination = field(default_factory=Examination)
    problem: str = ""
    absent: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Probed:
    """A language model examined by several systems."""

    name: str
    model: Mapping[str, Any]
    results: Sequence[Examined]
    seed: int = 0
    quick: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)


def examiners() -> dict[str, SystemCard]:
    """Systems that can be asked about any language model, by slug."""
    return {
        slug: card
        for slug, card in systems.all().items()
        if isinstance(card.factory, type) and issubclass(card.factory, Examiner)
    }


def probe(
    source: str | Path | LanguageModel,
    only: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    seed: int = 0,
    quick: bool = False,
    fresh: bool = False,
) -> Probed:
    """Examine a language model.

    Parameters
    ----------
    source : str, path or LanguageModel
        See `engramma.memory.language_model.load_language_model`: ``"smollm2"``, a folder, a
        ``.gguf`` file, or a miniature.
    only : sequence of str
        Slugs; all systems that can examine a model by default.
    out : path, optional
        Where finished examinations are kept, so that an interrupted run goes on.
    seed : int
        Of prompts and random choices.
    quick : bool
        Fewer prompts, wider intervals.
    fresh : bool
        Whether to examine anew what is kept.

    Raises
    ------
    ConfigError
        If a system is unknown or cannot examine models, or there is no such model.
    """
    known = examiners()
    for slug in only:
        if slug not in known:
            systems.get(slug)  # says what is close, where there is no such system at all
            raise ConfigError(
                f"{slug!r} cannot examine a language model", mend=f"use {', '.join(known)}"
            )
    model = source if isinstance(source, LanguageModel) else LanguageModel.load(source)
    kept = _Kept(out, _key(model, seed, quick), fresh)
    results = []
    for slug in track(list(only) or list(known), f"examining {model.name}"):
        result = kept.read(known[slug])
        if result is None:
            result = _examine(known[slug], model, seed, quick)
            kept.write(result)
        results.append(result)
    return Probed(model.name, describe(model), results, seed, quick, versions())


def _examine(card: SystemCard, model: LanguageModel, seed: int, quick: bool) -> Examined:
    start = time.perf_counter()
    examination, problem, absent = Examination(), "", False
    try:
        examination = card.factory().examine(model, seed=seed, quick=quick)
    except NotTestableError as error:
        problem, absent = str(error), True
    except EngrammaError as error:
        problem = str(error)
    seconds = time.perf_counter() - start
    return Examined(card.slug, card.title, card.paper, examination, problem, absent, seconds)


def describe(model: LanguageModel) -> dict[str, Any]:
    """Sizes of a model, for a reader."""
    anatomy = model.anatomy
    return {
        "architecture": type(model.network).__name__,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "layers": anatomy.n_layers,
        "heads a layer": anatomy.n_heads,
        "neurons a layer": anatomy.n_neurons,
        "width": anatomy.dim,
        "vocabulary": anatomy.vocabulary,
        "context (tokens)": model.context,
    }


def _key(model: LanguageModel, seed: int, quick: bool) -> str:
    """Hash of what results depend on; of each weight, a few numbers."""
    digest = hashlib.sha256(repr((FORMAT, seed, quick, versions().get("engramma"))).encode())
    for name, weight in model.network.state_dict().items():
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)][:64].float().numpy()
        digest.update(name.encode() + repr(tuple(weight.shape)).encode() + some.tobytes())
    return digest.hexdigest()[:12]


# -- finished examinations on disk ---------------------------------------------------------


class _Kept:
    def __init__(self, out: str | Path | None, key: str, fresh: bool) -> None:
        self.folder = None if out is None else Path(out) / "examinations" / key
        if fresh and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, card: SystemCard) -> Examined | None:
        path = None if self.folder is None else self.folder / f"{card.slug}.json"
        if path is None or not path.is_file():
            return None
        try:
            return from_json(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # damaged: it is examined again

    def write(self, result: Examined) -> None:
        # What a missing package or a wrong option stopped is tried again next time.
        if self.folder is None or (result.problem and not result.absent):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        work = self.folder / f"{result.system}.part"
        work.write_text(json.dumps(as_json(result), indent=1))
        work.replace(self.folder / f"{result.system}.json")


def as_json(result: Examined) -> dict[str, Any]:
    """Return the result of one system as numbers and text."""
    found = result.examination
    return {
        "system": result.system,
        "title": result.title,
        "paper": result.paper,
        "problem": result.problem,
        "absent": result.absent,
        "seconds": round(result.seconds, 1),
        "findings": [tidy(asdict(f)) for f in found.findings],
        "panels": [tidy(asdict(p)) for p in found.panels],
        "tables": [tidy(asdict(t)) for t in found.tables],
        "notes": list(found.notes),
    }


def from_json(data: Mapping[str, Any]) -> Examined:
    """Read what `as_json` wrote."""
    findings = [Finding(**_estimated(item)) for item in data["findings"]]
    panels = [Panel(**{**item, "values": _values(item["kind"], item["values"])})
              for item in data["panels"]]  # fmt: skip
    examination = Examination(
        findings, panels, [Table(**item) for item in data["tables"]], tuple(data["notes"])
    )
    head = {n: data[n] for n in ("system", "title", "paper", "problem", "absent", "seconds")}
    return Examined(examination=examination, **head)


def _estimated(item: Mapping[str, Any]) -> dict[str, Any]:
    return {n: _estimate(v) if n in ("value", "caused", "control") else v for n, v in item.items()}


def _estimate(value: Mapping[str, Any] | None) -> Estimate | None:
    if value is None:
        return None
    low, high = (np.nan if value[n] is None else value[n] for n in ("low", "high"))
    return Estimate(np.nan if value["value"] is None else value["value"], low, high)


def _values(kind: str, values: Any) -> Any:
    if kind == "matrix":
        return np.asarray(values, dtype=float)
    if kind == "curves":
        return {k: tuple(np.asarray(part, dtype=float) for part in v) for k, v in values.items()}
    return {k: _estimate(v) for k, v in values.items()}
