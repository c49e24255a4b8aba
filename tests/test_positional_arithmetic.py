"""Arithmetic as text: round trips by property, scratchpads by hand, decoding against the model."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engramma.errors import ConfigError, DataError
from engramma.probing.arithmetic import (
    TEMPLATES,
    UNSEEN_TEMPLATES,
    Format,
    draw_pairs,
    for_test,
    scratchpad,
)
from engramma.systems.probing.positional_arithmetic import (
    ALPHABET,
    TAG,
    PositionalArithmetic,
    TaggedModel,
)
from engramma.systems.probing.positional_arithmetic_claims import sums

FORMATS = st.builds(
    Format,
    operation=st.sampled_from("+*"),
    digits=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padded=st.booleans(),
    reversed_answer=st.booleans(),
    reversed_numbers=st.booleans(),
    space=st.sampled_from([0.0, 0.4]),
) | st.builds(
    Format,
    operation=st.just("+"),
    digits=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padded=st.booleans(),
    reversed_answer=st.booleans(),
    space=st.sampled_from([0.0, 0.4]),
    scratchpad=st.just(True),
)


def tiny(format=None, positions="absolute", **options):
    sizes = {"dim": 40, "layers": 1, "heads": 2, "context": 64, "rows": 16}
    return PositionalArithmetic(format, positions, **(sizes | options))


# -- text ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(FORMATS, st.data())
def test_texts_can_be_read_back(format, data):
    a, b = (data.draw(st.integers(0, 10**n - 1)) for n in format.digits)
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    text = format.question(a, b, rng) + format.answer(a, b, rng)
    assert format.read(text) == (a, b, a + b if format.operation == "+" else a * b)
    assert set(text) <= set(ALPHABET)
    assert Format.from_json(format.to_json()) == format


@settings(max_examples=30, deadline=None)
@given(FORMATS, st.integers(0, 5))
def test_the_codec_is_lossless(format, seed):
    codec = tiny(format)
    pairs = draw_pairs(6, format.digits, rng=np.random.default_rng(seed))
    answers = pairs.sum(1) if format.operation == "+" else pairs.prod(1)
    rows = np.column_stack([pairs, answers])
    data = codec.encode(rows)
    assert isinstance(data, bytes) and data.count(b"\n") == 6
    assert (codec.decode(data) == rows).all()


def test_formats_by_hand():
    assert Format("*", (2, 2)).question(12, 34) == "12*34="
    assert Format("*", (2, 2)).answer(12, 34) == "408"
    both = Format("*", (2, 2), padded=True, reversed_answer=True)
    assert both.question(2, 34) + both.answer(12, 34) == "02*34=8040"
    assert Format("+", (3, 3), reversed_numbers=True).question(120, 7) == "021+7="
    assert scratchpad(58, 67) == "5+6,1,5;+,1,25;"
    working = Format("+", (3, 3), scratchpad=True)
    assert working.question(58, 67) + working.answer(58, 67) == "58+67=5+6,1,5;+,1,25;=125"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99999), st.integers(0, 99999))
def test_each_step_of_a_scratchpad_adds_up(a, b):
    steps = re.findall(r"(\d*)\+(\d*),(\d),(\d+);", scratchpad(a, b))
    assert len(steps) == max(len(str(a)), len(str(b)))
    for left, right, carry, partial in steps:
        rest = int(left or 0) + int(right or 0) + int(carry)
        assert rest * 10 ** len(partial) + int(partial) == a + b


def test_pairs_are_drawn_by_length_and_test_pairs_are_apart():
    pairs = draw_pairs(20_000, (1, 4), rng=np.random.default_rng(0), test=False)
    lengths = [len(str(b)) for b in pairs[:, 1].tolist()]
    assert np.bincount(lengths, minlength=5)[1:] / 20_000 == pytest.approx([0.25] * 4, abs=0.02)
    assert not for_test(pairs).any()
    grid = np.stack(np.meshgrid(np.arange(100), np.arange(100)), axis=-1).reshape(-1, 2)
    assert for_test(grid).mean() == pytest.approx(0.1, abs=0.01)
    exact = draw_pairs(500, (2, 3), rng=np.random.default_rng(0), exactly=True)
    assert exact.min(axis=0).tolist() >= [10, 100] and exact.max(axis=0).tolist() <= [99, 999]


# -- learning -----------------------------------------------------------------------------------


def test_free_decoding_is_token_by_token_and_differs_from_teacher_forcing():
    learner = tiny(Format("+", (1, 1)), seed=2)
    learner.train(60)
    pairs = draw_pairs(40, (1, 1), rng=np.random.default_rng(0))
    written = learner.write([learner.format.question(a, b) for a, b in pairs.tolist()])
    text = learner.format.question(*pairs[0].tolist())
    tokens = [ALPHABET.index(c) for c in text]
    for _ in range(10):
        logits = learner.network(input_ids=torch.tensor([tokens])).logits[0, -1]
        tokens.append(int(logits.argmax()))
        if tokens[-1] == 0:
            break
    assert written[0] == "".join(ALPHABET[t] for t in tokens[len(text) :]).removesuffix("\n")
    free = (learner.predict(pairs) == pairs.sum(axis=1)).mean()
    # Every right answer is right token by token; wrong ones are so in part (the end of the line).
    assert learner.teacher_forced(pairs) > free


def test_learning_sums_of_digits():
    learner = tiny(Format("+", (1, 1)), dim=64, rate=1e-2, rows=32)
    losses = learner.train(300)
    assert losses[-1] < 0.5 * losses[0]
    seen = np.array(sorted(learner.seen))
    assert not for_test(seen).any() and learner.share_seen() == pytest.approx(len(seen) / 100)
    assert (learner.predict(seen) == seen.sum(axis=1)).mean() > 0.5


def test_training_is_determined_by_the_seed():
    first, second = tiny(seed=4), tiny(seed=4)
    assert first.train(3) == second.train(3)
    first.observe(np.array([[1, 23]]))
    assert (1, 23) in first.seen and (1, 23) not in second.seen


def test_shipped_models_add_as_long_numbers_as_they_were_trained_on():
    for name in ("basic", "scratchpad"):
        learner = sums(0, name)
        found = learner.accuracy_by_length([(2, 2), (3, 3), (4, 4)], 60)
        assert found[2, 2] > 0.9 and found[3, 3] > 0.9 and found[4, 4] < 0.1
    working = learner.write([learner.format.question(123, 456)])[0].replace(" ", "")
    assert working == scratchpad(123, 456) + "=579"


def test_shipped_models_add_within_sentences():
    """Those that were trained on, with either positions; new ones only with tags."""
    for positions in ("tags", "absolute"):
        learner = sums(0, f"spoken_{positions}")
        assert learner.accuracy_in_text(TEMPLATES, 2) > 0.9
        new = learner.accuracy_in_text(UNSEEN_TEMPLATES, 2)
        assert (new > 0.3) if positions == "tags" else (new < 0.1)


def test_weights_are_kept_and_foreign_ones_refused(tmp_path):
    learner, other = tiny(seed=1), tiny(seed=2)
    learner.save(tmp_path / "a.safetensors")
    other.load(tmp_path / "a.safetensors")
    tokens = torch.tensor([[3, 4, 5]])
    written, read = (x.network(tokens).logits.detach() for x in (learner, other))
    torch.testing.assert_close(written, read, atol=1e-2, rtol=1e-2)  # half precision
    with pytest.raises(DataError, match="another network"):
        tiny(dim=48).load(tmp_path / "a.safetensors")


# -- tags ---------------------------------------------------------------------------------------


def test_tags_are_fresh_shared_between_neighbours_and_do_not_depend_on_length():
    model = tiny(positions="tags").network
    own, before = model.tags(3, 7)
    assert own.shape == (3, 7, TAG) and torch.equal(own[:, :-1], before[:, 1:])
    again, _ = model.tags(3, 7)
    assert not torch.equal(own, again)
    model.restart()
    short, _ = model.tags(3, 4)
    model.restart()
    longer, _ = model.tags(3, 7)
    assert torch.equal(short, longer[:, :4])
    assert not torch.equal(own[0], own[1])


def test_without_their_order_in_tags_tokens_have_no_order():
    learner = tiny(positions="tags")
    model = learner.network
    assert isinstance(model, TaggedModel) and not model.network.transformer.wpe.weight.any()
    tokens = torch.tensor([[3, 4, 5, 6]])
    model.tags = lambda rows, length: (torch.zeros(rows, length, TAG),) * 2
    swapped = model(tokens[:, [1, 0, 2, 3]]).logits[:, -1]
    torch.testing.assert_close(model(tokens).logits[:, -1], swapped)
    del model.tags
    model.restart()
    first = model(tokens).logits[:, -1]
    model.restart()
    assert not torch.allclose(first, model(tokens[:, [1, 0, 2, 3]]).logits[:, -1])


def test_tags_learn_too():
    learner = tiny(Format("+", (1, 1)), "tags", dim=64, rate=1e-2)
    losses = learner.train(100)
    assert losses[0] < 3.0
    assert learner.write(["1+2="], most=3)[0] == learner.write(["1+2="], most=3)[0]


# -- bad input ----------------------------------------------------------------------------------


def test_numbers_that_do_not_fit_are_refused():
    format = Format("*", (1, 2), padded=True)
    with pytest.raises(DataError, match="123 is no number of at most 2 digits"):
        format.question(3, 123)
    with pytest.raises(DataError, match="-3 is no number"):
        format.question(-3, 12)
    with pytest.raises(DataError, match="no arithmetic in this format"):
        format.read("3*12=36")  # not padded
    with pytest.raises(DataError, match="no arithmetic in this format"):
        Format("*", (1, 2)).read("3*02=6")  # leading zero
    with pytest.raises(DataError, match="no arithmetic in this format"):
        Format("+", (1, 2)).read("3*02=6")


def test_errors_say_what_to_do():
    codec = tiny(Format("+", (1, 1)))
    with pytest.raises(DataError, match="the answer is 5"):
        codec.encode(np.array([[2, 3, 6]]))
    assert codec.decode(b"2+3=6\n").tolist() == [[2, 3, 6]]
    with pytest.raises(DataError, match=r"rows of \[a, b, answer\]"):
        codec.encode(np.array([[2, 3]]))
    with pytest.raises(ConfigError, match="only sums have a scratchpad"):
        Format("*", scratchpad=True)
    with pytest.raises(ConfigError, match="1 to 9 digits"):
        Format("*", (0, 4))
    with pytest.raises(ConfigError, match="no positions 'rotary'"):
        tiny(positions="rotary")
    with pytest.raises(DataError, match="describes no format"):
        Format.from_json("{}")
    long = tiny(Format("+", (9, 9), scratchpad=True))
    with pytest.raises(DataError, match="larger context"):
        long.train(1)
