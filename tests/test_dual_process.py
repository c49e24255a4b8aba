"""Dual process learning: the task by enumeration, and forgetting against Adam by hand."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.memory.language_model import small_language_model
from engramma.probing.forgetting import Forgetter
from engramma.probing.training import learned_position_model
from engramma.probing.word_classes import PatternWorld, conllu_world, zipf_world
from engramma.systems.probing.dual_process import DualProcess

TREEBANK = """# sent_id = 1
1\tThe\tthe\tDET\tDT\t_\t2\tdet\t_\t_
2\tdog\tdog\tNOUN\tNN\t_\t3\tnsubj\t_\t_
3\tsleeps\tsleep\tVERB\tVBZ\t_\t0\troot\t_\t_

# sent_id = 2
1-2\tRed\t_\t_\t_\t_\t_\t_\t_\t_
1\tred\tred\tADJ\tJJ\t_\t2\tamod\t_\t_
2\tdog\tdog\tNOUN\tNN\t_\t0\troot\t_\t_

# sent_id = 3
1\tRed\tred\tNOUN\tNN\t_\t0\troot\t_\t_
2\tlight\tlight\tNOUN\tNN\t_\t1\tdep\t_\t_
3\tred\tred\tADJ\tJJ\t_\t1\tdep\t_\t_
"""


class Words(nn.Module):
    """Embeddings and nothing else."""

    def __init__(self, n=6, dim=3):
        super().__init__()
        self.table = nn.Embedding(n, dim)
        self.other = nn.Linear(dim, 1)

    def get_input_embeddings(self):
        return self.table


# -- the task -----------------------------------------------------------------------------------


def test_answers_follow_from_pattern_and_place():
    world = zipf_world(20, seed=1)
    tokens, targets = world.sample(2000, rng=np.random.default_rng(0))
    for row, target in zip(tokens.tolist(), targets.tolist(), strict=True):
        noun = row[1] if row[0] == 20 else row[2]
        adjective = row[2] if row[0] == 20 else row[1]
        assert row[3] == 23 and row[4] in (noun, adjective)
        assert world.counts[noun, 0] > 0 and world.counts[adjective, 1] > 0
        if noun != adjective:
            assert target == int(row[4] == adjective)
    assert targets.float().mean() == pytest.approx(0.5, abs=0.05)


def test_words_follow_zipf_and_blanks_ask_for_the_own_class():
    world = zipf_world(200, exponent=1.0, ambiguous=0.0)
    assert not world.ambiguous.any() and (world.own == np.arange(200) % 2).all()
    tokens, targets = world.sample(40_000, rng=np.random.default_rng(0), blanked=0.3)
    bare = tokens[:, 0].numpy() == 202
    assert bare.mean() == pytest.approx(0.3, abs=0.01)
    assert (targets.numpy()[bare] == tokens[bare, 4].numpy() % 2).all()
    counts = np.bincount(tokens[:, 4].numpy(), minlength=200)
    assert counts[0] / counts[8] == pytest.approx(9, rel=0.15)  # both nouns, ranks 1 and 9
    assert zipf_world(1000, ambiguous=0.1).ambiguous.mean() == pytest.approx(0.1, abs=0.03)


def test_a_treebank_of_three_sentences(tmp_path):
    path = tmp_path / "three.conllu"
    path.write_text(TREEBANK)
    world = conllu_world(path)
    # red: once a noun, twice an adjective; dog: twice a noun; light: once.
    assert world.counts.tolist() == [[1, 2], [2, 0], [1, 0]]
    assert world.ambiguous.tolist() == [True, False, False] and world.own.tolist() == [1, 0, 0]
    path.write_text("1\tdog\tNOUN\n")
    with pytest.raises(DataError, match="3 columns and not 10"):
        conllu_world(path)
    path.write_text("# nothing\n")
    with pytest.raises(DataError, match="no nouns and adjectives"):
        conllu_world(path)


# -- forgetting ---------------------------------------------------------------------------------


def stepped(model, optimiser, seed=0):
    """One step on random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimiser.step()


def test_forgetting_clears_the_moments_so_that_the_next_step_is_a_first_one():
    model = Words()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    for seed in range(5):
        stepped(model, optimiser, seed)
    kept = {k: v.clone() for k, v in optimiser.state[model.other.weight].items()}
    assert Forgetter(5).step(model, optimiser, 5)
    assert not optimiser.state[model.table.weight]
    assert all(torch.equal(v, optimiser.state[model.other.weight][k]) for k, v in kept.items())
    before = model.table.weight.detach().clone()
    stepped(model, optimiser, 9)
    # Adam's first step has the length of the rate, whatever the gradient; no spike.
    torch.testing.assert_close(
        (model.table.weight - before).abs(), torch.full((6, 3), 0.1), rtol=1e-4, atol=0
    )


def test_a_reset_draws_from_the_right_distribution_at_the_right_steps():
    model = Words(2000, 8)
    optimiser = torch.optim.AdamW(model.parameters())
    forgetter = Forgetter(10, until=30)
    times = [t for t in range(60) if forgetter.step(model, optimiser, t)]
    assert times == [10, 20, 30]
    weight = model.table.weight.detach()
    assert weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_each_word_may_be_forgotten_with_a_probability():
    model = Words(4000, 2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    stepped(model, optimiser)
    before = model.table.weight.detach().clone()
    Forgetter(1, probability=0.25).step(model, optimiser, 1)
    forgotten = (model.table.weight != before).any(dim=1)
    assert forgotten.float().mean().item() == pytest.approx(0.25, abs=0.03)
    moments = optimiser.state[model.table.weight]["exp_avg_sq"]
    assert not moments[forgotten].any() and moments[~forgotten].all()


def test_forgetter_works_on_models_of_transformers_and_refuses_tied_embeddings():
    untied = learned_position_model(30, dim=8, layers=1, heads=2)
    head = untied.lm_head.weight.detach().clone()
    before = untied.get_input_embeddings().weight.detach().clone()
    assert Forgetter(1).step(untied, torch.optim.AdamW(untied.parameters()), 1)
    assert torch.equal(untied.lm_head.weight, head)
    assert (untied.get_input_embeddings().weight != before).all()
    tied = small_language_model(30, 8, 1, 2)
    with pytest.raises(ConfigError, match="tie_word_embeddings=False"):
        Forgetter(1).step(tied, torch.optim.AdamW(tied.parameters()), 1)


# -- learning -----------------------------------------------------------------------------------


def test_plain_training_learns_its_words_and_not_the_structure():
    learner = DualProcess(zipf_world(40, ambiguous=0.0), "vanilla", rate=1e-2)
    (found,) = learner.train(60, [60])
    assert found.strategies.in_weights > 0.9
    assert found.strategies.structural < 0.68
    assert found.strategies.head_switch < 0.2


def test_the_phase_matters_right_after_a_reset_nothing_is_known():
    learner = DualProcess(zipf_world(40, ambiguous=0.0), "active", every=50, rate=1e-2)
    before, after = learner.train(60, [50])
    assert (before.fresh, after.fresh) == (False, True)
    assert before.strategies.in_weights > 0.9
    assert after.strategies.in_weights == pytest.approx(0.5, abs=0.25)


def test_training_is_determined_by_the_seed_and_tests_leave_no_trace():
    first, second = (DualProcess(zipf_world(50), every=4, until=8, seed=3) for _ in range(2))
    first.train(12, range(12))
    second.train(12)
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_observe_and_predict():
    learner = DualProcess(zipf_world(50), every=2, until=4, seed=1)
    batch = learner.world.sample(16, rng=np.random.default_rng(0))
    words = learner.network.words.weight
    for _ in range(3):
        learner.observe(batch)
    assert learner.steps == 3 and learner.predict(batch[0]).shape == (16,)
    learner.end_of_task()
    before = words.detach().clone()
    learner.observe(batch)  # step 4 would forget
    assert (words - before).abs().max() < 0.02


# -- bad input ----------------------------------------------------------------------------------


def test_forgetting_that_never_stops_warns():
    learner = DualProcess(zipf_world(50), every=2, until=10)
    with pytest.warns(DataWarning, match="this is active forgetting"):
        learner.train(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.train(8)


def test_errors_say_what_to_do():
    with pytest.raises(ConfigError, match="vanilla, active or temporary"):
        DualProcess(regime="always")
    with pytest.raises(ConfigError, match="every is 1 or more"):
        Forgetter(0)
    with pytest.raises(ConfigError, match="does not train these"):
        Forgetter(1).step(Words(), torch.optim.AdamW(Words().parameters()), 1)
    with pytest.raises(ConfigError, match="four words or more"):
        zipf_world(2)
    with pytest.raises(DataError, match="neither noun nor adjective"):
        PatternWorld(np.array([[1.0, 0], [0, 1], [0, 0]]))
