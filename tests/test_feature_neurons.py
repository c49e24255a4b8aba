"""Chunked products against dense ones; planted words are decoded; a clamp against its equation."""

import logging

import numpy as np
import pytest
import torch
from torch.nn import functional

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.memory.language_model import load_language_model, small_language_model
from engramma.probing.findings import Examination
from engramma.probing.model import LanguageModel
from engramma.probing.neurons import top_tokens
from engramma.probing.places import Place
from engramma.probing.topics import TopicLanguage
from engramma.probing.training import learned_position_model
from engramma.probing.vocabulary import concept_tokens, several_spellings
from engramma.systems.probing.feature_neurons import FeatureNeurons, picked
from engramma.systems.probing.feature_neurons_claims import Topics
from word_tokenizer import WordTokenizer


def gated(seed=0, vocabulary=40):
    return LanguageModel(small_language_model(vocabulary, dim=32, layers=3, seed=seed))


# -- products with the vocabulary ----------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_chunked_products_equal_dense_ones(rows):
    rng = torch.Generator().manual_seed(0)
    vectors, vocabulary = (torch.randn(n, 6, generator=rng) for n in (23, 31))
    dense = (vectors @ vocabulary.T).softmax(dim=1)
    expected = dense.topk(4, dim=1)
    found = top_tokens(vectors, vocabulary, 4, rows=rows)
    assert torch.equal(found.tokens, expected.indices)
    torch.testing.assert_close(found.probability, expected.values)
    torch.testing.assert_close(found.concentration, dense.amax(dim=1))
    with pytest.raises(DataError, match="width 6 meet"):
        top_tokens(vectors, vocabulary[:, :5])


@pytest.mark.parametrize("source", ["gate", "up", "down"])
def test_planted_words_are_decoded(source):
    model = gated()
    mlp = model.network.model.layers[1].mlp
    embedding = model.network.model.embed_tokens.weight
    weight = {"gate": mlp.gate_proj, "up": mlp.up_proj, "down": mlp.down_proj}[source].weight
    with torch.no_grad():
        row = 5.0 * embedding[17] / embedding[17].norm()
        if source == "down":
            weight[:, 9] = row
        else:
            weight[9] = row
    probe = FeatureNeurons(m=3)
    assert probe.decode(model, 1, source).tokens[9, 0] == 17
    every = probe.decode(model, source=source)
    n = model.anatomy.n_neurons
    assert torch.equal(every.tokens[n : 2 * n], probe.decode(model, 1, source).tokens)
    best = np.unravel_index(probe.masses(model, every, [17]).argmax(), (3, n))
    assert tuple(map(int, best)) == (1, 9)


def test_gain_of_the_final_norm_can_be_folded_in():
    model = gated()
    with torch.no_grad():
        model.network.model.norm.weight.copy_(torch.linspace(0.5, 2.0, 32))
    found = FeatureNeurons(fold_gain=True).vocabulary(model)
    expected = model.network.lm_head.weight.detach() * torch.linspace(0.5, 2.0, 32)
    torch.testing.assert_close(found, expected)


def test_permuted_rows_hold_the_same_numbers():
    model = gated()
    probe = FeatureNeurons(m=2)
    found = [probe.decode_permuted(model, 0, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert torch.equal(found[0].tokens, found[1].tokens)
    assert not torch.equal(found[0].tokens, found[2].tokens)
    assert not torch.equal(found[0].tokens, probe.decode(model, 0).tokens)


# -- clamping ------------------------------------------------------------------------------------


def test_a_clamp_does_what_its_equation_says():
    model = gated()
    tokens = torch.arange(20).view(2, 10)
    places = [Place("gate", 1), Place("up", 1), Place("mlp", 1)]
    plain = model.run(tokens, keep=places)
    with FeatureNeurons().clamp(model, 1, 5, -7.0):
        clamped = model.run(tokens, keep=places)
    mlp = model.network.model.layers[1].mlp
    gate = functional.silu(mlp.gate_proj(model.run(tokens, keep=[Place("mlp_in", 1)])["mlp_in", 1]))
    change = gate[..., 5, None] * (-7.0 - plain["up", 1][..., 5, None]) * mlp.down_proj.weight[:, 5]
    torch.testing.assert_close(
        clamped["mlp", 1], plain["mlp", 1] + change.detach(), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(model.logits(tokens), plain.logits, rtol=0, atol=0)


def test_percentiles_are_those_of_whole_runs():
    model = gated()
    tokens = torch.arange(24).view(4, 6)
    last = torch.full((4,), 5)
    neurons, words = [(2, 3), (0, 8)], torch.tensor([[1, 2], [3, 4]])
    found = FeatureNeurons().percentiles(model, tokens, last, neurons, words, 4.0)
    plain = model.logits(tokens, at=last).log_softmax(dim=-1)
    for number, (layer, neuron) in enumerate(neurons):
        with FeatureNeurons().clamp(model, layer, neuron, 4.0):
            gain = model.logits(tokens, at=last).log_softmax(dim=-1) - plain
        for k, word in enumerate(words[number]):
            expected = (gain < gain[:, word, None]).float().mean(dim=1)
            np.testing.assert_allclose(found[number, k], expected.numpy(), atol=0.026)
    chosen = FeatureNeurons(value=4.0).best_sign(model, tokens, last, neurons, words)
    other = FeatureNeurons().percentiles(model, tokens, last, neurons, words, -4.0)
    means = np.stack([found, other]).mean(axis=-1, where=np.arange(4) < 2)
    sign = means.argmax(axis=0)
    tested = np.stack([found, other])[..., 2:].mean(axis=-1)
    np.testing.assert_allclose(chosen, np.take_along_axis(tested, sign[None], 0)[0])


# -- comparing models ----------------------------------------------------------------------------


def test_a_model_agrees_with_itself_and_not_with_another():
    probe = FeatureNeurons()
    np.testing.assert_array_equal(probe.agreement(gated(), gated()), np.ones(3))
    assert probe.agreement(gated(0), gated(1)).max() < 0.2
    with pytest.raises(ConfigError, match="cannot be compared"):
        probe.agreement(gated(), gated(vocabulary=41))


def test_most_concentrated_neurons_are_picked():
    model = gated()
    probe = FeatureNeurons(m=2)
    lists = {x: probe.decode(model, x) for x in (0, 2)}
    neurons, words = picked(lists, lists, 4)
    values = [float(lists[x].concentration[j]) for x, j in neurons]
    every = torch.cat([d.concentration for d in lists.values()]).topk(4).values
    np.testing.assert_allclose(values, every.numpy())
    assert torch.equal(words[:, 0], words[:, 1])


# -- words ---------------------------------------------------------------------------------------


def test_variants_of_a_word_are_one_concept():
    tokenizer = WordTokenizer()
    tokenizer(" dog dog Dogs dogs")
    model = LanguageModel(small_language_model(64), tokenizer)
    assert {model.decode([t]) for t in concept_tokens(model, ["dog"])} >= {" dog", " dogs", "Dog"}
    with pytest.warns(DataWarning, match="'crocodiles' is 2 tokens: the first, ' crocodi'"):
        concept_tokens(model, ["crocodiles"])
    ids = {w: i for i, w in enumerate(tokenizer.words)}
    lists = torch.tensor([[ids[" dog"], ids["Dog"]], [ids[" dog"], ids[" dogs"]]])
    np.testing.assert_array_equal(several_spellings(model, lists), [1.0, 0.0])


# -- bad input -----------------------------------------------------------------------------------


def test_quantised_weights_are_refused():
    model = gated()
    model.anatomy.head.weight = torch.nn.Parameter(
        torch.zeros(40, 32, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ConfigError, match="dequantised"):
        FeatureNeurons().decode(model, 0)


def test_a_file_without_output_embedding_falls_back_to_the_input(tmp_path, caplog):
    small_language_model(40, dim=32, layers=1).save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    model = LanguageModel(*load_language_model(tmp_path))
    with caplog.at_level(logging.INFO):
        rows = FeatureNeurons().vocabulary(model)
    assert torch.equal(rows, model.network.get_input_embeddings().weight)
    assert "no output embedding of its own" in caplog.text


def test_fused_gates_and_empty_lists_are_refused():
    with pytest.raises(ConfigError, match="at least one"):
        FeatureNeurons(m=0)
    plain = LanguageModel(learned_position_model(20, dim=32, layers=1))
    with pytest.raises(ConfigError, match="gate"):
        FeatureNeurons().decode(plain, 0, "gate")


# -- the language of topics, and the shipped miniature -------------------------------------------


def test_language_of_topics():
    language = TopicLanguage(topics=5, words=4, switch=0.1)
    texts = language.texts(np.random.default_rng(0), 4000, 20)
    topic = texts // 4
    change = (topic[:, 1:] != topic[:, :-1]).float().mean()
    assert change == pytest.approx(0.1 * 4 / 5, abs=0.01)
    shares = torch.bincount(texts.flatten() % 4) / texts.numel()
    zipf = 1 / torch.arange(1, 5)
    torch.testing.assert_close(shares, zipf / zipf.sum(), rtol=0, atol=0.01)
    lists = torch.tensor([[0, 1, 2, 3, 4], [0, 4, 8, 12, 16]])
    torch.testing.assert_close(language.coherence(lists), torch.tensor([0.8, 0.2]))


def test_examination_runs_on_any_model():
    model = LanguageModel(small_language_model(100, dim=32, layers=4), WordTokenizer())
    found = FeatureNeurons().examine(model, quick=True)
    words, clamps = found.findings
    assert 0 <= words.value.value <= 1 and words.caused.low <= words.caused.high
    assert clamps.chance == 0.2 and len(found.tables[0].rows) == 8
    assert isinstance(found, Examination)


def test_miniature_says_what_its_neurons_decode_to():
    topics = Topics(0)
    assert topics.gate()[0]
    assert topics.coherence(topics.model) > topics.coherence(topics.model, permuted=True) + 0.1
    assert topics.percentile() > 0.8
    assert topics.percentile(permuted=True) == pytest.approx(0.5, abs=0.1)
