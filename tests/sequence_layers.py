"""What every sequence layer must do, whatever its method: shared by the tests of all of them."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from engramma.errors import DataError
from engramma.memory.layer import load_state, save_state
from engramma.nn.seed import seeded

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def randomise(layer, seed=1, scale=0.3):
    """Move all parameters off their initial values, so that no zero hides a mistake."""
    with seeded(seed), torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(
                scale * torch.randn_like(parameter) / max(parameter.shape[-1:] or (1,)) ** 0.5
            )
    return layer.eval()


def close(a, b, dtype):
    torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def close_states(a, b, dtype):
    assert a.keys() == b.keys()
    for name in a:
        if a[name].is_floating_point():
            close(a[name], b[name], dtype)
        else:
            assert torch.equal(a[name], b[name]), name


def check_layer(layer, length=37, batch=2, splits=(0, 1, 5, 22), causal=True, gradients=True):
    """Check the equalities that hold for every layer, in float64 and float32.

    The step form equals the sequence form; any split of the sequence equals one pass; a later
    token changes no earlier output; rows of a batch do not touch each other; gradients of the
    parameters and of the input are the same in both forms; a state can be saved and restored in
    the middle; a state of another batch is refused.
    """
    layer = randomise(copy.deepcopy(layer))
    for dtype in (torch.float64, torch.float32):
        layer = layer.to(dtype)
        with seeded(0):
            x = torch.randn(batch, length, layer.dim, dtype=dtype)
        with torch.no_grad():
            y, end = layer(x)
            assert y.shape == x.shape
            assert y.dtype == dtype
            _step_form(layer, x, y, end, dtype)
            _splits(layer, x, y, end, splits, dtype)
            for row in range(batch):  # rows of the batch are independent
                close(layer(x[row : row + 1])[0], y[row : row + 1], dtype)
            if causal:
                _causal(layer, x, y)
    layer = layer.double()
    x = x.double()
    if gradients:
        _gradients(layer, x)
    _refusals(layer, x)


def _step_form(layer, x, y, end, dtype):
    outputs, state = layer.run(x)
    close(outputs, y, dtype)
    close_states(state, end, dtype)


def _splits(layer, x, y, end, splits, dtype):
    edges = [0, *sorted(s for s in splits if s <= x.shape[1]), x.shape[1]]
    state, parts = None, []
    for start, stop in itertools.pairwise(edges):
        part, state = layer(x[:, start:stop], state)
        parts.append(part)
    close(torch.cat(parts, 1), y, dtype)
    close_states(state, end, dtype)


def _causal(layer, x, y):
    for token in (0, x.shape[1] // 2, x.shape[1] - 1):
        changed = x.clone()
        changed[:, token] += 1.0
        other, _ = layer(changed)
        torch.testing.assert_close(other[:, :token], y[:, :token], rtol=1e-6, atol=1e-6)
        assert not torch.allclose(other[:, token:], y[:, token:]), "the token changed nothing"


def _gradients(layer, x):
    found = []
    with seeded(3):
        weights = torch.randn_like(x)
    for form in (layer, layer.run):
        layer.zero_grad()
        inputs = x.clone().requires_grad_()
        y, _ = form(inputs)
        (y * weights).sum().backward()
        named = {n: p.grad.clone() for n, p in layer.named_parameters() if p.grad is not None}
        found.append({"input": inputs.grad.clone(), **named})
    layer.zero_grad()
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        torch.testing.assert_close(
            found[0][name],
            found[1][name],
            rtol=1e-8,
            atol=1e-9,
            msg=lambda m, n=name: f"gradient of {n}: {m}",
        )


def _refusals(layer, x):
    with torch.no_grad():
        _, state = layer(x[:, :5])
        with pytest.raises(DataError, match="shape"):
            layer(torch.cat([x, x])[:, :5], state)
        with pytest.raises(DataError, match="dim"):
            layer(x[..., :-1])
        y, _ = layer(x[:, 5:], state)
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            save_state(Path(folder) / "state.safetensors", state)
            again, _ = layer(x[:, 5:], load_state(Path(folder) / "state.safetensors"))
        assert torch.equal(y, again)
        empty, same = layer(x[:, :0], state)
        assert empty.shape == (len(x), 0, layer.dim)
        close_states(same, state, torch.float64)
