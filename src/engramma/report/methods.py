"""The methods paragraph and what it cites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engramma.study.result import Study

#: Software that every report rests on.
ALWAYS_CITED = ("engramma", "numpy", "scipy")
#: Parameters that a sentence of their own tells.
_TOLD = ("seed", "fingerprint")


def cited(study: Study) -> list[str]:
    """Keys of all references, each once, in order of first use."""
    keys = [*study.citations, *(key for section in study.sections for key in section.citations)]
    return list(dict.fromkeys([*keys, *ALWAYS_CITED]))


def methods_paragraph(study: Study) -> str:
    """Tell what was done, ready to paste into a paper.

    The preprocessing steps (``study.history``), then the sentences of every section,
    then parameters, seed, data fingerprint and versions.
    """
    sentences = [_sentence(step) for step in study.history]
    sentences += [_sentence(s) for section in study.sections for s in section.methods]
    options = [
        f"{str(name).replace('_', ' ')} = {_value(value)}"
        for name, value in study.parameters.items()
        if name not in _TOLD and value is not None and value != ""
    ]
    if options:
        sentences.append(f"Parameters were: {'; '.join(options)}.")
    if "seed" in study.parameters:
        sentences.append(f"Random numbers came from seed {study.parameters['seed']}.")
    if study.parameters.get("fingerprint"):
        sentences.append(f"The data have fingerprint {study.parameters['fingerprint']}.")
    if study.versions:
        used = [f"{name} {version}" for name, version in study.versions.items()]
        sentences.append(f"Software: {', '.join(used)}.")
    return " ".join(dict.fromkeys(s for s in sentences if s))


def _sentence(words: Any) -> str:
    """Start with a capital and end with a full stop."""
    written = str(words).strip()
    if not written:
        return ""
    written = written[0].upper() + written[1:]
    return written if written[-1] in ".!?" else written + "."


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple | set):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
