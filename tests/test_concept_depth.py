"""Planted depths are recovered; probes and features against scikit-learn and plain hooks."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import train_test_split

from engramma.errors import ConfigError, DataError
from engramma.memory.language_model import small_language_model
from engramma.probing.concept_files import INSTRUCTIONS, READERS, read_texts
from engramma.probing.concepts import OWN, CoinStories, LabelledTexts, own_texts
from engramma.probing.model import LanguageModel
from engramma.probing.quantise import quantised, round_weight
from engramma.probing.training import learned_position_model
from engramma.systems.probing.concept_depth import ConceptDepth, Depth, random_copy
from engramma.systems.probing.concept_depth_claims import Coins, Planted
from word_tokenizer import WordTokenizer

# -- depths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "jump", "converging"),
    [
        ([0.5, 0.5, 1.0, 1.0, 1.0], 2 / 5, 2 / 5),
        ([0.5, 0.6, 0.7, 0.75, 0.76], 1 / 5, 3 / 5),
        ([0.5, 0.51, 0.5, 0.51, 0.5], None, None),
        ([1.0, 1.0, 1.0, 1.0, 1.0], None, None),
        ([0.5, 0.52, 0.545, 0.57, 0.6], None, 4 / 5),
    ],
)
def test_depths_of_curves(curve, jump, converging):
    assert ConceptDepth().depth(np.array(curve)) == Depth(jump, converging)


def test_first_layer_can_be_set_against_chance():
    assert ConceptDepth(before=0.5).depth(np.ones(4)) == Depth(0.0, 0.0)
    assert ConceptDepth("residual", before=0.5).depth(np.array([0.5, 0.5, 1.0])) == Depth(1.0, 1.0)
    assert ConceptDepth(jump=1.5).depth(np.array([0.5, 0.7, 0.9])).jump is None
    with pytest.raises(DataError, match="two layers"):
        ConceptDepth().depth(np.array([0.5]))


def test_planted_depths_are_recovered():
    assert Planted(0).error() == 0.0


# -- probes and features -------------------------------------------------------------------------


def test_probes_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 100, 5)).astype(np.float32)
    labels = (features[1, :, 0] + 0.5 * rng.standard_normal(100) > 0).astype(int)
    curve = ConceptDepth().fit_curve(features, labels)
    for layer, x in enumerate(features):
        train, test, y, truth = train_test_split(x, labels, test_size=0.4, random_state=42)
        probe = LogisticRegression().fit(train, y)
        assert curve.accuracy[layer] == pytest.approx(probe.score(test, truth))
        assert curve.f1[layer] == pytest.approx(f1_score(truth, probe.predict(test)))
        score = probe.decision_function(test)
        assert curve.auc[layer] == pytest.approx(roc_auc_score(truth, score))
    assert curve.converged.all()
    assert abs(curve.directions[1][0]) > 0.8


def test_a_probe_that_does_not_converge_is_reported():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((1, 300, 60)) * np.logspace(-3, 4, 60)
    labels = (features[0] @ np.logspace(3, -4, 60) > 0).astype(int)
    assert not ConceptDepth().fit_curve(features, labels).converged[0]
    assert ConceptDepth(standardise=True).fit_curve(features, labels).converged[0]


def test_features_are_the_outputs_of_the_norm_before_the_network():
    model = LanguageModel(small_language_model(50, dim=32, layers=3), WordTokenizer())
    texts = ["One two three four.", "Five.", "One three."]
    seen = []
    handles = [
        layer.post_attention_layernorm.register_forward_hook(lambda _m, _i, o: seen.append(o))
        for layer in model.network.model.layers
    ]
    for text in texts:
        model.network(torch.tensor([model.token_ids(text)]))
    for handle in handles:
        handle.remove()
    expected = torch.stack([o[0, -1] for o in seen]).view(3, 3, -1).transpose(0, 1)
    found = ConceptDepth().layer_features(model, texts)
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
    assert ConceptDepth("residual").layer_features(model, texts).shape == (4, 3, 32)


def test_a_direction_is_taken_out_and_put_back():
    model = LanguageModel(small_language_model(50, dim=32, layers=2))
    tokens = torch.arange(10).view(2, 5)
    plain = model.logits(tokens)
    vector = np.eye(32)[3]
    reader = ConceptDepth("residual")
    with reader.intervene(model, {1: vector}):
        features = reader.token_features(model, tokens, torch.tensor([4, 4]))
        assert not torch.equal(model.logits(tokens), plain)
    assert np.abs(features[1][:, 3]).max() < 1e-6
    torch.testing.assert_close(model.logits(tokens), plain, rtol=0, atol=0)


def test_random_copy_has_the_same_shape_and_other_weights():
    model = LanguageModel(small_language_model(50, dim=32, layers=2, seed=1))
    blank = random_copy(model, seed=3)
    weights = [m.network.state_dict() for m in (model, blank)]
    assert weights[0].keys() == weights[1].keys()
    assert not torch.equal(weights[0]["lm_head.weight"], weights[1]["lm_head.weight"])


# -- few bits ------------------------------------------------------------------------------------


def test_rounding_has_steps_of_each_channel():
    weight = torch.tensor([[7.0, -3.4, 0.2], [70.0, 34.0, -14.0]])
    found = round_weight(weight, 4)
    torch.testing.assert_close(found, torch.tensor([[7.0, -3.0, 0.0], [70.0, 30.0, -10.0]]))
    assert (round_weight(weight, 8) - weight).abs().max() <= 70 / 127 / 2
    torch.testing.assert_close(round_weight(weight, 32), weight)
    assert (round_weight(weight, 16) / weight - 1).abs().max() < 2**-8
    with pytest.raises(ConfigError, match="9 bits"):
        round_weight(weight, 9)


@pytest.mark.parametrize("build", [small_language_model, learned_position_model])
def test_weights_come_back_after_quantisation(build):
    model = LanguageModel(build(30, dim=32, layers=2))
    tokens = torch.arange(12).view(2, 6)
    plain = model.logits(tokens)
    with quantised(model, 4):
        few = model.logits(tokens)
        column = model.anatomy.neuron_weight(0, "up")[0]
        assert len(column.unique()) <= 15
    assert not torch.equal(few, plain)
    torch.testing.assert_close(model.logits(tokens), plain, rtol=0, atol=0)


# -- published files -----------------------------------------------------------------------------

FILES = {
    "cities": "statement,label,city,country,correct_country\n"
    '"The city of Lima, it is said, is in Peru.",1,Lima,Peru,Peru\nThe city of Oslo is in Peru.,0,'
    "Oslo,Peru,Norway\n",
    "common_claim": "index,examples,label,agreement\n0,Ice is cold.,True,1.0\n"
    "1,Ice is hot.,False,1\n2,Ice is nice.,Neither,0.5\n",
    "counterfact": "statement,label,relation,subject,target,true_target\n"
    "Bach wrote music.,1,P1,Bach,music,music\nBach wrote code.,0,P1,Bach,code,music\n",
    "stsa": "0 a dull , long film\n1 a joy\n",
    "coin_flip": json.dumps(
        {"examples": [{"question": "Flip?", "answer": "yes"}, {"question": "No?", "answer": "no"}]}
    ),
    "strategyqa": json.dumps(
        {
            "examples": [
                {
                    "input": "Is ice cold?",
                    "target": "Yes. It freezes.",
                    "target_scores": {"Yes": 1, "No": 0},
                },
                {"input": "Hot?", "target": "No. Never.", "target_scores": {"Yes": 0, "No": 1}},
            ]
        }
    ),
    "hateeval": 'text\tHS\tTR\tAG\n"Go away, said he\t1\t0\t1\nWelcome\t0\t0\t0\n',
    "sarcasm": '{"headline": "area man wins", "is_sarcastic": 1}\n'
    '{"headline": "rain falls", "is_sarcastic": 0}\n',
}
EXPECTED = {
    "cities": "The city of Lima, it is said, is in Peru.",
    "common_claim": "Ice is cold.",
    "counterfact": "Bach wrote music.",
    "stsa": "a joy",
    "coin_flip": "Flip?",
    "strategyqa": "Is ice cold? It freezes.",
    "hateeval": '"Go away, said he',
    "sarcasm": "area man wins",
}


@pytest.mark.parametrize("name", FILES)
def test_published_files_are_read(name, tmp_path):
    path = tmp_path / "set"
    path.write_text(FILES[name])
    texts = read_texts(name, path)
    assert sorted(texts.labels) == [0, 1]
    assert texts.texts[int(texts.labels.argmax())] == EXPECTED[name]
    before, after = INSTRUCTIONS[name]
    prompt = texts.prompts()[int(texts.labels.argmax())]
    assert prompt == f"{before} {EXPECTED[name]} {after}".strip()
    path.write_text("[]")
    with pytest.raises(DataError, match="set"):
        read_texts(name, path)


def test_reviews_are_read_from_a_folder(tmp_path):
    for name in ("pos", "neg"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0_1.txt").write_text(f"a {name} review")
    assert read_texts("imdb", tmp_path).texts == ("a neg review", "a pos review")
    assert set(READERS) == set(INSTRUCTIONS)
    with pytest.raises(ConfigError, match="no set 'x'"):
        read_texts("x", tmp_path)


# -- own sentences and stories -------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_own_sentences_are_balanced_and_distinct(name):
    texts = own_texts(name)
    assert (texts.labels == 0).sum() == (texts.labels == 1).sum() >= 60
    assert texts.distinct()[1] == 0
    assert own_texts(name).texts == texts.texts
    noisy = texts.noisy(np.random.default_rng(0))
    assert {t[:3] for t in noisy.texts} == {"aaa", "bbb"} and noisy.texts[0][3:] == texts.texts[0]


def test_coin_stories_are_answered_by_rule():
    world = CoinStories(seed=2)
    for question in range(3):
        tokens, labels = world.draw(np.random.default_rng(1), 500, question)
        words, flips = tokens[:, :6:2].numpy(), tokens[:, 1:6:2].numpy() - world.words
        classes = world.classes[words]
        rule = [classes[:, 0], np.median(classes, axis=1), flips.sum(axis=1) % 2][question]
        np.testing.assert_array_equal(labels, rule)
        assert 0.4 < labels.mean() < 0.6
    tokens, weights = world.batch(np.random.default_rng(1), 8)
    assert weights.sum() == 8 and tokens.max() < world.vocabulary


# -- bad input -----------------------------------------------------------------------------------


def test_too_few_texts_or_one_class_are_refused():
    for labels in (np.ones(60, dtype=int), np.repeat([0, 1], [19, 41])):
        with pytest.raises(DataError, match="at least 20 texts"):
            ConceptDepth().fit_curve(np.zeros((1, 60, 2)), labels)


def test_texts_that_occur_twice_are_dropped_and_counted():
    model = LanguageModel(small_language_model(200, dim=32, layers=2), WordTokenizer())
    texts = tuple(f"word{i} is here" for i in range(44))
    twice = LabelledTexts("x", texts + texts[:6], np.arange(50) % 2)
    assert ConceptDepth().locate(model, twice).dropped == 6


def test_options_that_cannot_be():
    model = LanguageModel(small_language_model(20, dim=32), WordTokenizer())
    texts = own_texts("one or many")
    with pytest.raises(ConfigError, match="noise or bits"):
        ConceptDepth().compare(model, texts)
    with pytest.raises(ConfigError, match="pattern"):
        ConceptDepth("pattern")


# -- a user's model ------------------------------------------------------------------------------


def test_examination_of_an_untrained_model_finds_no_gain():
    model = LanguageModel(small_language_model(400, dim=32, layers=2), WordTokenizer(longest=20))
    found = ConceptDepth().examine(model, quick=True)
    assert [f.name for f in found.findings] == ["good or bad", "one or many"]
    for finding in found.findings:
        assert finding.caused.low <= 0.1 and finding.chance == 0.5
        assert abs(finding.control.value) < 0.15
    assert {len(x) for x, _ in found.panels[0].values.values()} == {2}
    assert len(found.tables[0].rows[0]) == len(found.tables[0].columns)


# -- the shipped miniature -----------------------------------------------------------------------


def test_miniature_computes_parity():
    coins = Coins(0, n=1000)
    assert coins.gate()[0]
    assert coins.gain() > 0.3
