"""Read a file, folder or world into a recording, a cohort or a stack of RDMs.

A reader is one function in one file of `engramma.data.readers` (or of a package that names its
own in the entry-point group ``engramma.readers``), registered with the decorator `reader`.
"""

from __future__ import annotations

import difflib
import inspect as python_inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Number
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engramma import registry
from engramma.data.quality import check_recording, drop_bad_units
from engramma.data.rdms import RDMs
from engramma.data.recording import Cohort, Recording
from engramma.errors import ConfigError, DataError

F = TypeVar("F", bound=Callable[..., Any])
Data = Recording | Cohort | RDMs


@dataclass(frozen=True)
class Reader:
    """What the registry knows of a reader.

    Parameters
    ----------
    name : str
        Name of the format.
    description : str
        What it reads, for the list shown when nothing recognises a path.
    recognises : callable
        ``recognises(path) -> bool``: a quick look, without loading.
    read : callable
        ``read(path, *, option=..., ...) -> Recording | Cohort | RDMs``; its keyword-only
        parameters are the options of the format.
    inspect : callable, optional
        ``inspect(path, **options) -> dict``: what is in the file, without loading responses.
    generic : bool
        Whether it takes any file of a container format (npz, MATLAB, ...), and so is asked after
        the readers that know what is inside.
    """

    name: str
    description: str
    recognises: Callable[[Path], bool]
    read: Callable[..., Data]
    inspect: Callable[..., dict[str, Any]] | None = None
    generic: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that this format takes."""
        return _options(self.read)

    def check_options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return options in the types the reader takes; refuse what does not fit it.

        Raises
        ------
        ConfigError
            If an option does not exist, or its value is of another type.
        """
        return _checked(f"the {self.name} reader", self.read, given)


def reader(
    name: str,
    *,
    description: str,
    recognises: Callable[[Path], bool],
    inspect: Callable[..., dict[str, Any]] | None = None,
    generic: bool = False,
) -> Callable[[F], F]:
    """Register the decorated ``f(path, *, option=...)`` as the reader of one format."""

    def register(function: F) -> F:
        added = Reader(name, description, recognises, function, inspect, generic)
        registry.readers.add(name, added)
        return function

    return register


def read(
    source: str | Path, *, format: str | None = None, clean: bool = True, **options: Any
) -> Any:
    """Read a recording, a cohort or RDMs from a path, or generate the world of that name.

    Parameters
    ----------
    source : str or Path
        A BIDS folder, a NIfTI, EEG, MEG, NWB, MATLAB, npz, CSV or zarr file, a folder of RDMs, or
        the name of a world. A path that exists goes before a world of the same name.
    format : str, optional
        Name of the reader, where the path does not tell.
    clean : bool
        Drop units that are flat or hold NaN, and add warnings about the design (see
        `engramma.data.quality`). A recording that lies on disk is left as it is: looking at its
        units would load it.
    **options
        Options of the reader or the world.

    Returns
    -------
    Recording, Cohort or RDMs

    Raises
    ------
    DataError
        If the path is not there, is not understood, or holds something damaged.
    ConfigError
        If an option does not exist or cannot be carried out.

    Examples
    --------
    >>> import engramma
    >>> recording = engramma.read("bids-folder", estimate="lss")  # doctest: +SKIP
    """
    path = Path(source).expanduser()
    if not path.exists():
        return _generate(str(source), options)
    chosen = find_reader(path, format)
    options = chosen.check_options(options)
    with readable(path):
        result = chosen.read(path, **options)
    return _finish(result) if clean else result


def find_reader(path: Path, format: str | None = None) -> Reader:
    """Return the reader of a path.

    Raises
    ------
    DataError
        If the path is empty, may not be read, or no reader recognises it.
    ConfigError
        If ``format`` names no reader.
    """
    check_readable(path)
    if format is not None:
        return registry.readers.get(format)
    found = sorted(registry.readers.all().values(), key=lambda r: r.generic)
    with readable(path):
        for candidate in found:
            if candidate.recognises(path):
                return candidate
    known = "; ".join(f"{r.name}: {r.description}" for r in found)
    raise DataError(
        "nothing here is a format that engramma reads",
        where=str(path),
        mend=f"give one of these ({known}), or name the format with format=",
    )


def check_readable(path: Path) -> None:
    """Refuse what is not there, is empty, or may not be read."""
    if not path.exists():
        raise DataError("there is nothing at this path", where=str(path), mend="check the name")
    need = os.R_OK | (os.X_OK if path.is_dir() else 0)
    if not os.access(path, need):
        raise _not_permitted(path)
    if path.is_dir():
        if not any(path.iterdir()):
            raise DataError("the folder is empty", where=str(path), mend="check the name")
    elif path.stat().st_size == 0:
        raise DataError(
            "the file is empty (0 bytes)", where=str(path), mend="copy or download it again"
        )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn a refused permission inside the block into an error that says so."""
    try:
        yield
    except PermissionError as error:
        raise _not_permitted(Path(error.filename or path)) from error


@contextmanager
def decoding(path: Path, kind: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a file library raises on a damaged file into a `DataError`.

    Parameters
    ----------
    path : Path
    kind : str
        What the file should be ("NIfTI image").
    *errors : exception types
        What the library raises on damaged input.
    """
    try:
        yield
    except PermissionError:
        raise
    except errors as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the file cannot be read as {kind}: {reason}",
            where=str(path),
            mend="it is damaged or cut short: copy or download it again",
        ) from error


def _not_permitted(path: Path) -> DataError:
    return DataError(
        "you may not read this",
        where=str(path),
        mend="change its permissions, or copy it to a place of your own",
    )


def _generate(name: str, options: dict[str, Any]) -> Any:
    """Generate a world, or say that there is neither such a path nor such a world."""
    looks_like_a_path = any(mark in name for mark in ("/", "\\", ".", "~"))
    worlds = {} if looks_like_a_path else registry.worlds.all()
    if name in worlds:
        return worlds[name](**_checked(f"the world {name!r}", worlds[name], options))
    close = difflib.get_close_matches(name, worlds, n=3)
    mend = "check the path"
    if close:
        mend = f"did you mean the world {' or '.join(close)}?"
    elif worlds:
        mend = f"check the path, or name a world: {', '.join(worlds)}"
    raise DataError("there is no such file, folder or world", where=name, mend=mend)


def _options(function: Callable[..., Any]) -> tuple[str, ...]:
    kinds = (python_inspect.Parameter.KEYWORD_ONLY, python_inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = python_inspect.signature(function).parameters.items()
    return tuple(n for n, p in parameters if p.kind in kinds and n != "path")


def _checked(owner: str, function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return options in the types that ``function`` takes; refuse what does not fit it."""
    _check_options(owner, function, given)
    try:
        hints = get_type_hints(function)
    except NameError:  # of another package, with types imported for checking only
        return given
    return {n: _convert(owner, n, v, hints[n]) if n in hints else v for n, v in given.items()}


def _check_options(owner: str, function: Callable[..., Any], given: dict[str, Any]) -> None:
    parameters = python_inspect.signature(function).parameters.values()
    if any(p.kind is python_inspect.Parameter.VAR_KEYWORD for p in parameters):
        return
    names = _options(function)
    unknown = [n for n in given if n not in names]
    if unknown:
        close = difflib.get_close_matches(unknown[0], names, n=2)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ConfigError(
            f"{owner} has no option {unknown[0]!r}",
            mend=f"{hint}its options are {', '.join(names) or 'none'}",
        )


def _convert(owner: str, name: str, value: Any, hint: Any) -> Any:
    """Convert what a command line can write (numbers, text, lists) to what a reader takes."""
    union = get_origin(hint) in (Union, UnionType)
    kinds = {get_origin(h) or h for h in (get_args(hint) if union else (hint,))}
    if Any in kinds or (value is None and NoneType in kinds):
        return value
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(
                f"{name}={value!r} is no value that {owner} takes",
                mend=f"give {' or '.join(map(str, get_args(hint)))}",
            )
        return value
    converted: Any = value
    if isinstance(value, bool):
        fits = bool in kinds
    elif isinstance(value, Number):
        numeric = float in kinds or (int in kinds and isinstance(value, Integral))
        fits, converted = numeric or str in kinds, value if numeric else str(value)
    elif isinstance(value, str | Path):
        single = bool({str, Path} & kinds)
        fits = single or Sequence in kinds
        converted = value if single else [part.strip() for part in str(value).split(",")]
    else:
        fits = isinstance(value, list | tuple | set) and bool({Sequence, list, tuple} & kinds)
        fits = fits or any(isinstance(value, k) for k in kinds if isinstance(k, type))
        converted = tuple(value) if fits and tuple in kinds else value
    if not fits:
        names = sorted({NoneType: "None", Sequence: "list"}.get(k, k.__name__) for k in kinds)
        raise ConfigError(
            f"{name}={value!r} is no value that {owner} takes",
            mend=f"give {' or '.join(names)}",
        )
    return converted


def _finish(data: Data) -> Data:
    """Drop bad units and add warnings, where the responses are in memory."""
    if isinstance(data, Cohort):
        members = {s: _finish_one(r) for s, r in data.items()}
        return Cohort(members, attrs=data.attrs)
    return _finish_one(data) if isinstance(data, Recording) else data


def _finish_one(recording: Recording) -> Recording:
    if recording.array.chunks is not None or recording.attrs.get("checked"):
        return recording
    recording, notices = drop_bad_units(recording)
    warnings = [*recording.attrs.get("warnings", []), *notices]
    known = {w["name"] for w in warnings if isinstance(w, dict)}
    warnings += [n for n in check_recording(recording) if n["name"] not in known]
    array = recording.array.copy(deep=False)
    array.attrs = {**recording.attrs, "warnings": warnings}
    return Recording(array, recording.stimuli)
