"""Memory reweaving: hooks, buffers and formulas, against plain models and sums by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from engramma.errors import ConfigError, DataError
from engramma.memory.language_model import small_language_model
from engramma.memory.layer import load_state, save_state
from engramma.systems.sequence.memory_reweaving import (
    Adapter,
    MemoryReweaving,
    attach,
    retrieval_loss,
)

pytest.importorskip("transformers")
TOKENS = (torch.arange(2 * 45).view(2, 45) ** 2 * 3 + torch.arange(90).view(2, 45)) % 11
OPTIONS = {"window": 6, "segment": 8, "keep": 0.25, "capacity": 5}


def memory(woken=True, **options):
    """A small memory, its output awake unless told otherwise."""
    lm = small_language_model(11, 16, 3, 2)
    model = MemoryReweaving(lm, **(OPTIONS | options)).eval()
    if woken:
        with torch.no_grad():
            model.adapter.out.weight.copy_(torch.sin(torch.arange(256.0)).view(16, 16) / 3)
    return model


def test_silent_memory_is_the_base_model():
    """Held against the library's own sliding window, in one call."""
    windowed = small_language_model(11, 16, 3, 2, window=6)
    with torch.no_grad():
        logits, state = memory(woken=False)(TOKENS)
        torch.testing.assert_close(logits, windowed(TOKENS).logits, atol=1e-5, rtol=0)
        woven, _ = memory()(TOKENS)
    assert torch.equal(woven[:, :8], logits[:, :8])  # nothing has been captured yet
    assert (woven[:, 8:] - logits[:, 8:]).abs().amax(-1).min() > 1e-3
    assert state["keys.0"].shape == (2, 2, 5, 8)


def test_steps_and_pieces_equal_one_call(tmp_path):
    model = memory().double()
    with torch.no_grad():
        whole, end = model(TOKENS)
        state, parts = None, []
        for token in TOKENS.unbind(1):
            logits, state = model.step(token, state)
            parts.append(logits)
        torch.testing.assert_close(torch.stack(parts, 1), whole, atol=2e-6, rtol=0)
        for name, tensor in end.items():
            torch.testing.assert_close(state[name], tensor, atol=2e-6, rtol=0)
        first, state = model(TOKENS[:, :13])
        save_state(tmp_path / "s.safetensors", state)
        rest, _ = model(TOKENS[:, 13:], load_state(tmp_path / "s.safetensors"))
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=2e-6, rtol=0)
        alone, _ = model(TOKENS[1:])
        torch.testing.assert_close(alone, whole[1:], atol=2e-6, rtol=0)
        changed = TOKENS.clone()
        changed[:, 20] = (changed[:, 20] + 1) % 11
        other, _ = model(changed)
        torch.testing.assert_close(other[:, :20], whole[:, :20], atol=1e-9, rtol=0)
        assert (other[:, 20:] - whole[:, 20:]).abs().amax(-1).min() > 0


def test_what_is_captured():
    """Salience from the library's logits and attentions; states from its hidden states."""
    lm = small_language_model(11, 16, 3, 2)
    lm.set_attn_implementation("eager")
    with torch.no_grad():
        out = lm(TOKENS[:, :8], output_attentions=True, output_hidden_states=True)
    log_p = out.logits.log_softmax(-1)[:, :-1]
    surprisal = -log_p.gather(2, TOKENS[:, 1:8, None])[..., 0]
    z = (surprisal - surprisal.mean(1, keepdim=True)) / surprisal.std(1, correction=0, keepdim=True)
    z = torch.cat([torch.zeros(2, 1), z], 1)  # nothing predicts the first token
    attention = torch.stack(out.attentions).mean((0, 2))
    received = torch.zeros(2, 8)
    for token in range(7):
        received[:, token] = attention[:, token + 1 :, token].mean(1)
    score = z + received
    model = memory(window=0, woken=False)
    with torch.no_grad():
        _, state = model(TOKENS[:, :8])
    for row in range(2):
        expected = sorted(score[row].topk(2).indices.tolist())
        assert state["memory_at"][row, -2:].tolist() == expected
        for place, kept in zip(expected, state["memory"][row, -2:], strict=True):
            torch.testing.assert_close(kept[:16], out.hidden_states[1][row, place])
            torch.testing.assert_close(kept[16:32], out.hidden_states[2][row, place])
    assert state["memory_mask"].tolist() == [[False] * 3 + [True] * 2] * 2
    assert state["hidden"].shape == (2, 0, 48)


def test_buffer_is_first_in_first_out():
    model = memory()
    with torch.no_grad():
        _, state = model(TOKENS[:, :40])
    assert state["memory"].shape == (2, 5, 48)
    at = state["memory_at"]
    assert (at[:, 1:] > at[:, :-1]).all() and (at[:, -2:] >= 32).all() and (at[:, :1] >= 16).all()
    stats = model.buffer_stats(state)
    assert stats["captured"] == 5 and stats["newest"] <= 8 and stats["oldest"] <= 24
    assert stats["omega"] == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3})
    empty = model.buffer_stats(model.initial_state(2))
    assert empty["captured"] == 0 and empty["oldest"] is None
    places = {}
    for rule in ("salience", "least", "random"):
        model = memory(rule=rule)
        with torch.no_grad():
            places[rule] = model(TOKENS[:, :8])[1]["memory_at"][0, -2:].tolist()
    assert set(places["salience"]).isdisjoint(places["least"])


def test_reconstruction_by_hand():
    adapter = Adapter(4, 2)
    hidden, buffers = torch.randn(2, 1, 1, 4), torch.randn(2, 1, 3, 4)
    age = torch.tensor([[[9, 4, 1]]])
    there = torch.tensor([[[False, True, True]]])
    with torch.no_grad():
        adapter.mixture.copy_(torch.tensor([0.0, 1.0]))
        found = adapter.reconstruct(hidden, buffers, age, there)

    def unit(x):
        return x / x.pow(2).mean(-1, keepdim=True).sqrt()

    strength = math.log1p(math.exp(-2.0))
    omega = torch.tensor([1.0, math.e]) / (1 + math.e)
    expected = torch.zeros(4)
    for layer in range(2):
        q = unit(hidden[layer, 0, 0]) @ adapter.query[layer]
        b = unit(buffers[layer, 0, 1:])
        scores = (b @ adapter.key[layer]) @ q / 2 - strength * torch.tensor([5.0, 2.0]).log()
        z = scores.softmax(0) @ (b @ adapter.value[layer])
        expected += omega[layer] * (z @ adapter.align[layer])
    torch.testing.assert_close(found[0, 0], expected, atol=1e-5, rtol=1e-5)
    none = adapter.reconstruct(hidden, buffers, age, torch.zeros_like(there))
    assert torch.equal(none, torch.zeros(1, 1, 4))


def test_empty_buffer_passes_through():
    model = memory()
    state = model.initial_state(2)
    last = torch.randn(2, 3, 16)
    assert model.reweave(last, [last] * 3, state, torch.zeros(2, 3, dtype=torch.long)) is last
    logits, same = model(TOKENS[:, :0])
    assert logits.shape == (2, 0, 11) and same.keys() == state.keys()


def test_hooks():
    lm = small_language_model(11, 16, 3, 2)
    before = lm(TOKENS).logits
    model = attach(lm, [1, 3], **OPTIONS)
    assert model.layers == (1, 3) and model.attached
    torch.testing.assert_close(lm(TOKENS).logits, before, atol=1e-5, rtol=0)  # called by itself
    with pytest.raises(ConfigError, match="already"):
        attach(lm)
    with pytest.raises(ConfigError, match="already"):
        model.attach()
    assert model.detach() is lm and torch.equal(lm(TOKENS).logits, before)
    with pytest.raises(ConfigError, match="detached"):
        model(TOKENS)
    model.attach()
    assert model(TOKENS)[0].shape == (2, 45, 11)
    model.detach()
    ours = [h for m in lm.modules() for h in m._forward_hooks.values() if "Reweaving" in repr(h)]
    assert not ours
    with pytest.raises(ConfigError, match="use 1, 2, 3"):
        attach(lm, [0, 4])
    assert attach(lm).layers == (1, 2, 3)


def test_gradients_through_buffers_only_when_wanted():
    reached = {}
    for cut in (True, False):
        model = memory(cut=cut)
        embedding, kept = model.lm.get_input_embeddings(), []
        embedding.register_forward_hook(
            lambda _m, _i, out, k=kept: (out.retain_grad(), k.append(out))[0]
        )
        model.window = 1  # nothing but the buffers reaches back
        logits, _ = model(TOKENS[:, :16])
        logits[:, 12].sum().backward()
        reached[cut] = bool(kept[0].grad is not None and kept[0].grad.abs().sum() > 0)
    assert reached == {True: False, False: True}


def test_retrieval_loss():
    model = memory(woken=False)
    with torch.no_grad():
        _, state = model(TOKENS[:, :8])
        distance = torch.full((2, 10), -1)
        distance[0, 9] = 9 - state["memory_at"][0, -1]
        distance[1, 2] = 1  # in the first segment nothing has been captured
        logits, loss = retrieval_loss(model, TOKENS[:, :10], distance)
        model.adapter.read = []
        model(TOKENS[:, 8:10], state)
        weight = model.adapter.read[0][0, 1, -1]
    model.adapter.read = None
    torch.testing.assert_close(loss, -weight.log(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, model(TOKENS[:, :10])[0], atol=1e-5, rtol=0)


def test_grouped_heads_and_whole_attention():
    """A Llama whose key-value heads are shared, without a window: its state grows."""
    library = pytest.importorskip("transformers")
    config = library.LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    lm = library.LlamaForCausalLM(config).eval()
    model = MemoryReweaving(lm, segment=8, window=0)
    assert model.layers == (2, 3, 4)
    with torch.no_grad():
        logits, state = model(TOKENS)
        torch.testing.assert_close(logits, lm(TOKENS).logits, atol=1e-5, rtol=0)
    assert state["keys.3"].shape == (2, 2, 45, 4)


def test_bad_input():
    for options, match in (
        ({"segment": 1}, "at least 2"),
        ({"keep": 0.0}, "keep"),
        ({"capacity": 0}, "room"),
        ({"rule": "best"}, "rule"),
        ({"window": -1}, "window"),
    ):
        with pytest.raises(ConfigError, match=match):
            memory(**options)
    model = memory()
    with pytest.raises(DataError, match="run from"):
        model(TOKENS + 1)
    with pytest.raises(DataError, match="shape"):
        model(TOKENS, model.initial_state(3))


def test_shipped_miniatures_are_as_good_as_recorded():
    from engramma.nn.weights import read_weights
    from engramma.systems.sequence import memory_reweaving_claims as claims

    recorded = json.loads(read_weights(claims.FILE)[1]["accuracy"])
    assert set(recorded) == {f"{k}-{s}" for k in claims.KINDS for s in range(claims.SEEDS)}
    stream = claims.texts(np.random.default_rng(31), 128, 32)
    for kind in claims.KINDS:
        found = claims.right(claims.trained(kind, 0), stream).mean()
        assert abs(found - recorded[f"{kind}-0"]["32"]) < 0.08, kind
    with pytest.raises(DataError, match="was trained"):
        claims.trained("cmr", 99)
