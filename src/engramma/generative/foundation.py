"""Generative foundation models: the miniature, or a real one from a local folder.

Each function returns the miniature that comes with engramma when called without a source, and a
model of the same interface when called with a path. Nothing is downloaded; real models need
``pip install 'engramma[language]'``, those of diffusers ``pip install 'engramma[diffusion]'``.
"""

from __future__ import annotations

from pathlib import Path

from engramma.generative.autoencoder import ImageAutoencoder
from engramma.generative.captioner import Captioner, TokenCaptioner
from engramma.generative.diffusion import LatentDiffusion
from engramma.generative.story_model import CausalLanguageModel

Source = str | Path


def image_autoencoder(
    source: Source | None = None, *, image_size: int | None = None
) -> ImageAutoencoder:
    """Return the miniature autoencoder, or the ``AutoencoderKL`` of a folder of diffusers.

    Parameters
    ----------
    source : str or path, optional
    image_size : int, optional
        Of a real one, where it is not the size that it was trained on.
    """
    if source is None:
        from engramma.generative.autoencoder import Miniature

        return Miniature()
    from engramma.generative.diffusers_folder import AutoencoderFolder

    return AutoencoderFolder(source, image_size=image_size)


def latent_diffusion(
    source: Source | None = None, *, ip_adapter: Source | None = None
) -> LatentDiffusion:
    """Return the miniature diffusion model, or the U-net and scheduler of a pipeline's folder.

    Parameters
    ----------
    source : str or path, optional
    ip_adapter : str or path, optional
        Safetensors file of an IP-Adapter for a real one.
    """
    if source is None:
        from engramma.generative.diffusion import Miniature

        return Miniature()
    from engramma.generative.diffusion_folder import DiffusionFolder

    return DiffusionFolder(source, ip_adapter=ip_adapter)


def captioner(source: Source | None = None) -> Captioner:
    """Return the miniature captioner of embeddings, or the GIT of a Hugging Face folder."""
    if source is None:
        from engramma.generative.captioner import Miniature

        return Miniature()
    from engramma.generative.git_folder import GitFolder

    return GitFolder(source)


def token_captioner(source: Source | None = None) -> TokenCaptioner:
    """Return the captioner of image tokens: the miniature, or the GIT of a folder."""
    if source is None:
        from engramma.generative.captioner import TokenMiniature

        return TokenMiniature()
    from engramma.generative.git_folder import GitFolder

    return GitFolder(source)


def language_model(source: Source | None = None) -> CausalLanguageModel:
    """Return the miniature of the stories, ``"smollm2"``, or any causal model from a folder."""
    return CausalLanguageModel("mini-story" if source is None else source)
