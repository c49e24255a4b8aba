"""Token streams with known answers, models around layers, and endless streams."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engramma.bench.score_sequence import TokenTask, matched_width, score_layer
from engramma.bench.tasks import byte_text, copying, event_segmentation, needle, recall
from engramma.errors import ConfigError, DataError
from engramma.memory.attention import SoftmaxAttention
from engramma.memory.layer import state_size
from engramma.memory.linear import DeltaNet, GatedDeltaNet
from engramma.memory.model import SequenceModel, generate, n_parameters
from engramma.memory.recurrent import LSTM
from engramma.memory.stream import NonFiniteError, stream
from engramma.memory.training import accuracy, answers, cosine, fit
from engramma.worlds.event_streams import draw_rules, ideal_surprise, rule_streams
from engramma.worlds.streams import IGNORED, key_value_stream
from engramma.worlds.streams import copying as copy_stream
from engramma.worlds.streams import needle as needle_stream


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    pairs=st.integers(1, 9),
    gap=st.integers(0, 5),
    contexts=st.integers(1, 3),
    overwrites=st.floats(0, 1),
    noise=st.floats(0, 2),
    zipf=st.floats(0, 2),
)
def test_every_answer_is_what_the_key_was_last_given(
    seed, pairs, gap, contexts, overwrites, noise, zipf
):
    """The truth is read off the tokens again, by going through them."""
    batch = key_value_stream(
        np.random.default_rng(seed),
        3,
        pairs=pairs,
        n_keys=10,
        n_values=7,
        gap=gap,
        contexts=contexts,
        overwrites=overwrites,
        noise=noise,
        zipf=zipf,
    )
    assert batch.tokens.max() < batch.n_tokens
    for tokens, targets, distance in zip(batch.tokens, batch.targets, batch.distance, strict=True):
        held, context, asked = {}, None, 0
        for place, token in enumerate(tokens):
            if token >= 10 + 7 + 8:
                context = token
            if token < 10:
                if targets[place] != IGNORED:
                    asked += 1
                    value, written = held[context, token]
                    assert targets[place] == value
                    assert distance[place] == place - written
                held[context, token] = (tokens[place + 1], place + 1)
        assert asked == pairs * contexts == (targets != IGNORED).sum()


def test_keys_are_drawn_by_zipf_and_asked_for_in_another_order():
    rng = np.random.default_rng(0)
    batch = key_value_stream(rng, 2000, pairs=4, n_keys=20, zipf=1.5)
    counts = np.bincount(batch.tokens[batch.tokens < 20], minlength=20)
    assert counts[0] > 2 * counts[4] > 4 * counts[19]
    written, asked = batch.tokens[:, 0:8:2], batch.tokens[:, 8::2]
    assert 0.2 < (written == asked).mean() < 0.3  # one in four, by chance
    with pytest.raises(ConfigError, match="different keys"):
        key_value_stream(rng, 1, pairs=30, n_keys=20)


@pytest.mark.parametrize("distractors", [0, 3])
def test_the_needle_lies_anywhere_and_is_the_one_asked_for(distractors):
    batch = needle_stream(np.random.default_rng(0), 500, length=40, distractors=distractors)
    mark = batch.n_tokens - 1
    first = []
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        (marks,) = np.nonzero(tokens == mark)
        assert len(marks) == distractors + 2
        held = {tokens[m + 1]: tokens[m + 2] for m in marks[:-1]}
        assert len(held) == distractors + 1 and targets[-1] == held[tokens[-1]]
        first.append(marks[0])
    assert min(first) == 0 and max(first) > (15 if distractors else 30)
    with pytest.raises(ConfigError, match="raise length"):
        needle_stream(np.random.default_rng(0), 1, length=4)


@pytest.mark.parametrize("selective", [False, True])
def test_symbols_are_asked_for_in_their_order(selective):
    batch = copy_stream(np.random.default_rng(0), 50, symbols=5, gap=7, selective=selective)
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        body = tokens[:12]
        assert np.array_equal(body[body < 8], targets[targets != IGNORED])
        assert tokens[12] == batch.n_tokens - 1 and np.array_equal(tokens[13:], targets[12:-1])


# -- models and training -------------------------------------------------------------------


def test_a_model_steps_as_it_reads():
    model = SequenceModel(lambda: DeltaNet(8, 2), 11, seed=1).double().eval()
    tokens = torch.randint(11, (2, 13), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, state = model(tokens)
        before = model.initial_state(2)
        for t in range(13):
            one, before = model.step(tokens[:, t], before)
            torch.testing.assert_close(one, logits[:, t])
    for name in state:
        torch.testing.assert_close(before[name], state[name])
    said = generate(model, tokens, 4)
    whole, _ = model(torch.cat([tokens, said], 1))
    assert torch.equal(whole[:, 12:-1].argmax(-1), said)
    with pytest.raises(DataError, match="vocabulary has 11"):
        model(tokens + 5)


def test_training_is_repeatable_and_attention_learns_to_recall():
    def make(rng):
        return key_value_stream(rng, 32, pairs=4, n_keys=16, n_values=8)

    test = [key_value_stream(np.random.default_rng(99), 200, pairs=4, n_keys=16, n_values=8)]
    found = []
    for _ in range(2):
        layer = SoftmaxAttention(32, 2, convolution=4)
        model = SequenceModel(layer.fresh, 32, seed=3)
        history = fit(model, make, steps=150, seed=3, learning_rate=1e-2)
        found.append((history, accuracy(model, test)))
    assert found[0] == found[1]
    assert found[0][1] > 0.9 > 0.25 > accuracy(SequenceModel(layer.fresh, 32, seed=4), test)
    # Read in pieces, the answers are the same.
    assert np.array_equal(answers(model, test[0]), answers(model, test[0], piece=3))


def test_the_rate_rises_and_falls():
    rate = [cosine(step, 100, 0.1) for step in range(100)]
    assert rate[0] == 0.1 and max(rate) == rate[9] == 1.0 and 0.1 <= rate[-1] < 0.11
    assert (np.diff(rate[9:]) <= 0).all()


# -- tasks ---------------------------------------------------------------------------------


def test_contestants_can_be_made_equal():
    wanted = GatedDeltaNet(64)
    for layer in (LSTM(64), DeltaNet(64), SoftmaxAttention(64)):
        near = layer.fresh(dim=matched_width(layer, "parameters"))
        assert abs(np.log(n_parameters(near) / n_parameters(wanted))) < 0.35
    near = LSTM(64).fresh(dim=matched_width(LSTM(64), "state"))
    assert near.dim == 256 and state_size(near.initial_state(1)) == 512
    assert matched_width(SoftmaxAttention(64), "state") == 64
    with pytest.raises(ConfigError, match="equal in 'speed'"):
        matched_width(LSTM(64), "speed")


@pytest.mark.parametrize(
    "prepare",
    [
        recall.prepare,
        recall.prepare_noise,
        needle.prepare,
        lambda seed, steps: copying.prepare(seed, selective=True, steps=steps),
        byte_text.prepare,
    ],
)
def test_tasks_test_on_what_was_not_trained_on(prepare):
    task = prepare(0, steps=1)
    assert isinstance(task, TokenTask) and len(task.tests) >= 3
    trained = {
        row.tobytes() for s in range(20) for row in task.train(np.random.default_rng([0, s])).tokens
    }
    for batches in task.tests.values():
        assert not trained & {row.tobytes() for batch in batches for row in batch.tokens}
    scored = score_layer(DeltaNet(16, 2), task, blocks=1)
    assert set(scored.curve) == set(task.tests) and scored.details["state"] > 0
    assert scored.value == pytest.approx(np.mean(list(scored.curve.values())))


def test_bytes_are_scored_on_the_same_text_at_every_length(tmp_path):
    task = byte_text.prepare(0)
    ends = [batches[0].targets[:, -64:] for batches in task.tests.values()]
    assert all(np.array_equal(ends[0], end) for end in ends)
    assert all((batches[0].targets >= 0).sum() == 32 * 64 for batches in task.tests.values())
    with pytest.raises(DataError, match="cannot be read"):
        byte_text.prepare(0, text=str(tmp_path / "none.txt"))
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(DataError, match="9 bytes"):
        byte_text.prepare(0, text=str(tmp_path / "short.txt"))


# -- streams -------------------------------------------------------------------------------


def test_a_stream_in_pieces_is_one_pass(tmp_path):
    layer = GatedDeltaNet(8, 2).double().eval()
    x = torch.randn(2, 50, 8, dtype=torch.float64)
    with torch.no_grad():
        whole, end = layer(x)
    pieces = list(x.split([7, 1, 30, 12], 1))
    parts = list(stream(layer, pieces, checkpoint=tmp_path / "s", every=2))
    torch.testing.assert_close(torch.cat([y for y, _ in parts], 1), whole)
    assert not any(t.requires_grad for t in parts[-1][1].values())
    # Taken up again, it has nothing left to do but what is new.
    more = [*pieces, torch.randn(2, 5, 8, dtype=torch.float64)]
    (rest,) = stream(layer, more, checkpoint=tmp_path / "s")
    with torch.no_grad():
        torch.testing.assert_close(rest[0], layer(more[-1], end)[0])


def test_an_interrupted_stream_resumes_at_its_checkpoint(tmp_path):
    layer = LSTM(8).double().eval()
    pieces = [torch.randn(1, 6, 8, dtype=torch.float64) for _ in range(7)]
    undisturbed = [y for y, _ in stream(layer, pieces)]
    running = stream(layer, pieces, checkpoint=tmp_path / "s", every=2)
    for _ in range(5):
        next(running)
    running.close()
    rest = [y for y, _ in stream(layer, pieces, checkpoint=tmp_path / "s", every=2)]
    assert len(rest) == 3  # four were kept
    for a, b in zip(rest, undisturbed[4:], strict=True):
        assert torch.equal(a, b)


def test_what_is_no_number_is_reported_with_its_token_and_the_last_good_state():
    layer = DeltaNet(8, 2).eval()
    pieces = [torch.randn(1, 10, 8) for _ in range(4)]
    pieces[2][0, 3] = float("nan")
    good = None
    with pytest.raises(NonFiniteError, match="token 23") as caught:
        for _, state in stream(layer, pieces):
            good = state
    assert caught.value.token == 23
    for name in good:
        assert torch.equal(caught.value.state[name], good[name])


def test_memory_stays_flat_over_a_long_stream():
    """State and graph do not grow: the last state is as large as the first, and holds no graph."""
    layer = GatedDeltaNet(8, 2).eval()
    pieces = (torch.randn(1, 64, 8) for _ in range(200))
    sizes = {state_size(state) for _, state in stream(layer, pieces)}
    assert len(sizes) == 1


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "s").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot be read"):
        next(stream(LSTM(8), [torch.zeros(1, 2, 8)], checkpoint=tmp_path / "s"))


# -- events --------------------------------------------------------------------------------


def test_within_an_event_one_rule_holds():
    rules = draw_rules(np.random.default_rng(0))
    streams = rule_streams(np.random.default_rng(1), 20, 300, rules, slips=0.05)
    lengths, followed = [], []
    for tokens, begins in zip(streams.tokens, streams.boundaries, strict=True):
        edges = [0, *np.flatnonzero(begins), len(tokens)]
        for start, stop in itertools.pairwise(edges):
            # The first token of an event already follows the event's own rule.
            from_here = max(start, 1)
            before, now = tokens[from_here - 1 : stop - 1], tokens[from_here:stop]
            followed.append(max((rule[before] == now).mean() for rule in rules))
            lengths.append(stop - start)
    assert min(lengths[1:-1:2]) >= 1 and max(lengths) <= 24
    assert 0.93 < np.mean(followed) < 1
    # Tokens alone tell nothing: all are as frequent within a stream of events.
    counts = np.bincount(streams.tokens.ravel(), minlength=12) / streams.tokens.size
    assert counts.min() > 0.04 and counts.max() < 0.14


def test_an_ideal_observer_is_surprised_at_boundaries_and_less_than_anyone():
    data = event_segmentation.prepare(0)
    ideal = ideal_surprise(data.streams)
    begins = data.streams.boundaries
    later = ~begins & ~np.isnan(ideal)
    assert ideal[begins].mean() > 4 * ideal[later].mean()
    # With known rules of deterministic succession and one rule, only slips surprise.
    one = rule_streams(
        np.random.default_rng(0), 5, 50, draw_rules(np.random.default_rng(0), 2), slips=0.0
    )
    calm = ideal_surprise(one)[:, 1:][~one.boundaries[:, 1:]]
    assert np.median(calm) < -np.log(1 - 1 / one.mean_length) * 1.2
    best = event_segmentation.ceiling(data)
    shuffled = np.random.default_rng(0).permuted(ideal[:, 1:], axis=1)
    shuffled = np.pad(shuffled, ((0, 0), (1, 0)), constant_values=np.nan)
    assert best > 0.4
    assert abs(event_segmentation.segmentation_score(shuffled, data.streams, 1)) < 0.03


def test_a_trained_layer_cuts_better_than_an_untrained_one():
    layer = SoftmaxAttention(32, 2, convolution=4)
    little, more = (
        event_segmentation.score(layer, event_segmentation.prepare(0, steps=steps)).value
        for steps in (1, 80)
    )
    assert abs(little) < 0.05 < more
