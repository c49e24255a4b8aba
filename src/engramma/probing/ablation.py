"""Take heads and neurons out of a model, or hold them at a value; and random choices to compare.

Zero ablation leads far from what a model is used to. Mean ablation leaves what a head always says;
resampling (interchange) puts in what it says about another input (Wang et al. 2022,
"Interpretability in the wild"; Geiger et al. 2021, "Causal abstractions of neural networks").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel
from engramma.probing.places import Kind, Place
from engramma.progress import track

#: A head, as (layer, head), and a neuron, as (layer, neuron).
Head = tuple[int, int]
Neuron = tuple[int, int]
Mode = Literal["zero", "mean", "resample"]


def ablate_heads(
    model: LanguageModel,
    heads: Iterable[Head],
    mode: Mode = "zero",
    reference: Mapping[Place, Tensor] | None = None,
    positions: Sequence[int] | slice = slice(None),
) -> list[Edit]:
    """Edits that remove what heads put out.

    Parameters
    ----------
    model : LanguageModel
    heads : iterable of (layer, head)
    mode : {"zero", "mean", "resample"}
    reference : mapping of Place to Tensor, optional
        For ``"mean"`` the result of `mean_values` at ``heads``; for ``"resample"`` the values of
        another run of the same shape, row for row.
    positions : sequence of int or slice
        Token positions to change; all by default.

    Raises
    ------
    ConfigError
        If a head does not exist, or the reference is missing.
    """
    return [
        _replace(Place("heads", layer), index, mode, reference, positions)
        for layer, index in heads_by_layer(model, heads).items()
    ]


def ablate_neurons(
    model: LanguageModel,
    neurons: Iterable[Neuron],
    mode: Mode = "zero",
    reference: Mapping[Place, Tensor] | None = None,
    positions: Sequence[int] | slice = slice(None),
    kind: Kind = "neurons",
) -> list[Edit]:
    """Edits that remove feed-forward neurons; see `ablate_heads`. ``kind`` may name ``gate``."""
    by_layer = _by_layer(neurons, model.anatomy.n_layers, model.anatomy.n_neurons, "neuron")
    return [
        _replace(Place(kind, layer), index, mode, reference, positions)
        for layer, index in by_layer.items()
    ]


def clamp_neurons(
    model: LanguageModel, neurons: Iterable[Neuron], value: float, kind: Kind = "neurons"
) -> list[Edit]:
    """Edits that hold neurons at a value, at every position."""
    by_layer = _by_layer(neurons, model.anatomy.n_layers, model.anatomy.n_neurons, "neuron")

    def hold(index: Tensor) -> Callable[[Tensor], Tensor]:
        def change(values: Tensor) -> Tensor:
            values[..., index] = value
            return values

        return change

    return [Edit(Place(kind, layer), hold(index)) for layer, index in by_layer.items()]


@torch.no_grad()
def mean_values(
    model: LanguageModel, tokens: Tensor, last: Tensor, places: Iterable[Place], rows: int = 32
) -> dict[Place, Tensor]:
    """Mean of places over sequences and positions, padding left out.

    Parameters
    ----------
    model : LanguageModel
    tokens : Tensor of int64, shape (sequence, token)
    last : Tensor of int64, shape (sequence,)
        Position of each one's last token.
    places : iterable of Place
    rows : int
        Sequences at a time.
    """
    places = list(places)
    total: dict[Place, Tensor] = {}
    for part, end in zip(tokens.split(rows), last.split(rows), strict=True):
        there = torch.arange(part.shape[1]) <= end[:, None]
        run = model.run(part, keep=places, at=0)
        for place in places:
            sums = run[place][there].sum(dim=0)
            total[place] = total[place] + sums if place in total else sums
    count = float((last + 1).sum())
    return {place: value / count for place, value in total.items()}


def sweep_heads(
    model: LanguageModel,
    tokens: Tensor,
    score: Callable[[Tensor], Tensor],
    *,
    at: Tensor | int | None = None,
    mode: Mode = "zero",
    reference: Mapping[Place, Tensor] | None = None,
    layers: Iterable[int] | None = None,
    rows: int = 64,
) -> Tensor:
    """Remove each head in turn and score what is left.

    What lies before a head's layer is computed once, and several heads go through the rest of the
    model together.

    Parameters
    ----------
    model : LanguageModel
    tokens : Tensor of int64, shape (batch, token)
    score : callable
        ``score(logits) -> (batch,)``; logits as `LanguageModel.run` returns them for ``at``.
    at : Tensor or int, optional
    mode, reference
        See `ablate_heads`.
    layers : iterable of int, optional
        All by default.
    rows : int
        Most sequences at a time.

    Returns
    -------
    Tensor, shape (layer, head, batch)
        NaN for layers left out.
    """
    anatomy, batch = model.anatomy, len(tokens)
    wanted = range(anatomy.n_layers) if layers is None else sorted(set(layers))
    streams = model.run(tokens, keep=[Place("residual", x) for x in wanted], at=0).values
    found = torch.full((anatomy.n_layers, anatomy.n_heads, batch), torch.nan)
    together = max(1, rows // batch)
    for layer in track(wanted, "removing each head"):
        place = Place("heads", layer)
        for heads in torch.arange(anatomy.n_heads).split(together):
            n = len(heads)
            edit = _one_head_a_copy(place, heads, batch, mode, reference)
            run = model.run(
                tokens.repeat(n, 1),
                at=at.repeat(n, *[1] * (at.ndim - 1)) if isinstance(at, Tensor) else at,
                edits=[edit],
                start=(layer, streams[Place("residual", layer)].repeat(n, 1, 1)),
            )
            scores = torch.cat([score(part) for part in run.logits.split(batch)])
            found[layer, heads] = scores.view(n, batch)
    return found


def _one_head_a_copy(
    place: Place,
    heads: Tensor,
    batch: int,
    mode: Mode,
    reference: Mapping[Place, Tensor] | None,
) -> Edit:
    """Remove another head in each copy of a batch."""

    def change(values: Tensor) -> Tensor:
        copies = values.view(len(heads), batch, *values.shape[1:])
        for copy, head in zip(copies, heads.tolist(), strict=True):
            copy[:, :, head] = _instead(place, mode, reference, torch.tensor([head]))[..., 0, :]
        return values

    return Edit(place, change)


def random_heads(
    model: LanguageModel,
    heads: Sequence[Head],
    rng: np.random.Generator,
    *,
    exclude: Iterable[Head] = (),
) -> list[Head]:
    """As many other heads in the same layers; from all layers where a layer has too few left.

    Raises
    ------
    ConfigError
        If too few heads are left.
    """
    return _matched(heads, exclude, model.anatomy.n_layers, model.anatomy.n_heads, rng)


def random_neurons(
    model: LanguageModel,
    neurons: Sequence[Neuron],
    rng: np.random.Generator,
    *,
    exclude: Iterable[Neuron] = (),
) -> list[Neuron]:
    """As many other neurons in the same layers; see `random_heads`."""
    return _matched(neurons, exclude, model.anatomy.n_layers, model.anatomy.n_neurons, rng)


def _matched(
    chosen: Sequence[tuple[int, int]],
    exclude: Iterable[tuple[int, int]],
    n_layers: int,
    n: int,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    taken = {*chosen, *exclude}
    found: list[tuple[int, int]] = []
    missing = 0
    for layer, count in zip(*np.unique([x[0] for x in chosen], return_counts=True), strict=True):
        free = [i for i in range(n) if (int(layer), i) not in taken]
        drawn = rng.permutation(free)[:count]
        found += [(int(layer), int(i)) for i in drawn]
        missing += int(count) - len(drawn)
    if missing:
        left = sorted({(x, i) for x in range(n_layers) for i in range(n)} - taken - set(found))
        if len(left) < missing:
            raise ConfigError(
                f"{len(chosen)} random ones cannot be drawn beside {len(taken)} excluded",
                where=f"a model of {n_layers} layers of {n}",
                mend="choose fewer",
            )
        found += [left[i] for i in rng.permutation(len(left))[:missing]]
    return found


def heads_by_layer(model: LanguageModel, heads: Iterable[Head]) -> dict[int, Tensor]:
    """Heads of each layer, without repeats and in order.

    Raises
    ------
    ConfigError
        If a head does not exist.
    """
    return _by_layer(heads, model.anatomy.n_layers, model.anatomy.n_heads, "head")


def _by_layer(
    places: Iterable[tuple[int, int]], n_layers: int, n: int, name: str
) -> dict[int, Tensor]:
    found: dict[int, list[int]] = {}
    for layer, index in places:
        if not (0 <= layer < n_layers and 0 <= index < n):
            raise ConfigError(
                f"there is no {name} {index} in layer {layer}",
                where="model",
                mend=f"layers are 0 to {n_layers - 1}, and {name}s 0 to {n - 1}",
            )
        found.setdefault(layer, []).append(index)
    return {layer: torch.tensor(sorted(set(index))) for layer, index in sorted(found.items())}


def _replace(
    place: Place,
    index: Tensor,
    mode: Mode,
    reference: Mapping[Place, Tensor] | None,
    positions: Sequence[int] | slice,
) -> Edit:
    where = positions if isinstance(positions, slice) else torch.as_tensor(positions)

    def change(values: Tensor) -> Tensor:
        instead = _instead(place, mode, reference, index)
        if mode == "resample":
            instead = instead[:, where]
        picked = values[:, where]
        picked[:, :, index] = instead.expand_as(picked[:, :, index])
        values[:, where] = picked
        return values

    return Edit(place, change)


def _instead(
    place: Place, mode: Mode, reference: Mapping[Place, Tensor] | None, index: Tensor
) -> Tensor:
    if mode == "zero":
        return torch.zeros(())[None, None] if place.kind != "heads" else torch.zeros(1, 1, 1, 1)
    if mode not in ("mean", "resample"):
        raise ConfigError(f"there is no ablation {mode!r}", mend="use zero, mean or resample")
    if reference is None or place not in reference:
        raise ConfigError(
            f"{mode} ablation needs values of {place.kind} in layer {place.layer}",
            where="reference",
            mend="give the result of mean_values, or of another run",
        )
    values = reference[place]
    if mode == "mean":
        return values[index][None, None]
    return values[:, :, index]
