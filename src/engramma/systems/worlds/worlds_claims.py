"""Claims of the generated world: what can be decoded, where, when, and how well at best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engramma.contracts import Claim, Control
from engramma.data.recording import Recording
from engramma.decoding.regress import FeatureDecoder
from engramma.decoding.retrieval import similarity
from engramma.features.contrastive import Miniature
from engramma.worlds.objects import SUPERORDINATES
from engramma.worlds.scenes import Scenes
from engramma.worlds.subject_options import SubjectOptions

#: Scenes that decoding and encoding models are fitted to, and scenes they are tested on.
N_TRAIN, N_TEST = 2000, 300
EARLY = ("V1", "V2", "V3")
#: Units of each kind whose variance is partitioned, and penalties that are searched.
N_UNITS, N_SEARCHED = 80, 12
#: Seeds of the claims that show many scenes.
SEEDS = 3
#: Seconds: before the stimulus, and after all areas have begun to respond.
BEFORE, AFTER = (-0.2, 0.0), (0.15, 0.4)


@dataclass(frozen=True, eq=False)
class Viewed:
    """One virtual subject's mean responses, and what the scenes were.

    Parameters
    ----------
    train, test : ndarray, shape (stimulus, unit)
        Single presentations of the training scenes, means over repeats of the test scenes.
    images : ndarray of uint8, shape (N_TRAIN + N_TEST, 64, 64, 3)
        Of the training scenes, then of the test scenes.
    embeddings : ndarray, shape (N_TRAIN + N_TEST, dim)
        Of the miniature image-text model.
    roi : ndarray of str, shape (unit,)
    preferring : ndarray of bool, shape (unit,)
        Whether a unit prefers a class.
    seed : int
    """

    train: np.ndarray
    test: np.ndarray
    images: np.ndarray
    embeddings: np.ndarray
    roi: np.ndarray
    preferring: np.ndarray
    seed: int


@lru_cache(maxsize=SEEDS)
def pictures(seed: int) -> tuple[Scenes, np.ndarray]:
    """Draw the scenes, those of the test first, and embed them."""
    from engramma.worlds.scenes import make_scenes

    scenes = make_scenes(N_TEST + N_TRAIN, rng=np.random.default_rng([seed, 1]), caption=False)
    return scenes, Miniature().embed_images(scenes.images)


@lru_cache(maxsize=SEEDS)
def view(seed: int, signal: bool = True, ceiling: float = SubjectOptions.ceiling) -> Viewed:
    """Show 2000 scenes once and 300 others three times to one virtual subject."""
    from engramma.worlds.cohort import cohort

    scenes, embeddings = pictures(seed)
    members = cohort(
        scenes,
        seed=seed,
        n_subjects=1,
        n_shared=N_TEST,
        n_own=N_TRAIN,
        signal=signal,
        ceiling=ceiling,
        spread=min(0.1, (1 - ceiling) / 3),
    )
    recording = next(iter(members.values()))
    means = recording.mean_over("stimulus")
    row = {stimulus: i for i, stimulus in enumerate(means.coord("stimulus"))}
    values = means.values[[row[stimulus] for stimulus in scenes.stimuli.ids]]
    return Viewed(
        train=values[N_TEST:],
        test=values[:N_TEST],
        images=np.roll(scenes.images, -N_TEST, axis=0),
        embeddings=np.roll(embeddings, -N_TEST, axis=0),
        roi=recording.coord("roi").astype(str),
        preferring=recording.coord("preferred").astype(str) != "",
        seed=seed,
    )


# -- what can be decoded -------------------------------------------------------------------


def retrieved(data: Viewed, shuffled: bool = False) -> float:
    """Top-1 among 300 of a ridge from all units to the whitened embedding."""
    targets = data.embeddings[:N_TRAIN]
    if shuffled:
        targets = targets[np.random.default_rng(data.seed).permutation(N_TRAIN)]
    decoder = FeatureDecoder(whiten=True)
    decoder.fit(data.train, targets, np.arange(N_TRAIN) % 5)
    gallery = decoder.target_space(data.embeddings[N_TRAIN:])
    likeness = similarity(decoder.predict(data.test), gallery, "correlation")
    return float((likeness.argmax(axis=1) == np.arange(N_TEST)).mean())


RETRIEVED = Claim(
    name="seen-image-retrieved",
    sentence=(
        "A ridge decoder retrieves which of 300 new scenes a virtual subject sees, through the "
        "embedding of the miniature image-text model, in more than 0.3 of cases above a decoder "
        "fitted to shuffled pairs."
    ),
    source="engramma, world of scenes: neither hopeless ...",
    metric="top-1 among 300",
    prepare=view,
    seeds=SEEDS,
    system=retrieved,
    baseline=lambda data: retrieved(data, shuffled=True),
    baseline_name="the same decoder fitted to shuffled pairs",
    margin=0.3,
    tried=(
        "With the first image-text model 0.35, undecided: its embedding varied along few "
        "directions (the place of a scene). With one that tells categories in new colours 0.70, "
        "and with one that was trained on blurred images, too, 0.82 at a noise ceiling of 0.3. See "
        "retrieval-leaves-room for what was done then."
    ),
    control=Control(
        "a subject whose units carry no signal",
        lambda data: retrieved(view(data.seed, signal=False)),
        expect="chance",
        chance=1 / N_TEST,
        tolerance=0.01,
    ),
)

NOT_TRIVIAL = Claim(
    name="retrieval-leaves-room",
    sentence=(
        "At the default noise the same decoder is right in less than 0.8 of cases: there is room "
        "for better decoders."
    ),
    source="engramma, world of scenes: ... nor trivial",
    metric="top-1 among 300",
    prepare=view,
    seeds=SEEDS,
    system=retrieved,
    baseline=lambda data: 0.0,
    baseline_name="none: the share itself",
    margin=0.8,
    direction="below",
    tried=(
        "With the first image-text model the control, a subject almost without noise, reached 0.76 "
        "only, and the claim was undecided. With one that was trained on blurred images, too, the "
        "share was 0.82 at the default ceiling of 0.3 for single presentations, undecided: the "
        "world was too easy. Its default was lowered to 0.15, on seed 10 (0.86 at 0.3, 0.83 at "
        "0.25, 0.78 at 0.2, 0.70 at 0.15), as it is the noise that is to leave room."
    ),
    control=Control(
        "a subject almost without noise (ceiling 0.97)",
        lambda data: retrieved(view(data.seed, ceiling=0.97)),
    ),
)


# -- where ---------------------------------------------------------------------------------


@lru_cache(maxsize=SEEDS)
def unique_variance(seed: int) -> dict[str, np.ndarray]:
    """Held-out variance of each unit that one of two feature spaces explains alone.

    Orientation energy and the embedding of the miniature, in one banded ridge whose penalties are
    chosen within the training scenes.
    """
    from engramma.encoding.banded import BandedRidgeCV
    from engramma.encoding.partition import variance_partition

    data = view(seed)
    chosen = _some_units(data)
    spaces = {"energy": orientation_energy(data.images), "embedding": data.embeddings}
    mean = {k: v[:N_TRAIN].mean(axis=0) for k, v in spaces.items()}
    train = {k: v[:N_TRAIN] - mean[k] for k, v in spaces.items()}
    test = {k: v[N_TRAIN:] - mean[k] for k, v in spaces.items()}
    model = BandedRidgeCV(n_candidates=N_SEARCHED, rng=np.random.default_rng(seed))
    parts = variance_partition(model, train, data.train[:, chosen], test, data.test[:, chosen])
    assert parts.unique is not None
    found = np.full((len(parts.spaces), len(data.roi)), np.nan)
    found[:, chosen] = parts.unique
    return dict(zip(parts.spaces, found, strict=True))


def _some_units(data: Viewed) -> np.ndarray:
    """Choose `N_UNITS` early units, and as many that prefer a class, evenly."""
    groups = (np.flatnonzero(np.isin(data.roi, EARLY)), np.flatnonzero(data.preferring))
    return np.concatenate([g[np.linspace(0, len(g) - 1, N_UNITS).astype(int)] for g in groups])


def orientation_energy(images: np.ndarray) -> np.ndarray:
    """Energy of Gabor filters at 4 orientations, 3 frequencies and 8 x 8 places."""
    from engramma.features.gabor import GaborBank
    from engramma.features.pooling import pool_activation

    bank = GaborBank(frequencies=(4, 8, 16), orientations=4, size=64)
    parts = [
        pool_activation(
            bank.activations(list(images[i : i + 64]), ["energy"])["energy"], "grid8", ""
        )
        for i in range(0, len(images), 64)
    ]
    return np.concatenate([p.numpy() for p in parts])


def _mean_unique(data: Viewed, space: str, early: bool) -> float:
    units = np.isin(data.roi, EARLY) if early else data.preferring
    return float(np.nanmean(unique_variance(data.seed)[space][units]))


def _excess(data: Viewed, first: str, second: str, early: bool) -> float:
    return _mean_unique(data, first, early) - _mean_unique(data, second, early)


EARLY_ENERGY = Claim(
    name="early-areas-follow-orientation",
    sentence=(
        "In V1 to V3, orientation energy explains more variance alone than the embedding of the "
        "image-text model does alone."
    ),
    source="engramma, world of scenes; cf. Kay et al. 2008",
    metric="mean unique variance of held-out responses",
    prepare=view,
    seeds=SEEDS,
    system=lambda data: _mean_unique(data, "energy", early=True),
    baseline=lambda data: _mean_unique(data, "embedding", early=True),
    baseline_name="unique variance of the embedding",
    margin=0.0,
    control=Control(
        "units of category-selective areas instead",
        lambda data: _excess(data, "energy", "embedding", early=False),
    ),
)

CATEGORY_EMBEDDING = Claim(
    name="category-areas-follow-meaning",
    sentence=(
        "In category-selective areas, the embedding of the image-text model explains more variance "
        "alone than orientation energy does alone."
    ),
    source="engramma, world of scenes; cf. Wang et al. 2023",
    metric="mean unique variance of held-out responses",
    prepare=view,
    seeds=SEEDS,
    system=lambda data: _mean_unique(data, "embedding", early=False),
    baseline=lambda data: _mean_unique(data, "energy", early=False),
    baseline_name="unique variance of orientation energy",
    margin=0.0,
    control=Control(
        "units of V1 to V3 instead",
        lambda data: _excess(data, "embedding", "energy", early=True),
    ),
)


# -- when ----------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def over_time(seed: int, signal: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Balanced accuracy of the superordinate class at each time of an EEG recording."""
    from engramma.data.splits import stimulus_folds
    from engramma.decoding.time import decode_over_time
    from engramma.worlds.evoked import evoked

    recording: Recording = evoked(seed, n_stimuli=240, n_repeats=4, sfreq=50.0, signal=signal)
    means = recording.mean_over("stimulus")
    splits = list(stimulus_folds(means, 5, rng=np.random.default_rng(seed), allow=("run",)))
    found = decode_over_time(
        means,
        "superordinate",
        splits,
        rng=np.random.default_rng(seed),
        metric="accuracy",
        allow=("run",),
    )
    return found.time, found.scores


def _within(data: int, window: tuple[float, float], signal: bool = True) -> float:
    time, scores = over_time(data, signal)
    return float(scores[(time >= window[0]) & (time < window[1])].mean())


AFTER_LATENCY = Claim(
    name="eeg-after-latency",
    sentence=(
        "The class of a new scene is decoded from EEG after category areas have begun to respond, "
        "better than before the scene was shown."
    ),
    source="engramma, world of scenes; cf. Cichy et al. 2014",
    metric="balanced accuracy, mean over times",
    prepare=lambda seed: seed,
    seeds=8,
    system=lambda seed: _within(seed, AFTER),
    baseline=lambda seed: _within(seed, BEFORE),
    baseline_name="times before stimulus onset",
    margin=0.03,
    control=Control(
        "a recording without signal",
        lambda seed: _within(seed, AFTER, signal=False) - _within(seed, BEFORE, signal=False),
    ),
)

NOT_BEFORE = Claim(
    name="eeg-not-before-onset",
    sentence="Before the scene is shown, its class is decoded at chance.",
    source="engramma, world of scenes",
    metric="balanced accuracy, mean over times",
    prepare=lambda seed: seed,
    seeds=8,
    system=lambda seed: _within(seed, BEFORE),
    baseline=lambda seed: 1 / len(SUPERORDINATES),
    baseline_name="chance",
    margin=0.03,
    direction="within",
    control=Control(
        "times after the latency instead",
        lambda seed: _within(seed, AFTER) - 1 / len(SUPERORDINATES),
    ),
)


# -- how well at best ----------------------------------------------------------------------


def repeats(seed: int) -> Recording:
    """Show 150 scenes four times to one virtual subject."""
    from engramma.worlds.cohort import cohort

    members = cohort(seed=seed, n_subjects=1, n_shared=150, n_own=0, n_repeats=4)
    return next(iter(members.values()))


def estimated_ceiling(recording: Recording) -> float:
    """Mean over units of the share of signal in single presentations, from repeats."""
    from engramma.data.ceilings import variance_ceiling

    return float(variance_ceiling(recording, 1).reliability.mean())


def _with_labels_broken(recording: Recording) -> Recording:
    """Permute which stimulus was shown, within each run."""
    rng = np.random.default_rng(0)
    run, stimulus = recording.coord("run"), recording.coord("stimulus").copy()
    for number in np.unique(run):
        rows = np.flatnonzero(run == number)
        stimulus[rows] = stimulus[rng.permutation(rows)]
    array = recording.array.assign_coords(stimulus=("presentation", stimulus))
    return Recording(array, recording.stimuli)


CEILING = Claim(
    name="ceiling-as-said",
    sentence=(
        "The noise ceiling that is estimated from repeats agrees with the one that the world was "
        "made with, within 0.03 of the variance."
    ),
    source="engramma, world of scenes",
    metric="share of signal in single presentations, mean over units",
    prepare=repeats,
    system=estimated_ceiling,
    baseline=lambda recording: float(recording.coord("true_ceiling").mean()),
    baseline_name="the analytic ceiling",
    margin=0.03,
    direction="within",
    control=Control(
        "stimulus labels permuted within runs",
        lambda recording: (
            estimated_ceiling(_with_labels_broken(recording))
            - float(recording.coord("true_ceiling").mean())
        ),
    ),
)

CLAIMS = (
    RETRIEVED,
    NOT_TRIVIAL,
    EARLY_ENERGY,
    CATEGORY_EMBEDDING,
    AFTER_LATENCY,
    NOT_BEFORE,
    CEILING,
)
