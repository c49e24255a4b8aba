"""The delta rule and linear attention in chunks, against one token after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from engramma.memory.delta import delta_rule, linear_attention
from engramma.memory.scan import decay_matrix, scan

RULES = {"delta": delta_rule, "add": linear_attention}


def inputs(length, key=5, value=7, decay=0.5, seed=0, batch=2, heads=2):
    """Queries, keys of length 1, values, rates, logarithms of decays, memory; float64."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(batch, heads, *shape, generator=g, dtype=torch.float64)

    q, k, v = draw(length, key), F.normalize(draw(length, key), dim=-1), draw(length, value)
    rate, log_decay = draw(length).sigmoid(), -decay * draw(length).abs()
    return [t.requires_grad_() for t in (q, k, v, rate, log_decay, draw(key, value))]


def by_loop(rule, q, k, v, rate, log_decay, memory):
    """The definition, written out with einsum."""
    outputs = []
    for t in range(q.shape[2]):
        memory = log_decay[:, :, t].exp()[..., None, None] * memory
        target = v[:, :, t]
        if rule == "delta":
            target = target - torch.einsum("bhk,bhkv->bhv", k[:, :, t], memory)
        memory = memory + torch.einsum("bh,bhk,bhv->bhkv", rate[:, :, t], k[:, :, t], target)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], memory))
    return torch.stack(outputs, 2), memory


def with_gradients(function, tensors, seed=1):
    """Outputs, and the gradients of a random combination of both of them."""
    y, memory = function(*tensors)
    g = torch.Generator().manual_seed(seed)
    loss = sum((t * torch.randn(t.shape, generator=g, dtype=t.dtype)).sum() for t in (y, memory))
    return [y, memory, *torch.autograd.grad(loss, tensors)]


def assert_same(found, expected, tolerance=1e-10):
    for a, b in zip(found, expected, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("length", [1, 33, 64, 130])
def test_chunks_equal_the_loop_with_all_gradients(rule, length):
    tensors = inputs(length)
    expected = with_gradients(lambda *t: by_loop(rule, *t), tensors)
    for chunk in (1, 16, 64, 1000):
        assert_same(with_gradients(lambda *t, c=chunk: RULES[rule](*t, c), tensors), expected)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_finite_differences(rule):
    tensors = inputs(7, key=3, value=2, batch=1)
    assert torch.autograd.gradcheck(lambda *t: RULES[rule](*t, 4), tensors)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("where", ["one token", "all tokens", "every third"])
def test_extreme_decay_is_no_nan(rule, where):
    tensors = inputs(70)
    step = {"one token": 1000, "all tokens": 1, "every third": 3}[where]
    with torch.no_grad():
        tensors[4][:, :, 20::step] = -50.0
    expected = with_gradients(lambda *t: by_loop(rule, *t), tensors)
    assert_same(with_gradients(lambda *t: RULES[rule](*t, 32), tensors), expected)
    single = [t.detach().float().requires_grad_() for t in tensors]
    found = with_gradients(lambda *t: RULES[rule](*t, 32), single)
    expected = with_gradients(lambda *t: by_loop(rule, *t), single)
    assert_same(found, expected, 1e-3)


def test_repeated_keys_keep_their_precision():
    """Where all keys are the same, powers of A grow like binomials; the solver must not."""
    tensors = [t.detach().float() for t in inputs(128, decay=0.0)]
    tensors[1][:] = tensors[1][:, :, :1]
    tensors[3][:] = 1.0
    y, memory = delta_rule(*tensors)
    expected, last = by_loop("delta", *(t.double() for t in tensors))
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(memory.double(), last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 40),
    chunk=st.integers(1, 50),
    split=st.integers(0, 40),
    decay=st.sampled_from([0.0, 0.1, 5.0]),
    seed=st.integers(0, 10_000),
)
def test_neither_chunk_nor_split_changes_anything(rule, length, chunk, split, decay, seed):
    q, k, v, rate, log_decay, memory = (t.detach() for t in inputs(length, decay=decay, seed=seed))
    expected, last = by_loop(rule, q, k, v, rate, log_decay, memory)
    outputs = []
    for piece in (slice(0, split), slice(split, length)):
        parts = [t[:, :, piece] for t in (q, k, v, rate, log_decay)]
        if parts[0].shape[2]:
            y, memory = RULES[rule](*parts, memory, chunk)
            outputs.append(y)
    assert_same([torch.cat(outputs, 2), memory], [expected, last])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), rate=st.floats(0.01, 1.0))
def test_a_full_write_is_read_back_and_bounded(seed, rate):
    q, k, v, rates, _, memory = (t.detach() for t in inputs(20, seed=seed))
    keep = torch.zeros_like(rates)
    y, _ = delta_rule(k, k, v, torch.ones_like(rates), keep, memory)
    torch.testing.assert_close(y, v, rtol=1e-9, atol=1e-9)
    _, after = delta_rule(q, k, torch.zeros_like(v), rate * keep.exp(), keep, memory)
    assert (after.norm(dim=(-2, -1)) <= memory.norm(dim=(-2, -1)) + 1e-9).all()


def test_without_correction_or_decay_it_is_attention_without_softmax():
    q, k, v, _, _, memory = (t.detach() for t in inputs(50))
    one, none = torch.ones(2, 2, 50).double(), torch.zeros(2, 2, 50).double()
    y, _ = linear_attention(q, k, v, one, none, torch.zeros_like(memory), 16)
    torch.testing.assert_close(y, (q @ k.mT).tril() @ v, rtol=1e-10, atol=1e-10)


def test_orthogonal_keys_make_both_rules_one():
    q, _, v, rate, log_decay, memory = (t.detach() for t in inputs(5))
    k = torch.eye(5, dtype=torch.float64).expand(2, 2, 5, 5)
    nothing = torch.zeros_like(memory)
    a = delta_rule(q, k, v, rate, log_decay, nothing)
    b = linear_attention(q, k, v, rate, log_decay, nothing)
    assert_same(a, b)


def test_decay_matrix_against_products():
    log_decay = -torch.rand(3, 6, dtype=torch.float64)
    found, a = decay_matrix(log_decay).numpy(), log_decay.exp().numpy()
    for t in range(6):
        for i in range(6):
            expected = np.prod(a[:, i + 1 : t + 1], axis=1) if i <= t else np.zeros(3)
            np.testing.assert_allclose(found[:, t, i], expected, rtol=1e-12)
    steep = decay_matrix(torch.full((40,), -50.0))
    assert torch.isfinite(steep).all()
    assert torch.equal(steep.diagonal(), torch.ones(40))


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(0, 30),
    chunk=st.integers(1, 40),
    decay=st.sampled_from([0.0, 0.3, 50.0]),
    seed=st.integers(0, 10_000),
)
def test_scan_is_the_recurrence(length, chunk, decay, seed):
    g = torch.Generator().manual_seed(seed)
    log_decay = -decay * torch.rand(2, length, generator=g, dtype=torch.float64)
    b = torch.randn(2, length, 3, generator=g, dtype=torch.float64)
    h = start = torch.randn(2, 3, generator=g, dtype=torch.float64)
    expected = []
    for t in range(length):
        h = log_decay[:, t, None].exp() * h + b[:, t]
        expected.append(h)
    found = scan(log_decay, b, start, chunk)
    assert found.shape == b.shape
    for t in range(length):
        torch.testing.assert_close(found[:, t], expected[t], rtol=1e-10, atol=1e-10)


def test_scan_gradients_and_start_at_zero():
    log_decay = (-torch.rand(2, 9, dtype=torch.float64)).requires_grad_()
    b = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: scan(a, b, None, 4), (log_decay, b))
    torch.testing.assert_close(scan(log_decay, b)[:, 0], b[:, 0])
