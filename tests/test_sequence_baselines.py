"""Baseline layers: the equalities of the contract, and references that torch brings."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError
from engramma.memory.attention import SoftmaxAttention, WindowAttention, rotate, split_heads
from engramma.memory.convolution import ShortConvolution
from engramma.memory.linear import DeltaNet, GatedDeltaNet, LinearAttention, MatrixMemory
from engramma.memory.recurrent import LSTM
from engramma.memory.state_space import StateSpace
from engramma.nn.seed import seeded
from sequence_layers import check_layer


@pytest.mark.parametrize(
    "layer",
    [
        ShortConvolution(8),
        SoftmaxAttention(8, 2),
        SoftmaxAttention(8, 2, convolution=3),
        WindowAttention(8, 2, window=5, convolution=4),
        WindowAttention(8, 2, window=5),
        WindowAttention(8, 2, window=5, persistent=3),
        WindowAttention(8, 2, window=1),
        WindowAttention(8, 2, window=50),
        LinearAttention(8, 2),
        DeltaNet(8, 2, chunk=8),
        GatedDeltaNet(8, 2, chunk=16),
        MatrixMemory(8, 2, key_dim=3, value_dim=5, chunk=7),
        LSTM(8, hidden=6),
        StateSpace(8, 2, state=3),
    ],
    ids=lambda x: type(x).__name__,
)
def test_contract(layer):
    check_layer(layer)


def test_attention_is_that_of_torch():
    """Same weights, no positions: `torch.nn.MultiheadAttention` under a causal mask."""
    layer = SoftmaxAttention(8, 2, rotary=False).double()
    theirs = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(layer.project.weight)
        theirs.out_proj.weight.copy_(layer.output.weight)
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    torch.testing.assert_close(layer(x)[0], theirs(x, x, x, attn_mask=future)[0])


@pytest.mark.parametrize("rotary", [False, True])
def test_a_window_is_full_attention_under_a_band(rotary):
    """Blocks, places and the empty start come out as one band-shaped mask would have it."""
    layer = WindowAttention(8, 2, window=5, rotary=rotary).double()
    x = torch.randn(2, 23, 8, dtype=torch.float64)
    q, k, v = (split_heads(t, 2) for t in layer.project(x).chunk(3, -1))
    if rotary:
        q, k = (rotate(t, torch.arange(23)) for t in (q, k))
    distance = torch.arange(23)[:, None] - torch.arange(23)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=(distance >= 0) & (distance < 5))
    torch.testing.assert_close(layer(x)[0], layer.output(y.transpose(1, 2).flatten(2)))


def test_rotation_makes_products_depend_on_distance_alone():
    q, k = torch.randn(2, 6, dtype=torch.float64)
    here = rotate(q, torch.tensor([7])) @ rotate(k, torch.tensor([3])).mT
    there = rotate(q, torch.tensor([1004])) @ rotate(k, torch.tensor([1000])).mT
    torch.testing.assert_close(here, there)
    # Turning by one angle a pair: Su et al. 2021, equation 34.
    turned = rotate(torch.tensor([[1.0, 0.0]]), torch.tensor([0.5]))
    torch.testing.assert_close(turned, torch.tensor([[0.877582561890, 0.479425538604]]))


def test_attention_sees_places_and_not_only_contents():
    layer = SoftmaxAttention(8, 2).double()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    swapped = x[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(layer(x)[0][:, -1], layer(swapped)[0][:, -1])
    blind = SoftmaxAttention(8, 2, rotary=False).double()
    torch.testing.assert_close(blind(x)[0][:, -1], blind(swapped)[0][:, -1])


def test_the_state_space_is_the_recurrence_of_its_docstring():
    layer = StateSpace(4, 2, state=3).double()
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    mixed, _ = layer.convolution(layer.project(x))
    v, b, c = mixed[0].split([4, 3, 3], -1)
    width = F.softplus(layer.width(x))[0]
    kept = torch.exp(-width * layer.log_speed.exp())
    memory, outputs = torch.zeros(2, 3, 2, dtype=torch.float64), []
    for t in range(6):
        for head in range(2):
            value = v[t, 2 * head : 2 * head + 2]
            memory[head] = kept[t, head] * memory[head] + width[t, head] * torch.outer(b[t], value)
        outputs.append(torch.cat([c[t] @ memory[0], c[t] @ memory[1]]) + layer.skip * v[t])
    y = torch.stack(outputs)[None] * F.silu(layer.gate(x))
    torch.testing.assert_close(layer(x)[0], layer.output(layer.norm(y)))


def test_layers_of_one_configuration_are_made_anew():
    layer = MatrixMemory(8, heads=2, key_dim=3)
    with seeded(0):
        other = layer.fresh()
    assert other.key_dim == 3 and other.heads == 2
    assert not torch.equal(other.project.weight, layer.project.weight)
    assert layer.fresh(dim=16).dim == 16 and DeltaNet(8, chunk=7).fresh(dim=16).chunk == 7


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="heads"):
        SoftmaxAttention(10, 4)
    with pytest.raises(ConfigError, match="even"):
        SoftmaxAttention(9, 3)
    with pytest.raises(ConfigError, match="window"):
        WindowAttention(8, 2, window=0)
    with pytest.raises(ConfigError, match="rule"):
        MatrixMemory(8, 2, rule="oja")
    with pytest.raises(DataError, match="missing"):
        DeltaNet(8, 2)(torch.zeros(1, 3, 8), LSTM(8).initial_state(1))
