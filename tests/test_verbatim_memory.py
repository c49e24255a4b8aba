"""Verbatim memory against a perfect copier, direct sums of log probabilities, and real lists."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engramma.errors import ConfigError, DataError
from engramma.memory.language_model import small_language_model
from engramma.probing.attention_edits import scramble_attention
from engramma.probing.list_streams import (
    CONDITIONS,
    END,
    FILLER,
    MARKER,
    N_TOKENS,
    NOUNS,
    list_pairs,
    other_orders,
    stream_lstm,
    stream_transformer,
    training_batch,
    transitions,
)
from engramma.probing.model import LanguageModel
from engramma.probing.noun_lists import (
    _BETWEEN,
    ARBITRARY,
    CATEGORIES,
    draw_noun_lists,
    intervening_text,
    noun_stimuli,
    pools_of,
    read_noun_lists,
)
from engramma.probing.places import Place
from engramma.probing.recurrent_model import RecurrentModel
from engramma.probing.word_surprisal import tokens_of_spans, word_surprisal
from engramma.systems.probing.verbatim_memory import VerbatimMemory

REAL = Path(os.environ.get("ENGRAMMA_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


# -- streams -------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", CONDITIONS)
def test_lists_are_as_named(condition):
    pairs = list_pairs(np.random.default_rng(0), 300, nouns=3, gap=7, length=40,
                       condition=condition)  # fmt: skip
    one, two = pairs.at(pairs.first), pairs.at(pairs.second)
    assert ((one >= NOUNS[0]) & (one < NOUNS[1])).all()
    assert (pairs.at(pairs.first[:, :1] - 1) == MARKER).all()
    assert (pairs.tokens[:, -1] == END).all()
    assert (pairs.second[:, 0] - pairs.first[:, -1] == 7 + 3).all()
    same = (one == two).all(axis=1)
    assert same.all() if condition == "repeat" else not same.any()
    shared = [len(set(a) & set(b)) for a, b in zip(one, two, strict=True)]
    assert set(shared) == ({0} if condition == "novel" else {3})
    first = list_pairs(np.random.default_rng(0), 300, nouns=3, gap=7, length=40)
    np.testing.assert_array_equal(first.at(first.first), one)


def test_filler_follows_its_chain_and_first_lists_lie_anywhere():
    pairs = list_pairs(np.random.default_rng(1), 2000, nouns=3, length=64)
    filler = (pairs.tokens >= FILLER[0]) & (pairs.tokens < FILLER[1])
    both = filler[:, 1:] & filler[:, :-1]
    counts = np.zeros(transitions().shape)
    np.add.at(counts, (pairs.tokens[:, :-1][both] - 2, pairs.tokens[:, 1:][both] - 2), 1)
    found = counts / counts.sum(axis=1, keepdims=True)
    assert np.abs(found - transitions()).max() < 0.02
    starts = np.bincount(pairs.first[:, 0] - 1, minlength=53)
    assert starts[:53].min() > 15  # 53 places, 38 each
    tokens, weights = training_batch(np.random.default_rng(0), 8)
    assert tokens.shape == weights.shape == (8, 64)


def test_other_orders_are_uniform_over_all_but_the_same():
    orders = other_orders(np.random.default_rng(0), 5000, 3)
    kinds, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(kinds) == 5
    assert [0, 1, 2] not in kinds.tolist()
    assert np.abs(counts / 1000 - 1).max() < 0.12
    with pytest.raises(ConfigError, match="one order"):
        other_orders(np.random.default_rng(0), 2, 1)


def test_streams_refuse_what_does_not_fit():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="do not fit"):
        list_pairs(rng, 2, nouns=10, length=20)
    with pytest.raises(ConfigError, match="no condition"):
        list_pairs(rng, 2, condition="backwards")


# -- the measure ---------------------------------------------------------------------------


class Copier:
    """Surprisal 2 for what is new and 0.5 for what has been there."""

    name, context = "copier", 100

    def surprisal(self, tokens):
        new = torch.tensor([[t not in row[:i] for i, t in enumerate(row)]
                            for row in tokens.tolist()])  # fmt: skip
        return torch.where(new, 2.0, 0.5)


def test_repeat_surprisal_of_a_model_that_knows_what_was_there():
    probe = VerbatimMemory()
    rng = np.random.default_rng(0)
    for condition, percent in (("repeat", 25), ("permute", 25), ("novel", 100)):
        values = probe.surprisal(Copier(), list_pairs(rng, 6, condition=condition))
        np.testing.assert_allclose(values.percent(), percent)
        np.testing.assert_allclose(values.by_position(), percent)
        found = probe.repeat_surprisal(values, rng=rng, skip_first=True, average=np.median)
        assert (found.value, found.low, found.high) == (percent, percent, percent)
    with pytest.raises(DataError, match="too long"):
        probe.surprisal(Copier(), list_pairs(rng, 2, length=200))


def test_lstm_surprisal_is_that_of_its_steps():
    model = RecurrentModel(vocabulary=9, dim=6, hidden=5, seed=3)
    tokens = torch.randint(0, 9, (2, 7), generator=torch.Generator().manual_seed(0))
    found = model.surprisal(tokens)
    assert torch.isnan(found[:, 0]).all()
    state = None
    for place in range(6):
        logits, state = model(tokens[:, place : place + 1], state)
        expected = torch.nn.functional.cross_entropy(
            logits[:, 0], tokens[:, place + 1], reduction="none"
        )
        torch.testing.assert_close(found[:, place + 1], expected)
    with pytest.raises(DataError, match="0 to 8"):
        model.surprisal(torch.tensor([[1, 9]]))


def test_miniatures_show_the_phenomenon():
    probe, rng = VerbatimMemory(), np.random.default_rng(4)
    pairs = list_pairs(rng, 60, gap=8, length=40)
    repeat = probe.surprisal(stream_transformer("two_layers"), pairs).percent().mean()
    assert repeat < 60
    assert probe.surprisal(stream_transformer("never_repeated"), pairs).percent().mean() > 90
    assert np.isfinite(probe.surprisal(stream_lstm(), pairs).percent()).all()
    untrained = LanguageModel(small_language_model(N_TOKENS))
    assert probe.surprisal(untrained, pairs).percent().mean() > 80


def test_the_heads_that_are_located_carry_the_memory():
    probe, model = VerbatimMemory(), stream_transformer("two_layers")
    pairs = list_pairs(np.random.default_rng(5), 40, gap=8, length=40)
    scores = probe.locate(model, pairs)
    kept = model.run(torch.from_numpy(pairs.tokens), keep=[Place("pattern", 1)])
    pattern = kept["pattern", 1].numpy()
    expected = [
        [pattern[i, h, pairs.second[i, 1:] - 1, pairs.first[i, 1:]].mean() for h in range(4)]
        for i in range(40)
    ]
    np.testing.assert_allclose(scores[1], np.mean(expected, axis=0), rtol=1e-5)
    best = divmod(int(scores.argmax()), 4)
    intact = probe.surprisal(model, pairs).percent().mean()
    with probe.intervene(model, [best]):
        assert probe.surprisal(model, pairs).percent().mean() > intact + 10


def test_scrambling_keeps_the_weights_and_looks_at_nothing_hidden():
    model = stream_transformer("two_layers")
    tokens = torch.from_numpy(list_pairs(np.random.default_rng(6), 2, length=40).tokens)
    place = Place("pattern", 0)
    plain = model.run(tokens, keep=[place])[place]
    mixed = model.run(tokens, keep=[place], edits=scramble_attention(model, [(0, 1)]))[place]
    torch.testing.assert_close(mixed[:, 0], plain[:, 0])
    torch.testing.assert_close(mixed[:, 1].sort(-1).values, plain[:, 1].sort(-1).values)
    assert not mixed.triu(1).any()
    assert not torch.equal(mixed[:, 1], plain[:, 1])
    with pytest.raises(ConfigError, match="no head"):
        scramble_attention(model, [(0, 9)])


# -- nouns ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def letters():
    """A model whose tokenizer splits words into letters."""
    alphabet = sorted(set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,:'"))
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(alphabet)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    network = small_language_model(len(alphabet), 16, 1, 2, seed=0)
    return LanguageModel(network, PreTrainedTokenizerFast(tokenizer_object=tokenizer), "letters")


def test_nouns_are_different_and_not_in_the_texts():
    assert len(set(ARBITRARY)) == len(ARBITRARY) >= 80
    everything = set(ARBITRARY).union(*CATEGORIES.values())
    assert all(len(set(nouns)) == len(nouns) == 10 for nouns in CATEGORIES.values())
    told = {w.strip(".,").lower() for text in _BETWEEN.values() for s in text for w in s.split()}
    assert not everything & told


@pytest.mark.parametrize("kind", ["arbitrary", "coherent"])
def test_stimuli_hold_the_lists_where_they_say(kind):
    lists, others = draw_noun_lists(np.random.default_rng(0), 5, 5, kind)
    for condition in CONDITIONS:
        for between in ("intact", "scrambled", "incongruent", "short"):
            for number, s in enumerate(
                noun_stimuli(np.random.default_rng(1), lists, others, condition=condition,
                             between=between, gap=100)
            ):  # fmt: skip
                one, two = ([s.text[a:b] for a, b in spans] for spans in (s.first, s.second))
                assert one == lists[number]
                assert two == (others[number] if condition == "novel" else two)
                assert (two == one) is (condition == "repeat")
                assert sorted(two) == sorted(one) or condition == "novel"
                assert abs(s.gap - 100) <= 10 or between == "short"
    words = [sorted(intervening_text(np.random.default_rng(0), b, 100).split())
             for b in ("intact", "scrambled")]  # fmt: skip
    assert words[0] == words[1]


def test_word_surprisal_is_the_sum_over_its_tokens(letters):
    text = "the list: silver, apple."
    spans = [(10, 16), (18, 23)]
    assert [text[a:b] for a, b in spans] == ["silver", "apple"]
    assert [p.tolist() for p in tokens_of_spans(letters, text, spans)] == [
        list(range(10, 16)),
        list(range(18, 23)),
    ]
    found = word_surprisal(letters, [text, "silver"], [spans, [(0, 6)]])
    tokens = letters.encode([text])[0]
    with torch.no_grad():
        log_p = letters.network(tokens).logits.log_softmax(-1)[0]
    direct = [-sum(log_p[i - 1, tokens[0, i]].item() for i in range(a, b)) for a, b in spans]
    np.testing.assert_allclose(found[0], direct, rtol=1e-5)
    assert np.isnan(found[1][0])  # nothing precedes it


def test_a_stimulus_longer_than_the_context_is_refused(letters):
    lists, others = draw_noun_lists(np.random.default_rng(0), 2, 3)
    stimuli = noun_stimuli(np.random.default_rng(0), lists, others)
    values = VerbatimMemory().surprisal(letters, stimuli)
    assert values.first.shape == values.second.shape == (2, 3)
    short = LanguageModel(letters.network, letters.tokenizer, "short")
    short.context = 50
    with pytest.raises(DataError, match="takes 1 to 50"):
        VerbatimMemory().surprisal(short, stimuli)
    with pytest.raises(ConfigError, match="knows no words"):
        VerbatimMemory().surprisal(stream_lstm(), stimuli)


def test_published_lists_and_their_pools(tmp_path):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"n3": [["a", "b", "c"], ["c", "a", "b"], ["x", "y", "z"]]}))
    lists = read_noun_lists(path)
    assert pools_of(lists[3]).tolist() == [0, 0, 1]
    path.write_text('{"n3": [["a", "b"]]}')
    with pytest.raises(DataError, match="do not have 3"):
        read_noun_lists(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="no lists"):
        read_noun_lists(path)


def test_the_real_published_lists():
    path = REAL / "language" / "verbatim-random-lists.json"
    if not path.exists():
        pytest.skip("the published lists are not here")
    lists = read_noun_lists(path)
    assert {n: len(x) for n, x in lists.items()} == {3: 230, 5: 230, 7: 230, 10: 230}
    assert len(np.unique(pools_of(lists[3]))) < 40


def test_bad_lists_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="cannot be drawn"):
        draw_noun_lists(rng, 2, 30, "coherent")
    with pytest.raises(ConfigError, match="no gap of 5000"):
        intervening_text(rng, "intact", 5000)
    with pytest.raises(DataError, match="shares one"):
        noun_stimuli(rng, [["a", "b"]], [["b", "c"]], condition="novel")


def test_examination_of_any_model(letters):
    found = VerbatimMemory().examine(letters, quick=True)
    assert [f.name for f in found.findings] == [
        "verbatim memory", "memory for order", "memory for identity"
    ]  # fmt: skip
    assert all(np.isfinite([f.value.low, f.value.high]).all() for f in found.findings)
    assert found.panels[2].values.shape == (1, 2)


def test_lists_that_are_drawn_are_independent_and_given_ones_may_not_be():
    rng = np.random.default_rng(0)
    drawn = VerbatimMemory(12).stimuli(rng)
    assert [s.pool for s in drawn] == list(range(12))
    lists, others = draw_noun_lists(rng, 12, 5)
    assert [s.pool for s in noun_stimuli(rng, lists, others)] == pools_of(lists).tolist()
