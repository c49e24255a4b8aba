"""Diffusion models from folders of the diffusers library.

A folder is laid out as its pipelines save them: ``unet/``, ``scheduler/``, and where the model has
them ``text_encoder/`` with ``tokenizer/`` and ``image_encoder/`` with ``feature_extractor/``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError
from engramma.features.folders import read_json
from engramma.features.huggingface import folder_fingerprint, read_pretrained, transformers
from engramma.features.pretrained import Pretrained, all_batches, check_images, library_class
from engramma.generative.diffusers_folder import diffusers, read_part
from engramma.generative.diffusion import LatentDiffusion


class DiffusionFolder(LatentDiffusion):
    """The ``UNet2DConditionModel`` of a pipeline's folder, with the scheduler that lies there.

    What it is conditioned on depends on the model:

    - tokens that it attends to, image x token x width (image x width for one token): of a text
      (Stable Diffusion; `text_condition` makes them) or of an image (image variations; Versatile
      Diffusion, whose ``image_unet/`` takes the projected tokens of CLIP);
    - an image embedding beside a text (Stable unCLIP, Ramesh et al. 2022; or an IP-Adapter, Ye et
      al. 2023). The text is ``prompt``, empty by default.

    Embeddings are as the model's own image encoder gives them (`image_condition`), which need not
    be unit vectors.

    Parameters
    ----------
    source : str or path
    ip_adapter : str or path, optional
        Safetensors file of an IP-Adapter for this model.

    Raises
    ------
    ConfigError
        If there is no such model, or it wants conditions of yet another kind.
    """

    def __init__(self, source: str | Path, *, ip_adapter: str | Path | None = None) -> None:
        self.folder = Path(source).expanduser()
        self.name = self.folder.resolve().name
        part = "image_unet" if (self.folder / "image_unet").is_dir() else "unet"
        self.network = read_part(self.folder / part, "UNet2DConditionModel")
        config = self.network.config
        wishes = (config.addition_embed_type, config.encoder_hid_dim_type, config.class_embed_type)
        if wishes not in ((None, None, None), (None, None, "projection")):
            raise ConfigError(
                f"the model wants conditions of the kinds {[w for w in wishes if w]}",
                where=str(self.folder),
                mend="use Stable Diffusion 1 or 2, unCLIP, image variations, or an IP-Adapter",
            )
        side = int(config.sample_size)
        self.latent_shape = (int(config.out_channels), side, side)
        self._unclip = config.class_embed_type == "projection"
        self._adapter = None if ip_adapter is None else Path(ip_adapter).expanduser()
        if self._adapter is not None:
            self.condition_dim = _load_adapter(self.network, self._adapter)
        elif self._unclip:  # the embedding, and how much noise is on it
            self.condition_dim = int(config.projection_class_embeddings_input_dim) // 2
        else:
            self.condition_dim = int(config.cross_attention_dim)

    # -- conditions ------------------------------------------------------------------------

    @cached_property
    def _text(self) -> tuple[Any, Any]:
        folder = self.folder / "text_encoder"
        kinds = {"clip_text_model": "CLIPTextModel"}
        encoder = Pretrained(folder, kinds, "a text encoder").network
        loader = library_class(transformers(), "AutoTokenizer")
        return encoder, read_pretrained(loader, self.folder / "tokenizer")

    def text_condition(self, texts: Sequence[str]) -> np.ndarray:
        """Return the text encoder's tokens, text x token x width, padded to the longest possible.

        Raises
        ------
        ConfigError
            If the folder has no CLIP text encoder.
        """
        encoder, tokenizer = self._text
        longest = int(encoder.config.max_position_embeddings)

        def run(batch: Sequence[str]) -> Tensor:
            ids = tokenizer(
                batch,
                padding="max_length",
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )["input_ids"]
            return encoder(ids).last_hidden_state

        found: np.ndarray = all_batches(run, list(texts))
        return found

    def image_condition(self, images: np.ndarray) -> np.ndarray:
        """Return the image encoder's embeddings, image x condition_dim, of RGB images (uint8).

        Raises
        ------
        ConfigError
            If the folder has no CLIP image encoder.
        """
        check_images(images)
        kinds = {"clip_vision_model": "CLIPVisionModelWithProjection"}
        encoder = Pretrained(self.folder / "image_encoder", kinds, "an image encoder").network
        loader = library_class(transformers(), "AutoImageProcessor")
        processor = read_pretrained(loader, self.folder / "feature_extractor")

        def run(batch: np.ndarray) -> Tensor:
            pixels = processor(
                images=list(batch), return_tensors="pt", input_data_format="channels_last"
            )["pixel_values"]
            return encoder(pixels).image_embeds

        found: np.ndarray = all_batches(run, images)
        return found

    def _given(self, condition: Tensor, prompt: Sequence[str]) -> dict[str, Any]:
        """Bring a condition to what the network takes it as."""
        if not self._unclip and self._adapter is None:
            tokens = condition[:, None] if condition.ndim == 2 else condition
            return {"encoder_hidden_states": tokens}
        text = {"encoder_hidden_states": torch.from_numpy(self.text_condition(prompt))}
        if self._adapter is not None:
            return {**text, "added_cond_kwargs": {"image_embeds": [condition[:, None]]}}
        # Cosines and sines of noise level 0; all zero where there is no condition.
        level = torch.arange(self.condition_dim) < self.condition_dim // 2
        there = (condition != 0).any(dim=1, keepdim=True)
        return {**text, "class_labels": torch.cat([condition, there * level], dim=1)}

    def _nothing(self, condition: Tensor) -> Tensor:
        """Return what stands for no condition: the empty text for tokens of a text, else zeros."""
        if condition.ndim == 3 and (self.folder / "text_encoder").is_dir():
            empty = torch.from_numpy(self.text_condition([""]))
            if empty.shape[1:] == condition.shape[1:]:
                return empty.expand_as(condition)
        return torch.zeros_like(condition)

    # -- sampling --------------------------------------------------------------------------

    @torch.inference_mode()
    def sample(
        self,
        condition: np.ndarray,
        *,
        rng: np.random.Generator,
        steps: int = 20,
        guidance: float = 2.0,
        start: np.ndarray | None = None,
        strength: float = 0.8,
        without: np.ndarray | None = None,
        prompt: Sequence[str] | None = None,
    ) -> np.ndarray:
        r"""Draw one latent for each condition; see `LatentDiffusion.sample`.

        Parameters
        ----------
        condition : ndarray, shape (n, condition_dim) or (n, tokens, condition_dim)
        rng, steps, guidance, start, strength
            As there. From ``start`` only the last ``strength * steps`` steps are taken.
        without : ndarray, shape of one condition, optional
            What guidance leads away from; by default the empty text for tokens of a text, else
            zeros.
        prompt : sequence of n str, optional
            Texts beside image embeddings, where the model takes both.

        Returns
        -------
        ndarray of float32, shape (n, \*latent_shape)

        Raises
        ------
        ConfigError
            If a shape or a number does not fit.
        """
        wish = torch.as_tensor(condition, dtype=torch.float32)
        self._check(wish, steps, strength, start, prompt)
        n = len(wish)
        given = self._given(wish, prompt or [""] * n)
        leave = (
            self._nothing(wish)
            if without is None
            else torch.as_tensor(without, dtype=torch.float32).expand_as(wish)
        )
        blank = None if guidance == 1 else self._given(leave, [""] * n)
        scheduler = self._scheduler(steps)
        times = scheduler.timesteps
        noise = torch.from_numpy(rng.standard_normal((n, *self.latent_shape), dtype=np.float32))
        if start is None:
            latents = noise * scheduler.init_noise_sigma
        else:
            skipped = (steps - min(int(steps * strength), steps)) * scheduler.order
            times = times[skipped:]
            latents = torch.as_tensor(start, dtype=torch.float32)
            if len(times):
                if hasattr(scheduler, "set_begin_index"):
                    scheduler.set_begin_index(skipped)
                latents = scheduler.add_noise(latents, noise, times[:1].expand(n))
        options = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            seed = int(rng.integers(2**63))
            options["generator"] = torch.Generator().manual_seed(seed)
        for time in times:
            entering = scheduler.scale_model_input(latents, time)
            said = self.network(entering, time, **given).sample
            if blank is not None:
                plain = self.network(entering, time, **blank).sample
                said = plain + guidance * (said - plain)
            latents = scheduler.step(said, time, latents, **options).prev_sample
        return latents.numpy()

    def identity(self) -> str:
        """Hash of the folder, and of the adapter."""
        adapter = "" if self._adapter is None else folder_fingerprint(self._adapter.parent)
        return f"UNet2DConditionModel {folder_fingerprint(self.folder)} {adapter}".strip()

    def _scheduler(self, steps: int) -> Any:
        folder = self.folder / "scheduler"
        settings = read_json(folder / "scheduler_config.json")
        if "_class_name" not in settings:
            raise ConfigError(
                "there is no scheduler beside the network",
                where=str(folder),
                mend="save the whole pipeline with save_pretrained",
            )
        scheduler = library_class(diffusers(), settings["_class_name"]).from_config(settings)
        scheduler.set_timesteps(steps)
        return scheduler

    def _check(
        self,
        condition: Tensor,
        steps: int,
        strength: float,
        start: np.ndarray | None,
        prompt: Sequence[str] | None,
    ) -> None:
        embedding = self._unclip or self._adapter is not None
        if condition.ndim not in ((2,) if embedding else (2, 3)) or (
            condition.shape[-1] != self.condition_dim
        ):
            raise ConfigError(
                f"{self.name} is conditioned on {self.condition_dim} numbers "
                f"{'a picture' if embedding else 'a token'}, not on {tuple(condition.shape)}",
                mend="make conditions with text_condition or image_condition",
            )
        if prompt is not None and (not embedding or len(prompt) != len(condition)):
            raise ConfigError(
                "there is not one prompt for each condition"
                if embedding
                else f"{self.name} takes no prompt beside its condition",
                mend="pass texts through text_condition" if not embedding else "give one each",
            )
        shape = (len(condition), *self.latent_shape)
        if start is not None and np.shape(start) != shape:
            raise ConfigError(f"start has shape {np.shape(start)}, not {shape}")
        if steps < 1 or not 0 <= strength <= 1:
            raise ConfigError(
                f"steps={steps} and strength={strength} cannot be", mend="use steps >= 1 and 0 .. 1"
            )


def _load_adapter(network: Any, path: Path) -> int:
    """Put an IP-Adapter into a network, and return the width of its embeddings."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            state[part][rest] = tensor.float()
        network._load_ip_adapter_weights([state])
        width = state["image_proj"]["proj.weight"].shape[1]
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"this is no IP-Adapter for the model ({str(error).splitlines()[0]})",
            where=str(path),
            mend="name a safetensors file such as ip-adapter_sd15.safetensors",
        ) from error
    network.eval().requires_grad_(False)
    return int(width)
