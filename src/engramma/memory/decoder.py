"""Run decoder language models on pieces of a text: their blocks, caches and masks.

The library's own cache objects change between its versions and cannot be put into a flat state, so
keys and values are handed over as tensors here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError
from engramma.features.huggingface import transformers

#: Keys and values of each block, batch x head x token x width.
KeysValues = list[tuple[Tensor, Tensor]]


def blocks(model: Any) -> nn.ModuleList:
    """Blocks of a decoder, from the first to the last.

    Raises
    ------
    ConfigError
        If the model has no list of as many modules as its configuration names layers.
    """
    wanted = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return module
    raise ConfigError(
        f"no list of {wanted} blocks is found",
        where=type(model).__name__,
        mend="use a decoder of transformers such as Llama, Mistral, Qwen or SmolLM",
    )


def key_value_sizes(model: Any) -> tuple[int, int, int]:
    """Blocks, key-value heads, and the width of each head."""
    config = model.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width


def cache_argument(model: Any) -> str:
    """Name under which ``forward`` takes keys and values; it has changed between versions."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def to_cache(pairs: KeysValues) -> Any:
    """Keys and values as the library's cache."""
    cache = transformers().DynamicCache()
    for layer, (keys, values) in enumerate(pairs):
        cache.update(keys, values, layer)
    return cache


def from_cache(cache: Any) -> KeysValues:
    """Keys and values of the library's cache."""
    if hasattr(cache, "layers"):
        return [(layer.keys, layer.values) for layer in cache.layers]
    return list(zip(cache.key_cache, cache.value_cache, strict=True))


def register_attention(name: str, attend: Callable[..., Any], *, masked: bool) -> None:
    """Make a function known to transformers as an attention implementation.

    Parameters
    ----------
    name : str
    attend : callable
        As transformers calls it: ``attend(module, query, key, value, mask, **options)``.
    masked : bool
        Whether it wants additive masks; without a mask function of its own, an attention is given
        none, and has to hide the future itself.

    Raises
    ------
    ConfigError
        If this version of transformers has no such thing.
    """
    transformers()
    try:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        if masked:
            from transformers.masking_utils import AttentionMaskInterface, eager_mask

            AttentionMaskInterface.register(name, eager_mask)
    except ImportError as error:
        raise ConfigError(
            "this transformers lets no one else attend",
            where=f"attention {name!r}",
            mend="pip install 'transformers>=4.53'",
        ) from error
    ALL_ATTENTION_FUNCTIONS[name] = attend


@contextmanager
def attending_by(model: Any, name: str) -> Iterator[None]:
    """Let a model attend by a registered implementation within the ``with`` block."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def causal_mask(past: int, new: int, window: int | None, like: Tensor) -> Tensor:
    """Additive attention mask for ``new`` tokens behind ``past`` ones, 1 x 1 x new x (past + new).

    Each sees itself and what is before it, ``window`` tokens in all where one is given.
    """
    query = past + torch.arange(new, device=like.device)[:, None]
    key = torch.arange(past + new, device=like.device)[None]
    hidden = key > query
    if window is not None:
        hidden = hidden | (key <= query - window)
    mask = torch.zeros(new, past + new, dtype=like.dtype, device=like.device)
    return mask.masked_fill(hidden, torch.finfo(like.dtype).min)[None, None]


def present(embedded: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings, and a mask that leaves none of them out."""
    return embedded, torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)


def join_inputs(*parts: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Embeddings one after another, as a model of transformers takes them.

    Parameters
    ----------
    *parts : (Tensor of shape (batch, token, dim), Tensor of bool of shape (batch, token))
        Embeddings and where there are any. Positions count what is there, so that padding changes
        nothing; without padding, mask and positions are left to the model.
    """
    mask = torch.cat([m for _, m in parts], 1)
    inputs: dict[str, Any] = {"inputs_embeds": torch.cat([e for e, _ in parts], 1)}
    if not bool(mask.all()):
        inputs["attention_mask"] = mask.long()
        inputs["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
    return inputs | {"use_cache": False}
