r"""Own attention inside a language model of the transformers library, before positions are put in.

Models with rotary positions turn queries and keys by an angle that grows with the place of their
token, so that their product depends on the distance. Keys that are to be seen at another distance
than their own have to be had unturned. `AttentionTap` runs a model with all places 0, where the
rotation is the identity, and hands queries, keys and values of each layer to a function that turns
them itself (`AttentionTap.rotate`, with the model's own frequencies). The model is left as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from engramma.errors import ConfigError
from engramma.memory.decoder import attending_by, register_attention
from engramma.memory.language_model import check_tokens

#: ``attend(q, k, v, layer, scaling) -> output``: q and output query head x token x feature, k and v
#: key head x token x feature, all of one sequence.
Attend = Callable[[Tensor, Tensor, Tensor, int, float], Tensor]

_NAME = "engramma_tap"
_attend: ContextVar[tuple[Attend, int]] = ContextVar("attend")


class AttentionTap:
    """Access to the attention of a causal language model with rotary positions.

    Parameters
    ----------
    model : PreTrainedModel
        As `engramma.memory.language_model.load_language_model` returns it.
    reach : int
        Largest distance at which tokens will attend to each other as the model would have them do.

    Attributes
    ----------
    layers, heads, key_heads : int

    Raises
    ------
    ConfigError
        If the model's outputs could not be reproduced: it has no rotary positions, or something
        else in its attention that is not known here.
    """

    def __init__(self, model: Any, reach: int) -> None:
        self.model, self.reach = model, reach
        config = model.config
        rotary = [m for n, m in model.named_modules() if n.split(".")[-1] == "rotary_emb"]
        if len(rotary) != 1:
            raise _unsuitable(model, f"it has {len(rotary)} rotary embeddings, not one")
        self._rotary = rotary[0]
        self.layers = int(config.num_hidden_layers)
        self.heads = int(config.num_attention_heads)
        self.key_heads = int(getattr(config, "num_key_value_heads", None) or self.heads)
        apply = [
            getattr(sys.modules[type(m).__module__], "apply_rotary_pos_emb", None)
            for n, m in model.named_modules()
            if n.split(".")[-1] in ("self_attn", "attention", "attn")
        ]
        if not apply or apply[0] is None:
            raise _unsuitable(model, "its rotation cannot be found")
        self._apply = apply[0]
        register_attention(_NAME, _function, masked=False)
        self._check()

    def logits(self, tokens: Tensor, attend: Attend) -> Tensor:
        """Run the model once with another attention.

        Parameters
        ----------
        tokens : Tensor of int64, shape (token,)
        attend : Attend
            Called once in each layer, in order.

        Returns
        -------
        Tensor, shape (token, vocabulary)
        """
        check_tokens(self.model, tokens[None], "language model")
        with torch.no_grad(), self._attached(attend):
            places = torch.zeros(1, len(tokens), dtype=torch.long, device=tokens.device)
            output = self.model(input_ids=tokens[None], position_ids=places, use_cache=False)
        return output.logits[0]

    def rotate(self, x: Tensor, places: Tensor) -> Tensor:
        """Turn queries or keys (head x token x feature) to their places (one, or one a token)."""
        places = places.expand(x.shape[1])
        # The rotation at place 0 multiplies by a constant in some models, which x has been through.
        with_zero = torch.cat([places.new_zeros(1), places])
        cos, sin = self._rotary(x, with_zero[None])
        once = cos[:, :1, :1]
        # Some models turn the first features only.
        turning, rest = x[None].split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], -1)
        turned, _ = self._apply(turning, turning, cos[:, 1:] / once, sin[:, 1:] / once)
        return torch.cat([turned[0], rest[0]], -1)

    @contextmanager
    def _attached(self, attend: Attend) -> Iterator[None]:
        token = _attend.set((attend, self.reach))
        try:
            with attending_by(self.model, _NAME):
                yield
        finally:
            _attend.reset(token)

    def _check(self) -> None:
        """Reproduce the model's own outputs for a few tokens."""
        n_tokens = min(8, self.reach)
        size = self.model.get_input_embeddings().num_embeddings
        tokens = torch.arange(n_tokens, device=self.model.device) * 31 % size
        with torch.no_grad():
            own = self.model(input_ids=tokens[None], use_cache=False).logits[0]
        try:
            ours = self.logits(tokens, whole_attention(self, n_tokens))
        except (TypeError, RuntimeError, ValueError) as error:
            raise _unsuitable(self.model, str(error).splitlines()[0]) from error
        error_size = float((own - ours).abs().max() / own.abs().max())
        if not error_size < 1e-3:
            raise _unsuitable(self.model, f"outputs differ by {error_size:.1e} of their size")


def whole_attention(tap: AttentionTap, n_local: int) -> Attend:
    """Full causal attention in which no distance counts as more than ``n_local``.

    This is what a memory approximates: nothing is dropped, at a cost quadratic in the length. All
    tokens have to be run at once.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, layer: int, scaling: float) -> Tensor:
        places = torch.arange(q.shape[1], device=q.device)
        k, v = (t.repeat_interleave(len(q) // len(t), 0) for t in (k, v))
        near = tap.rotate(q, places) @ tap.rotate(k, places).mT
        far = tap.rotate(q, places.new_tensor(n_local)) @ k.mT
        distance = places[:, None] - places
        scores = torch.where(distance < n_local, near, far) * scaling
        return scores.masked_fill(distance < 0, -torch.inf).softmax(-1) @ v

    return attend


def _function(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, batch x head x token x feature; masks are not needed."""
    attend, reach = _attend.get()
    if sliding_window is not None and sliding_window < reach:
        raise ConfigError(
            f"layer {module.layer_idx} of the model sees {sliding_window} tokens, not {reach}",
            where=type(module).__name__,
            mend=f"use n_local of at most {sliding_window}",
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = attend(query[0], key[0], value[0], module.layer_idx, scaling)
    return output.transpose(0, 1)[None].contiguous(), None


def _unsuitable(model: Any, why: str) -> ConfigError:
    return ConfigError(
        f"{type(model).__name__} cannot be given another attention: {why}",
        where="model",
        mend="use a causal language model with rotary positions, such as Llama, Mistral or Qwen",
    )
