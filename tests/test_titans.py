"""Titans against loops with torch.func, finite differences, and the delta rule."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError
from engramma.memory.delta import delta_rule
from engramma.memory.layer import detach, part
from engramma.memory.neural_memory import (
    Gates,
    NeuralMemory,
    network,
    squared_norm,
    token_gradients,
)
from engramma.memory.stream import NonFiniteError, stream
from engramma.nn.seed import seeded
from engramma.systems.sequence.titans import Titans
from sequence_layers import check_layer

DOUBLE = torch.float64


def example(seed=0, batch=2, heads=2, length=37, dim=6, largest_step=0.05):
    with seeded(seed):
        q, k, v = torch.randn(3, batch, heads, length, dim, dtype=DOUBLE)
        alpha, eta, theta = torch.rand(3, batch, heads, length, dtype=DOUBLE)
    gates = Gates((1 - 0.2 * alpha).log(), eta.log(), largest_step * theta)
    return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, gates


def cut(gates, start, stop):
    return Gates(*(None if t is None else t[:, :, start:stop] for t in gates))


def memory(seed=0, heads=2, dim=6, **options):
    with seeded(seed):
        return NeuralMemory(heads, dim, **options).double()


class Perceptron(torch.nn.Module):
    """The memory's network, written with torch's own layers."""

    def __init__(self, weights):
        super().__init__()
        layers = []
        for index, weight in enumerate(weights):
            linear = torch.nn.Linear(*weight.shape, bias=False).double()
            layers += [torch.nn.SiLU()] * (index > 0) + [linear]
        self.layers = torch.nn.Sequential(*layers)
        self.names = [name for name, _ in self.layers.named_parameters()]

    def forward(self, x):
        return self.layers(x)

    def of(self, weights):
        return {f"layers.{n}": w.mT for n, w in zip(self.names, weights, strict=True)}


def reference(mem, q, k, v, gates, readout="token", chunk=None):
    """Token by token with vmap(grad): the definition, slowly. Returns outputs, weights, momenta."""
    net = Perceptron([w[0] for w in mem.weights])
    batch, heads = q.shape[:2]
    rows = [t.flatten(0, 1) for t in (q, k, v, *gates)]
    q, k, v, log_keep, log_momentum, step = rows
    weights = [w.expand(batch, *w.shape).flatten(0, 1) for w in mem.weights]
    momenta = [torch.zeros_like(w) for w in weights]
    run = vmap(lambda ws, x: functional_call(net, net.of(ws), x.unsqueeze(0)).squeeze(0))
    slope = vmap(
        grad(lambda ws, x, y: ((functional_call(net, net.of(ws), x[None])[0] - y) ** 2).sum())
    )
    outputs = []
    for t in range(q.shape[1]):
        if t % (chunk or mem.chunk) == 0:
            base = weights
        u = slope(base, k[:, t], v[:, t])
        eta, keep, theta = (g[:, t, None, None] for g in (log_momentum.exp(), log_keep.exp(), step))
        momenta = [eta * s - theta * g for s, g in zip(momenta, u, strict=True)]
        weights = [keep * w + s for w, s in zip(weights, momenta, strict=True)]
        outputs.append(run(weights if readout == "token" else base, q[:, t]))
    y = torch.stack(outputs, 1).unflatten(0, (batch, heads))
    return y, weights, momenta


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("chunk", "block"), [(1, 64), (5, 64), (12, 8), (100, 64)])
@pytest.mark.parametrize("readout", ["token", "lagged"])
def test_chunks_equal_the_loop(depth, chunk, block, readout):
    q, k, v, gates = example()
    mem = memory(depth=depth, chunk=chunk, block=block, readout=readout)
    y, weights, momenta = reference(mem, q, k, v, gates, readout)
    found, state, _ = mem(q, k, v, gates, mem.initial_state(2))
    torch.testing.assert_close(found, y, rtol=1e-10, atol=1e-10)
    for index in range(depth):
        for name, expected in (("weight", weights), ("momentum", momenta)):
            got = state[f"{name}.{index}"].flatten(0, 1)
            torch.testing.assert_close(got, expected[index], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gradients_of_the_outer_loss_equal_those_through_the_loop(depth):
    q, k, v, gates = example(length=13)
    mem = memory(depth=depth, chunk=4)
    leaves = [q, k, v, *gates]
    for leaf in leaves:
        leaf.requires_grad_()
    with seeded(5):
        direction = torch.randn_like(v)
    y, _, _ = mem(q, k, v, gates, mem.initial_state(2))
    mine = torch.autograd.grad((y * direction).sum(), [*leaves, *mem.weights])
    y, _, _ = reference(mem, q, k, v, gates)
    theirs = torch.autograd.grad((y * direction).sum(), [*leaves, *mem.weights])
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_gradients_equal_finite_differences():
    q, k, v, gates = example(batch=1, heads=1, length=7, dim=3)
    mem = memory(heads=1, dim=3, chunk=4)
    weights = [w.detach().clone().requires_grad_() for w in mem.weights]

    def run(k, v, step, *weights):
        state = mem.initial_state(1)
        for index, weight in enumerate(weights):
            state[f"weight.{index}"] = state[f"base.{index}"] = weight[None]
        return mem(q, k, v, gates._replace(step=step), state)[0]

    inputs = [t.clone().requires_grad_() for t in (k, v, gates.step)]
    assert torch.autograd.gradcheck(run, (*inputs, *weights))


def test_token_gradients_equal_autograd():
    with seeded(0):
        weights = [torch.randn(n, m, dtype=DOUBLE) for n, m in ((4, 9), (9, 7), (7, 3))]
        k, v = torch.randn(5, 4, dtype=DOUBLE), torch.randn(5, 3, dtype=DOUBLE)
    inputs, deltas = token_gradients(weights, k, v)
    for i in range(5):
        leaves = [w.clone().requires_grad_() for w in weights]
        (network(leaves, k[i : i + 1]) - v[i : i + 1]).square().sum().backward()
        for leaf, a, d in zip(leaves, inputs, deltas, strict=True):
            torch.testing.assert_close(torch.outer(a[i], d[i]), leaf.grad)
        norm = torch.stack([leaf.grad.square().sum() for leaf in leaves]).sum().sqrt()
        torch.testing.assert_close(squared_norm(inputs, deltas)[i].sqrt(), norm)


def test_any_cut_gives_the_same_state():
    q, k, v, gates = example()
    mem = memory(chunk=8)
    whole, end, surprise = mem(q, k, v, gates, mem.initial_state(2))
    for edges in ((0, 1, 37), (0, 3, 8, 9, 30, 37), tuple(range(38))):
        state, outputs, surprises = mem.initial_state(2), [], []
        for start, stop in pairwise(edges):
            now = slice(start, stop)
            y, state, s = mem(
                q[:, :, now], k[:, :, now], v[:, :, now], cut(gates, start, stop), state
            )
            outputs.append(y)
            surprises.append(s)
        torch.testing.assert_close(torch.cat(outputs, 2), whole, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(torch.cat(surprises, 2), surprise)
        for name in end:
            torch.testing.assert_close(state[name], end[name], rtol=1e-10, atol=1e-12)


def test_a_tail_shorter_than_a_chunk_is_not_dropped():
    q, k, v, gates = example(length=10)
    mem = memory(chunk=8)
    before, _ = mem.write(k[:, :, :8], v[:, :, :8], cut(gates, 0, 8), mem.initial_state(2))
    after, _ = mem.write(k, v, gates, mem.initial_state(2))
    assert after["seen"].tolist() == [2, 2]
    assert not torch.allclose(before["weight.0"], after["weight.0"])
    torch.testing.assert_close(after["base.0"], before["weight.0"])
    torch.testing.assert_close(mem.read(q, after, lagged=True), mem.read(q, before))


def test_writing_alone_equals_writing_and_reading():
    q, k, v, gates = example()
    mem = memory(chunk=8)
    _, both, _ = mem(q, k, v, gates, mem.initial_state(2))
    alone, _ = mem.write(k, v, gates, mem.initial_state(2))
    for name in both:
        torch.testing.assert_close(alone[name], both[name], rtol=1e-12, atol=1e-12)


def test_delta_rule_is_a_special_case_and_the_gated_one_is_not():
    q, k, v, gates = example()
    mem = memory(depth=1, chunk=1, momentum=False)
    beta = gates.step / 0.05
    empty = torch.zeros(2, 2, 6, 6, dtype=DOUBLE)
    state = {n: torch.zeros_like(t) for n, t in mem.initial_state(2).items()}
    for log_keep, same in ((torch.zeros_like(beta), True), (gates.log_keep, False)):
        y, after, _ = mem(q, k, v, Gates(log_keep, None, beta / 2), state)
        expected, matrix = delta_rule(q, k, v, beta, log_keep, empty)
        assert torch.allclose(y, expected, rtol=1e-10, atol=1e-12) is same
        assert torch.allclose(after["weight.0"], matrix, rtol=1e-10, atol=1e-12) is same


def test_long_gradients_are_shortened():
    q, k, v, gates = example()
    free, bound = memory(chunk=4), memory(chunk=4, largest_gradient=0.2)
    assert torch.allclose(
        memory(chunk=4, largest_gradient=1e6)(q, k, v, gates, free.initial_state(2))[0],
        free(q, k, v, gates, free.initial_state(2))[0],
    )
    one = [t[:, :, :1] for t in (q, k, v)]
    step = gates.step[:, :, :1]
    _, state, surprise = bound(*one, cut(gates, 0, 1), bound.initial_state(2))
    assert (surprise > 0.2).all()
    change = torch.cat([state[f"momentum.{i}"].flatten(2) for i in range(2)], -1).norm(dim=-1)
    torch.testing.assert_close(change, 0.2 * step[..., 0])


def test_long_products_of_gates_do_not_underflow():
    q, k, v, gates = example(length=2000)
    gates = Gates(torch.full_like(gates.step, -2.0), torch.full_like(gates.step, -3.0), gates.step)
    mem = memory(chunk=2000).float()
    single = [t.float() for t in (q, k, v)]
    y, _, _ = mem(*single, Gates(*(t.float() for t in gates)), mem.initial_state(2))
    mem = mem.double()
    expected, _, _ = mem(q, k, v, gates, mem.initial_state(2))
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-5)


# -- the layer -----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["memory", "mac", "mag", "mal"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_variant_is_a_sequence_layer(variant, depth):
    with seeded(0):
        layer = Titans(16, variant, heads=2, depth=depth, chunk=8, window=6)
    check_layer(layer)


@pytest.mark.parametrize(
    ("variant", "options"),
    [("mac", {"readout": "lagged"}), ("mag", {"momentum": False}), ("memory", {"chunk": 1})],
)
def test_options_keep_it_a_sequence_layer(variant, options):
    with seeded(0):
        layer = Titans(16, variant, heads=2, **{"chunk": 8, **options})
    check_layer(layer)


def test_mac_equals_its_definition_segment_by_segment():
    with seeded(0):
        layer = Titans(16, "mac", heads=2, chunk=4, persistent=3).double()
        x = torch.randn(2, 11, 16, dtype=DOUBLE)
    found, _ = layer(x)
    attention, long = layer.attention, layer.memory
    asked, _ = layer.ask_convolution(layer.ask(x))
    state, outputs = long.initial_state(2), []
    for start in range(0, 11, 4):
        s = x[:, start : start + 4]
        n = s.shape[1]
        q = F.normalize(asked[:, start : start + n].unflatten(-1, (2, 8)).transpose(1, 2), dim=-1)
        weights = [part(state, "memory")[f"weight.{i}"] for i in range(2)]
        h = layer.context_norm(network(weights, q).transpose(1, 2).flatten(2))
        y = torch.stack([_attend(attention, s[:, : i + 1], h[:, : i + 1]) for i in range(n)], 1)
        m, state = long(y, state)
        gate = layer.gate
        outputs.append(layer.output(gate.norm_y(y) * F.silu(gate.norm_m(m))))
    torch.testing.assert_close(found, torch.cat(outputs, 1), rtol=1e-10, atol=1e-10)


def _attend(attention, s, h):
    """Attention of the last token of s to [P; h; s], position by position."""
    heads, width = attention.heads, attention.head_dim
    tokens = torch.cat([attention.persistent.expand(len(s), -1, -1), h, s], 1)
    k, v = attention.key_value(tokens).chunk(2, -1)
    q = attention.query(s[:, -1])
    n, result = s.shape[1], []
    places = [None] * len(attention.persistent) + [*range(n)] * 2

    def turn(vector, place):
        if place is None:
            return vector
        half = width // 2
        angle = place * 10_000.0 ** (-torch.arange(half, dtype=DOUBLE) / half)
        pairs = torch.complex(vector[..., :half], vector[..., half:]) * torch.polar(
            torch.ones(half, dtype=DOUBLE), angle
        )
        return torch.cat([pairs.real, pairs.imag], -1)

    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        keys = [turn(k[:, i, own], place) for i, place in enumerate(places)]
        plain, turned = q[:, own], turn(q[:, own], n - 1)
        scores = torch.stack(
            [
                ((plain if p is None else turned) * key).sum(-1)
                for p, key in zip(places, keys, strict=True)
            ],
            -1,
        )
        share = (scores / width**0.5).softmax(-1)
        result.append((share.unsqueeze(-1) * v[..., own]).sum(1))
    return attention.output(torch.cat(result, -1))


def test_surprise_is_the_norm_of_the_gradient_and_falls_with_repetition():
    with seeded(0):
        layer = Titans(16, "memory", heads=2, chunk=1).double()
        x = torch.randn(1, 1, 16, dtype=DOUBLE).expand(1, 60, 16).contiguous()
    layer(x)
    surprise = layer.surprise()
    assert surprise.shape == (1, 60, 2)
    assert not surprise.requires_grad
    assert (surprise[:, -1] < 0.5 * surprise[:, 4]).all()
    long = layer.memory
    with torch.no_grad():
        (_, k, v), _ = long._heads(x, long.initial_state(1))
    for head in range(2):
        weights = [w[head].detach().clone().requires_grad_() for w in long.memory.weights]
        (network(weights, k[0, head, :1]) - v[0, head, :1]).square().sum().backward()
        norm = torch.cat([w.grad.flatten() for w in weights]).norm()
        torch.testing.assert_close(surprise[0, 0, head], norm)


def test_surprise_before_any_token_is_refused():
    with pytest.raises(ConfigError, match="no token"):
        Titans(16).surprise()


def test_read_writes_nothing():
    with seeded(0):
        layer = Titans(16, "mag", heads=2).double()
        x = torch.randn(2, 21, 16, dtype=DOUBLE)
    state = layer.write(x)
    copies = {k: t.clone() for k, t in state.items()}
    first, again = layer.read(x[:, :3], state), layer.read(x[:, :3], state)
    assert torch.equal(first, again)
    assert first.shape == (2, 3, 16)
    assert all(torch.equal(state[k], copies[k]) for k in state)


def test_refusals():
    with pytest.raises(ConfigError, match="no variant"):
        Titans(16, "mab")
    with pytest.raises(ConfigError, match="no readout"):
        Titans(16, readout="end")
    with pytest.raises(ConfigError, match="chunk is at least 1"):
        Titans(16, chunk=0)
    with pytest.raises(ConfigError, match="heads"):
        Titans(18, heads=4)
    layer = Titans(16)
    with seeded(0):
        x = torch.randn(3, 5, 16)
    with pytest.raises(DataError, match=r"\(3, .*\(2, "):
        layer(x[:2], layer.write(x))
    mem = memory()
    q, k, v, gates = example()
    state = mem.initial_state(2) | {"seen": torch.tensor([0, 1])}
    with pytest.raises(DataError, match="tokens into their chunks"):
        mem(q, k, v, gates, state)
    with pytest.raises(ConfigError, match="eta"):
        mem(q, k, v, gates._replace(log_momentum=None), mem.initial_state(2))


def test_a_stream_stops_at_the_token_that_breaks_the_weights():
    with seeded(0):
        layer = Titans(16, "memory", heads=2)
        x = torch.randn(1, 40, 16)
    x[0, 25] = float("inf")
    outputs = stream(layer, (x[:, i : i + 10] for i in range(0, 40, 10)))
    with pytest.raises(NonFiniteError, match="token 25") as caught:
        list(outputs)
    assert caught.value.token == 25
    assert all(
        torch.isfinite(t).all() for t in caught.value.state.values() if t.is_floating_point()
    )


def test_a_step_too_large_is_reported_as_such():
    with seeded(0):
        layer = Titans(16, "memory", heads=1, max_step=50.0, largest_gradient=None)
        x = torch.randn(1, 600, 16)
    with pytest.raises(NonFiniteError, match="inner learning rate"):
        list(stream(layer, x.split(20, 1)))


def test_state_does_not_grow():
    layer = Titans(16, "mac")
    shapes = {k: t.shape for k, t in layer.initial_state(1).items()}
    state = None
    with torch.no_grad(), seeded(0):
        for _ in range(3):
            _, state = layer(torch.randn(1, 23, 16), state)
    assert {k: t.shape for k, t in detach(state).items()} == shapes


def test_published_configuration():
    with torch.device("meta"):
        layer = Titans.published()
    assert layer.dim == 1024
    assert layer.memory.heads == 16
    assert np.prod(layer.memory.memory.weights[0].shape) == 16 * 64 * 128
