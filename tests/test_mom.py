"""MoM against its own definition: loops over tokens, and single memories."""

import copy
import math
import warnings

import pytest
import torch
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.memory.convolution import ShortConvolution
from engramma.memory.routing import Placement, balance_loss, router_entropy, top_k_routing
from engramma.nn.seed import seeded
from engramma.systems.sequence.mom import MoM
from engramma.systems.sequence.mom_claims import set_by_hand
from sequence_layers import check_layer, randomise


def layer(dim=16, heads=2, seed=0, **options):
    with seeded(seed):
        return randomise(MoM(dim, heads, **options)).double()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layout": "masked"},
        {"rule": "add", "gated": False},
        {"memories": 3, "top_k": 1, "shared": False, "key_dim": 5, "value_dim": 3, "chunk": 4},
    ],
)
def test_what_every_layer_must_do(options):
    check_layer(MoM(16, 2, **options))


def test_one_token_batch_of_one_and_published_size():
    y, state = MoM(16, 2)(torch.zeros(1, 1, 16))
    assert y.shape == (1, 1, 16)
    assert state["routed"].sum() == 2
    with torch.device("meta"):
        published = MoM(1024)
    assert published.initial_state(1)["memory"].shape == (1, 5, 4, 256, 256)


def by_definition(mom, x):
    """Steps 1 to 6 of the module's table, one sequence, token and memory after the other."""
    keys, values = mom.heads * mom.key_dim, mom.heads * mom.value_dim
    taps, bias = mom.convolution.weight[:, 0], mom.convolution.bias
    n = mom.memories + mom.shared
    memory = torch.zeros(n, mom.heads, mom.key_dim, mom.value_dim, dtype=x.dtype)
    seen = [torch.zeros(taps.shape[1], taps.shape[0], dtype=x.dtype) for _ in range(n)]
    outputs = []
    for token in x:
        p = torch.softmax(mom.router.weight @ token, 0)
        best = p.argsort(descending=True)[: mom.top_k].tolist()
        weight = {m: p[m] / p[best].sum() for m in best}
        if mom.shared:
            weight[n - 1] = torch.tensor(1.0)
        o = torch.zeros(mom.heads, mom.value_dim, dtype=x.dtype)
        for m, g in weight.items():
            k, v, b, a = (token @ mom.own[m]).split([keys, values, mom.heads, mom.heads])
            now = torch.cat([mom.query.weight @ token, k, v])
            seen[m] = torch.cat([seen[m][1:], now.unsqueeze(0)])
            q, k, v = F.silu((seen[m].T * taps).sum(1) + bias).split([keys, keys, values])
            for h in range(mom.heads):
                part = slice(h * mom.key_dim, (h + 1) * mom.key_dim)
                qh, kh = (t[part] / t[part].norm() for t in (q, k))
                vh = v[h * mom.value_dim : (h + 1) * mom.value_dim]
                speed = mom.log_speed[h].exp() * F.softplus(a[h] + mom.decay_bias[h])
                kept = torch.exp(-speed) * memory[m, h]
                memory[m, h] = kept + b[h].sigmoid() * torch.outer(kh, vh - kept.T @ kh)
                o[h] += g * (memory[m, h].T @ qh)
        o = F.rms_norm(o, o.shape[-1:], mom.norm.weight).flatten()
        outputs.append(mom.output.weight @ (o * F.silu(mom.gate.weight @ token)))
    return torch.stack(outputs)


@pytest.mark.parametrize("options", [{}, {"top_k": 1, "shared": False, "memories": 3}])
@torch.no_grad()
def test_against_the_definition_token_by_token(options):
    mom, x = layer(**options), draw(2, 30, 16)
    y, _ = mom(x)
    for row in range(2):
        torch.testing.assert_close(y[row], by_definition(mom, x[row]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("width", [1, 4])
@torch.no_grad()
def test_layouts_agree_where_nothing_is_convolved_and_only_there(width):
    one, x = layer(convolution=width), draw(3, 50, 16)
    other = layer(convolution=width, layout="masked")
    other.load_state_dict(one.state_dict())
    a, b = one(x)[0], other(x)[0]
    if width == 1:
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    else:
        assert (a - b).abs().max() > 1e-3


@torch.no_grad()
def test_masked_layout_convolves_the_sequence():
    """With one memory that takes all, there is no difference; with several there is."""
    one = layer(memories=1, top_k=1, layout="masked")
    other = layer(memories=1, top_k=1)
    other.load_state_dict(one.state_dict())
    x = draw(2, 20, 16)
    torch.testing.assert_close(one(x)[0], other(x)[0], rtol=1e-12, atol=1e-12)


def test_reordering_projects_and_updates_fewer_tokens(monkeypatch):
    """Even routing to k of M leaves k/M of the tokens to each memory."""
    tokens = {}
    for layout in ("reorder", "masked"):
        mom = layer(memories=4, top_k=1, shared=False, layout=layout)
        rows = []
        original = mom._project
        monkeypatch.setattr(
            mom, "_project", lambda x, w, f=original, r=rows: (r.append(x.shape), f(x, w))[1]
        )
        x = torch.eye(4, dtype=torch.float64).repeat(16, 4).unsqueeze(0)
        with torch.no_grad():
            mom.router.weight.copy_(10 * torch.eye(4).repeat(1, 4))
            mom(x)
        tokens[layout] = math.prod(rows[0][:2])
    assert tokens == {"reorder": 64, "masked": 4 * 64}


@torch.no_grad()
def test_unrouted_memories_are_untouched_to_the_bit():
    mom, x = layer(), draw(2, 40, 16)
    _, state = mom(x)
    token = draw(2, 16, seed=5)
    chosen = mom.route(token.unsqueeze(1)).mask()[:, 0]
    for after in (mom.step(token, state)[1], mom(token.unsqueeze(1), state)[1]):
        same = (after["memory"] == state["memory"]).flatten(2).all(-1)[:, :4]
        assert torch.equal(same, ~chosen)


@pytest.mark.parametrize("layout", ["reorder", "masked"])
@torch.no_grad()
def test_padding_is_as_if_it_were_not_there(layout):
    mom, x = layer(layout=layout), draw(3, 25, 16)
    mask = torch.rand(3, 25, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[2] = False
    start = mom(draw(3, 6, 16, seed=2))[1]
    y, state = mom(x.masked_fill(~mask.unsqueeze(-1), 1e6), start, mask=mask)
    for row in range(2):
        own = {k: t[row : row + 1] for k, t in start.items()}
        expected, after = mom(x[row, mask[row]].unsqueeze(0), own)
        torch.testing.assert_close(y[row, mask[row]], expected[0], rtol=1e-9, atol=1e-10)
        for name, tensor in after.items():
            torch.testing.assert_close(state[name][row], tensor[0], rtol=1e-9, atol=1e-10)
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    for name in start:
        assert torch.equal(state[name][2], start[name][2])
    assert not mom.route(x, mask).mask()[~mask].any()
    with pytest.raises(DataError, match="mask"):
        mom(x, mask=mask[:, 1:])
    assert mom(x[:, :0], mask=mask[:, :0])[0].shape == (3, 0, 16)


@torch.no_grad()
def test_a_full_memory_says_what_it_dropped():
    mom, x = layer(top_k=1, shared=False, capacity=1.0), draw(2, 40, 16)
    wanted = top_k_routing(mom.router(x), 1).counts()
    with pytest.warns(DataWarning, match="dropped"):
        _, state = mom(x)
    assert torch.equal(state["routed"], wanted.clamp(max=10))
    assert torch.equal(state["dropped"], wanted.sum(1) - state["routed"].sum(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        free = layer(top_k=1, shared=False)
        assert free(x)[1]["dropped"].sum() == 0


def test_usage_and_balance_loss():
    mom, x = layer(), draw(2, 40, 16)
    with pytest.raises(ConfigError, match="forward"):
        mom.balance_loss()
    mom.train()
    _, state = mom(x)
    routing = mom.route(x)
    share = torch.stack([(routing.chosen == m).any(-1).double().mean() for m in range(4)])
    weight = torch.stack(
        [(routing.weights * (routing.chosen == m)).sum(-1).mean() for m in range(4)]
    )
    torch.testing.assert_close(mom.balance_loss(), 16 * (share * weight).mean())
    torch.testing.assert_close(mom.usage(state).mean(0), share / 2)
    assert torch.equal(state["routed"].sum(1), torch.tensor([80, 80]))
    mom.balance_loss().backward()
    assert mom.router.weight.grad.abs().sum() > 0
    copy.deepcopy(mom.eval())


def test_balance_loss_is_smallest_where_all_are_used_alike():
    even = top_k_routing(torch.eye(4).repeat(5, 1).unsqueeze(0), 1)
    torch.testing.assert_close(balance_loss(even), torch.tensor(1.0))
    torch.testing.assert_close(router_entropy(even), torch.tensor(4.0).log())
    one = top_k_routing(torch.tensor([5.0, 0, 0, 0]).repeat(1, 20, 1), 1)
    torch.testing.assert_close(balance_loss(one), torch.tensor(4.0))
    assert router_entropy(one) == 0


def test_placement_gathers_in_order_and_back_with_gradients():
    x = draw(2, 9, 3).requires_grad_()
    real = torch.ones(2, 9, dtype=torch.bool)
    real[1, 4:] = False
    routing = top_k_routing(draw(2, 9, 4, seed=3), 2, real)
    place = Placement.of(routing)
    rows = place.gather(x)
    for m in range(4):
        for b in range(2):
            own = routing.mask()[b, :, m]
            assert torch.equal(rows[m, b, : own.sum()], x[b, own])
            assert not rows[m, b, own.sum() :].any()
    torch.testing.assert_close(place.scatter(rows, routing.weights), x * real.unsqueeze(-1))
    assert torch.autograd.gradcheck(lambda t: place.gather(t.tanh()), x)
    assert torch.autograd.gradcheck(
        lambda t: place.scatter(t, routing.weights), rows.detach().requires_grad_()
    )


def test_convolution_is_that_of_torch():
    conv = ShortConvolution(6, 4).double()
    x = draw(3, 11, 6).requires_grad_()
    parameters = [x, conv.weight, conv.bias]
    ours = conv(x)[0]
    theirs = F.silu(F.conv1d(F.pad(x.mT, (3, 0)), conv.weight, conv.bias, groups=6).mT)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weight = draw(3, 11, 6, seed=1)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), parameters),
        torch.autograd.grad((theirs * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"top_k": 5}, "5 of 4"),
        ({"top_k": 0}, "0 of 4"),
        ({"memories": 0, "top_k": 1}, "1 of 0"),
        ({"rule": "hebb"}, "hebb"),
        ({"layout": "sorted"}, "sorted"),
        ({"capacity": 0.0}, "0.0"),
        ({"heads": 3}, "3 heads"),
    ],
)
def test_refuses(options, named):
    with pytest.raises(ConfigError, match=named):
        MoM(16, **{"heads": 2, **options})


def test_hand_set_layer_routes_as_told():
    """Delta rule in closed form: with orthogonal keys every pair is read back exactly."""
    mom = set_by_hand(keys=4, values=3, routes=4, memories=4)
    eye, values = torch.eye(4), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    context = torch.arange(8) // 4
    write = torch.cat([eye.repeat(2, 1), values, 20 * eye[context], torch.ones(8, 2)], 1)
    query = write.clone()
    query[:, 4:7], query[:, -2] = 0.0, 0.0
    with torch.no_grad():
        y, state = mom(torch.cat([write, query]).unsqueeze(0))
    read = y[0, 8:, 4:7]
    torch.testing.assert_close(F.normalize(read, dim=1), F.normalize(values, dim=1))
    assert state["routed"].tolist() == [[8, 8, 0, 0]]
