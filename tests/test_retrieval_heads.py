"""Retrieval heads against a head that copies by construction, and the published files' format."""

import json

import numpy as np
import pytest
import torch

from engramma.errors import ConfigError, DataError, DataWarning, NotTestableError
from engramma.memory.language_model import small_language_model
from engramma.probing.head_scores import RETRIEVAL, read_head_scores, write_head_scores
from engramma.probing.list_streams import END, N_TOKENS, stream_transformer
from engramma.probing.model import LanguageModel
from engramma.probing.needles import (
    NEEDLES,
    NeedlePrompt,
    find_span,
    needle_prompts,
    read_haystack,
    read_needles,
    stream_needles,
    words,
)
from engramma.probing.places import Place
from engramma.probing.rouge import rouge_1_recall
from engramma.systems.probing.retrieval_heads import RetrievalHeads, copied

SIZE, BOOST = 16, 40.0


def copying_model():
    """One layer of two heads: head 0 looks everywhere alike, head 1 copies.

    Each token is a channel. From token t, head 1 looks at token t + 1 and puts it out; positions
    are not turned.
    """
    network = small_language_model(SIZE, dim=2 * SIZE, layers=1, heads=2, seed=0)
    layer = network.model.layers[0]
    eye = torch.eye(SIZE)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        layer.input_layernorm.weight.fill_(1.0)
        network.model.norm.weight.fill_(1.0)
        network.model.embed_tokens.weight[:, :SIZE] = eye
        layer.self_attn.q_proj.weight[SIZE:, :SIZE] = BOOST * torch.roll(eye, 1, 0)
        layer.self_attn.k_proj.weight[SIZE:, :SIZE] = eye
        layer.self_attn.v_proj.weight[SIZE:, :SIZE] = eye
        layer.self_attn.o_proj.weight[:SIZE, SIZE:] = 3 * eye
    network.model.rotary_emb.inv_freq.zero_()
    return LanguageModel(network, name="copying")


def prompt():
    """Filler 0, the needle 3 4 5 6 7, filler, and 2, after which 3 to 7 are to come."""
    tokens = (0, 0, 0, 3, 4, 5, 6, 7, 0, 0, 2)
    return NeedlePrompt(tokens, 3, 8, (3, 4, 5, 6, 7), 0.3)


def test_a_copying_head_has_score_one_and_the_other_none():
    model, probe = copying_model(), RetrievalHeads(n_new=5)
    answers = probe.answer(model, [prompt()], record=True)
    assert answers.tokens.tolist() == [[3, 4, 5, 6, 7]]
    # While 3 is generated, the head looks at the 3 of the needle, and so on.
    assert answers.attended[0, :, 0, 1].tolist() == [3, 4, 5, 6, 7]
    scores = probe.score_heads(model, [prompt()])
    np.testing.assert_allclose(scores.mean, [[0.0, 1.0]])
    assert probe.top(1) == [(0, 1)]
    np.testing.assert_allclose(probe.locate(model, [prompt()]), scores.mean)


def test_a_token_of_the_needle_counts_once():
    twice = NeedlePrompt((9, 3, 3, 4, 9), 1, 4, (3, 4), 0.0)
    generated = np.array([3, 3, 4, -1])
    attended = np.array([1, 2, 0, 3])[:, None, None]
    assert copied(twice, generated, attended)[0, 0] == 0.5  # of 3 and 4 only 3 is copied


@pytest.mark.parametrize("mode", ["uniform", "zero"])
@pytest.mark.parametrize("phase", ["decode", "all"])
def test_blocking_takes_the_answer_and_touches_what_it_says(mode, phase):
    model, probe = copying_model(), RetrievalHeads(n_new=5)
    edits = probe.block(model, [(0, 1)], mode, phase)
    assert probe.needle_eval(model, [prompt()], edits)["recall"][0] < 0.5
    assert probe.needle_eval(model, [prompt()])["recall"][0] == 1.0
    other = probe.block(model, [(0, 0)], mode, phase)
    assert probe.needle_eval(model, [prompt()], other)["recall"][0] == 1.0
    tokens = torch.tensor([prompt().tokens])
    place = Place("pattern" if mode == "uniform" else "heads", 0)
    plain = model.run(tokens, keep=[place])[place]
    blocked = model.run(tokens, keep=[place], edits=edits)[place]
    first = 0 if phase == "all" else tokens.shape[1] - 1
    if mode == "uniform":
        even = torch.ones(11, 11).tril() / torch.arange(1, 12)[:, None]
        torch.testing.assert_close(blocked[0, 1, first:], even[first:])
        torch.testing.assert_close(blocked[:, 0], plain[:, 0])
        torch.testing.assert_close(blocked[0, 1, :first], plain[0, 1, :first])
    else:
        assert not blocked[0, first:, 1].any()
        torch.testing.assert_close(blocked[0, :first], plain[0, :first])


def test_recording_changes_nothing_and_is_the_same_again():
    model, probe = stream_transformer("four_layers"), RetrievalHeads(n_new=8)
    prompts = stream_needles(np.random.default_rng(0), 4)
    seen = probe.answer(model, prompts, record=True)
    plain = model.continue_greedily(torch.tensor([p.tokens for p in prompts]), 8, stop=[END])
    np.testing.assert_array_equal(seen.tokens, plain.numpy())
    again = probe.answer(model, stream_needles(np.random.default_rng(0), 4), record=True)
    np.testing.assert_array_equal(seen.attended, again.attended)
    assert seen.attended.shape == (4, seen.tokens.shape[1], 4, 8)
    with probe.intervene(model, probe.score_heads(model, prompts).top(3)):
        assert probe.answer(model, prompts).recall.mean() < seen.recall.mean()


def test_no_successful_run_is_undefined_and_not_zero():
    model = LanguageModel(small_language_model(N_TOKENS, 64, 4, 8, seed=1))
    prompts = stream_needles(np.random.default_rng(0), 4)
    with pytest.raises(NotTestableError, match="undefined"):
        RetrievalHeads().score_heads(model, prompts)


def test_published_scores_are_read(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"0-0": [0.0, 0.2], "0-1": [0.05, 0.1], "1-0": [1.003, 0.9],
                                "1-1": [0.0, 0.0]}))  # fmt: skip
    with pytest.warns(DataWarning, match=r"1\.003"):
        scores = read_head_scores(path)
    assert scores.runs.shape == (2, 2, 2)
    np.testing.assert_allclose(scores.mean, [[0.1, 0.075], [0.9515, 0.0]])
    assert scores.heads(RETRIEVAL) == [(1, 0), (0, 0)]
    assert scores.share(RETRIEVAL) == 0.5
    write_head_scores(tmp_path / "again.json", scores)
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(path.read_text())
    path.write_text(json.dumps({"0-0": [sum([0.1] * 3) + 0.7, 1 + 1e-12]}))  # rounding only
    assert read_head_scores(path).share(RETRIEVAL) == 1
    for bad in ('{"0-0": [1], "0-1": [1, 2]}', '{"00": [1]}', '{"0-0": []}', "[]"):
        path.write_text(bad)
        with pytest.raises(DataError):
            read_head_scores(path)


def test_needles_and_haystacks_in_the_published_format(tmp_path):
    path = tmp_path / "needles.jsonl"
    row = {"needle": "A b c.", "question": "What ?", "real_needle": "b c"}
    path.write_text(json.dumps(row) + "\n")
    assert read_needles(path)[0].answer == "b c"
    path.write_text('{"needle": "A"}\n')
    with pytest.raises(DataError, match="real_needle"):
        read_needles(path)
    folder = tmp_path / "haystack"
    (folder / "part1").mkdir(parents=True)
    (tmp_path / "haystack" / "part2").mkdir()
    (folder / "part1" / "p1.txt").write_text("First. ")
    (folder / "part1" / "p2.txt").write_text("Second.")
    assert read_haystack(folder) == "First.\nSecond."
    with pytest.raises(DataError, match="no text"):
        read_haystack(tmp_path / "haystack" / "part2")
    with pytest.raises(DataError, match="cannot be read"):
        read_haystack(tmp_path / "nothing.txt")


class Letters:
    """A tokenizer of characters."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(c) % 128 for c in text]}

    def decode(self, tokens):
        return "".join(map(chr, tokens))


def test_needles_lie_at_the_ends_of_sentences():
    model = LanguageModel(small_language_model(128, 32, 1, 2), Letters(), name="letters")
    prompts = needle_prompts(
        model, "It rains. " * 60, NEEDLES[:1], lengths=[400], depths=[0.0, 0.5, 1.0]
    )
    assert len({len(p.tokens) for p in prompts}) == 1
    for p in prompts:
        before = model.decode(p.tokens[: p.start])
        assert before == "" or before.endswith("rains.")
        assert model.decode(p.needle) == f" {NEEDLES[0].text}"
        assert abs(p.start / (400 - len(p.needle)) - p.depth) < 0.05
    asked = f"Based on the content of the book, Question: {NEEDLES[0].question}\nAnswer:"
    assert model.decode(prompts[0].tokens).endswith(f"rains.\n{asked}")
    assert model.decode(prompts[2].tokens).endswith(f"{NEEDLES[0].text}\n{asked}")
    with pytest.raises(ConfigError, match="haystack"):
        needle_prompts(model, "It rains.", NEEDLES[:1], lengths=[400])
    with pytest.raises(ConfigError, match="takes 4096"):
        needle_prompts(model, "It rains. " * 600, NEEDLES[:1], lengths=[4090])


def test_a_needle_that_is_not_there_is_an_error():
    assert find_span([1, 2, 3, 4, 5], [3, 4]) == (2, 4)
    assert find_span([4, 3, 9, 3, 4], [3, 4]) == (3, 5)  # the same tokens, and in their places
    with pytest.raises(DataError, match="not found"):
        find_span([1, 2, 3], [8, 9])


def test_rouge_against_counts_by_hand():
    assert words('The "old" Tree, it is.') == ("the", "old", "tree", "it", "is")
    assert rouge_1_recall(words("a b b c"), words("b c d b b")) == 0.75
    with pytest.raises(DataError, match="empty"):
        rouge_1_recall([], ["a"])


def test_bad_options():
    model = stream_transformer("four_layers")
    for wrong in ({"n_new": 0}, {"success": 2.0}):
        with pytest.raises(ConfigError):
            RetrievalHeads(**wrong)
    with pytest.raises(ConfigError, match="no head 8"):
        RetrievalHeads().block(model, [(0, 8)])
    with pytest.raises(ConfigError, match="modes are"):
        RetrievalHeads().block(model, [(0, 0)], mode="off")
    with pytest.raises(ConfigError, match="score_heads"):
        RetrievalHeads().top(1)


def test_a_model_that_finds_no_needle_is_not_testable():
    model = LanguageModel(small_language_model(128, 32, 1, 2), Letters(), name="letters")
    with pytest.raises(NotTestableError, match="none of 8 needles"):
        RetrievalHeads(n_new=4).examine(model, quick=True)
