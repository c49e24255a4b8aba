"""HMT against the authors' code, plain language models, and gradients that must be cut."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from engramma.errors import ConfigError, DataError
from engramma.memory.language_model import small_language_model
from engramma.memory.layer import load_state, save_state
from engramma.memory.stages import fit_stages
from engramma.systems.sequence.hmt import (
    HMT,
    Batch,
    HMTLayer,
    perplexity,
    retrieval_loss,
    stage,
    unseen,
)

pytest.importorskip("transformers")


def waves(parameter, pace, phase, scale=1.0):
    values = torch.sin(torch.arange(parameter.numel(), dtype=torch.float32) * pace + phase)
    with torch.no_grad():
        parameter.copy_(scale * values.view_as(parameter))


def known_model(mode):
    """An HMT whose weights are sines, so that other code could be given the very same."""
    lm = small_language_model(13, 16, 2, 2)
    for i, (name, p) in enumerate(sorted(lm.named_parameters())):
        waves(p, 0.37 + 0.013 * i, i, 0.1 if "norm" in name else 0.3)
        if "norm" in name:
            p.data += 1
    hmt = HMT(lm, mode=mode, segment=8, sensory=3, cache=2, recall_dim=8).eval()
    named = dict(hmt.named_parameters())
    new = ("initial", "asking", "to_query.weight", "to_key.weight")
    for i, name in enumerate(new):
        if name in named:
            waves(named[name], 0.29 + 0.01 * i, i, 0.12 if i > 1 else 1.0)
    return hmt


def known_tokens():
    at = torch.arange(2 * 29).view(2, 29)
    return (at**2 * 7 + at) % 13


# Printed by OswaldHe/HMT-pytorch (modeling_rmt/language_modeling.py, in float32 on the CPU) for
# these weights, tokens, segments of 8, 3 prepended tokens and 2 cached memories: the first four
# logits of row 1 at the last token, and the recall weights of row 0.
AUTHORS = {
    "hmt": [-0.9187670350074768, -0.7796227335929871, -0.5387687683105469, -0.22762762010097504],
    "rmt": [-0.9196153879165649, -0.7803775668144226, -0.5393314361572266, -0.22792461514472961],
    "backbone_only": [
        -0.9206823706626892,
        -0.7816621661186218,
        -0.5406659245491028,
        -0.22913512587547302,
    ],
}
AUTHORS_WEIGHTS = [[0.3348955512046814, 0.6651043891906738], [0.448768019676208, 0.55123203992844]]


@pytest.mark.parametrize("mode", AUTHORS)
def test_numbers_of_the_authors_code(mode):
    reading = known_model(mode)(known_tokens())
    expected = torch.tensor(AUTHORS[mode])
    torch.testing.assert_close(reading.logits[1, -1, :4], expected, atol=2e-6, rtol=0)
    if mode == "hmt":
        for weights, authors in zip(reading.weights[2:], AUTHORS_WEIGHTS, strict=True):
            torch.testing.assert_close(weights[0], torch.tensor(authors), atol=2e-6, rtol=0)


@pytest.mark.parametrize("mode", ["hmt", "rmt", "backbone_only"])
def test_streaming_equals_one_call_and_survives_the_disk(mode, tmp_path):
    hmt = known_model(mode)
    tokens = known_tokens()
    with torch.no_grad():
        whole = hmt(tokens)
        state, parts = None, []
        for piece in tokens.split(8, 1):
            if state is not None:
                save_state(tmp_path / "s.safetensors", state)
                state = load_state(tmp_path / "s.safetensors")
            reading = hmt.step_segment(piece, state)
            state = reading.state
            parts.append(reading.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole.logits, atol=1e-6, rtol=0)
    for name, tensor in whole.state.items():
        torch.testing.assert_close(state[name], tensor, atol=1e-6, rtol=0)


def test_rows_are_independent():
    hmt, tokens = known_model("hmt"), known_tokens()
    torch.testing.assert_close(hmt(tokens[1:]).logits, hmt(tokens).logits[1:], atol=1e-6, rtol=0)


def test_first_segment_has_the_learned_prefix():
    """[P; H; P] by hand, with the library's own forward pass."""
    hmt, tokens = known_model("hmt"), known_tokens()[:, :8]
    p = hmt.initial.expand(2, 1, -1)
    x = torch.cat([p, hmt.lm.get_input_embeddings()(tokens), p], 1)
    out = hmt.lm(inputs_embeds=x, output_hidden_states=True)
    reading = hmt(tokens)
    torch.testing.assert_close(reading.logits, out.logits[:, 1:-1])
    torch.testing.assert_close(reading.state["memory"][:, -1], out.hidden_states[-1][:, -1])


def test_short_text_is_the_plain_model():
    hmt, tokens = known_model("hmt"), known_tokens()[:, :5]
    torch.testing.assert_close(hmt(tokens).logits, hmt.lm(tokens).logits)


def test_left_padding_changes_nothing():
    hmt, tokens = known_model("hmt"), known_tokens()
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), tokens[:, :21]], 1)
    mask = torch.ones_like(padded)
    mask[:, :3] = 0
    found = hmt(padded, attention_mask=mask)
    first = hmt.step_segment(tokens[:, :5])  # what is left of the first segment
    # The half that a padded segment's summary reads is shorter, but it recalls nothing yet.
    second = hmt(tokens[:, 5:21], first.state)
    expected = torch.cat([first.logits, second.logits], 1)
    torch.testing.assert_close(found.logits[:, 3:], expected, atol=2e-6, rtol=0)
    mask[0, :8] = 0
    with pytest.raises(DataError, match="padding"):
        hmt(padded, attention_mask=mask)


def test_who_sees_what():
    """A token colours predictions before it in its own half, unless recall asks backwards."""
    tokens = known_tokens()
    changed = tokens.clone()
    changed[:, 18] = (changed[:, 18] + 5) % 13  # inside the first half of the third segment
    with torch.no_grad():
        for query in ("half", "previous"):
            hmt = known_model("hmt")
            hmt.query = query
            moved = (hmt(tokens).logits - hmt(changed).logits).abs().amax((0, 2))[:18]
            assert (moved[:16] == 0).all()
            # Positions 16 and 17 predict 17 and 18; the second of them is the token itself.
            assert (moved[16:] > 1e-6).all() == (query == "half")
    hmt = known_model("hmt")
    scored = unseen(hmt, 29)
    for place in range(16, 29):
        other = tokens.clone()
        if place + 1 < 29:
            other[:, place + 1] = (other[:, place + 1] + 3) % 13
        with torch.no_grad():
            same = torch.equal(hmt(tokens).logits[:, place], hmt(other).logits[:, place])
        assert same or not scored[place], place
    assert scored.tolist() == [True] * 8 + ([False] * 3 + [True] * 5) * 2 + [False] * 3 + [True] * 2
    assert unseen(known_model("rmt"), 29).all()


def test_gradients_stop_where_they_should():
    hmt, tokens = known_model("hmt"), known_tokens()
    labels = torch.full_like(tokens, -100)
    labels[:, 26] = tokens[:, 27]  # in the fourth segment
    embedding = hmt.lm.get_input_embeddings()
    reached = {}
    for depth in (1, 2, 3, None):
        kept = []
        hook = embedding.register_forward_hook(
            lambda _m, _i, out, k=kept: (out.retain_grad(), k.append(out))[0]
        )
        hmt(tokens, labels=labels, bptt=depth).loss.backward()
        hook.remove()
        reached[depth] = [bool(k.grad is not None and k.grad.abs().sum() > 0) for k in kept]
    assert reached[1] == [False, False, False, True]
    assert reached[2] == [False, False, True, True]
    assert reached[3] == [False, True, True, True]
    assert reached[None] == [True] * 4


def test_loss_is_cross_entropy_of_labels_and_recall():
    hmt, tokens = known_model("hmt"), known_tokens()
    labels = torch.full_like(tokens, -100)
    labels[:, 20], labels[0, 27] = 3, 7
    positives = torch.tensor([[0, 0, 0, 2], [0, 0, 1, 9]])
    reading = hmt(tokens, labels=labels, positives=positives)
    log_p = reading.logits.log_softmax(-1)
    expected = -(log_p[0, 20, 3] + log_p[1, 20, 3] + log_p[0, 27, 7]) / 3
    # Two known places: of row 0 the older one, of row 1 the newer one; nine back is forgotten.
    recall = -(reading.weights[3][0, 0].log() + reading.weights[2][1, 1].log()) / 2
    torch.testing.assert_close(reading.loss, expected + 0.05 * recall)
    assert float(retrieval_loss([None], torch.zeros(2, 1, dtype=torch.long))) == 0
    with pytest.raises(DataError, match="positives"):
        hmt(tokens, labels=labels, positives=positives[:, :3])


def test_cache_keeps_the_newest():
    hmt, tokens = known_model("hmt"), known_tokens()
    states = [hmt(tokens[:, : 8 * n]).state["memory"] for n in (1, 2, 3)]
    torch.testing.assert_close(states[2][:, 0], states[1][:, 1], atol=1e-6, rtol=0)
    weights = hmt.recall_weights(tokens)
    assert weights.shape == (2, 4, 2)
    assert (weights[:, 0] == 0).all() and (weights[:, 1, 0] == 0).all()
    torch.testing.assert_close(weights[:, 1:].sum(-1), torch.ones(2, 3))


def test_generation_is_reading_on():
    hmt, tokens = known_model("hmt"), known_tokens()
    hmt.query = "previous"
    prompt, said = tokens[:, :13], tokens[:, :13]
    for _ in range(16):
        said = torch.cat([said, hmt(said).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(hmt.generate(prompt, 16), said[:, 13:])
    # With the paper's query it is so from half a segment on.
    hmt.query = "half"
    first = hmt.generate(tokens[:, :13], 1)
    assert torch.equal(first, hmt(tokens[:, :13]).logits[:, -1:].argmax(-1))
    short = hmt.generate(tokens[:, :3], 4)
    assert torch.equal(
        short,
        hmt.lm.generate(tokens[:, :3], max_new_tokens=4, do_sample=False, pad_token_id=0)[:, 3:],
    )
    with pytest.raises(DataError, match="no text"):
        hmt.generate(tokens[:, :0], 1)


def test_layer():
    from sequence_layers import check_layer

    small = {"dim": 16, "heads": 2, "segment": 8}
    # Norms and rotations of the library are in float32 whatever the rest is, so gradients are held
    # against each other below, less tightly.
    check_layer(HMTLayer(**small, sensory=3, cache=2), length=21, splits=(0, 1, 9), gradients=False)
    check_layer(HMTLayer(**small, mode="rmt", slots=2), 13, splits=(9,), gradients=False)
    layer, found = HMTLayer(**small, cache=2), []
    x = torch.sin(torch.arange(2 * 19 * 16.0)).view(2, 19, 16)
    for form in (layer, layer.run):
        layer.zero_grad()
        form(x)[0].pow(2).sum().backward()
        found.append([p.grad for p in layer.parameters() if p.grad is not None])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match="previous"):
        known_model("hmt").layer()
    assert known_model("rmt").layer().hmt.mode == "rmt"


def test_several_slots_and_any_decoder():
    library = pytest.importorskip("transformers")
    config = library.GPTNeoXConfig(
        vocab_size=13,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    hmt = HMT(library.GPTNeoXForCausalLM(config), mode="rmt", segment=8, slots=3).eval()
    assert hmt(known_tokens()).state["memory"].shape == (2, 1, 3 * 16)


def test_perplexity():
    hmt, tokens = known_model("hmt"), known_tokens()
    with torch.no_grad():
        log_p = hmt(tokens).logits.log_softmax(-1)
    each = -log_p[:, :-1].gather(2, tokens[:, 1:, None])[..., 0]
    assert math.isclose(
        perplexity(hmt, tokens, strict=False), float(each.mean().exp()), rel_tol=1e-5
    )
    kept = unseen(hmt, 29)[:-1] & (torch.arange(28) >= 18)
    assert math.isclose(
        perplexity(hmt, tokens, suffix=10), float(each[:, kept].mean().exp()), rel_tol=1e-5
    )


def test_two_stages_learn():
    rng = np.random.default_rng(0)
    tokens = rng.integers(13, size=(4, 24))
    labels = np.full_like(tokens, -100)
    labels[:, -2] = tokens[:, -1]
    batch = Batch(tokens, labels, np.array([[0, 1, 2]] * 4))
    hmt = known_model("hmt")
    before = hmt.to_query.weight.clone()

    def make(_rng):
        return batch

    history = fit_stages(hmt, [stage(make, 3, mode="rmt", bptt=2)], seed=0)
    assert torch.equal(before, hmt.to_query.weight) and hmt.mode == "hmt"
    history += fit_stages(hmt, [stage(make, 10)], seed=0)
    assert history[-1] < history[0] and not torch.equal(before, hmt.to_query.weight)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "lstm"}, "mode"),
        ({"query": "now"}, "query"),
        ({"segment": 4, "sensory": 5}, "kept"),
        ({"segment": 0}, "at least 1"),
        ({"summary": 0.0}, "summary"),
        ({"slots": 2}, "slots"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(ConfigError, match=match):
        HMT(small_language_model(5, 8, 1, 2), **options)


def test_bad_input():
    hmt, tokens = known_model("hmt"), known_tokens()
    with pytest.raises(DataError, match="run from"):
        hmt(tokens + 1)
    with pytest.raises(DataError, match="integers"):
        hmt(tokens.float())
    with pytest.raises(DataError, match="1 to 8 tokens"):
        hmt.step_segment(tokens)
    with pytest.raises(DataError, match="mask"):
        hmt(tokens, attention_mask=torch.ones(2, 3))
    with pytest.raises(DataError, match="shape"):
        hmt(tokens, hmt.initial_state(3))
    with pytest.raises(ConfigError, match="recalls nothing"):
        known_model("rmt").recall_weights(tokens)


def test_shipped_miniatures_are_as_good_as_recorded():
    from engramma.nn.weights import read_weights
    from engramma.systems.sequence import hmt_claims as claims

    recorded = json.loads(read_weights(claims.FILE)[1]["accuracy"])
    assert set(recorded) == {f"{k}-{s}" for k in claims.KINDS for s in range(claims.SEEDS)}
    stream = claims.texts(np.random.default_rng(31), 384)
    for name, reached in recorded.items():
        kind, _, seed = name.partition("-")
        if seed == "0":  # one of each is enough here; the claims try all
            assert abs(claims.far(claims.trained(kind, 0), stream) - reached) < 0.08, name
    with pytest.raises(DataError, match="was trained"):
        claims.trained("hmt", 99)
