"""Latent diffusion: pictures drawn from noise, towards what an embedding says.

Ho et al. 2020 (denoising diffusion); Nichol and Dhariwal 2021 (cosine schedule); Song et al. 2021
(DDIM sampling); Salimans and Ho 2022 (velocity prediction); Ho and Salimans 2022 (classifier-free
guidance); Meng et al. 2022 (SDEdit: image to image); Ramesh et al. 2022 (unCLIP: conditioned on
image embeddings). The miniature's grid is 4 x 8 x 8.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import ConfigError
from engramma.features.model import file_fingerprint
from engramma.nn.blocks import ResidualBlock, TransformerBlock, Upsample, sinusoids, strided
from engramma.nn.weights import Shipped, load_shipped

WEIGHTS = Path(__file__).parent / "weights"


def alpha_sigma(time: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of signal and noise at times 0 (picture) .. 1 (noise), cosine schedule.

    ``alpha ** 2 + sigma ** 2 = 1`` (Nichol and Dhariwal 2021, eq. 17, in continuous time).
    """
    angle = 0.5 * torch.pi * time.clamp(0, 1)
    return angle.cos(), angle.sin()


def ddim(velocity: Callable[[Tensor, Tensor], Tensor], latents: Tensor, times: Tensor) -> Tensor:
    """Follow the deterministic path from the first of ``times`` to the last.

    Song et al. 2021, eq. 12 with no noise, for a network that predicts the velocity
    ``v = alpha * noise - sigma * picture`` (Salimans and Ho 2022).

    Parameters
    ----------
    velocity : callable
        ``velocity(latents, times) -> v``, times of shape (n,).
    latents : Tensor, shape (n, channels, height, width)
        At time ``times[0]``.
    times : Tensor, shape (steps + 1,)
        Falling.
    """
    for now, then in pairwise(times):
        v = velocity(latents, now.expand(len(latents)))
        (alpha, sigma), (alpha_then, sigma_then) = alpha_sigma(now), alpha_sigma(then)
        picture, noise = alpha * latents - sigma * v, sigma * latents + alpha * v
        latents = alpha_then * picture + sigma_then * noise
    return latents


class LatentDiffusion(abc.ABC):
    """What decoders ask of a diffusion model that is conditioned on embeddings.

    Attributes
    ----------
    name : str
    latent_shape : tuple of int
    condition_dim : int
        Width of the embeddings it is conditioned on.
    """

    name: str
    latent_shape: tuple[int, int, int]
    condition_dim: int

    @abc.abstractmethod
    def sample(
        self,
        condition: np.ndarray,
        *,
        rng: np.random.Generator,
        steps: int = 20,
        guidance: float = 3.0,
        start: np.ndarray | None = None,
        strength: float = 0.8,
    ) -> np.ndarray:
        """Draw one latent for each condition.

        Parameters
        ----------
        condition : ndarray, shape (n, condition_dim)
            Unit vectors.
        rng : numpy.random.Generator
            Draws the noise to start from.
        steps : int
            Evaluations of the network (twice as many with guidance).
        guidance : float
            1 follows the condition as learnt; above it what the condition adds is exaggerated;
            0 ignores it.
        start : ndarray, shape (n, channels, height, width), optional
            Latents of pictures to begin with, instead of pure noise.
        strength : float
            How much noise is put on ``start``: 0 leaves it as it is, 1 forgets it.

        Returns
        -------
        ndarray of float32, shape (n, channels, height, width)
        """

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same results."""


class MiniDiffusion(Shipped):
    """A U-net over the latent grid, conditioned on time and an embedding.

    The embedding scales and shifts every block, and stands as a few tokens that the grid attends
    to. An all-zero embedding means: no condition.

    Parameters
    ----------
    latents, grid : int
        Channels and side of the latents.
    condition : int
        Width of the embedding.
    channels : list of int
        At the full grid and at half of it.
    heads, tokens : int
        Of attention; tokens that the embedding becomes.
    """

    def __init__(
        self,
        *,
        latents: int = 4,
        grid: int = 8,
        condition: int = 128,
        channels: Sequence[int] = (128, 192),
        heads: int = 4,
        tokens: int = 4,
    ) -> None:
        super().__init__()
        self.remember(locals())
        a, b = channels
        self.n_tokens = tokens
        self.enter = nn.Conv2d(latents, a, 3, padding=1)
        self.place = nn.Parameter(0.02 * torch.randn(a, grid, grid))
        self.time = nn.Sequential(nn.Linear(64, b), nn.SiLU(), nn.Linear(b, b))
        self.embed = nn.Sequential(nn.Linear(condition, b), nn.SiLU(), nn.Linear(b, b))
        self.context = nn.Linear(condition, tokens * b)
        self.down = nn.ModuleList([ResidualBlock(a, b), ResidualBlock(a, b)])
        self.down_attend = TransformerBlock(a, heads, context=b)
        self.halve = strided(a, b)
        self.middle = nn.ModuleList([ResidualBlock(b, b), ResidualBlock(b, b)])
        self.middle_attend = TransformerBlock(b, heads, context=b)
        self.enlarge = Upsample(b, a)
        self.join = nn.Conv2d(2 * a, a, 1)
        self.up = nn.ModuleList([ResidualBlock(a, b), ResidualBlock(a, b)])
        self.up_attend = TransformerBlock(a, heads, context=b)
        self.norm = nn.GroupNorm(a // 16, a)
        self.leave = nn.Conv2d(a, latents, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, latents: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Predict the velocity of noisy latents.

        Parameters
        ----------
        latents : Tensor, shape (n, channels, grid, grid)
        time : Tensor, shape (n,), 0 .. 1
        condition : Tensor, shape (n, width)
            Unit vectors; zero where there is no condition.
        """
        # Unit vectors of many numbers are brought to unit variance.
        scaled = condition * condition.shape[1] ** 0.5
        style = self.time(sinusoids(1000 * time, 64)) + self.embed(scaled)
        context = self.context(scaled).unflatten(1, (self.n_tokens, -1))
        x = self.enter(latents) + self.place
        for block in self.down:
            x = block(x, style)
        x = skip = _attend(self.down_attend, x, context)
        x = self.middle[0](self.halve(x), style)
        x = self.middle[1](_attend(self.middle_attend, x, context), style)
        x = self.join(torch.cat([self.enlarge(x), skip], dim=1))
        x = self.up[0](x, style)
        x = self.up[1](_attend(self.up_attend, x, context), style)
        return self.leave(functional.silu(self.norm(x)))

    def loss(self, latents: Tensor, condition: Tensor, drop: float = 0.1) -> Tensor:
        """Squared error of the velocity at random times; a share of conditions is dropped."""
        time, noise = torch.rand(len(latents)), torch.randn_like(latents)
        alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(time))
        noisy, velocity = alpha * latents + sigma * noise, alpha * noise - sigma * latents
        kept = condition * (torch.rand(len(condition), 1) >= drop)
        return functional.mse_loss(self(noisy, time, kept).float(), velocity)


def _attend(block: TransformerBlock, x: Tensor, context: Tensor) -> Tensor:
    """Let the places of a grid attend to each other and to the context."""
    tokens = block(x.flatten(2).transpose(1, 2), context=context)
    return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class Miniature(LatentDiffusion):
    """The diffusion model of the scenes, trained by ``scripts/train_mini_diffusion.py``."""

    name = "mini-diffusion"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-diffusion.safetensors" if path is None else Path(path)
        self.network: MiniDiffusion = load_shipped(MiniDiffusion, self.path)
        settings = self.network.settings
        self.latent_shape = (settings["latents"], settings["grid"], settings["grid"])
        self.condition_dim = settings["condition"]

    @torch.inference_mode()
    def sample(
        self,
        condition: np.ndarray,
        *,
        rng: np.random.Generator,
        steps: int = 20,
        guidance: float = 3.0,
        start: np.ndarray | None = None,
        strength: float = 0.8,
    ) -> np.ndarray:
        """Draw one latent for each condition; see `LatentDiffusion.sample`.

        Raises
        ------
        ConfigError
            If a shape or a number does not fit.
        """
        condition = np.ascontiguousarray(condition, dtype=np.float32)
        if condition.ndim != 2 or condition.shape[1] != self.condition_dim:
            raise ConfigError(
                f"{self.name} is conditioned on {self.condition_dim} numbers a picture, not on "
                f"{condition.shape}",
                mend="embed images or texts with the miniature image-text model",
            )
        shape = (len(condition), *self.latent_shape)
        if start is not None and np.shape(start) != shape:
            raise ConfigError(f"start has shape {np.shape(start)}, not {shape}")
        if steps < 1 or not 0 <= strength <= 1:
            raise ConfigError(
                f"steps={steps} and strength={strength} cannot be", mend="use steps >= 1 and 0 .. 1"
            )
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        wish = torch.from_numpy(condition)

        def velocity(latents: Tensor, time: Tensor) -> Tensor:
            if guidance == 1:
                return self.network(latents, time, wish)
            both = self.network(
                torch.cat([latents, latents]),
                torch.cat([time, time]),
                torch.cat([wish, torch.zeros_like(wish)]),
            )
            with_condition, without = both.chunk(2)
            return without + guidance * (with_condition - without)

        first = 1.0 if start is None else float(strength)
        times = torch.linspace(first, 0, steps + 1)
        if start is not None:
            alpha, sigma = alpha_sigma(times[0])
            noise = alpha * torch.as_tensor(start, dtype=torch.float32) + sigma * noise
        return ddim(velocity, noise, times).numpy()

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"mini-diffusion {file_fingerprint(self.path)}"
