"""How good the miniature models of the scenes are, on scenes that they were not trained on.

The scripts that train them write these numbers into their model cards, and tests ask that the
shipped weights reach them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engramma.features.contrastive import ImageTextModel
from engramma.features.depth import DepthEstimator
from engramma.generative.autoencoder import ImageAutoencoder
from engramma.generative.captioner import Captioner
from engramma.generative.diffusion import LatentDiffusion
from engramma.worlds.captions import Description, agreement, captions, misdescribe, read
from engramma.worlds.scenes import Scenes

#: Candidates that one is retrieved from.
CANDIDATES = 100
ATTRIBUTES = ("category", "colour", "size", "background")


def image_text_quality(model: ImageTextModel, scenes: Scenes) -> Mapping[str, float]:
    """Measure retrieval among 100 both ways, and whether one mistake in a caption is noticed.

    Returns
    -------
    dict
        ``image_to_text`` and ``text_to_image``, shares of scenes found first among
        `CANDIDATES`; ``right_caption``, share of right captions that are nearer to the image
        than one with a single mistake, and that by `mistake`, as ``right_colour``.
    """
    images = model.embed_images(scenes.images)
    texts = model.embed_texts(list(scenes.stimuli.table["caption"]))
    rng = np.random.default_rng(0)
    wrong = [misdescribe(d, rng) for d in scenes.descriptions]
    told = model.embed_texts([captions(w, rng, 1)[0] for w in wrong])
    right = (images * texts).sum(axis=1) > (images * told).sum(axis=1)
    kinds = np.array([mistake(d, w) for d, w in zip(scenes.descriptions, wrong, strict=True)])
    return {
        "image_to_text": top1(images, texts),
        "text_to_image": top1(texts, images),
        "right_caption": float(right.mean()),
        **{f"right_{kind}": float(right[kinds == kind].mean()) for kind in np.unique(kinds)},
    }


def mistake(scene: Description, wrong: Description) -> str:
    """Name the one mistake of a description: what `misdescribe` changed.

    Returns
    -------
    {"background", "relation", "exchange", "category", "colour", "size"}
        ``exchange``: two things have each other's colour, or category.
    """
    if wrong.background != scene.background:
        return "background"
    pairs = [(a, b) for a, b in zip(scene.things, wrong.things, strict=True) if a != b]
    if len(pairs) == 1:
        (one, other), *_ = pairs
        names = ("category", "colour", "size")
        return next(n for n in names if getattr(one, n) != getattr(other, n))
    return "exchange" if pairs else "relation"


def top1(queries: np.ndarray, candidates: np.ndarray, among: int = CANDIDATES) -> float:
    """Share of queries whose own candidate is the most similar one of ``among``."""
    found = []
    for start in range(0, len(queries) - among + 1, among):
        rows = slice(start, start + among)
        nearest = (queries[rows] @ candidates[rows].T).argmax(axis=1)
        found.append((nearest == np.arange(among)).mean())
    return float(np.mean(found))


def autoencoder_quality(model: ImageAutoencoder, scenes: Scenes) -> Mapping[str, float]:
    """Peak signal-to-noise ratio (dB, mean over images) of reconstructions: ``psnr``."""
    decoded = model.decode(model.encode(scenes.images))
    return {"psnr": psnr(scenes.images, decoded)}


def psnr(images: np.ndarray, decoded: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio, dB, mean over images (uint8)."""
    difference = images.astype(np.float32) - decoded.astype(np.float32)
    error = (difference**2).reshape(len(images), -1).mean(axis=1)
    return float((20 * np.log10(255) - 10 * np.log10(np.maximum(error, 1e-6))).mean())


def diffusion_quality(
    diffusion: LatentDiffusion,
    autoencoder: ImageAutoencoder,
    model: ImageTextModel,
    scenes: Scenes,
    *,
    guidance: float = 3.0,
    steps: int = 20,
) -> Mapping[str, float]:
    """Share of 100 decoded images that re-embed nearest to their own condition: ``re_embedded``.

    ``from_captions`` is the same for conditions that are embeddings of captions.
    """
    rng = np.random.default_rng(0)
    few = slice(0, CANDIDATES)
    wishes = {
        "re_embedded": model.embed_images(scenes.images[few]),
        "from_captions": model.embed_texts(list(scenes.stimuli.table["caption"][few])),
    }
    quality = {}
    for name, wish in wishes.items():
        latents = diffusion.sample(wish, rng=rng, guidance=guidance, steps=steps)
        quality[name] = top1(model.embed_images(autoencoder.decode(latents)), wish)
    return quality


def depth_quality(model: DepthEstimator, scenes: Scenes) -> Mapping[str, float]:
    """Mean relative error, and share of pixels within a factor of 1.25 of the true distance."""
    estimate, truth = model.depth(scenes.images), scenes.depth
    ratio = np.maximum(estimate / truth, truth / estimate)
    return {
        "relative_error": float((np.abs(estimate - truth) / truth).mean()),
        "within_1.25": float((ratio < 1.25).mean()),
    }


def captioner_quality(
    captioner: Captioner, model: ImageTextModel, scenes: Scenes
) -> Mapping[str, float]:
    """Shares of what captions of image embeddings say that is right.

    Returns
    -------
    dict
        ``category``, ``colour``, ``size``, ``background``, ``relation`` and, over the first four,
        ``attributes``.
    """
    return caption_scores(captioner.caption(model.embed_images(scenes.images)), scenes)


def caption_scores(written: list[str], scenes: Scenes) -> Mapping[str, float]:
    """Score captions, one a scene; see `captioner_quality`."""
    counts = [
        agreement(read(text), scene)
        for text, scene in zip(written, scenes.descriptions, strict=True)
    ]
    right = {k: sum(c[k][0] for c in counts) for k in counts[0]}
    said = {k: sum(c[k][1] for c in counts) for k in counts[0]}
    scores = {k: right[k] / max(said[k], 1) for k in right}
    share = sum(right[k] for k in ATTRIBUTES) / max(sum(said[k] for k in ATTRIBUTES), 1)
    return {**scores, "attributes": share}
