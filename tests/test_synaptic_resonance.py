"""Synaptic Resonance against its equations, and against plain gated linear attention."""

import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engramma.errors import ConfigError, DataWarning
from engramma.memory.attention import split_heads
from engramma.memory.delta import linear_attention
from engramma.nn.seed import seeded
from engramma.systems.sequence.synaptic_resonance import SynapticResonance
from engramma.systems.sequence.synaptic_resonance_claims import burst_stream
from engramma.worlds.streams import IGNORED
from sequence_layers import check_layer, randomise


def layer(dim=16, heads=2, seed=0, **options):
    with seeded(seed):
        return randomise(SynapticResonance(dim, heads, **{"window": 4, **options})).double()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "options",
    [{}, {"rule": "oja"}, {"freeze": True, "window": 6, "chunk": 5}, {"fixed_relevance": 0.3}],
)
def test_what_every_layer_must_do(options):
    check_layer(SynapticResonance(16, 2, **{"window": 8, **options}))


@pytest.mark.parametrize("rule", ["hebb", "oja"])
@pytest.mark.parametrize("freeze", [False, True])
@torch.no_grad()
def test_against_the_equations(rule, freeze):
    net, x = layer(rule=rule, freeze=freeze), draw(1, 23, 16)
    y, state = net(x)
    near, _ = net.attention(x)
    relevance = net.relevance(x)
    projected = net.project(x[0])
    out = torch.zeros(23, 16, dtype=x.dtype)
    for h in range(2):
        a, b = net.slope[h], net.offset[h]
        s, c = torch.zeros(8, 8, dtype=x.dtype), torch.zeros(8, dtype=x.dtype)
        for t in range(23):
            q, k, v = (part[8 * h : 8 * h + 8] for part in projected[t].split(16))
            q, k = q / q.norm(), k / k.norm()
            if freeze and t % 4 == 0:
                s, c = torch.zeros_like(s), torch.zeros_like(c)
            cosine = k @ c / c.norm() if c.any() else torch.tensor(0.0)
            r = torch.sigmoid(a * cosine + b)
            torch.testing.assert_close(relevance[0, h, t], r)
            kept = 1 - (1 - 0.98) * (1 - r)
            target = v if rule == "hebb" else v - kept * s @ k
            s = kept * s + r * torch.outer(target, k)  # values x keys, as in the equations
            c = 0.95 * c + 0.05 * k
            out[t, 8 * h : 8 * h + 8] = s @ q
        torch.testing.assert_close(state["memory"][0, h].T, s, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(state["context"][0, h], c, rtol=1e-9, atol=1e-10)
    expected = near[0] + torch.sigmoid(net.gate(x[0])) * (out @ net.output.weight.T)
    torch.testing.assert_close(y[0], expected, rtol=1e-9, atol=1e-10)


@torch.no_grad()
def test_fixed_relevance_is_gated_linear_attention():
    net, x = layer(fixed_relevance=0.4), draw(2, 30, 16)
    q, k, v = (split_heads(t, 2) for t in net.project(x).chunk(3, -1))
    rate = torch.full((2, 2, 30), 0.4, dtype=torch.float64)
    log_decay = torch.full_like(rate, 1 - 0.02 * 0.6).log()
    start = net.initial_state(2)["memory"]
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    _, memory = linear_attention(q, k, v, rate, log_decay, start)
    torch.testing.assert_close(net(x)[1]["memory"], memory, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_starts_as_window_attention_and_without_a_rate_remains_it():
    with seeded(0):
        fresh = SynapticResonance(16, 2, window=4).double()
    x = draw(2, 20, 16)
    torch.testing.assert_close(fresh(x)[0], fresh.attention(x)[0])
    still = layer(rate=0.0)
    torch.testing.assert_close(still(x)[0], still.attention(x)[0])


@torch.no_grad()
def test_what_fits_its_context_is_relevant():
    net = layer()
    same = draw(1, 1, 16).expand(1, 30, 16)
    net.slope.fill_(3.0)
    net.offset.zero_()
    relevance = net.relevance(same)
    torch.testing.assert_close(relevance[..., 0], torch.full((1, 2), 0.5).double())
    torch.testing.assert_close(
        relevance[..., 1:], torch.sigmoid(torch.tensor(3.0).double()).expand(1, 2, 29)
    )


@torch.no_grad()
def test_zero_keys_and_context_have_cosine_zero():
    net, x = layer(), torch.zeros(1, 5, 16, dtype=torch.float64)
    y, state = net(x)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(
        net.relevance(x), net.offset.sigmoid()[None, :, None].expand(1, 2, 5)
    )
    assert not state["memory"].any()
    net.requires_grad_()
    with torch.enable_grad():
        net(x)[0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@torch.no_grad()
def test_reset_empties_the_associations_and_keeps_the_window():
    net = layer()
    _, state = net(draw(2, 9, 16))
    after = net.reset(state)
    assert not after["memory"].any()
    assert not after["context"].any()
    assert torch.equal(after["window.keys"], state["window.keys"])
    net(draw(2, 3, 16), after)


@torch.no_grad()
def test_freeze_forgets_at_every_window():
    net, x = layer(freeze=True), draw(1, 12, 16)
    other = x.clone()
    other[:, :8] = draw(1, 8, 16, seed=3)
    torch.testing.assert_close(net(x)[1]["memory"], net(other)[1]["memory"], rtol=1e-12, atol=1e-12)
    _, state = net(x[:, :7])
    assert state["place"].tolist() == [3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_keeps_single_associations_and_says_so(dtype):
    with seeded(0):
        net = SynapticResonance(16, 2, window=4).to(dtype)
    with pytest.warns(DataWarning, match="float32"):
        y, state = net(draw(2, 20, 16).to(dtype))
    assert y.dtype == dtype
    assert state["memory"].dtype == state["context"].dtype == torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        y, _ = net.step(draw(2, 16).to(dtype), state)
    assert y.dtype == dtype


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"context_decay": 1.0}, "context_decay"),
        ({"context_decay": 0.0}, "context_decay"),
        ({"decay": 1.0}, "decay"),
        ({"decay": -0.1}, "decay"),
        ({"rate": -1.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rule": "delta"}, "delta"),
        ({"fixed_relevance": 1.5}, "1.5"),
        ({"window": 0}, "window"),
    ],
)
def test_refuses(options, named):
    with pytest.raises(ConfigError, match=named):
        SynapticResonance(16, 2, **options)


def test_bursts_hold_the_answers_and_corruption_spoils_them():
    clean = burst_stream(np.random.default_rng(0), 50, 0.0)
    for tokens, targets in zip(clean.tokens, clean.targets, strict=True):
        asked = np.flatnonzero(targets != IGNORED)
        assert len(set(tokens[asked])) == 4
        for place in asked:
            seen = np.flatnonzero(tokens[: asked[0]] == tokens[place])
            assert len(seen) >= 1
            assert (tokens[seen + 1] == targets[place]).all()
            assert place - seen.max() > 24
    spoilt = burst_stream(np.random.default_rng(0), 500, 0.2)
    body = spoilt.tokens[:, :6]
    assert abs((body >= 16).mean() - 0.2) < 0.03
    assert (spoilt.tokens[:, -8:] < 16).all()
