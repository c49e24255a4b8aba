"""Read and change the values of places while a language model runs, and leave it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import ConfigError
from engramma.memory.decoder import attending_by, register_attention
from engramma.probing.places import Anatomy, Place

#: ``change(values) -> values``: gets the values of a place, and returns others of the same shape.
#: What it gets may be changed in place.
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Edit:
    """A change of the values of a place. Several of one place are made in their order."""

    place: Place
    change: Change


@contextmanager
def hooked(
    anatomy: Anatomy, edits: Iterable[Edit] = (), keep: Iterable[Place] = ()
) -> Iterator[dict[Place, Tensor]]:
    """Make edits and keep values while the ``with`` block runs the model.

    Parameters
    ----------
    anatomy : Anatomy
    edits : iterable of Edit
    keep : iterable of Place

    Yields
    ------
    dict of Place to Tensor
        Filled by each run: the values after the edits.

    Raises
    ------
    ConfigError
        If the model has no such place, or a change returns another shape.
    """
    changes: dict[Place, list[Change]] = {}
    for edit in edits:
        changes.setdefault(edit.place, []).append(edit.change)
    kept: dict[Place, Tensor] = {}
    wanted = set(keep)
    with ExitStack() as stack:
        patterns: dict[int, Callable[[Tensor], Tensor]] = {}
        for place in sorted({*changes, *wanted}):
            visit = _visitor(place, changes.get(place, []), kept if place in wanted else None)
            if place.kind == "pattern":
                anatomy.attention(place.layer)
                patterns[place.layer] = visit
            else:
                stack.enter_context(_tapped(anatomy, place, visit, bool(changes.get(place))))
        if patterns:
            stack.enter_context(_attending(anatomy, patterns))
        yield kept


def _visitor(
    place: Place, changes: list[Change], kept: dict[Place, Tensor] | None
) -> Callable[[Tensor], Tensor]:
    def visit(values: Tensor) -> Tensor:
        for change in changes:
            changed = change(values.clone())
            if changed.shape != values.shape:
                raise ConfigError(
                    f"a change returns shape {tuple(changed.shape)} and not {tuple(values.shape)}",
                    where=f"{place.kind} of layer {place.layer}",
                )
            values = changed
        if kept is not None:
            kept[place] = values
        return values

    return visit


@contextmanager
def _tapped(
    anatomy: Anatomy, place: Place, visit: Callable[[Tensor], Tensor], changes: bool
) -> Iterator[None]:
    tap = anatomy.tap(place)

    def seen(whole: Tensor) -> Tensor:
        values = visit(tap.read(whole))
        return tap.write(whole, values) if changes else whole

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (seen(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": seen(kwargs["hidden_states"])}

    def after(_: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (seen(output[0]), *output[1:])
        return seen(output)

    if tap.side == "input":
        handle = tap.module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = tap.module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


# -- attention patterns ----------------------------------------------------------------------

_NAME = "engramma_patterns"
_patterns: ContextVar[Mapping[int, Callable[[Tensor], Tensor]]] = ContextVar("patterns")


@contextmanager
def _attending(
    anatomy: Anatomy, patterns: Mapping[int, Callable[[Tensor], Tensor]]
) -> Iterator[None]:
    """Compute the attention of some layers so that their weights can be seen."""
    register_attention(_NAME, _attend, masked=True)
    token = _patterns.set(patterns)
    try:
        with attending_by(anatomy.network, _NAME):
            yield
    finally:
        _patterns.reset(token)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers calls it, batch x head x token x feature; additive masks."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (key, value))
    visit = _patterns.get().get(module.layer_idx)
    if visit is None and softcap is None:
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling
        )
        return out.transpose(1, 2).contiguous(), None
    scores = query @ key.transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    weights = weights if visit is None else visit(weights)
    return (weights @ value).transpose(1, 2).contiguous(), weights


# -- running from the middle -----------------------------------------------------------------


@contextmanager
def started_at(anatomy: Anatomy, layer: int, residual: Tensor) -> Iterator[None]:
    """Skip the blocks before ``layer``, and let it read ``residual`` (batch x token x D).

    What comes before a change is the same for all changes: a sweep over the heads of a layer runs
    only what comes after it.
    """
    place = Place("residual", layer)
    skipped = anatomy.blocks[:layer]
    try:
        for block in skipped:
            # An attribute of the object hides the method of the class until it is deleted.
            block.forward = _pass
        with hooked(anatomy, [Edit(place, lambda _: residual)]):
            yield
    finally:
        for block in skipped:
            del block.forward


def _pass(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states
