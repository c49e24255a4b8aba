"""SORT: the builder's balance and distances, a store that knows positions, models that read."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engramma.errors import ConfigError, DataError
from engramma.memory.language_model import small_language_model
from engramma.probing.model import LanguageModel
from engramma.probing.order_questions import (
    build_order_questions,
    distance_edges,
    plain_words,
    read_order_questions,
    sentence_starts,
    write_order_questions,
)
from engramma.probing.order_streams import ASK, order_streams
from engramma.probing.passage_store import PassageStore
from engramma.systems.probing.sort import SequenceOrderRecall, shuffled
from engramma.systems.probing.sort_prompts import PROMPTS
from engramma.worlds.stories import stories

REAL = Path(os.environ.get("ENGRAMMA_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="module")
def texts():
    return {f"story {seed}": stories(seed, n_sentences=500).text for seed in (1, 2)}


@pytest.fixture(scope="module")
def questions(texts):
    return build_order_questions(texts, n=30, rng=np.random.default_rng(0))


# -- the builder ---------------------------------------------------------------------------


def test_exactly_half_is_shown_first_in_each_text_and_bin(questions):
    share = questions.segments.groupby(["book_idx", "distance_bin"])["present_seg1_first"]
    assert len(share) == 8
    assert (share.mean() == 0.5).all()
    assert (share.size() == 30).all()


def test_segments_are_where_they_say(questions, texts):
    words = [plain_words(text) for text in texts.values()]
    starts = [set(sentence_starts(w).tolist()) for w in words]
    excerpts = questions.excerpts.set_index(["book_idx", "excerpt_idx"])
    edges = distance_edges(250, 20)
    assert edges == [20, 62, 83, 125, 200]
    for row in questions.segments.itertuples():
        excerpt = excerpts.loc[(row.book_idx, row.excerpt_idx)]
        start = round(excerpt.excerpt_pos * len(words[row.book_idx]))
        for segment, place in ((row.segment_1, row.seg1_pos), (row.segment_2, row.seg2_pos)):
            assert start + place in starts[row.book_idx]
            found = words[row.book_idx][start + place : start + place + 20]
            assert segment == " ".join(found)
            assert excerpt.excerpt_text.count(segment) == 1
        left = edges[edges.index(row.distance_bin) - 1]
        assert left < row.seg2_pos - row.seg1_pos <= row.distance_bin
        assert row.seg2_pos + 20 <= 250


def test_excerpts_start_anywhere_alike():
    text = " ".join(f"w{i}." if i % 4 == 3 else f"w{i}" for i in range(20_000))
    even = build_order_questions({"even": text}, n=400, rng=np.random.default_rng(1))
    assert even.uniformity() > 0.01
    room = (20_000 - 250) / 20_000
    p = stats.kstest(even.excerpts["excerpt_pos"] / room, "uniform").pvalue
    assert p == pytest.approx(even.uniformity())


def test_published_edges_of_long_excerpts():
    assert distance_edges(10_000, 50) == [50, 1000, 2500, 5000, 8000]


def test_the_same_seed_gives_the_same_questions(questions, texts):
    again = build_order_questions(texts, n=30, rng=np.random.default_rng(0))
    pd.testing.assert_frame_equal(again.segments, questions.segments)


def test_a_real_book_with_its_header():
    path = REAL / "language" / "book-72958.txt"
    if not path.exists():
        pytest.skip("the book is not here")
    words = plain_words(path.read_text("utf-8"))
    assert "GUTENBERG" not in words
    assert 42_000 < len(words) < 43_000
    found = build_order_questions(
        {"Hunting for Hidden Gold": path.read_text("utf-8")}, n=20, rng=np.random.default_rng(0)
    )
    assert len(found.segments) == 80
    assert not found.segments["segment_1"].str.contains("Gutenberg").any()


def test_sentences_begin_behind_their_ends_and_not_behind_titles():
    words = plain_words('He met Mr. Low. "Who?" she asked. J. came!')
    assert [words[i] for i in sentence_starts(words)] == ["He", '"Who?"', "she", "J."]


def test_what_cannot_be_built_is_refused(texts):
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="even number"):
        build_order_questions(texts, n=11, rng=rng)
    with pytest.raises(ConfigError, match="overlap"):
        build_order_questions(texts, n=2, edges=[10, 60, 200], rng=rng)
    with pytest.raises(ConfigError, match="do not rise"):
        build_order_questions(texts, n=2, excerpt_words=60, rng=rng)
    with pytest.raises(DataError, match="too few for excerpts"):
        build_order_questions({"short": "One. Two."}, n=2, rng=rng)
    with pytest.raises(DataError, match="a pair of segments in each bin"):
        build_order_questions({"no sentences": "word " * 900}, n=2, rng=rng)
    with pytest.raises(DataError, match="a pair of segments"):  # all segments occur many times
        build_order_questions({"twice": "It was so. " * 300}, n=2, rng=rng)


def test_files_in_the_published_format(questions, tmp_path):
    write_order_questions(tmp_path, questions)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{name}_250-s20-n30.csv" for name in ("books", "excerpts", "segments")
    ]
    again = read_order_questions(tmp_path)
    assert again.items(28) == questions.items(28)
    assert len(questions.items(28)) == 2 * 2 * 4
    with pytest.raises(DataError, match="0 files"):
        read_order_questions(tmp_path, 1000)
    path = tmp_path / "segments_250-s20-n30.csv"
    pd.read_csv(path).drop(columns="seg2_pos").to_csv(path)
    with pytest.raises(DataError, match="seg2_pos"):
        read_order_questions(tmp_path)


def test_odds_tell_what_a_bias_hides():
    """A model that always says A may rank questions rightly; the area is that of all pairs."""
    table = pd.DataFrame(
        {
            "book": 0,
            "bin": 0,
            "answer": "A",
            "right": list("AABBAB"),
            "log_odds": [3, 2, 1, 0.5, 0.75, 2],
        }
    )
    table["correct"] = table["right"] == "A"
    probe, rng = SequenceOrderRecall(), np.random.default_rng(0)
    assert probe.score(table, rng=rng).loc["all", "accuracy"] == 0.5
    found = probe.discrimination(table, rng=rng)
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, x in zip(table["log_odds"], table["right"], strict=True)
        for b, y in zip(table["log_odds"], table["right"], strict=True)
        if x == "A" and y == "B"
    ]
    assert found.value == pytest.approx(np.mean(pairs)) and found.low < found.value < found.high
    with pytest.raises(DataError, match="log odds"):
        probe.discrimination(table.assign(log_odds=np.nan), rng=rng)


# -- stores --------------------------------------------------------------------------------


def test_a_store_with_positions_knows_everything_and_without_exactly_half(questions):
    for task in ("first", "last"):
        probe = SequenceOrderRecall(task)
        items = [item for item in questions.items() if item.book == 0]
        tables = [probe.ask(probe.remember(questions, 0, p), items) for p in (True, False)]
        assert [table["correct"].mean() for table in tables] == [1.0, 0.5]
    scores = probe.score(tables[1], rng=np.random.default_rng(0))
    assert (scores["accuracy"] == 0.5).all()
    assert (scores["share_a"] == 1.0).all()
    exact = stats.binomtest(60, 120).proportion_ci()
    assert scores.loc["all", "low"] == pytest.approx(exact.low)


def test_a_store_can_be_kept_and_tidied(tmp_path):
    store = PassageStore()
    for position, text in enumerate(("a b c", "d e f", "a b c")):
        store.write(text, position)
    store.save(tmp_path / "store.json")
    store.consolidate()
    assert [p.position for p in store.passages] == [0, 1]
    store.forget([0])
    assert store.read("a b").text == "d e f"
    store.load(tmp_path / "store.json")
    assert len(store) == 3
    assert store.read("e f d x").position == 1
    (tmp_path / "store.json").write_text("[]")
    with pytest.raises(DataError, match="no store"):
        store.load(tmp_path / "store.json")
    with pytest.raises(DataError, match="nothing has been stored"):
        PassageStore().read("a")


# -- language models -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    """A small model of words with random weights."""
    words = ["[UNK]", "Answer", ":", "Segment", "A", "B", ".", "the", "a", "to"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return LanguageModel(small_language_model(len(words), 32, 2, 2, seed=0), fast, "words")


def test_the_likelier_letter_is_the_answer(model, questions):
    items = questions.items(0, 2)[:6]
    probe = SequenceOrderRecall()
    table = probe.ask(model, items)
    for item, row in zip(items, table.itertuples(), strict=True):
        tokens = model.encode([probe.prompt.fill(model, item, "first")])[0]
        with torch.no_grad():
            logits = model.network(tokens).logits[0, -1]
        assert row.log_odds == pytest.approx(float(logits[4] - logits[5]), abs=1e-4)
        assert row.answer == ("A" if row.log_odds >= 0 else "B")
        assert row.correct == ((row.answer == "A") == item.a_is_first)
    strict = SequenceOrderRecall(candidates=1).ask(model, items)
    assert set(strict["answer"]) <= {"A", "B", "X"}
    assert not strict["correct"][strict["answer"] == "X"].any()
    last = SequenceOrderRecall("last").ask(model, items)
    assert (last["correct"] == ((last["answer"] == "B") == [i.a_is_first for i in items])).all()
    depth = probe.locate(model, items)
    assert depth.shape == (2,)
    assert depth[-1] == table["correct"].mean()
    with probe.intervene(model, [0, 1]):
        assert not np.allclose(probe.ask(model, items)["log_odds"], table["log_odds"])


def test_prompts_hold_what_they_should(model, questions):
    item = questions.items()[0]
    for prompt in PROMPTS:
        with_it, without = (prompt.fill(model, item, "first", c) for c in ("excerpt", "none"))
        assert item.excerpt in with_it
        assert item.excerpt not in without
        for text in (with_it, without):
            assert f"Segment A: {item.segment_a}\n\nSegment B: {item.segment_b}" in text
            assert "first" in text
            assert text.endswith("Answer: Segment")
    assert SequenceOrderRecall().choose_prompt(model, questions.items(29)) in PROMPTS


def test_a_prompt_longer_than_the_context_is_refused(model, questions):
    short = LanguageModel(model.network, model.tokenizer, "short")
    short.context = 200
    with pytest.raises(DataError, match="takes 1 to 200"):
        SequenceOrderRecall().ask(short, questions.items()[:1])
    with pytest.raises(DataError, match="nothing to ask"):
        SequenceOrderRecall().ask(model, [])
    with pytest.raises(ConfigError, match="first or last"):
        SequenceOrderRecall("middle")
    with pytest.raises(ConfigError, match="excerpt or none"):
        SequenceOrderRecall().ask(model, questions.items()[:1], "some")


def test_shuffled_excerpts_hold_the_same_sentences(questions):
    item = questions.items()[0]
    other = shuffled(item, np.random.default_rng(0))
    assert sorted(other.excerpt.split()) == sorted(item.excerpt.split())
    assert other.excerpt != item.excerpt


def test_reading_lowers_the_surprisal_of_what_was_read(model):
    text = "the a to . " * 40
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    after = SequenceOrderRecall().fine_tune(model, [text], epochs=20, rate=1e-2, chunk=32, batch=4)
    tokens = model.encode([text])[0]
    assert after.surprisal(tokens).nanmean() < 0.5 * model.surprisal(tokens).nanmean()
    assert all(torch.equal(before[k], v) for k, v in model.network.state_dict().items())
    with pytest.raises(DataError, match="no text"):
        SequenceOrderRecall().fine_tune(model, [""])


# -- streams -------------------------------------------------------------------------------


def test_streams_ask_what_can_be_answered():
    streams = order_streams(np.random.default_rng(0), 50)
    for row, gaps in zip(streams.tokens.tolist(), streams.distance.tolist(), strict=True):
        excerpt = row[:10]
        assert len(set(excerpt)) == 10
        for place, gap in zip(streams.places.tolist(), gaps, strict=True):
            a, b, ask, answer = row[place - 3 : place + 1]
            assert ask == ASK
            assert answer == min(a, b, key=excerpt.index)
            assert gap == abs(excerpt.index(a) - excerpt.index(b))
    assert streams.weights().sum() == 50 * 8
    hidden = order_streams(np.random.default_rng(0), 50, hide=True)
    assert torch.equal(hidden.tokens[:, 10:], streams.tokens[:, 10:])
    assert all(not set(r[:10]) & set(r[10:12]) for r in hidden.tokens.tolist())
    with pytest.raises(ConfigError, match="2 to 20"):
        order_streams(np.random.default_rng(0), 2, words=30)


def test_examination_of_any_model(model):
    found = SequenceOrderRecall().examine(model, quick=True)
    order, odds = found.findings
    assert 0 <= odds.value.low <= odds.value.value <= odds.value.high <= 1
    assert 0 <= order.value.low <= order.value.value <= order.value.high <= 1
    assert set(found.panels[0].values) == {
        "in context", "sentences in another order", "without text"
    }  # fmt: skip
