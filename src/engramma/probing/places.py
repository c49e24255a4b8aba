"""Where in a language model of the transformers library its values are to be found.

Models name their parts differently and fuse some of them. An `Anatomy` finds, for each kind of
place, the module whose input or output holds its values, so that one set of names serves Llama,
Mistral, Qwen, Gemma, SmolLM, OLMo, Phi, GPT-2 and GPT-NeoX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from engramma.errors import ConfigError
from engramma.memory.decoder import blocks, key_value_sizes

Kind = Literal[
    "residual",
    "attention_in",
    "query",
    "key",
    "value",
    "pattern",
    "heads",
    "attention",
    "mlp_in",
    "gate",
    "up",
    "neurons",
    "mlp",
]
#: What each kind of place holds; B sequences, T tokens, D width of the residual stream, H heads
#: (K of them for keys and values) of width W, N neurons.
KINDS: dict[str, str] = {
    "residual": "B x T x D, what enters a block; after the last one, what enters the final norm",
    "attention_in": "B x T x D, what enters attention (normalised)",
    "query": "B x T x H x W, before positions are put in",
    "key": "B x T x K x W, before positions are put in",
    "value": "B x T x K x W",
    "pattern": "B x H x T x S, attention weights",
    "heads": "B x T x H x W, what each head puts out, before the output projection",
    "attention": "B x T x D, what attention puts out",
    "mlp_in": "B x T x D, what enters the feed-forward network (normalised)",
    "gate": "B x T x N, activation of the gate; gated networks only",
    "up": "B x T x N, output of the up-projection (before the activation where there is no gate)",
    "neurons": "B x T x N, what enters the down-projection",
    "mlp": "B x T x D, what the feed-forward network puts out",
}


@dataclass(frozen=True, order=True)
class Place:
    """A kind of value, and the block it is in; ``residual`` has one more, after the last block."""

    kind: Kind
    layer: int


@dataclass(frozen=True)
class Tap:
    """The module whose input or output holds the values of a place, and which part of them.

    Parameters
    ----------
    module : nn.Module
    side : {"input", "output"}
    part : slice, optional
        Of the last axis of what passes there; all of it by default.
    heads : int
        Heads that the part is split into; 0 where it is not.
    """

    module: nn.Module
    side: Literal["input", "output"]
    part: slice | None = None
    heads: int = 0

    def read(self, whole: Tensor) -> Tensor:
        """Values of the place in what passes."""
        values = whole if self.part is None else whole[..., self.part]
        return values.unflatten(-1, (self.heads, -1)) if self.heads else values

    def write(self, whole: Tensor, values: Tensor) -> Tensor:
        """Return what passes, with other values at the place."""
        values = values.flatten(-2) if self.heads else values
        if self.part is None:
            return values
        whole = whole.clone()
        whole[..., self.part] = values
        return whole


class Anatomy:
    """Sizes of a decoder and the modules of its places.

    Parameters
    ----------
    network : PreTrainedModel
        A causal language model.

    Attributes
    ----------
    blocks : list of modules
    n_layers, n_heads, n_key_heads, head_width, n_neurons, dim, vocabulary : int
    gated : bool
        Whether neurons are the product of a gate and an up-projection.
    norm, head : Module
        The final normalisation, and the projection to the vocabulary.

    Raises
    ------
    ConfigError
        If a part is not found.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.blocks = list(blocks(network))
        self.n_layers, self.n_key_heads, self.head_width = key_value_sizes(network)
        self.n_heads = int(network.config.num_attention_heads)
        self.dim = int(network.config.hidden_size)
        self.head = network.get_output_embeddings()
        self.vocabulary = int(self.head.weight.shape[0])
        base = network.base_model
        self.norm = self._one(base, "norm", "ln_f", "final_layer_norm", "final_layernorm")
        self._taps: dict[tuple[str, int], Tap] = {}
        for layer, block in enumerate(self.blocks):
            self._find(layer, block)
        self.gated = ("gate", 0) in self._taps
        # In either orientation (linear layers, and those of GPT-2), the side that is not D.
        weight = self._down(self.blocks[0])
        self.n_neurons = int(weight.numel() // self.dim)
        self._taps["residual", self.n_layers] = Tap(self.norm, "input")

    def attention(self, layer: int) -> nn.Module:
        """Return the attention module of a block."""
        return self._one(self.blocks[layer], "self_attn", "attn", "attention")

    def tap(self, place: Place) -> Tap:
        """Where the values of a place pass.

        Raises
        ------
        ConfigError
            If the model has no such place.
        """
        found = self._taps.get((place.kind, place.layer))
        if found is None:
            known = sorted({kind for kind, _ in self._taps} | {"pattern"})
            raise ConfigError(
                f"there is no {place.kind!r} in layer {place.layer}",
                where=type(self.network).__name__,
                mend=f"layers are 0 to {self.n_layers - 1}; there are {', '.join(known)}",
            )
        return found

    def output_weight(self, layer: int) -> Tensor:
        """Output projection by head, H x W x D: what each head's values become in the stream."""
        module = self._taps["heads", layer].module
        weight = _columns(module)
        return weight.unflatten(0, (self.n_heads, self.head_width))

    def neuron_weight(self, layer: int, which: Literal["gate", "up", "down"]) -> Tensor:
        """Weights of each neuron, N x D: what it reads (gate, up) or writes (down).

        Raises
        ------
        ConfigError
            If there is no gate.
        """
        tap = self.tap(Place("neurons" if which == "down" else which, layer))
        if which == "down":
            return _columns(tap.module)
        module = tap.module
        if which == "gate":
            module = self._gate_module(layer)
        weight = _columns(module).T
        return weight if tap.part is None or which == "gate" else weight[tap.part]

    # -- finding the parts -----------------------------------------------------------------

    def _find(self, layer: int, block: nn.Module) -> None:
        self._taps["residual", layer] = Tap(block, "input")
        attention, mlp = self.attention(layer), self._one(block, "mlp")
        self._taps["attention_in", layer] = Tap(attention, "input")
        self._taps["attention", layer] = Tap(attention, "output")
        out = self._one(attention, "o_proj", "c_proj", "dense", "out_proj")
        self._taps["heads", layer] = Tap(out, "input", heads=self.n_heads)
        self._find_queries(layer, attention)
        self._taps["mlp_in", layer] = Tap(mlp, "input")
        self._taps["mlp", layer] = Tap(mlp, "output")
        down = self._one(mlp, "down_proj", "c_proj", "dense_4h_to_h", "fc2")
        self._taps["neurons", layer] = Tap(down, "input")
        act = self._one(mlp, "act_fn", "act", "activation_fn")
        fused = getattr(mlp, "gate_up_proj", None)
        if fused is not None:
            half = fused.weight.shape[0] // 2
            self._taps["gate", layer] = Tap(act, "output")
            self._taps["up", layer] = Tap(fused, "output", slice(half, 2 * half))
        elif hasattr(mlp, "gate_proj"):
            self._taps["gate", layer] = Tap(act, "output")
            self._taps["up", layer] = Tap(mlp.get_submodule("up_proj"), "output")
        else:
            up = self._one(mlp, "c_fc", "dense_h_to_4h", "fc1", "up_proj")
            self._taps["up", layer] = Tap(up, "output")

    def _find_queries(self, layer: int, attention: nn.Module) -> None:
        sizes = [self.n_heads, self.n_key_heads, self.n_key_heads]
        names: list[Kind] = ["query", "key", "value"]
        if hasattr(attention, "q_proj"):
            for name, heads in zip(names, sizes, strict=True):
                module = attention.get_submodule(f"{name[0]}_proj")
                self._taps[name, layer] = Tap(module, "output", heads=heads)
            return
        fused = getattr(attention, "c_attn", None) or getattr(attention, "qkv_proj", None)
        if fused is None:
            return  # those of GPT-NeoX lie interleaved by head
        end = 0
        for name, heads in zip(names, sizes, strict=True):
            part = slice(end, end + heads * self.head_width)
            self._taps[name, layer] = Tap(fused, "output", part, heads)
            end = part.stop

    def _gate_module(self, layer: int) -> nn.Module:
        mlp = self._one(self.blocks[layer], "mlp")
        if hasattr(mlp, "gate_proj"):
            return mlp.get_submodule("gate_proj")
        raise ConfigError(
            "the weights of gate and up-projection are fused in this model",
            where=type(self.network).__name__,
            mend="use a model with gate_proj, or ask for up or down",
        )

    def _down(self, block: nn.Module) -> Tensor:
        mlp = self._one(block, "mlp")
        weight = self._one(mlp, "down_proj", "c_proj", "dense_4h_to_h", "fc2").weight
        assert isinstance(weight, Tensor)
        return weight

    def _one(self, module: nn.Module, *names: str) -> nn.Module:
        for name in names:
            found = getattr(module, name, None)
            if isinstance(found, nn.Module):
                return found
        raise self._missing(module, " or ".join(names))

    def _missing(self, module: nn.Module, what: str) -> ConfigError:
        return ConfigError(
            f"{type(module).__name__} has no part called {what}",
            where=type(self.network).__name__,
            mend="use a decoder such as Llama, Mistral, Qwen, Gemma, SmolLM, GPT-2 or GPT-NeoX",
        )


def _columns(module: nn.Module) -> Tensor:
    """Weight as input x output, whichever way the layer stores it; without gradient."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return (weight.T if isinstance(module, nn.Linear) else weight).detach()
