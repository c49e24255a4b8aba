"""Few-shot memories against hand-counted ROUGE, exact probabilities, and retraining."""

import json

import numpy as np
import pytest
import torch

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.probing.bigrams import (
    THESAURUS,
    BigramLanguage,
    english_foils,
    english_sentences,
    experiment,
    gibberish,
    read_experiment,
    shares_ngram,
)
from engramma.probing.model import LanguageModel
from engramma.probing.rouge import longest_common_subsequence, rouge
from engramma.probing.training import learned_position_model
from engramma.systems.probing.few_shot_memories import FewShotMemories, miniature


def tiny(seed=0, **options):
    network = learned_position_model(40, dim=16, layers=1, heads=2, positions=12, seed=seed)
    return FewShotMemories(LanguageModel(network), **{"rate": 3e-3, "rows": 4} | options)


def sentences(n=8, length=8, seed=0):
    return np.random.default_rng(seed).integers(0, 40, (n, length))


# -- the language -------------------------------------------------------------------------------


def test_bigrams_come_as_often_as_their_table_says():
    language = BigramLanguage(words=8, concentration=0.5, length=9)
    drawn = language.sample(40_000, rng=np.random.default_rng(0))
    counts = np.zeros((8, 8))
    np.add.at(counts, (drawn[:, :-1], drawn[:, 1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    expected = np.repeat(np.repeat(language.meanings / 2, 2, axis=0), 2, axis=1)
    assert np.abs(shares - expected).max() < 0.01
    # The mean log probability is minus the entropy of the table, weighted by what came.
    weights = counts.sum(axis=1) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(weights[:, None] * expected * np.log(expected))
    assert -language.log_probability(drawn).mean() == pytest.approx(entropy, rel=0.01)


def test_foils_are_what_they_are_called():
    language, rng = BigramLanguage(), np.random.default_rng(0)
    study, foils = experiment(3, language, 20, rng=rng)
    assert ((study != foils).sum(axis=1) == 1).all()
    assert (language.log_probability(study) == language.log_probability(foils)).all()
    study, foils = experiment(2, language, 20, rng=rng)
    assert (study != foils).all() and (study // 2 == foils // 2).all()
    study, foils = experiment(6, language, 20, rng=rng)
    assert (np.sort(study, axis=1) == np.sort(foils, axis=1)).all()
    assert np.isneginf(language.log_probability(experiment(5, language, 50, rng=rng)[0])).any()
    with pytest.raises(ConfigError, match="no experiment 7"):
        experiment(7, language, 2, rng=rng)
    assert sorted(gibberish("abc de", rng=rng)) == sorted("abc de")


def test_english_sentences_and_foils():
    rng = np.random.default_rng(0)
    found = english_sentences(50, rng=rng)
    assert len(set(found)) == 50
    for sentence, foil in zip(found, english_foils(found, "synonym", rng=rng), strict=True):
        changed = [
            (a, b) for a, b in zip(sentence[:-1].split(), foil[:-1].split(), strict=True) if a != b
        ]
        assert len(changed) == 1 and THESAURUS[changed[0][0]] == changed[0][1]
    assert not set(found) & set(english_foils(found, "other", rng=rng))


def test_published_files_are_read_and_checked(tmp_path):
    folder = tmp_path / "expt3"
    folder.mkdir()
    rows = [json.dumps({"sent": f"text {n}", "sent_id": n}) for n in range(3)]
    (folder / "seen_data_1.json").write_text("\n".join(rows))
    (folder / "unseen_data_1.json").write_text("\n".join(rows[:2]) + "\n")
    with pytest.raises(DataError, match="3 seen sentences stand beside 2"):
        read_experiment(tmp_path, 3, 1)
    (folder / "unseen_data_1.json").write_text('{"sent": "other"}\n' * 3)
    assert read_experiment(tmp_path, 3, 1) == (["text 0", "text 1", "text 2"], ["other"] * 3)
    with pytest.raises(DataError, match="no sentences of an experiment"):
        read_experiment(tmp_path, 4)


# -- rouge --------------------------------------------------------------------------------------


def test_rouge_by_hand():
    # "the cat sat on the mat" and "the cat on the mat": 5 of 6 and 5 words; pairs: "the cat",
    # "on the", "the mat" of 5 and 4; the whole of the second is a subsequence.
    found = rouge(["the", "cat", "sat", "on", "the", "mat"], ["the", "cat", "on", "the", "mat"])
    assert found.one == pytest.approx(2 * 5 / 11)
    assert found.two == pytest.approx(2 * 3 / 9)
    assert found.longest == pytest.approx(2 * 5 / 11)
    assert rouge([1, 2], [3, 4]).one == 0.0
    assert rouge([1, 1, 1], [1]).one == pytest.approx(2 / 4)
    assert longest_common_subsequence("AGGTAB", "GXTXAYB") == 4


def test_only_the_continuation_is_scored():
    memory, items = tiny(), sentences()
    found = memory.recalled(items)
    for n, item in enumerate(items.tolist()):
        tokens = torch.tensor([item[:4]])
        for _ in range(4):
            logits = memory.model.network(tokens).logits[0, -1]
            tokens = torch.cat([tokens, logits.argmax()[None, None]], dim=1)
        new = tokens[0, 4:].tolist()
        assert found.matched[n] == np.mean([a == b for a, b in zip(new, item[4:], strict=True)])
        assert found.rouge_1[n] == pytest.approx(rouge(new, item[4:]).one)
    # An empty memory: with the cue, half of the words would be right from the start.
    assert found.rouge_1.mean() < 0.2


# -- the memory ---------------------------------------------------------------------------------


def test_study_is_remembered_and_the_source_stays():
    source = LanguageModel(
        learned_position_model(40, dim=32, layers=1, heads=2, positions=12, seed=0)
    )
    before = {k: v.clone() for k, v in source.network.state_dict().items()}
    memory = FewShotMemories(source, rate=5e-3, rows=4)
    items, foils = sentences(), sentences(seed=1)
    memory.write(items, 40)
    assert memory.recognise(items, foils).all()
    assert memory.recalled(items).whole.mean() > 0.5
    assert memory.read(items[0, :4]) == items[0, 4:].tolist()
    assert all(torch.equal(before[k], v) for k, v in source.network.state_dict().items())


def test_half_precision_learns_step_by_step():
    whole, half = tiny(), tiny(half=True)
    for memory in (whole, half):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            memory.write(sentences(), 10)  # within another such context too
    gain = tiny().surprisal(sentences()) - whole.surprisal(sentences())
    assert gain.min() > 0.05
    assert np.abs(whole.surprisal(sentences()) - half.surprisal(sentences())).max() < 0.1


def test_surprisal_is_the_mean_of_the_plain_models():
    memory, rows = tiny(), [[1, 2, 3, 4, 5], [6, 7]]
    found = memory.surprisal(rows)
    for value, row in zip(found, rows, strict=True):
        loss = memory.model.network(torch.tensor([row]), labels=torch.tensor([row])).loss
        assert value == pytest.approx(loss.item(), abs=1e-5)


def test_forgetting_is_as_if_never_studied():
    items, other = sentences(), sentences(seed=2)
    memory, never = tiny(), tiny()
    memory.write(items, 2)
    memory.interfere(other, 3)
    memory.forget(items[4:])
    never.write(items[:4], 2)
    never.interfere(other, 3)
    for a, b in zip(
        memory.model.network.parameters(), never.model.network.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert memory.items == items[:4].tolist()
    with pytest.raises(DataError, match="4 of the sentences were not studied"):
        memory.forget(items[4:])


def test_a_saved_memory_goes_on(tmp_path):
    memory, again = tiny(), tiny(seed=5)
    memory.write(sentences())
    memory.save(tmp_path / "memory")
    again.load(tmp_path / "memory")
    for each in (memory, again):
        each.consolidate()
        each.forget(sentences()[:2])
    for a, b in zip(
        memory.model.network.parameters(), again.model.network.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    kept = [p.clone() for p in again.model.network.parameters()]
    (tmp_path / "memory" / "now.safetensors").write_bytes(b"damaged")
    for folder in (tmp_path, tmp_path / "memory"):
        with pytest.raises(DataError, match="no memory of"):
            again.load(folder)
    assert all(map(torch.equal, kept, again.model.network.parameters()))
    memory.save(tmp_path / "memory")
    again.load(tmp_path / "memory")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["memory"]


def test_interference_at_rate_zero_loses_nothing():
    memory = tiny(rate=0.0)
    items, foils = sentences(), sentences(seed=1)
    kept = memory.retention(items, foils, sentences(seed=2), (2, 5))
    assert kept.steps == [0, 2, 5]
    assert len(set(kept.recalled)) == len(set(kept.recognised)) == 1


def test_the_miniature_knows_its_language():
    language = BigramLanguage(seed=0)
    fresh = language.sample(100, rng=np.random.default_rng(5))
    memory = FewShotMemories(miniature(0))
    entropy = -language.log_probability(fresh).mean()
    assert entropy - 0.1 < memory.surprisal(fresh).mean() < entropy + 0.5


class Characters:
    """One token a character, enough for a model that reads text."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(c) for c in text]}

    def decode(self, tokens):
        return "".join(map(chr, tokens))


def test_a_model_that_reads_text_is_examined_and_stays_as_it_is():
    network = learned_position_model(128, dim=16, layers=1, heads=2, positions=160)
    model = LanguageModel(network, Characters())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    found = FewShotMemories().examine(model, quick=True)
    names = [f.name for f in found.findings]
    assert names[0] == "recognition after one exposure" and len(names) == 4
    assert all(0 <= f.value.value <= 1 for f in found.findings)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


# -- bad input ----------------------------------------------------------------------------------


def test_study_items_in_pretraining_are_found():
    corpus = sentences(4, 12).tolist()
    assert shares_ngram([corpus[1][2:10], [39] * 8], corpus).tolist() == [True, False]
    memory = tiny(pretraining=corpus)
    with pytest.warns(DataWarning, match="1 of 2 sentences share eight tokens"):
        memory.write([corpus[0][:8], [39] * 8])


def test_errors_say_what_to_do():
    memory = tiny()
    with pytest.raises(DataError, match="too short or too long"):
        memory.write([[1], [2, 3]])
    with pytest.raises(DataError, match="2 items stand beside 1 foils"):
        memory.recognise([[1, 2], [3, 4]], [[5, 6]])
    with pytest.raises(ConfigError, match="once or more"):
        memory.write([[1, 2]], 0)
    with pytest.raises(ConfigError, match="rate -1"):
        tiny(rate=-1)
    with pytest.raises(ConfigError, match="no bigram language"):
        BigramLanguage(words=7)
