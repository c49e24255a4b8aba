"""What every section of a study is given: the data, the options, and the same choices."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from engramma.data.features import Features
from engramma.data.recording import Recording
from engramma.data.splits import Split, leave_one_out, run_ids, stimulus_folds
from engramma.data.stimuli import MEDIA_COLUMNS, StimulusSet
from engramma.errors import ConfigError

#: With more stimuli than this, stimuli are no conditions and are not classified one by one.
MOST_CONDITIONS = 40
N_FOLDS = 5


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    Parameters
    ----------
    seed : int
    decode : str or None
        Column of the stimulus table to decode; None chooses one.
    features : tuple of str or None
        Feature models; None takes every installed one that fits the stimuli.
    n_permutations, n_bootstrap : int
    executor : str or None
        Dask scheduler for the encoding fits.
    """

    seed: int = 0
    decode: str | None = None
    features: tuple[str, ...] | None = None
    n_permutations: int = 1000
    n_bootstrap: int = 1000
    executor: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("n_permutations", 100), ("n_bootstrap", 100)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}", mend=f"use {least} or more")


@dataclass(frozen=True, eq=False)
class Context:
    """Recordings by subject, and the choices that all sections share."""

    recordings: Mapping[str, Recording]
    stimuli: StimulusSet
    options: Options = field(default_factory=Options)

    @property
    def first(self) -> Recording:
        """The first subject's recording, for maps."""
        return next(iter(self.recordings.values()))

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers of one section: independent of which other sections ran."""
        return np.random.default_rng([self.options.seed, zlib.crc32(name.encode())])

    @cached_property
    def label_columns(self) -> list[str]:
        """What can be decoded: columns of the stimulus table, or ``stimulus`` for conditions.

        Raises
        ------
        ConfigError
            If the user's choice is no column, or there is nothing to choose.
        """
        columns = [c for c in self.stimuli.categorical() if not self._same_as_stimulus(c)]
        conditions = self.stimuli_are_conditions
        chosen = self.options.decode
        if chosen is not None:
            if chosen != "stimulus" and chosen not in self.stimuli.table:
                known = ", ".join(map(str, self.stimuli.table.columns)) or "none"
                raise ConfigError(
                    f"the stimulus table has no column {chosen!r}",
                    where=f"its columns are {known}",
                    mend="name one of them with --decode, or 'stimulus' for the conditions",
                )
            return [chosen, *(c for c in columns if c != chosen)]
        columns.sort(key=lambda c: "category" not in c)  # else as in the table
        return ([self._name_of_stimulus()] if conditions else []) + columns

    def _same_as_stimulus(self, column: str) -> bool:
        used = self.stimuli.table[column].loc[np.unique(self.first.coord("stimulus"))]
        return used.nunique() == len(used)

    def _name_of_stimulus(self) -> str:
        """Column that names the conditions one by one (``position``), else ``stimulus``."""
        for column in self.stimuli.table.columns:
            # Further captions (caption_2, ...) are media as well.
            if str(column).split("_")[0] in MEDIA_COLUMNS:
                continue
            if self._same_as_stimulus(column):
                return str(column)
        return "stimulus"

    @cached_property
    def stimuli_are_conditions(self) -> bool:
        """Whether stimuli are few and repeated: classes themselves, not samples of a class."""
        repeats = self.first.repeats
        return 2 <= len(repeats) <= MOST_CONDITIONS and bool((repeats >= 2).all())

    def splits(self, recording: Recording, label: str) -> list[Split]:
        """Split for decoding or predicting ``label``.

        Conditions are decoded across runs: the stimulus is what is decoded and so stands on both
        sides, which is allowed here. Anything else is decoded from stimuli never seen in
        training, whose repeats stay together; runs then span both sides.
        """
        if label == "stimulus":
            return list(leave_one_out(recording, "run", allow=("stimulus",)))
        if len(np.unique(recording.labels(label))) == len(np.unique(recording.coord("stimulus"))):
            return list(leave_one_out(recording, "run", allow=("stimulus",)))
        if self.few_stimuli_per_class(recording, label):
            return list(leave_one_out(recording, "run", allow=("stimulus",)))
        rng = self.rng("splits")  # the same folds in every section
        return list(stimulus_folds(recording, N_FOLDS, rng=rng, allow=("run",)))

    def few_stimuli_per_class(self, recording: Recording, label: str) -> bool:
        """Whether a class has fewer stimuli than folds, so that stimuli cannot be held out."""
        labels = self.stimuli.table.loc[np.unique(recording.coord("stimulus")), label]
        return bool(labels.value_counts().min() < N_FOLDS)

    def split_sentence(self, recording: Recording, label: str) -> str:
        """Say for the methods how the data were split."""
        splits = self.splits(recording, label)
        if splits[0].name.startswith("run"):
            return f"leave-one-run-out cross-validation ({len(splits)} runs)"
        return (
            f"{len(splits)}-fold cross-validation over stimuli (all repeats of a stimulus in "
            "the same fold)"
        )

    @cached_property
    def encodes_conditions(self) -> bool:
        """Whether all that is known of the stimuli is which condition they are."""
        media = any(self.stimuli.has(m) for m in MEDIA_COLUMNS)
        return self.stimuli_are_conditions and not media and self.options.features is None

    @property
    def n_runs(self) -> int:
        """Runs of the first subject."""
        return len(np.unique(run_ids(self.first)))

    @cached_property
    def feature_spaces(self) -> dict[str, Features]:
        """Features of every stimulus, by space; empty where no media and no choice are given."""
        from engramma.study.features import feature_spaces

        return feature_spaces(self)


def unit_positions(recording: Recording) -> dict[str, Any] | None:
    """Voxel indices, affine and shape for a brain image, where the recording has them."""
    coords = recording.array.coords
    if not all(c in coords for c in "ijk") or "affine" not in recording.attrs:
        return None
    return {
        **{c: np.asarray(coords[c].values) for c in "ijk"},
        "affine": np.asarray(recording.attrs["affine"], dtype=float),
        "volume_shape": tuple(int(n) for n in recording.attrs["volume_shape"]),
    }


def rois(recording: Recording) -> np.ndarray | None:
    """Region of each unit, where the recording has more than one."""
    if "roi" not in recording.array.coords:
        return None
    roi = np.asarray(recording.array["roi"].values).astype(str)
    return roi if len(np.unique(roi)) > 1 else None
