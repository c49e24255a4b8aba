"""Prior influence against Bayes' rule by simulation, the standard library, and hand counts."""

import codecs
import math
import warnings

import numpy as np
import pytest
import torch

from engramma.errors import (
    ConfigError,
    DataError,
    DataWarning,
    LeakageError,
    NotTestableError,
)
from engramma.probing.answers import Items, score, text_items
from engramma.probing.model import LanguageModel
from engramma.probing.priors import (
    CipherWorld,
    PriorItem,
    acronyms,
    article_swapping,
    counting,
    read_items,
    shift_cipher,
    write_items,
    zipf,
)
from engramma.probing.training import learned_position_model
from engramma.systems.probing.prior_influence import (
    PriorInfluence,
    dominance,
    miniature,
    miniature_items,
    miniature_neutral,
    miniature_world,
)

EVERY = np.arange(400)


@pytest.fixture(scope="module")
def cipher():
    return miniature("noisy", 0), miniature_world("noisy", 0)


@pytest.fixture
def probe(cipher):
    model, world = cipher
    return PriorInfluence(model, neutral=miniature_neutral(world), steps=20)


# -- the world ----------------------------------------------------------------------------------


def test_zipf_has_a_slope_of_minus_one():
    p = zipf(400)
    assert p.sum() == pytest.approx(1.0)
    assert np.polyfit(np.log(np.arange(1, 401)), np.log(p), 1)[0] == pytest.approx(-1.0)


def test_bayes_answers_are_what_comes_most_often_in_simulation():
    world = CipherWorld(letters=3, shift=1, noise=0.5, seed=1)
    rng = np.random.default_rng(0)
    drawn = rng.choice(9, 400_000, p=world.prior)
    tokens = world.sequences(drawn, "normal", rng)
    seen = (tokens[:, 1] - 3) * 3 + tokens[:, 2] - 3
    counts = np.zeros((9, 9))
    np.add.at(counts, (seen, drawn), 1)
    pairs = np.stack(np.divmod(np.arange(9), 3), axis=1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert np.abs(world.posterior(pairs) - shares).max() < 0.01
    # Letter by letter, as a model decodes: the likeliest first letter, then the second given it.
    table = shares.reshape(9, 3, 3)
    first = table.sum(axis=2).argmax(axis=1)
    answers = first * 3 + table[np.arange(9), first].argmax(axis=1)
    at = world.symbols(np.arange(9))
    assert (world.bayes_answers(np.arange(9)) == answers[at[:, 0] * 3 + at[:, 1]]).all()
    assert world.bayes_accuracy == pytest.approx((answers[seen] == drawn).mean(), abs=0.005)


def test_ideal_observer_without_noise_is_always_right_and_with_only_noise_knows_the_prior():
    assert CipherWorld(noise=0.0).bayes_accuracy == pytest.approx(1.0)
    world = CipherWorld(noise=1.0)
    assert len(set(world.bayes_answers(EVERY))) == 1
    assert world.bayes_accuracy <= world.prior.max() + 1e-12


def test_noise_replaces_the_right_share_of_symbols():
    world, rng = CipherWorld(), np.random.default_rng(0)
    answers = rng.integers(0, 400, 20_000)
    clean, noisy = world.sequences(answers, "normal"), world.sequences(answers, "normal", rng)
    assert (clean[:, 1:3] != noisy[:, 1:3]).mean() == pytest.approx(0.4 * 19 / 20, abs=0.01)
    assert (clean[:, [0, 3, 4, 5]] == noisy[:, [0, 3, 4, 5]]).all()
    assert (clean[:, 1] - 20 == (clean[:, 4] + 7) % 20).all()


# -- tasks in English -----------------------------------------------------------------------------


def test_right_answers_by_other_means():
    rng = np.random.default_rng(0)
    for item in shift_cipher(20, rng=rng):
        given = item.prompt.split("Cipher: ")[1].split("\n")[0]
        assert codecs.encode(given, "rot13") == item.answer
    for item in counting(20, rng=rng):
        assert len(item.prompt.split("\n")[0].split()) - 1 == int(item.answer)
    for item in acronyms(20, rng=rng):
        words = item.prompt.split("\n")[0].removeprefix("Words: ").title().split()
        assert "".join(c for w in words for c in w if c.isupper()) == item.answer
    swapped = {i.prompt: i.answer for i in article_swapping(60, rng=rng)}
    assert swapped["Text: the cat slept on a pillow\nSwapped:"] == "the cat slept a on pillow"


def test_items_survive_a_file(tmp_path):
    items = [PriorItem("a\nb", "c", "counting", -1.5), *acronyms(3, rng=np.random.default_rng(0))]
    write_items(tmp_path / "items.jsonl", items)
    again = read_items(tmp_path / "items.jsonl")
    assert again[0] == items[0]
    assert [i.prompt for i in again] == [i.prompt for i in items]
    assert math.isnan(again[1].log_prior)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(DataError, match=r"bad.jsonl, line 1"):
        read_items(tmp_path / "bad.jsonl")


# -- scores ---------------------------------------------------------------------------------------


def test_scores_are_those_of_greedy_decoding_and_of_the_plain_model(probe):
    items = Items.of([[1, 2, 3], [4, 5], [6]], [[7, 8], [9], [1, 2]])
    result = score(probe.model, items, rows=2)
    for n, (prompt, answer) in enumerate(zip(items.prompts, items.answers, strict=True)):
        tokens = torch.tensor([[*prompt, *answer]])
        logits = probe.model.network(tokens).logits[0].log_softmax(-1)
        for place, token in enumerate(answer):
            expected = logits[len(prompt) + place - 1, token].item()
            assert result.log_probability[n, place] == pytest.approx(expected, abs=1e-5)
    assert np.isnan(result.log_probability[1, 1])
    assert probe.predict(items) != items.answers
    decoded = items.answered(probe.predict(items))
    assert score(probe.model, decoded).correct.all()


def test_correlation_and_thirds_by_hand():
    class Result:
        correct = np.array([True, True, True, False, False, False])
        mean_log_probability = np.array([-1.0, -2, -3, -4, -5, -6])

    prior = np.array([-1.0, -2, -3, -4, -5, -6])
    found = dominance(Result(), prior, rng=np.random.default_rng(0))
    assert found.likely == 1.0 and found.rare == 0.0
    assert found.correlation.value == pytest.approx(0.75 / np.sqrt(0.25 * 35 / 12))
    assert found.graded.value == pytest.approx(1.0)


def test_the_miniature_shows_the_phenomenon(probe, cipher):
    model, world = cipher
    right = score(model, miniature_items(world, EVERY, "normal")).correct
    ideal = world.bayes_answers(EVERY) == EVERY
    assert (right == ideal).mean() > 0.85
    assert right[world.by_prior[:40]].mean() - right[world.by_prior[200:]].mean() > 0.25
    assert score(model, miniature_items(world, EVERY, "exact")).correct.mean() > 0.95
    learned = probe.prior(miniature_items(world, EVERY, "normal")).sum(axis=1)
    assert np.corrcoef(learned, np.log(world.prior))[0, 1] > 0.8


def test_lens_of_the_last_layer_is_the_model_itself(probe, cipher):
    model, world = cipher
    items = miniature_items(world, EVERY, "normal")
    prior = world.conditional_log_prior[:, 1]
    curve = probe.layer_prior_curve(items)
    mine = np.corrcoef(score(model, items).log_probability[:, 1], probe.prior(items)[:, 1])[0, 1]
    assert curve.correlation[-1] == pytest.approx(mine, abs=1e-4)
    assert curve.correlation.shape == (5,)
    assert np.corrcoef(probe.prior(items)[:, 1], prior)[0, 1] > 0.7


def test_intervention_lets_blocks_add_nothing_and_ends(probe, cipher):
    model, world = cipher
    tokens = torch.from_numpy(world.sequences(EVERY[:8], "normal"))
    before = model.logits(tokens)
    with probe.intervene(model, range(4)):
        changed = model.logits(tokens)
    base = model.network.transformer
    embedded = base.wte(tokens) + base.wpe(torch.arange(6))
    torch.testing.assert_close(changed, model.unembed(embedded))
    torch.testing.assert_close(model.logits(tokens), before)


# -- tuning ---------------------------------------------------------------------------------------


def test_tuning_changes_the_chosen_block_only_and_is_determined_by_the_seed(probe, cipher):
    model, world = cipher
    items = miniature_items(world, world.by_prior[-30:], "normal")
    first, second = probe.tune([1], items), probe.tune([1], items)
    changed = {
        name.split(".h.")[1].split(".")[0] if ".h." in name else name
        for (name, a), b in zip(
            model.network.named_parameters(), first.model.network.parameters(), strict=True
        )
        if not torch.equal(a, b)
    }
    assert changed == {"1"}
    for a, b in zip(
        first.model.network.parameters(), second.model.network.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert first.evaluate(miniature_items(world, world.by_prior[200:370], "normal")) > 0.55


def test_tested_answers_must_not_be_tuned_ones(probe, cipher):
    _, world = cipher
    tuned = probe.tune([0], miniature_items(world, EVERY[:10], "normal"))
    with pytest.raises(LeakageError, match="1 answers were tuned on"):
        tuned.evaluate(miniature_items(world, EVERY[9:20], "exact"))


def test_observe_is_a_step_of_the_chosen_block(cipher):
    _, world = cipher
    probe = PriorInfluence(neutral=[1]).tune([0], miniature_items(world, EVERY[:4], "normal"))
    probe.layers = (2,)
    items = miniature_items(world, world.by_prior[-30:], "normal")
    before = score(probe.model, items).log_probability.sum()
    for _ in range(5):
        probe.observe(items)
    assert score(probe.model, items).log_probability.sum() > before
    probe.end_of_task()
    assert probe._optimizer is None


# -- models that read text --------------------------------------------------------------------


class Characters:
    """One token a character, enough for a model that reads text."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(c) for c in text]}

    def decode(self, tokens):
        return "".join(map(chr, tokens))


@pytest.fixture(scope="module")
def reader():
    network = learned_position_model(128, dim=16, layers=2, heads=2, positions=512)
    return LanguageModel(network, Characters(), name="reader")


def test_answers_of_text_have_several_tokens_and_an_end(reader):
    items = text_items(reader, ["Count:", "Initials:"], ["12", "CAT"])
    assert items.answers == [[ord(c) for c in " 12\n"], [ord(c) for c in " CAT\n"]]
    assert items.prompts[0] == [ord(c) for c in "Count:"]


def test_a_model_that_can_do_no_task_is_not_judged(probe, reader):
    with pytest.raises(NotTestableError, match="0% of acronyms, 0% of counting"):
        probe.examine(reader, quick=True)


def test_an_examination_has_a_finding_a_task_and_one_of_tuning(probe, reader, monkeypatch):
    monkeypatch.setattr("engramma.systems.probing.prior_influence_text.SOLVED", (0.0, 1.0))
    before = {k: v.clone() for k, v in reader.network.state_dict().items()}
    found = probe.examine(reader, quick=True)
    assert [f.name.split(":")[0] for f in found.findings] == [
        "acronyms",
        "counting",
        "shift-cipher",
        "acronyms",
    ]
    assert all(torch.equal(before[k], v) for k, v in reader.network.state_dict().items())


# -- bad input ------------------------------------------------------------------------------------


def test_constant_accuracy_has_no_correlation_and_says_so():
    class Result:
        correct = np.ones(9, bool)
        mean_log_probability = np.arange(9.0)

    with pytest.warns(DataWarning, match="all 9 items are right"):
        found = dominance(Result(), np.arange(9.0), rng=np.random.default_rng(0))
    assert math.isnan(found.correlation.value)


def test_first_token_only_warns_of_longer_answers(probe):
    with pytest.warns(DataWarning, match="50% of the answers have several tokens"):
        score(probe.model, Items.of([[1], [2]], [[3], [4, 5]]), first_token_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(probe.model, Items.of([[1], [2]], [[3], [4]]), first_token_only=True)


def test_errors_say_what_to_do(probe):
    with pytest.raises(ConfigError, match="blocks are 0 to 3; 4 is norm and head"):
        probe.tune([5], Items.of([[1]], [[2]]))
    with pytest.raises(DataError, match="a prompt and an answer"):
        Items.of([[1]], [[]])
    with pytest.raises(ConfigError, match="neutral prompt"):
        PriorInfluence(LanguageModel(learned_position_model(5, dim=8)))
    with pytest.raises(ConfigError, match="no cipher has 1 letters"):
        CipherWorld(letters=1)
