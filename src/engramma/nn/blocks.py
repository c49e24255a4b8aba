"""Blocks that the miniature models are made of: residual convolutions and transformer blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two convolutions around which the input is carried (He et al. 2016, "Identity mappings").

    Group normalisation, SiLU and a 3 x 3 convolution, twice. A condition, where there is one,
    scales and shifts the second normalisation (Perez et al. 2018, "FiLM").

    Parameters
    ----------
    channels : int
        A multiple of 16.
    condition : int, optional
        Width of the condition.
    """

    def __init__(self, channels: int, condition: int | None = None) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(channels // 16, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(channels // 16, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = None if condition is None else nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        h = self.norm2(self.conv1(functional.silu(self.norm1(x))))
        if self.film is not None:
            assert condition is not None
            scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.conv2(functional.silu(h))


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, written out.

    For the short sequences of the miniatures this trains several times faster on a CPU than the
    fused kernel of torch, whose backward pass in bfloat16 is slow.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v


class TransformerBlock(nn.Module):
    """Self-attention, attention to a context where there is one, and a two-layer network.

    Vaswani et al. 2017, with normalisation in front of each part.

    Parameters
    ----------
    dim, heads : int
    causal : bool
        Whether a token sees only itself and those before it.
    context : int, optional
        Width of the context's tokens.
    """

    def __init__(
        self, dim: int, heads: int, *, causal: bool = False, context: int | None = None
    ) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.cross = context is not None
        if context is not None:
            self.norm3 = nn.LayerNorm(dim)
            self.query = nn.Linear(dim, dim)
            self.key_value = nn.Linear(context, 2 * dim)
            self.cross_out = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Map (batch, token, dim) to the same shape.

        Parameters
        ----------
        x : Tensor
        mask : Tensor of bool, shape (batch, token), optional
            Which tokens are there.
        context : Tensor, shape (batch, context token, width), optional
        context_mask : Tensor of bool, shape (batch, context token), optional
            Which tokens of the context are there.
        """
        q, k, v = (self._split(part) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        seen = None if mask is None else mask[:, None, None, :]
        if self.causal:
            past = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=x.device).tril()
            seen = past if seen is None else seen & past
        mixed = attend(q, k, v, seen)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        if self.cross:
            assert context is not None
            q = self._split(self.query(self.norm3(x)))
            k, v = (self._split(part) for part in self.key_value(context).chunk(2, dim=-1))
            seen = None if context_mask is None else context_mask[:, None, None, :]
            mixed = attend(q, k, v, seen)
            x = x + self.cross_out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def strided(before: int, after: int) -> nn.Conv2d:
    """Convolution that halves height and width."""
    return nn.Conv2d(before, after, 3, stride=2, padding=1)


class Upsample(nn.Module):
    """Double height and width by repeating pixels, then a convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, before, h, w) to (batch, after, 2 h, 2 w)."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def sinusoids(positions: Tensor, dim: int, longest: float = 1e4) -> Tensor:
    """Encode positions as sines and cosines of ``dim / 2`` frequencies (Vaswani et al. 2017)."""
    frequency = torch.exp(-math.log(longest) / (dim // 2) * torch.arange(dim // 2))
    angle = positions[..., None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def image_batch(images: object) -> Tensor:
    """Bring RGB images (n, height, width, 3), uint8, to a batch (n, 3, height, width), -1 .. 1."""
    batch = torch.as_tensor(images).float().movedim(-1, 1) / 127.5 - 1
    return batch.contiguous(memory_format=torch.channels_last)


def image_pixels(batch: Tensor) -> Tensor:
    """Bring a batch (n, 3, height, width), -1 .. 1, to RGB images (n, height, width, 3), uint8."""
    pixels = (batch.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return pixels.movedim(1, -1).contiguous()
