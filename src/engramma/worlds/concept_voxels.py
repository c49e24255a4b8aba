"""SemVox: voxels that want one or two concepts, in three views.

`concept_voxels` gives image and text vectors of a joint space with a modality gap (Liang et al.
2022); `concept_pixels` mixes meaning and nuisance into "pixels" by a non-linear map; in
`archetype_voxels` the voxels of all subjects are variations of a few archetypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from engramma.data.features import Features
from engramma.data.recording import Cohort
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.vector_views import VectorView, record, unit_rows

#: Concepts by group.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "people": ("woman", "boy", "crowd", "dancer", "baby"),
        "animals": ("dog", "horse", "fish", "bird", "spider"),
        "food": ("bread", "apple", "soup", "cheese", "cake"),
        "buildings": ("church", "barn", "tower", "bridge", "stadium"),
        "nature": ("mountain", "river", "forest", "beach", "desert"),
        "vehicles": ("car", "train", "boat", "bicycle", "plane"),
        "tools": ("hammer", "saw", "knife", "drill", "ladder"),
        "print": ("poster", "newspaper", "sign", "label", "map"),
    }
)


@world("concept-voxels")
def concept_voxels(
    seed: int = 0,
    *,
    n_images: int = 1500,
    n_voxels: int = 120,
    n_subjects: int = 1,
    n_repeats: int = 1,
    n_groups: int = 8,
    per_group: int = 5,
    n_dimensions: int = 64,
    pairs: str = "across",
    one_group: bool = True,
    gap: float = 0.6,
    style: float = 0.3,
    noise: float = 0.3,
    snr: float = 0.3,
    signal: bool = True,
) -> VectorView:
    """Show images of concepts to voxels that want one or two of them.

    Of the voxels two fifths want one concept (``roi`` ``single``), two fifths two (``pair``), a
    tenth follow the style of the image and no concept (``style``), and a tenth nothing (``noise``):
    for the last two a caption is wrong whatever it says.

    Parameters
    ----------
    seed : int
    n_images, n_voxels, n_subjects, n_repeats : int
    n_groups, per_group : int
        Of `GROUPS`, and of the concepts in each.
    n_dimensions : int
        Of the joint space of images and texts.
    pairs : {"across", "within"}
        Whether the two concepts of a voxel are of different groups or of one.
    one_group : bool
        Whether an image takes its one to three concepts from one group, so that concepts of
        different groups never occur together.
    gap : float
        Length of the vector that all image embeddings have and no text embedding has.
    style, noise : float
        Length, on average, of the style and of the noise in an image embedding, whose concepts
        have length 1.
    snr : float
        Variance of signal over noise in a single presentation.
    signal : bool
        False: no voxel follows anything.

    Returns
    -------
    VectorView
        Features ``image`` (not of unit length), ``caption`` and ``style``. Truth: ``concepts``
        (names), ``groups`` (of each), ``concept_vectors``, ``shown`` (image x concept, how large
        each is), ``gap`` (vector), and by subject ``wanted`` (voxel x concept, weights).

    Raises
    ------
    ConfigError
        If an option is out of range.
    """
    if not (2 <= n_groups <= len(GROUPS) and 3 <= per_group <= 5):
        raise ConfigError(
            f"there are no {n_groups} groups of {per_group} concepts",
            mend=f"use 2 to {len(GROUPS)} groups of 3 to 5",
        )
    if pairs not in ("across", "within") or n_voxels < 10 or n_images < 2 or n_subjects < 1:
        raise ConfigError(
            "the world 'concept-voxels' cannot be made with these options",
            mend="pairs is across or within; use 10 voxels, 2 images and a subject, or more",
        )
    first, *others = [
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(n_subjects + 1)
    ]
    names = list(GROUPS)[:n_groups]
    concepts = [c for g in names for c in GROUPS[g][:per_group]]
    group = np.repeat(np.arange(n_groups), per_group)
    centres = first.standard_normal((n_groups, n_dimensions))
    own = first.standard_normal((len(concepts), n_dimensions))
    vectors = unit_rows(0.6 * centres[group] + own)
    shown = _contents(n_images, group, one_group, first)
    styles = first.standard_normal((n_images, 8))
    text = unit_rows((shown > 0) @ vectors)
    apart = unit_rows(first.standard_normal(n_dimensions))
    scale = np.sqrt(n_dimensions)
    look = styles @ first.standard_normal((8, n_dimensions)) / np.sqrt(8)
    image = (
        unit_rows(shown @ vectors)
        + gap * apart
        + style * look / scale
        + noise * first.standard_normal(look.shape) / scale
    )
    image *= np.exp(0.1 * first.standard_normal((n_images, 1)))
    stimuli = _stimuli(shown, concepts, [names[g] for g in group])
    roi = np.asarray(["single", "pair", "style", "noise"])[
        np.searchsorted([0.4, 0.8, 0.9], np.arange(n_voxels) / n_voxels, side="right")
    ]
    members, wanted = {}, {}
    for number, rng in enumerate(others, start=1):
        subject = f"sub-{number:02d}"
        weights = _wanted(roi, group, pairs, rng)
        clean = shown @ weights.T
        follows = roi == "style"
        clean[:, follows] = styles @ rng.standard_normal((8, int(follows.sum())))
        if not signal:
            clean, weights = np.zeros_like(clean), np.zeros_like(weights)
        wanted[subject] = weights
        members[subject] = record(
            clean, roi, stimuli, snr=snr, rng=rng, subject=subject, n_repeats=n_repeats,
            source="generated: voxels that want concepts",
        )  # fmt: skip
    ids = tuple(stimuli.ids)
    features = {
        "image": Features(image.astype(np.float32), ids, "image", "concept-voxels", "image"),
        "caption": Features(text.astype(np.float32), ids, "caption", "concept-voxels", "text"),
        "style": Features(styles.astype(np.float32), ids, "style", "concept-voxels", "style"),
    }
    truth = {
        "concepts": concepts,
        "groups": group,
        "concept_vectors": vectors,
        "shown": shown,
        "gap": gap * apart,
        "wanted": wanted,
    }
    facts = {"world": "concept-voxels", "seed": seed, "snr": snr, "signal": signal}
    return VectorView(stimuli, Cohort(members, attrs=facts), features, truth)


def _contents(n: int, group: np.ndarray, one_group: bool, rng: np.random.Generator) -> np.ndarray:
    """How large each concept is in each image: one to three of them, the others 0."""
    chance = rng.random((n, len(group)))
    if one_group:
        chance += group != rng.integers(group.max() + 1, size=n)[:, None]
    first = np.argsort(chance, axis=1)[:, :3]
    size = rng.uniform(0.7, 1.3, (n, 3)) * (np.arange(3) < rng.integers(1, 4, n)[:, None])
    shown = np.zeros((n, len(group)))
    np.put_along_axis(shown, first, size, axis=1)
    return shown


def _wanted(roi: np.ndarray, group: np.ndarray, pairs: str, rng: np.random.Generator) -> np.ndarray:
    """Weight of each concept for each voxel."""
    weights = np.zeros((len(roi), len(group)))
    for voxel in np.flatnonzero(np.isin(roi, ["single", "pair"])):
        one = rng.integers(len(group))
        weights[voxel, one] = 1.0
        if roi[voxel] == "pair":
            fits = (group != group[one]) == (pairs == "across")
            fits[one] = False
            weights[voxel, rng.choice(np.flatnonzero(fits))] = rng.uniform(0.8, 1.2)
    return weights


def _stimuli(shown: np.ndarray, concepts: list[str], groups: list[str]) -> StimulusSet:
    """Table with captions, the largest concept first."""
    rows = []
    for sizes in shown:
        inside = [int(k) for k in np.argsort(-sizes) if sizes[k] > 0]
        nouns = [f"{'an' if concepts[k][0] in 'aeiou' else 'a'} {concepts[k]}" for k in inside]
        listed = " and ".join([", ".join(nouns[:-1]), nouns[-1]] if len(nouns) > 1 else nouns)
        rows.append((f"A photo of {listed}.", concepts[inside[0]], groups[inside[0]], len(inside)))
    index = pd.Index([f"image{i:05d}" for i in range(len(shown))], dtype=object)
    columns = ["caption", "category", "superordinate", "n_concepts"]
    return StimulusSet(pd.DataFrame(rows, columns=columns, index=index))


@world("concept-pixels")
def concept_pixels(
    seed: int = 0,
    *,
    n_images: int = 600,
    n_semantic: int = 12,
    n_nuisance: int = 100,
    n_pixels: int = 150,
    n_voxels: int = 150,
    nonlinearity: float = 1.5,
    text_noise: float = 0.5,
    snr: float = 0.3,
) -> VectorView:
    """Mix semantic and nuisance factors into "pixels" that no linear map undoes.

    Pixels are ``tanh`` of random mixtures of random mixtures of the factors, twice. One group of
    voxels is linear in the semantic factors (``roi`` ``semantic``), another in the nuisance
    (``nuisance``): texts, which tell meaning only, must not help there.

    Parameters
    ----------
    seed : int
    n_images, n_semantic, n_nuisance, n_pixels : int
    n_voxels : int
        In each of the two groups.
    nonlinearity : float
        Standard deviation of what enters ``tanh``; near 0 the mixture is linear.
    text_noise : float
        Standard deviation of the noise in text vectors, whose meaning has 1.
    snr : float
        Variance of signal over noise.

    Returns
    -------
    VectorView
        Features ``pixels`` and ``text`` (32 dimensions). Truth: ``semantic``, ``nuisance``
        (image x factor) and ``clean`` (image x voxel).

    Raises
    ------
    ConfigError
        If an option is out of range.
    """
    if min(n_images, n_semantic, n_nuisance, n_pixels, n_voxels) < 1 or nonlinearity <= 0:
        raise ConfigError(
            "the world 'concept-pixels' cannot be made with these options",
            mend="use numbers of at least 1 and nonlinearity > 0",
        )
    rng = np.random.default_rng([seed, 1])
    semantic = rng.standard_normal((n_images, n_semantic))
    nuisance = rng.standard_normal((n_images, n_nuisance))
    mixed = np.concatenate([semantic, nuisance], axis=1)
    for _ in range(2):
        mixing = rng.standard_normal((mixed.shape[1], n_pixels))
        pushed = mixed @ mixing
        mixed = np.tanh(nonlinearity * pushed / pushed.std())
    text = semantic @ rng.standard_normal((n_semantic, 32)) / np.sqrt(n_semantic)
    text += text_noise * rng.standard_normal(text.shape)
    clean = np.concatenate(
        [f @ rng.standard_normal((f.shape[1], n_voxels)) for f in (semantic, nuisance)], axis=1
    )
    roi = np.repeat(["semantic", "nuisance"], n_voxels)
    ids = tuple(f"image{i:05d}" for i in range(n_images))
    stimuli = StimulusSet(pd.DataFrame(index=pd.Index(ids, dtype=object)))
    recording = record(clean, roi, stimuli, snr=snr, rng=rng, source="generated: mixed factors")
    features = {
        "pixels": Features(mixed.astype(np.float32), ids, "pixels", "concept-pixels", "pixels"),
        "text": Features(unit_rows(text).astype(np.float32), ids, "text", "concept-pixels", "text"),
    }
    truth = {"semantic": semantic, "nuisance": nuisance, "clean": clean}
    facts = {"world": "concept-pixels", "seed": seed, "snr": snr}
    return VectorView(stimuli, Cohort({"sub-01": recording}, attrs=facts), features, truth)


@world("archetype-voxels")
def archetype_voxels(
    seed: int = 0,
    *,
    n_subjects: int = 4,
    n_own: int = 200,
    n_shared: int = 100,
    n_voxels: int = 200,
    n_dimensions: int = 32,
    n_subspace: int = 10,
    n_archetypes: int = 12,
    jitter: float = 0.2,
    snr: float = 1.0,
) -> VectorView:
    """Show images to subjects whose voxels are variations of common archetypes.

    Image vectors of unit length lie near a subspace. A voxel weighs their dimensions like one
    archetype, but for a jitter of its own; the archetypes are the same in all subjects.

    Parameters
    ----------
    seed : int
    n_subjects : int
    n_own, n_shared : int
        Images that only one subject sees, and those that all see, each once.
    n_voxels : int
        Of each subject; a twentieth of them follow nothing (``roi`` ``noise``).
    n_dimensions, n_subspace, n_archetypes : int
    jitter : float
        Length of a voxel's own weights over that of its archetype.
    snr : float
        Variance of signal over noise.

    Returns
    -------
    VectorView
        Features ``image``. Truth: ``archetypes`` (archetype x dimension, unit length), and by
        subject ``archetype`` (of each voxel, -1 for none) and ``weights`` (voxel x dimension): the
        noise-free responses are proportional to their product with the image vectors.

    Raises
    ------
    ConfigError
        If an option is out of range.
    """
    if not (1 <= n_subspace <= n_dimensions and n_archetypes >= 1 and n_subjects >= 1):
        raise ConfigError(
            f"{n_archetypes} archetypes cannot lie in {n_subspace} of {n_dimensions} dimensions",
            mend="use 1 <= n_subspace <= n_dimensions, an archetype and a subject",
        )
    first, *others = [
        np.random.default_rng(s) for s in np.random.SeedSequence([seed, 2]).spawn(n_subjects + 1)
    ]
    basis = np.linalg.qr(first.standard_normal((n_dimensions, n_subspace)))[0].T
    n = n_shared + n_subjects * n_own
    image = first.standard_normal((n, n_subspace)) @ basis / np.sqrt(n_subspace)
    image = unit_rows(image + 0.2 * first.standard_normal(image.shape) / np.sqrt(n_dimensions))
    archetypes = unit_rows(first.standard_normal((n_archetypes, n_subspace)) @ basis)
    owner = ["all"] * n_shared + [f"sub-{i // n_own + 1:02d}" for i in range(n - n_shared)]
    ids = tuple(f"image{i:05d}" for i in range(n))
    stimuli = StimulusSet(pd.DataFrame({"seen_by": owner}, index=pd.Index(ids, dtype=object)))
    members, kinds, weights = {}, {}, {}
    for number, rng in enumerate(others, start=1):
        subject = f"sub-{number:02d}"
        kind = rng.integers(n_archetypes, size=n_voxels)
        kind[: n_voxels // 20] = -1
        varied = rng.standard_normal((n_voxels, n_subspace)) @ basis / np.sqrt(n_subspace)
        weight = (archetypes[kind] + jitter * varied) * (kind >= 0)[:, None]
        roi = np.where(kind < 0, "noise", np.char.add("archetype ", kind.astype(str)))
        shown = np.flatnonzero([o in ("all", subject) for o in owner])
        members[subject] = record(
            image @ weight.T, roi, stimuli, snr=snr, rng=rng, subject=subject, shown=shown,
            source="generated: voxels of a few archetypes",
        )  # fmt: skip
        kinds[subject], weights[subject] = kind, weight
    features = {"image": Features(image.astype(np.float32), ids, "image", "archetype-voxels")}
    truth = {"archetypes": archetypes, "archetype": kinds, "weights": weights}
    facts = {"world": "archetype-voxels", "seed": seed, "snr": snr}
    return VectorView(stimuli, Cohort(members, attrs=facts), features, truth)
