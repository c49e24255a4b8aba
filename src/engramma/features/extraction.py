"""One interface for all features: `extract`, `list_layers` and `available_models`."""

from __future__ import annotations

import difflib
import itertools
import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engramma.data.features import Features
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.features import media
from engramma.features.cache import FeatureCache, key_of
from engramma.features.category import one_hot
from engramma.features.model import FeatureModel, ModelCard, ModuleModel, models
from engramma.features.pooling import grid_size, pool_activation
from engramma.features.projection import random_projection
from engramma.progress import show_progress, track

#: Stimuli whose features share a file of the cache: what an interrupted extraction loses at most.
CHUNK = 256


@dataclass(frozen=True)
class Availability:
    """Whether a registered model can be used on a stimulus set.

    Parameters
    ----------
    name, medium, description : str
    fits : bool
        Whether every stimulus has the medium.
    installed : bool
        Whether the packages it needs are there.
    reason : str
        Why it cannot be used, and what to do; empty where it can.
    default : bool
        Whether a study takes it unasked.
    """

    name: str
    medium: str
    description: str
    fits: bool
    installed: bool
    reason: str = ""
    default: bool = True

    @property
    def usable(self) -> bool:
        """Whether it fits and is installed."""
        return self.fits and self.installed


def available_models(stimuli: StimulusSet) -> list[Availability]:
    """Say of each registered model whether it can be used on these stimuli, and if not, why."""
    listing = []
    for card in registered_models().values():
        fits = stimuli.has(card.medium)
        missing = card.missing()
        reasons = [] if fits else [f"the stimuli have no {card.medium}"]
        if missing:
            install = card.install or f"pip install {' '.join(missing)}"
            reasons.append(f"{', '.join(missing)} is not installed ({install})")
        listing.append(
            Availability(
                card.name,
                card.medium,
                card.description,
                fits,
                not missing,
                "; ".join(reasons),
                card.default,
            )
        )
    fits = bool(stimuli.categorical())
    reason = "" if fits else "no column of the stimulus table sorts the stimuli"
    text = "one feature per category (category:COLUMN for any column)"
    return [*listing, Availability("category", "table", text, fits, True, reason)]


def registered_models() -> dict[str, ModelCard]:
    """All models known by name."""
    from engramma.features import (  # noqa: F401
        audio,
        contrastive,
        depth,
        gabor,
        language,
        pixels,
        speech,
        video,
        vision,
    )

    return dict(models.all())


def load_model(
    model: str | Path | nn.Module | FeatureModel, medium: str | None = None
) -> FeatureModel:
    """Make a feature model of a name, a path or a network.

    Raises
    ------
    ConfigError
        If there is no such model, or a package it needs is not installed.
    """
    if isinstance(model, FeatureModel):
        return model
    if isinstance(model, nn.Module):
        return ModuleModel(model)
    known = registered_models()
    if str(model) in known:
        return known[str(model)].make()
    path = Path(model).expanduser()
    if path.exists():
        from engramma.features.folders import load_local

        return load_local(path, medium)
    close = difflib.get_close_matches(str(model), [*known, "category"], n=1)
    raise ConfigError(
        f"there is no feature model and no path {str(model)!r}",
        mend=f"did you mean {close[0]}?"
        if close
        else f"use {', '.join(known)}, category or a path",
    )


def list_layers(
    model: str | Path | nn.Module | FeatureModel, medium: str | None = None
) -> list[str]:
    """Layers of a model that `extract` takes."""
    return list(load_model(model, medium).layers)


def extract(
    stimuli: StimulusSet,
    model: str | Path | nn.Module | FeatureModel,
    layers: str | Iterable[str] | None = None,
    *,
    medium: str | None = None,
    cache: str | Path | bool | None = None,
    batch_size: int = 16,
    pool: str | None = None,
    dimensions: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Features]:
    """Extract the features of every stimulus.

    Parameters
    ----------
    stimuli : StimulusSet
    model : str, path, nn.Module or FeatureModel
        A registered name (see `available_models`), ``"category"`` or ``"category:COLUMN"``, a
        Hugging Face folder or GGUF file, or any network with a ``preprocess`` method.
    layers : str or iterable of str, optional
        Names or patterns (``"stage*"``); by default those that the model thinks worthwhile.
    medium : {"image", "caption", "audio", "video"}, optional
        For models of more than one medium.
    cache : path or bool, optional
        Folder of the cache; by default the user's (``ENGRAMMA_CACHE``); False: none. Entries are
        found by the content of the stimuli, the weights, the layer, the pooling and the
        projection. Of a network's own Python code only ``forward`` and ``preprocess`` of the
        outermost module are looked at: pass False while you are changing the rest.
    batch_size : int
        Stimuli that the model sees at once. It does not change the features.
    pool : str, optional
        ``"mean"``, ``"grid"`` (4 x 4 cells), ``"gridN"``, ``"flatten"``, ``"first"`` or
        ``"last"``: what is kept of maps and sequences; by default as the model says.
    dimensions : int, optional
        Bring layers with more features to this many by a sparse random projection, which looks
        at no data; for principal components see `projection.match_dimensions`.
    seed : int
        Of the projection.
    progress : bool
        Show a bar on standard error.

    Returns
    -------
    dict of str to Features
        By name: ``"gabor"`` for a model with one layer, ``"efficientnet-lite0/stage4"`` else.

    Raises
    ------
    DataError
        If a stimulus lacks the medium or does not decode.
    ConfigError
        If there is no such model, layer or pooling, or a package is missing.
    """
    if isinstance(model, str) and model.partition(":")[0] == "category":
        features = one_hot(stimuli, model.partition(":")[2] or "category")
        return {features.name: features}
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}", mend="use 1 or more")
    if dimensions is not None and dimensions < 1:
        raise ConfigError(f"dimensions is {dimensions}", mend="use 1 or more, or None for all")
    source = load_model(model, medium)
    media.require(stimuli, source.medium)
    if not len(stimuli):
        raise DataError("the stimulus set is empty", mend="select at least one stimulus")
    chosen = source.choose(layers)
    pool = pool or source.pool
    grid_size(pool)
    work = _Extraction(
        source, chosen, pool, dimensions, seed, batch_size, FeatureCache(cache), source.identity()
    )
    with show_progress() if progress else nullcontext():
        values = work.run(stimuli)
    return _name(values, source, stimuli)


def _name(
    values: dict[str, np.ndarray], source: FeatureModel, stimuli: StimulusSet
) -> dict[str, Features]:
    """Wrap arrays as features."""
    named = {}
    for layer, array in values.items():
        name = source.name if source.single_layer else f"{source.name}/{layer}"
        named[name] = Features(array, tuple(stimuli.ids), name, model=source.name, layer=layer)
    return named


@dataclass
class _Extraction:
    """One call of `extract`: chunk by chunk, what the cache lacks is computed."""

    source: FeatureModel
    layers: list[str]
    pool: str
    dimensions: int | None
    seed: int
    batch_size: int
    cache: FeatureCache
    identity: str

    def run(self, stimuli: StimulusSet) -> dict[str, np.ndarray]:
        """Return layer to stimulus x feature."""
        ids = stimuli.ids
        parts: dict[str, list[np.ndarray]] = {layer: [] for layer in self.layers}
        starts = range(0, len(ids), CHUNK)
        for start in track(starts, f"{self.source.name}: features", total=len(starts)):
            chunk = stimuli.select(ids[start : start + CHUNK])
            for layer, values in self._chunk(chunk).items():
                parts[layer].append(values)
        return {layer: self._join(layer, part) for layer, part in parts.items()}

    def _join(self, layer: str, parts: list[np.ndarray]) -> np.ndarray:
        widths = {p.shape[1] for p in parts}
        if len(widths) > 1:
            raise ConfigError(
                f"layer {layer!r} puts out {len(widths)} different numbers of features",
                where=f"model {self.source.name!r}, pool={self.pool!r}",
                mend="use pool='mean' or 'grid'",
            )
        return np.concatenate(parts)

    def _chunk(self, stimuli: StimulusSet) -> dict[str, np.ndarray]:
        keys = self._keys(stimuli)
        found = {layer: self.cache.get(key) for layer, key in keys.items()}
        missing = [layer for layer, values in found.items() if values is None]
        if missing:
            for layer, values in self._compute(stimuli, missing).items():
                found[layer] = values
                self.cache.put(keys[layer], values)
        return {layer: values for layer, values in found.items() if values is not None}

    def _keys(self, stimuli: StimulusSet) -> dict[str, str]:
        if self.cache.folder is None:
            return dict.fromkeys(self.layers, "")
        common: dict[str, Any] = {
            "model": self.identity,
            "stimuli": media.content_hashes(stimuli, self.source.medium),
            "pool": self.pool,
            "dimensions": self.dimensions,
            "seed": None if self.dimensions is None else self.seed,
        }
        return {layer: key_of(layer=layer, **common) for layer in self.layers}

    def _compute(self, stimuli: StimulusSet, layers: list[str]) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
        n_batches = -(-len(stimuli) // self.batch_size)
        batches = _batched(media.items(stimuli, self.source.medium), self.batch_size)
        for batch in track(batches, f"{self.source.name}: batches", total=n_batches):
            with torch.inference_mode():
                activations = self.source.activations(batch, layers)
                for layer in layers:
                    pooled = pool_activation(activations[layer], self.pool, layer)
                    parts[layer].append(self._project(pooled.numpy(), layer))
        return {layer: self._join(layer, part) for layer, part in parts.items()}

    def _project(self, values: np.ndarray, layer: str) -> np.ndarray:
        n_features = values.shape[1]
        if self.dimensions is None or n_features <= self.dimensions:
            return values
        key = (layer, n_features)
        if key not in self._projections:
            rng = np.random.default_rng([self.seed, zlib.crc32(layer.encode()), n_features])
            self._projections[key] = random_projection(n_features, self.dimensions, rng)
        return np.asarray(values @ self._projections[key], dtype=np.float32)

    def __post_init__(self) -> None:
        self._projections: dict[tuple[str, int], Any] = {}


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
