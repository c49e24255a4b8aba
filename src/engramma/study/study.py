"""Study a recording: from data to sections, resumable, with one clear answer for each question."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engramma.data.quality import check_recording, drop_bad_units
from engramma.data.rdms import RDMs
from engramma.data.read import read
from engramma.data.recording import Cohort, Recording
from engramma.errors import ConfigError, DataError, EngrammaError
from engramma.progress import track
from engramma.study.context import Context, Options
from engramma.study.describe import describe, first_attrs, title_of
from engramma.study.result import Notice, Section, Study
from engramma.study.storage import Checkpoints, notices_from, save_study, writable
from engramma.versions import versions

Plan = list[tuple[str, Callable[[], Section | None]]]


def study(
    data: str | Path | Recording | Cohort | RDMs,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    decode: str | None = None,
    features: str | list[str] | tuple[str, ...] | None = None,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    executor: str | None = None,
    fresh: bool = False,
    reader_options: Mapping[str, Any] | None = None,
) -> Study:
    """Explain one recording.

    Parameters
    ----------
    data : path, name of a world, Recording, Cohort or RDMs
    out : path, optional
        Folder for ``report.html``, ``study.json`` and ``arrays.zarr``. A study that was
        interrupted resumes from its checkpoints there. Without it nothing is written; use
        ``.report(path)`` on the result.
    seed : int
    decode : str, optional
        Column of the stimulus table to decode.
    features : str or list of str, optional
        Feature models (names, or folders of local models).
    n_permutations, n_bootstrap : int
    executor : str, optional
        ``"local"`` or the address of a Dask scheduler, for encoding fits of many units.
    fresh : bool
        Drop checkpoints instead of resuming.
    reader_options : mapping, optional
        Passed to the reader (``estimate``, ``mask``, ``tr``, ...) or world.

    Returns
    -------
    Study

    Raises
    ------
    DataError, ConfigError
        If the data cannot be read, or nothing at all can be said about them.
    """
    start = time.perf_counter()
    options = Options(
        seed=seed,
        decode=decode,
        features=_named(features),
        n_permutations=n_permutations,
        n_bootstrap=n_bootstrap,
        executor=executor,
    )
    if out is not None:
        shutil.rmtree(writable(Path(out)))  # learn before the work that the place is writable
    reader_options = dict(reader_options or {})
    loaded = _load(data, reader_options, seed)
    loaded, notices = _clean(loaded)
    check_choices(loaded, options)
    parameters = {
        "data": str(data) if isinstance(data, str | Path) else repr(data),
        "fingerprint": loaded.fingerprint(),
        "reader_options": reader_options,
        **options.__dict__,
    }
    checkpoints = Checkpoints(out, {**parameters, "versions": versions()})
    if fresh:
        checkpoints.clear()
    sections: list[Section] = []
    for name, make in track(_plan(loaded, options), "study"):
        section = checkpoints.load(name)
        if section is None:
            try:
                section = make()
            except EngrammaError as error:
                notices.append(Notice(f"no {name} analysis", str(error)))
                continue
            if section is None:
                continue
            checkpoints.keep(section)
        sections.append(section)
        notices += section.notices
    if not sections:
        raise DataError(
            "nothing can be said about this recording",
            where="; ".join(f"{n.name}: {n.text}" for n in _once(notices)),
            mend="see `engramma data inspect`",
        )
    result = Study(
        title=title_of(loaded, data),
        data=describe(loaded),
        sections=sections,
        notices=_once(notices),
        parameters=parameters,
        versions=versions(),
        seconds=round(time.perf_counter() - start, 1),
        history=first_attrs(loaded).get("history") or (),
        citations=first_attrs(loaded).get("citations") or (),
    )
    if out is not None:
        save_study(result, out)
        checkpoints.clear()
    return result


def _load(data: Any, options: Mapping[str, Any], seed: int) -> Recording | Cohort | RDMs:
    if isinstance(data, Recording | Cohort | RDMs):
        return data
    if not isinstance(data, str | Path):
        raise ConfigError(
            f"a study needs a path, a world or a recording, not {type(data).__name__}",
            mend="make a recording with Recording.from_arrays(responses, stimulus)",
        )
    if not Path(data).exists():
        return read(data, **{"seed": seed, **options})  # a world
    return read(data, **options)


def _named(features: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return names of models, where one may stand alone; none at all means the usual ones."""
    return (features,) if isinstance(features, str) else tuple(features) if features else None


def check_choices(loaded: Recording | Cohort | RDMs, options: Options) -> None:
    """Refuse what cannot be carried out before any work is done.

    Raises
    ------
    ConfigError
        If a column, feature model or scheduler that the user named is not there.
    """
    from engramma.features.extraction import load_model
    from engramma.study.executor import connect

    for model in options.features or ():
        if model.partition(":")[0] != "category":
            load_model(model)
    if options.executor not in (None, "local"):
        connect(options.executor).close()
    if not isinstance(loaded, RDMs):
        members = list(loaded.values()) if isinstance(loaded, Cohort) else [loaded]
        if len({m.has_time for m in members}) > 1:
            raise DataError(
                "some subjects have responses over time and some have not",
                mend="study them one by one, or average a time window of each",
            )
        if options.decode is not None:
            _ = context_of(loaded, options).label_columns


def _clean(
    loaded: Recording | Cohort | RDMs,
) -> tuple[Recording | Cohort | RDMs, list[Notice]]:
    """Drop units that cannot be analysed, and collect what a reader must be warned of."""
    notices = notices_from(loaded.attrs.get("warnings"))
    if isinstance(loaded, RDMs):
        return loaded, notices
    members = loaded.recordings if isinstance(loaded, Cohort) else {"": loaded}
    cleaned = {}
    for subject, recording in members.items():
        found = list(recording.attrs.get("warnings") or ()) if subject else []
        cleaned[subject], dropped = drop_bad_units(recording)
        for entry in [*found, *check_recording(cleaned[subject]), *dropped]:
            where = f"subject {subject}: " if subject else ""
            notices.append(Notice(entry["name"], where + entry["text"]))
    if isinstance(loaded, Cohort):
        return Cohort(cleaned, attrs=loaded.attrs), notices
    return cleaned[""], notices


def _plan(loaded: Recording | Cohort | RDMs, options: Options) -> Plan:
    """Which sections this kind of data gets."""
    if isinstance(loaded, RDMs):
        from engramma.study.models import models_section

        return [("models", lambda: models_section(loaded, options))]
    context = context_of(loaded, options)
    if context.first.has_time:
        from engramma.study.timecourse import (
            decoding_section as decoding_over_time,
        )
        from engramma.study.timecourse import (
            encoding_section as encoding_over_time,
        )
        from engramma.study.timecourse import (
            evoked_section,
            generalisation_section,
        )

        return [
            ("evoked", lambda: evoked_section(context)),
            ("decoding", lambda: decoding_over_time(context)),
            ("encoding", lambda: encoding_over_time(context)),
            ("generalisation", lambda: generalisation_section(context)),
        ]
    from engramma.study.ceiling import ceiling_section
    from engramma.study.decoding import decoding_section
    from engramma.study.encoding import encoding_section
    from engramma.study.geometry import geometry_section
    from engramma.study.identification import identification_section

    return [
        ("ceiling", lambda: ceiling_section(context)),
        ("encoding", lambda: encoding_section(context)),
        ("decoding", lambda: decoding_section(context)),
        ("identification", lambda: identification_section(context)),
        ("geometry", lambda: geometry_section(context)),
    ]


def context_of(loaded: Recording | Cohort, options: Options) -> Context:
    """Sort the presentations by subject."""
    if isinstance(loaded, Cohort):
        return Context(dict(loaded), loaded.stimuli, options)
    subject = loaded.coord("subject")
    members = {str(s): loaded.select(subject == s) for s in dict.fromkeys(subject)}
    return Context(members, loaded.stimuli, options)


def _once(notices: list[Notice]) -> list[Notice]:
    """Keep each notice once, in order."""
    return list({(n.name, n.text): n for n in notices}.values())
