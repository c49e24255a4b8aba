"""Foundation models by what they do: the miniature, or a real one from a local folder.

Each function returns the miniature that comes with engramma when called without a source, and a
model of the same interface when called with the path of a Hugging Face folder. Nothing is
downloaded; real models need ``pip install 'engramma[language]'``.
"""

from __future__ import annotations

from pathlib import Path

from engramma.features.contrastive import ImageTextModel
from engramma.features.depth import DepthEstimator
from engramma.features.model import FeatureModel
from engramma.features.speech_folder import SpeechEncoder
from engramma.features.video import VideoEncoder

Source = str | Path


def image_text_model(source: Source | None = None, *, projected: bool = False) -> ImageTextModel:
    """Return the miniature of CLIP, or the real one from a folder.

    Parameters
    ----------
    source : str or path, optional
    projected : bool
        Whether the tokens of a real one are brought to the common space; see
        `engramma.features.clip_folder.ClipFolder`.
    """
    if source is None:
        from engramma.features.contrastive import Miniature

        return Miniature()
    from engramma.features.clip_folder import ClipFolder

    return ClipFolder(source, projected=projected)


def depth_estimator(source: Source | None = None) -> DepthEstimator:
    """Return the miniature depth estimator, or a DPT (MiDaS) from a folder."""
    if source is None:
        from engramma.features.depth import Miniature

        return Miniature()
    from engramma.features.depth_folder import DepthFolder

    return DepthFolder(source)


def speech_encoder(source: Source | None = None) -> SpeechEncoder:
    """Return the miniature speech encoder, or a wav2vec 2.0, HuBERT, WavLM or Whisper."""
    if source is None:
        from engramma.features.speech import Miniature

        return Miniature()
    from engramma.features.speech_folder import SpeechFolder

    return SpeechFolder(source)


def video_encoder(source: Source | None = None) -> VideoEncoder:
    """Return the miniature video encoder, or a VideoMAE from a folder."""
    if source is None:
        from engramma.features.video import Miniature

        return Miniature()
    from engramma.features.video_folder import VideoFolder

    return VideoFolder(source)


def vision_model(source: Source) -> FeatureModel:
    """Return layers of an image model from a folder: ViT, DeiT, BEiT, CLIP, a ResNet and others.

    Parameters
    ----------
    source : str or path
        A folder of ``save_pretrained``. For the class token alone, extract with ``pool="first"``.
    """
    from engramma.features.folders import load_local

    return load_local(Path(source).expanduser(), "image")
