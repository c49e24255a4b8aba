"""Average precision against scikit-learn; planted neurons are found and carry one relation."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from engramma.errors import ConfigError, DataError, DataWarning, LeakageError, NotTestableError
from engramma.memory.language_model import small_language_model
from engramma.probing.facts import (
    FactPrompts,
    Relation,
    TokenFacts,
    check_disjoint,
    fact_prompts,
    read_relation,
    relations,
)
from engramma.probing.findings import Examination
from engramma.probing.model import LanguageModel
from engramma.probing.neurons import average_precision, record
from engramma.systems.probing.relation_neurons import RelationNeurons, answer, enough
from engramma.systems.probing.relation_neurons_claims import Facts, learned
from word_tokenizer import WordTokenizer

RELATIONS, SUBJECTS = 3, 20


def planted(seed=0):
    """Llama whose answer to relation r is written by one neuron that reads the relation's word.

    Tokens are unit vectors: subjects, then relation words, then objects. Attention writes nothing.
    """
    vocabulary = SUBJECTS + 2 * RELATIONS
    network = small_language_model(vocabulary, dim=32, layers=2, seed=seed)
    rng = np.random.default_rng(seed)
    where = [(r % 2, int(rng.integers(network.config.intermediate_size))) for r in range(RELATIONS)]
    with torch.no_grad():
        network.model.embed_tokens.weight.copy_(torch.eye(vocabulary, 32))
        for block in network.model.layers:
            block.self_attn.o_proj.weight.zero_()
            for weight in (block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj):
                weight.weight.mul_(0.05)
            block.mlp.gate_proj.weight[:, SUBJECTS:] = 0.0  # no other gate reads the last word
        for r, (layer, neuron) in enumerate(where):
            mlp = network.model.layers[layer].mlp
            mlp.gate_proj.weight[neuron] = mlp.up_proj.weight[neuron] = torch.eye(32)[SUBJECTS + r]
            mlp.down_proj.weight[:, neuron] = torch.eye(32)[SUBJECTS + RELATIONS + r]
    return LanguageModel(network), where


def planted_prompts():
    subject, relation = np.meshgrid(np.arange(SUBJECTS), np.arange(RELATIONS), indexing="ij")
    subject, relation = subject.ravel(), relation.ravel()
    tokens = np.column_stack([subject, SUBJECTS + relation])
    return FactPrompts(
        torch.as_tensor(tokens),
        torch.ones(len(tokens), dtype=torch.long),
        torch.as_tensor(SUBJECTS + RELATIONS + relation),
        relation,
        subject,
        np.zeros(len(tokens), dtype=int),
        ("a", "b", "c"),
    )


# -- average precision ---------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [4, 1000])
def test_average_precision_equals_scikit_learn(levels):
    rng = np.random.default_rng(0)
    scores = rng.integers(levels, size=(40, 3, 7)).astype(np.float32)
    labels = rng.random((2, 40)) < 0.3
    found = average_precision(scores, labels, neurons=5)
    assert found.shape == (2, 3, 7)
    for r in range(2):
        for layer in range(3):
            for j in range(7):
                expected = average_precision_score(labels[r], scores[:, layer, j])
                assert found[r, layer, j] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(average_precision(scores, labels[0]), found[0])


def test_average_precision_refuses_what_has_no_contrast():
    with pytest.raises(DataError, match="0 to 0 positives"):
        average_precision(np.zeros((4, 2)), np.zeros(4, dtype=bool))
    with pytest.raises(DataError, match="not finite"):
        average_precision(np.full((4, 2), np.nan), np.array([True, False, True, False]))
    with pytest.raises(DataError, match="3 labels"):
        average_precision(np.zeros((4, 2)), np.array([True, False, True]))


# -- planted neurons -----------------------------------------------------------------------------


def test_planted_neurons_are_found_and_carry_one_relation_each():
    model, where = planted()
    prompts = planted_prompts()
    probe = RelationNeurons()
    assert probe.known(model, prompts).all()
    first, second = prompts.split(0.5, np.random.default_rng(0))
    expertise = probe.locate(model, prompts.pick(first))
    assert [expertise.select(r, 1)[0] for r in range(RELATIONS)] == where
    assert expertise.chance == pytest.approx(1 / RELATIONS)
    evaluation = prompts.pick(second)
    matrix = probe.effect_matrix(
        model, expertise, evaluation, 1, identification=prompts.pick(first)
    )
    np.testing.assert_allclose(matrix, 100 * np.eye(RELATIONS))
    np.testing.assert_allclose(expertise.overlap(1), np.eye(RELATIONS))
    with pytest.raises(LeakageError, match="20 subjects"):
        probe.effect_matrix(model, expertise, prompts, 1, identification=prompts)


def test_switching_off_leaves_the_model_as_it_was():
    model, where = planted()
    prompts = planted_prompts()
    plain = model.logits(prompts.tokens, at=-1)
    with RelationNeurons().deactivate(model, where[:1]):
        off = model.logits(prompts.tokens, at=-1)
    assert not torch.equal(off, plain)
    torch.testing.assert_close(model.logits(prompts.tokens, at=-1), plain, rtol=0, atol=0)
    own = prompts.relation == 0
    torch.testing.assert_close(off[~own], plain[~own], rtol=0.05, atol=0.1)


def test_score_reads_the_gate_behind_silu():
    model, _ = planted()
    prompts = planted_prompts()
    found = record(model, prompts.tokens, prompts.last, "gate", rows=7)
    embedded = model.network.model.embed_tokens.weight[prompts.tokens[:, -1]]
    block = model.network.model.layers[0]
    with torch.no_grad():
        normal = block.post_attention_layernorm(embedded)
        expected = torch.nn.functional.silu(block.mlp.gate_proj(normal))
    np.testing.assert_allclose(found.responses[:, 0], expected.numpy(), atol=1e-5)
    score = RelationNeurons().score(model, prompts, prompts.relation == 1)
    labels = prompts.relation == 1
    assert score[0, 3] == pytest.approx(
        average_precision_score(labels, found.responses[:, 0, 3]), abs=1e-6
    )


# -- facts ---------------------------------------------------------------------------------------


def test_own_relations_are_many_and_asked_in_several_ways():
    own = relations()
    assert len(own) >= 8
    for relation in own:
        assert len(relation.facts) >= 24 and len(relation.templates) >= 3
        assert len({s for s, _ in relation.facts}) == len(relation.facts)
        assert all(t.count("{}") == 1 for t in relation.templates)
    with pytest.raises(ConfigError, match="no relation 'x'"):
        relations(["x"])


def test_files_of_the_published_set_are_read(tmp_path):
    table = {
        "name": "company CEO",
        "prompt_templates": ["Who is the CEO of {}? The CEO is", "{}'s CEO is"],
        "prompt_templates_zs": ["The CEO of {} is"],
        "properties": {
            "relation_type": "factual",
            "domain_name": "company",
            "range_name": "CEO",
            "symmetric": False,
        },
        "samples": [{"subject": "Acme", "object": "Jane Roe"}],
    }
    path = tmp_path / "company_ceo.json"
    path.write_text(json.dumps(table))
    relation = read_relation(path)
    assert relation == Relation(
        "company CEO", ("The CEO of {} is",), (("Acme", "Jane Roe"),), "factual"
    )
    del table["prompt_templates_zs"]
    path.write_text(json.dumps(table))
    assert len(read_relation(path).templates) == 2
    for broken in ("[1]", "{", json.dumps(table | {"prompt_templates": ["no place"]})):
        path.write_text(broken)
        with pytest.raises(DataError, match=r"company_ceo\.json"):
            read_relation(path)


def test_prompts_end_before_the_first_token_of_the_object():
    tokenizer = WordTokenizer()
    model = LanguageModel(small_language_model(64), tokenizer)
    relation = Relation(
        "r", ("The town of {} is", "{} has"), (("France", "Paris"), ("Peru", "Lima"))
    )
    prompts = fact_prompts(model, [relation])
    texts = [model.decode(t[: n + 1]) for t, n in zip(prompts.tokens, prompts.last, strict=True)]
    assert texts == ["The town of France is", "The town of Peru is", "France has", "Peru has"]
    assert [model.decode([a]) for a in prompts.answers] == [" Paris", " Lima", " Paris", " Lima"]
    with pytest.warns(DataWarning, match="one template"):
        fact_prompts(model, [relation], templates=1)


def test_subjects_of_several_relations_stay_on_one_side():
    prompts = TokenFacts(relations=3, subjects=30).prompts
    first, second = prompts.split(0.4, np.random.default_rng(3))
    check_disjoint(prompts.pick(first), prompts.pick(second))
    assert first.mean() == pytest.approx(0.4) and (first ^ second).all()
    with pytest.raises(LeakageError, match="30 subjects"):
        check_disjoint(prompts, prompts)
    with pytest.raises(ConfigError, match="share"):
        prompts.split(1.0, np.random.default_rng(0))


def test_wordings_of_the_test_are_not_those_of_the_search():
    prompts = TokenFacts(relations=3, subjects=30).prompts
    known = (prompts.template != 1) | (prompts.relation != 0)
    known &= (prompts.template == 2) | (prompts.relation != 1)
    finding, testing = prompts.split_templates(known)
    assert (finding ^ testing).all() and testing.mean() == pytest.approx(1 / 3)
    for relation, template in ((0, 0), (1, 2), (2, 0)):  # the best known one, the first of equals
        assert (prompts.template[testing & (prompts.relation == relation)] == template).all()
    one = prompts.pick(prompts.template == 0)  # a single wording cannot be held out
    assert all(mask.all() for mask in one.split_templates(np.ones(len(one), dtype=bool)))


def test_no_word_of_the_generator_tells_the_relation():
    facts = TokenFacts(seed=1)
    prompts = facts.prompts
    assert len(prompts) == 2880 and facts.vocabulary == 120 + 24 + 128
    words = prompts.tokens[:, 1:].numpy()
    assert words.min() >= 120 and words.max() < 144
    texts = {(r, *w) for r, w in zip(prompts.relation.tolist(), words.tolist(), strict=True)}
    assert len(texts) == 24 and len({t[1:] for t in texts}) == 24
    again = TokenFacts(seed=1).prompts
    assert torch.equal(again.tokens, prompts.tokens) and torch.equal(again.answers, prompts.answers)
    with pytest.raises(ConfigError, match="too few"):
        _ = TokenFacts(words=2).prompts


# -- bad input -----------------------------------------------------------------------------------


def test_unequal_numbers_of_positives_are_balanced():
    model, _ = planted()
    prompts = planted_prompts()
    kept = (prompts.relation != 0) | (prompts.subject < 6)
    with pytest.warns(DataWarning, match="6 to 20 prompts: 6 of each"):
        expertise = RelationNeurons().locate(model, prompts.pick(kept))
    assert expertise.chance == pytest.approx(1 / 3)


def test_what_is_not_known_is_left_out_or_refused():
    prompts = planted_prompts()
    known = prompts.relation != 2
    with pytest.raises(NotTestableError, match="40 of 60 facts"):
        enough(prompts, known, (known, known))
    everything = np.ones(60, dtype=bool)
    assert enough(prompts, everything, (everything, everything)) == [0, 1, 2]
    with pytest.raises(NotTestableError, match="60 of 60 facts, and of 2 relations"):
        enough(prompts, everything, (known, everything))
    for top in (0.0, 1.0):
        with pytest.raises(ConfigError, match="share of neurons"):
            RelationNeurons(top=top)
    with pytest.raises(ConfigError, match="cannot be chosen"):
        RelationNeurons().locate(planted()[0], prompts).select(0, 10**6)


# -- a user's model ------------------------------------------------------------------------------


def test_examination_of_the_planted_model(monkeypatch):
    model, _ = planted()
    prompts = planted_prompts()
    where = "engramma.systems.probing.relation_neurons.fact_prompts"
    monkeypatch.setattr(where, lambda *_, **__: prompts)
    found = RelationNeurons(top=0.01).examine(model)
    assert isinstance(found, Examination)
    *detected, specific = found.findings
    for finding in detected:
        assert finding.value.value == 1.0 and finding.chance == pytest.approx(1 / 3)
        assert finding.caused.value == 100.0 and finding.control.value == 0.0
    assert specific.value.value == 100.0
    np.testing.assert_allclose(found.panels[0].values, 100 * np.eye(3))
    assert found.tables[0].rows[0] == ["a", "20", "20", "yes"]
    monkeypatch.undo()
    blank = LanguageModel(small_language_model(3000, dim=32), WordTokenizer())
    with pytest.raises(NotTestableError, match="three are needed"):
        RelationNeurons().examine(blank, quick=True)


# -- the shipped miniature -----------------------------------------------------------------------


def test_miniature_knows_its_facts_and_loses_one_relation():
    facts = Facts(0)
    assert facts.gate()[0]
    right, log_p = answer(learned("narrow", 0), facts.evaluation)
    assert right.all() and np.exp(log_p).mean() > 0.5
    own, other, drawn = facts.at_most
    assert own - drawn > 0.15 and own > 4 * max(other, drawn)
