"""Miras: the whole grid against loops by autograd, and each step against what it minimises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError
from engramma.memory.fast_networks import NETWORKS, network
from engramma.memory.objectives import OBJECTIVES, Dot, Huber, Power, Shift, Squared
from engramma.memory.online import OnlineMemory, Writing
from engramma.memory.retention import (
    RETENTIONS,
    Bregman,
    Decay,
    ElasticNet,
    Entropy,
    NormPower,
    log_share,
    soft_threshold,
)
from engramma.nn.seed import seeded
from engramma.registry import systems
from engramma.systems.sequence.miras import Memora, MirasLayer, Moneta, presets
from sequence_layers import check_layer

# -- the layer ----------------------------------------------------------------------------------


def small(**options):
    with seeded(0):
        return MirasLayer(12, heads=2, **{"chunk": 4, **options})


@pytest.mark.parametrize("name", presets())
def test_layer_of_each_preset(name):
    with seeded(0):
        layer = MirasLayer.preset(name, 12, heads=2, chunk=4)
    check_layer(layer, length=14, splits=(0, 1, 5, 10))


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "vector", "bias": "huber-coordinate", "retention": "kl"},
        {"memory": "vector", "retention": "elastic-net", "bias": "shift", "gates": "channel"},
        {"memory": "mlp", "bias": "lp", "retention": "elastic-net", "gates": "channel", "rank": 3},
        {"memory": "mlp", "bias": "huber-norm", "retention": "bregman", "optimizer": "momentum"},
        {"retention": "lq", "gates": "channel", "optimizer": "momentum", "rank": 3},
        {"bias": "huber-coordinate", "retention": "kl", "gates": "channel", "rank": 3},
        {"bias": "l2", "retention": "bregman-tanh", "chunk": 1},
        {"step": 0.2, "keep": 0.9, "threshold": 0.5, "chunk": 5},
    ],
    ids=lambda o: "-".join(str(v) for v in o.values()),
)
def test_layer_elsewhere_on_the_grid(options):
    check_layer(small(**options), length=11, splits=(0, 1, 5))


# -- every point of the grid against a loop ---------------------------------------------------

HEADS, DIM, LENGTH = 2, 3, 10


def reference_network(kind, ws, x):
    """One token, with weights out x in as they are printed."""
    if kind == "vector":
        pair = torch.stack([x, -x], -1) / 2**0.5
        return (ws[0] * (pair if ws[0].shape[1] == 2 else x[:, None])).sum(1)

    def widen(a, w):
        return torch.cat([a, -a]) / 2**0.5 if w.shape[1] == 2 * len(a) else a

    if kind == "matrix":
        return ws[0] @ widen(x, ws[0])
    hidden = F.gelu(ws[0] @ widen(x, ws[0]))
    return x + F.layer_norm(ws[1] @ widen(hidden, ws[1]), (len(x),))


def reference_slope(bias, y, v, threshold):
    e = y - v
    if bias == "dot":
        return -v
    if bias == "l2":
        return e
    if bias == "lp":
        return 3 * torch.tanh(10 * e) * (e**2 + 1e-6)
    if bias == "shift":
        return e + 0.1 * e / e.norm()
    if bias == "huber":
        return e if e.norm() <= threshold else threshold * torch.tanh(10 * e)
    if bias == "huber-norm":
        return e if e.norm() <= threshold else threshold * e / e.norm()
    return e.clamp(-threshold, threshold)


def simplex(s):
    return s.shape[1] * torch.softmax(s, 1)


MAPS = {
    "lq": lambda a: a / a.abs().pow(4).sum().pow(0.25) ** 2 if a.abs().sum() else a,
    "kl": simplex,
    "bregman": torch.sigmoid,
    "bregman-tanh": torch.tanh,
}
INVERSES = {
    "kl": lambda w: w.clamp_min(1e-3).log(),
    "bregman": lambda w: torch.logit(w.clamp(1e-3, 1 - 1e-3)),
    "bregman-tanh": lambda w: torch.atanh(w.clamp(-0.998, 0.998)),
}


def reference(kind, bias, retained, start, q, k, v, writing, chunk):
    """One head, token by token, gradients by autograd at the start of chunks of ``chunk``."""
    mirror = retained in INVERSES
    to_weights = MAPS.get(retained, lambda s: s)
    s = [w.T.clone() for w in start]
    run = [to_weights(w) for w in s] if mirror else list(s)
    m = [torch.zeros_like(w) for w in s]
    gamma, out = 0.0, []
    for t in range(len(q)):
        step, keep, mu, delta = (float(w[t]) for w in writing)
        opens, closes = t % chunk == 0, (t + 1) % chunk == 0
        if opens and not mirror:
            s = list(run)
        if opens and mirror and chunk > 1:
            s = [INVERSES[retained](w) for w in run]
        frozen = [to_weights(w).detach().requires_grad_() for w in s]
        y = reference_network(kind, frozen, k[t])
        slope = reference_slope(bias, y.detach(), v[t], delta)
        grads = torch.autograd.grad(y, frozen, slope)
        if retained == "elastic-net":
            keep = 100 / (100 + step)
            shrink = step * 100 / (1000 * (step + 100))
            step = step * keep
            gamma = keep * gamma + shrink
        if retained in ("none", "bregman", "bregman-tanh"):
            keep = 1.0
        m = [mu * a - step * g for a, g in zip(m, grads, strict=True)]
        if opens and mirror:
            s = [keep * w + a for w, a in zip(s, m, strict=True)]
            run = [to_weights(w) for w in s]
            read = run
        else:
            run = [keep * w + a for w, a in zip(run, m, strict=True)]
            read = run
            if retained == "lq":
                factor = [
                    f.detach().norm() / w.norm() if w.norm() else 1.0
                    for f, w in zip(frozen, s, strict=True)
                ]
                read = [
                    to_weights(w) if closes else w * f for w, f in zip(run, factor, strict=True)
                ]
            if retained == "elastic-net" and closes:
                run = read = [F.softshrink(w, gamma) for w in run]
                gamma = 0.0
        out.append(reference_network(kind, [w.detach() for w in read], q[t]))
    return torch.stack(out)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("retained", RETENTIONS)
def test_whole_grid_is_a_loop(kind, retained):
    """Each objective with and without momentum, at chunks of 1 and 4, against autograd."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return torch.as_tensor(rng.standard_normal((1, HEADS, LENGTH, *shape)))

    q, k, v = F.normalize(draw(DIM), dim=-1), F.normalize(draw(DIM), dim=-1), draw(DIM)
    gates = [torch.sigmoid(draw(1) - 1), F.logsigmoid(draw(1) + 1), F.logsigmoid(draw(1))]
    threshold = torch.sigmoid(draw(1)) + 0.3
    for index, bias in enumerate(OBJECTIVES):
        for chunk in (1, 4):
            momentum = (index + chunk) % 2 == 0
            with seeded(index):
                memory = OnlineMemory(
                    HEADS, DIM, kind, bias, retained, momentum=momentum, chunk=chunk
                ).double()
            state = memory.initial_state(1, q)
            writing = Writing(
                gates[0],
                gates[1] if memory.retention.gated else None,
                gates[2] if momentum else None,
                threshold if memory.objective.thresholded else None,
            )
            with torch.no_grad():
                y, _ = memory(q, k, v, writing, state)
            for head in range(HEADS):
                start = [state[f"start.{i}"][0, head].detach() for i in range(len(memory.widths))]
                of_head = [t[0, head, :, 0] for t in (*gates[:1], gates[1].exp(), gates[2].exp())]
                of_head[2] = of_head[2] * momentum
                expected = reference(
                    kind, bias, retained, start, q[0, head], k[0, head], v[0, head],
                    (*of_head, threshold[0, head, :, 0]), chunk,
                )  # fmt: skip
                torch.testing.assert_close(
                    y[0, head], expected, rtol=1e-9, atol=1e-9, msg=f"{bias}, chunks of {chunk}"
                )


# -- objectives -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "loss", "threshold"),
    [
        (Dot(), lambda e, y, v: -(y * v).sum(), None),
        (Squared(), lambda e, y, v: 0.5 * (e**2).sum(), None),
        (Power(3, smooth=False), lambda e, y, v: (e.abs() ** 3).sum(), None),
        (Power(1.5, smooth=False), lambda e, y, v: (e.abs() ** 1.5).sum(), None),
        (Huber("norm"), lambda e, y, v: F.huber_loss(e.norm(), e.new_zeros(()), delta=0.5), 0.5),
        (Huber("norm"), lambda e, y, v: F.huber_loss(e.norm(), e.new_zeros(()), delta=9.0), 9.0),
        (
            Huber("coordinate"),
            lambda e, y, v: F.huber_loss(y, v, delta=0.5, reduction="sum"),
            0.5,
        ),
        (Huber("switch", 0.0), lambda e, y, v: 0.5 * e.abs().sum(), 0.5),
        (Huber("switch"), lambda e, y, v: 0.5 * (e**2).sum(), 9.0),
        (Shift(0.7), lambda e, y, v: 0.5 * (e.norm() + 0.7) ** 2, None),
    ],
)
def test_slopes_are_derivatives(objective, loss, threshold):
    rng = np.random.default_rng(1)
    y = torch.as_tensor(rng.standard_normal(5)).requires_grad_()
    v = torch.as_tensor(rng.standard_normal(5))
    (expected,) = torch.autograd.grad(loss(y - v, y, v), y)
    limit = None if threshold is None else torch.full((1,), threshold, dtype=torch.float64)
    torch.testing.assert_close(objective.slope(y, v, limit).detach(), expected)


def test_shift_is_the_worst_within_its_radius():
    """The closed form against a search over shifts on the circle."""
    e = torch.tensor([0.3, -0.4], dtype=torch.float64)
    angle = torch.linspace(0, 2 * np.pi, 3601, dtype=torch.float64)
    shifts = 0.2 * torch.stack([angle.cos(), angle.sin()], -1)
    worst = shifts[(0.5 * (e - shifts).square().sum(-1)).argmax()]
    slope = Shift(0.2).slope(e, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(slope, e - worst, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if n != "dot"])
def test_slope_and_its_derivative_at_no_error(name):
    y = torch.zeros(2, 3, requires_grad=True)
    slope = OBJECTIVES[name].slope(y, torch.zeros(2, 3), torch.ones(2, 1))
    assert torch.equal(slope, torch.zeros(2, 3))
    (derivative,) = torch.autograd.grad(slope.sum(), y)
    assert torch.isfinite(derivative).all()


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
def test_sharp_powers_are_finite_at_no_error(p):
    y = torch.zeros(3, requires_grad=True)
    slope = Power(p, smooth=False).slope(y, torch.zeros(3))
    (derivative,) = torch.autograd.grad(slope.sum(), y)
    assert torch.isfinite(slope).all()
    assert torch.isfinite(derivative).all()


def test_smooth_sign_and_size():
    """tanh(10 e) and the square root of e squared plus 1e-6, at the numbers themselves."""
    slope = Power(3).slope(torch.tensor([0.1]), torch.tensor([0.0]))
    assert float(slope) == pytest.approx(3 * np.tanh(1.0) * (0.01 + 1e-6), rel=1e-6)


# -- retention --------------------------------------------------------------------------------


def one_step(retained, start, keep=0.8, step=0.3):
    """Weights before and after one token, its gradient, for a matrix of 3 x 3."""
    memory = OnlineMemory(1, 3, "matrix", "l2", retained, chunk=1)
    rng = np.random.default_rng(2)
    k, v = (torch.as_tensor(rng.standard_normal((1, 1, 1, 3))) for _ in "kv")
    state = memory.initial_state(1, k)
    state = state | {"start.0": start, "now.0": memory.retention.weights(start)}
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    writing = Writing(step * one, np.log(keep) * one if memory.retention.gated else None)
    before = memory.retention.weights(start)[0, 0]
    _, after = memory(k, k, v, writing, state)
    w = before.clone().requires_grad_()
    x = torch.cat([k, -k], -1) / 2**0.5 if memory.retention.paired else k
    loss = 0.5 * (x[0, 0, 0] @ w - v[0, 0, 0]).square().sum()
    (gradient,) = torch.autograd.grad(loss, w)
    return before, memory.weights(after)[0][0, 0], gradient


@pytest.mark.parametrize("name", ["decay", "elastic-net", "kl", "bregman", "bregman-tanh"])
def test_step_minimises_what_defines_it(name):
    """No weights near by have a smaller value of gradient plus retention (all are convex)."""
    retained = {
        "decay": Decay(),
        "elastic-net": ElasticNet(squared=2.0, absolute=5.0),
        "kl": Entropy(mass=2.0),
        "bregman": Bregman(),
        "bregman-tanh": Bregman("tanh"),
    }[name]
    rng = np.random.default_rng(3)
    rows = 6 if retained.paired else 3
    start = torch.as_tensor(rng.standard_normal((1, 1, rows, 3)))
    keep, step = 0.8, 0.3
    before, after, g = one_step(retained, start, keep, step)

    def value(w):
        linear = (g * w).sum()
        if name == "decay":
            # alpha W - eta g: distance over 2 eta/alpha, size over 2 eta / (1 - alpha).
            return (
                linear
                + ((w - before) ** 2).sum() * keep / (2 * step)
                + (w**2).sum() * (1 - keep) / (2 * step)
            )
        if name == "elastic-net":
            return (
                linear
                + ((w - before) ** 2).sum() / (2 * step)
                + (w**2).sum() / 4
                + w.abs().sum() / 5
            )
        if name == "kl":
            return linear + (w * (w.log() - keep * before.log())).sum() / step
        f = (
            (lambda x: x * x.log() + (1 - x) * (1 - x).log())
            if name == "bregman"
            else (lambda x: x * torch.atanh(x) + 0.5 * torch.log1p(-x * x))
        )
        slope = torch.logit(before) if name == "bregman" else torch.atanh(before)
        return linear + (f(w) - f(before) - slope * (w - before)).sum() / step

    best = float(value(after))
    for _ in range(200):
        nudge = 1e-3 * torch.as_tensor(rng.standard_normal(after.shape))
        if name == "kl":
            nudge = nudge - nudge.mean(0)  # stay on the simplex
        assert float(value(after + nudge)) >= best - 1e-12
    if name == "kl":
        torch.testing.assert_close(after.sum(0), torch.full((3,), 2.0, dtype=torch.float64))


def test_elastic_net_forgets_small_weights_altogether():
    before, after, _ = one_step(ElasticNet(absolute=0.5), torch.full((1, 1, 3, 3), 0.01).double())
    assert (before != 0).all()
    assert (after == 0).any()
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    torch.testing.assert_close(soft_threshold(x, torch.tensor(1.0)), F.softshrink(x, 1.0))


def test_norm_power():
    a = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(NormPower(2).weights(a), a)
    torch.testing.assert_close(NormPower(3).weights(a), a / (27 + 64) ** (1 / 3))
    torch.testing.assert_close(NormPower(4).weights(a), a / (81 + 256) ** 0.5)
    torch.testing.assert_close(NormPower(4).start(a).pow(4).sum(), torch.ones(()).double())
    huge = torch.full((1, 2, 2), 1e15)  # its fourth power is not a number of 32 bits
    assert torch.isfinite(NormPower(4).weights(huge)).all()


def test_nothing_stored_reads_nothing():
    """At ||A|| = 0 the weights are 0, and derivatives are numbers."""
    a = torch.zeros(1, 3, 3, requires_grad=True)
    w = NormPower(4).weights(a)
    w.sum().backward()
    assert torch.equal(w, torch.zeros(1, 3, 3))
    assert torch.isfinite(a.grad).all()
    memory = OnlineMemory(1, 3, "matrix", "lp", "lq", chunk=4)
    zero, one = torch.zeros(1, 1, 6, 3, requires_grad=True), torch.ones(1, 1, 6, 1)
    y, _ = memory(zero, zero, zero, Writing(one, 0 * one), memory.initial_state(1))
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.isfinite(zero.grad).all()


def test_forgetting_everything():
    """A kept share of 0 leaves what the last token wrote."""
    layer = small(bias="l2", keep=0.0, step=1.0, chunk=1)
    x = torch.randn(1, 9, 12, generator=torch.Generator().manual_seed(0))
    _, state = layer(x)
    # Rank one: only the last token is there.
    values = torch.linalg.svdvals(state["memory.now.0"][0])
    assert (values[:, 1] < 1e-6 * values[:, 0]).all()
    assert log_share(0.0) < log_share(1e-3) < log_share(1.0) == 0


def test_memora_needs_both_signs():
    """Without [k, -k] weights that are not negative cannot hold values of either sign."""
    rng = np.random.default_rng(0)
    k = torch.eye(8)[None, None].repeat(1, 1, 40, 1)
    v = torch.as_tensor(rng.standard_normal((8, 8)), dtype=torch.float32)[None, None]
    one = torch.ones(1, 1, 320, 1)
    errors = []
    for signed in (True, False):
        memory = OnlineMemory(1, 8, "matrix", "l2", Entropy(signed=signed, mass=24), chunk=1)
        writing = Writing(0.1 * one, 0 * one)
        _, state = memory(k, k, v.repeat(1, 1, 40, 1), writing, memory.initial_state(1))
        read = memory.read(torch.eye(8)[None, None], state)
        errors.append(float((read - v).norm() / v.norm()))
    assert errors[0] < 0.05
    assert errors[1] > 0.5


# -- closed forms and the gap --------------------------------------------------------------------


def test_orthonormal_keys_are_recalled_in_one_step():
    v = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    k, one = torch.eye(5)[None, None], torch.ones(1, 1, 5, 1)
    for chunk in (1, 5):
        memory = OnlineMemory(1, 5, "matrix", "l2", "none", chunk=chunk)
        _, state = memory(k, k, v, Writing(one), memory.initial_state(1))
        torch.testing.assert_close(memory.read(k, state), v)


@pytest.mark.parametrize(
    ("name", "memory", "gaps"),
    [
        ("linear-attention", "matrix", (0.0, 0.0)),
        ("deltanet", "matrix", (0.047, 0.12)),
        ("yaad", "matrix", (0.14, 0.28)),
        ("memora", "mlp", (0.48, 0.77)),
        ("titans", "matrix", (0.073, 0.22)),
    ],
)
def test_gap_to_the_recurrence(name, memory, gaps):
    """The numbers of the module's table."""
    x = torch.randn(4, 128, 64, generator=torch.Generator().manual_seed(0))
    with seeded(0):
        layer = MirasLayer.preset(name, 64, memory=memory)
    for chunk, expected in zip((1, 4, 16), (0.0, *gaps), strict=True):
        layer.memory.chunk = chunk
        assert layer.gap(x) == pytest.approx(expected, rel=0.05, abs=1e-6)


@pytest.mark.parametrize("name", ["yaad", "moneta", "memora", "gated-delta"])
def test_one_token_for_ever(name):
    """Sixteen stale gradients at one key overshoot; only what bounds them survives it."""
    with seeded(0):
        layer = MirasLayer.preset(name, 16, heads=2, memory="matrix")
    torch.nn.init.constant_(layer.gates["step"].map.bias, 3.0)
    x = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0)).expand(1, 512, 16)
    with torch.no_grad():
        y, state = layer(x)
    largest = max(float(t.abs().max()) for t in state.values())
    assert (largest > 1e12) == (name == "gated-delta")
    assert name == "gated-delta" or torch.isfinite(y).all()


def test_titans_layer_memory_is_a_point():
    """Two programs, the same matrix memory: see also the claim."""
    (claim,) = (c for c in systems.get("miras").claims if c.name == "is-titans")
    assert claim.system(claim.prepare(7)) < 1e-12


# -- refusals and registration --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Power(0.9), "p of at least 1"),
        (lambda: Power(float("nan")), "p of at least 1"),
        (lambda: NormPower(1.0), "q of more than 1"),
        (lambda: Entropy(mass=0.0), "mass"),
        (lambda: Entropy(floor=0.0), "floor"),
        (lambda: ElasticNet(squared=0.0), "positive"),
        (lambda: Bregman("entropy"), "no potential"),
        (lambda: Bregman(floor=0.6), "floor"),
        (lambda: Huber("soft"), "no form"),
        (lambda: Huber(sharpness=-1), "sharpness"),
        (lambda: Shift(-1.0), "radius"),
        (lambda: small(keep=1.1), "between 0 and 1"),
        (lambda: small(keep=-0.1), "between 0 and 1"),
        (lambda: small(keep=0.9, retention="none"), "nothing uses it"),
        (lambda: small(keep=0.9, retention="elastic-net"), "nothing uses it"),
        (lambda: small(threshold=1.0, bias="l2"), "nothing uses it"),
        (lambda: small(threshold=0.0), "positive"),
        (lambda: small(step=-1.0), "not negative"),
        (lambda: small(largest_step=0.0), "positive"),
        (lambda: small(bias="l3"), "no inner objective 'l3'"),
        (lambda: small(retention="l3"), "no retention 'l3'"),
        (lambda: small(memory="tensor"), "no memory 'tensor'"),
        (lambda: small(optimizer="adam"), "no optimiser 'adam'"),
        (lambda: small(gates="row"), "no gates 'row'"),
        (lambda: small(gates="channel", rank=0), "rank"),
        (lambda: small(chunk=0), "at least 1 token"),
        (lambda: MirasLayer(10, heads=3), "heads"),
        (lambda: MirasLayer.preset("gru"), "no preset 'gru'"),
    ],
)
def test_bad_choices_are_refused_in_words(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_gates_that_do_not_belong_are_refused():
    memory = OnlineMemory(1, 3, "matrix", "l2", "none", chunk=2)
    x, one = torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 1)
    state = memory.initial_state(1)
    for extra in ({"log_keep": one}, {"log_momentum": one}, {"threshold": one}):
        with pytest.raises(ConfigError, match="no use for"):
            memory(x, x, x, Writing(one, **extra), state)
    with pytest.raises(ConfigError, match="needs log_keep"):
        OnlineMemory(1, 3)(x, x, x, Writing(one), state)
    with pytest.raises(ConfigError, match="threshold"):
        Huber().slope(x, x)


def test_sequences_at_different_places_of_a_chunk_are_refused():
    layer = small()
    _, state = layer(torch.zeros(2, 3, 12))
    state["memory.seen"] = torch.tensor([3, 2])
    with pytest.raises(DataError, match="into their chunks"):
        layer(torch.zeros(2, 3, 12), state)


def test_registered_and_published():
    assert systems.get("miras").factory().dim == 64
    assert isinstance(systems.get("miras-moneta").factory(dim=32), Moneta)
    assert isinstance(systems.get("miras-memora").factory(dim=32), Memora)
    assert len(systems.get("miras").claims) == 13
    layer = MirasLayer.published("moneta")
    assert layer.dim == 1024
    assert isinstance(layer.memory.objective, Power)
    assert layer.memory.objective.p == 3
    assert layer.memory.retention.q == 4
    assert [tuple(w.shape) for w in layer.memory.start] == [(16, 64, 256), (16, 256, 64)]
    assert layer.gates["step"].map[0].out_features == 64


def test_network_gradients_have_the_right_factors():
    """Sums of outer products against autograd, for the deep network with both signs offered."""
    net = network("mlp", 4, paired=True)
    with seeded(0):
        ws = [w.double().requires_grad_() for w in net.initial(2)]
        k, v = torch.randn(2, 2, 5, 4, dtype=torch.float64).unbind(0)
    y = net.read(lambda i, a: net.maps[i].apply(ws[i], a), k)
    expected = torch.autograd.grad(0.5 * (y - v).square().sum(), ws)
    keys, deltas = net.gradients(ws, k, lambda y: y - v)
    for layer, map_ in enumerate(net.maps):
        torch.testing.assert_close(map_.outer(keys[layer], deltas[layer]), expected[layer])
