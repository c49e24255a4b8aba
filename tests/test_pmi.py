"""PMI against the published program, torch's attention and what can be proved of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import sequence_layers
from engramma.contracts import SequenceLayer
from engramma.errors import ConfigError, DataError
from engramma.memory.layer import load_state, save_state
from engramma.memory.model import n_parameters
from engramma.memory.questions import (
    ClassToken,
    StoryReader,
    Transformer,
    Viewer,
    correct,
    learn,
    sinusoids,
)
from engramma.memory.slots import keep_top
from engramma.nn.seed import seeded
from engramma.registry import systems
from engramma.systems.sequence.pmi import PMI, DualMemory
from engramma.systems.sequence.pmi_claims import Merges
from sequence_layers import check_layer, close, close_states, randomise

DOUBLE = torch.float64
SMALL = {"applications": 2, "slots": 4, "segments": 3, "key_size": 8, "ffn": 24}


def sine_filled(module):
    """Set weights by a formula, gains around one."""
    with torch.no_grad():
        for index, (name, parameter) in enumerate(sorted(module.named_parameters())):
            wave = torch.sin(1.7 * torch.arange(parameter.numel(), dtype=DOUBLE) + index)
            gain = name.startswith("norm") and name.endswith("weight")
            parameter.copy_(0.5 * wave.reshape(parameter.shape) + float(gain))
    return module


def test_two_applications_give_the_numbers_of_the_published_program():
    # SW_LTM of zengxyyu/PMI-TR (sw_ltm.py, commit a094ee3) with the same weights, top 2 of 4 tokens
    # and of 3 slots, run twice in float64.
    memory = sine_filled(DualMemory(8, 2, 3, top_k=2).double())
    x = torch.cos(0.9 * torch.arange(64, dtype=DOUBLE)).reshape(2, 4, 8)
    working = torch.eye(3, 8, dtype=DOUBLE).expand(2, 3, 8)
    long_term = (torch.sin(2.3 * torch.arange(96, dtype=DOUBLE)).reshape(2, 2, 3, 8) + 1) / 2
    with torch.no_grad():
        for _ in range(2):
            recalled, working, long_term, _ = memory(x, working, long_term)
    np.testing.assert_allclose(
        recalled[1, 2],
        [0.9779066164438833, -0.24084768079218444, -0.8074191362878256, -0.15700233723645324,
         0.19896765289407103, 0.07618203909071983, 0.4817738988148659, 0.5541083563444446],
        atol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(
        working[0, 1],
        [-0.3660826721390025, 0.042505803992845204, -0.7140071371312227, 0.6209716345110421,
         0.44275614538819447, 0.13703730652616467, 0.2672494351610246, -0.35161988268139266],
        atol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(
        long_term[1, 0, 2, :4],
        [0.7376068764110804, 1.2185959694183044, -0.31659213443487894, -1.0200332795080453],
        atol=1e-12,
    )
    sums = [recalled.sum(), working.sum(), long_term.abs().sum()]
    np.testing.assert_allclose(sums, [8.739795089869759, 3.862593382920663, 95.57596780685816])


def test_sizes_are_those_of_the_published_program():
    # Counted in the program, without the 300 x 256 weights of positions that it never uses.
    memory = PMI.published("medium").blocks[0].memory
    assert n_parameters(memory) == 1_591_810 - 300 * 256
    assert n_parameters(DualMemory(64, 4, 8)) == 123_650 - 300 * 64
    assert [PMI.published(s).applications for s in ("small", "medium", "large")] == [4, 8, 12]
    assert PMI.published("large").blocks[0].ffn[0].out_features == 512


def test_soft_attention_is_that_of_torch_without_scaling():
    memory = DualMemory(16, 4, 5, key_size=6).double()
    with seeded(0):
        asking, asked = torch.randn(2, 7, 16, dtype=DOUBLE), torch.randn(2, 9, 16, dtype=DOUBLE)
    found, weights = memory.attend(asking, asked)

    def split(x):
        return x.unflatten(-1, (4, -1)).transpose(1, 2)

    expected = torch.nn.functional.scaled_dot_product_attention(
        split(memory.query(asking)), split(memory.key(asked)), split(memory.value(asked)), scale=1.0
    )
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2))
    assert weights.shape == (2, 4, 7, 9)


def test_only_the_best_are_kept_and_not_renormalised():
    with seeded(0):
        weights = torch.rand(3, 2, 4, 9).softmax(-1)
    kept = keep_top(weights, 5)
    ranks = weights.argsort(-1, descending=True).argsort(-1)
    torch.testing.assert_close(kept, torch.where(ranks < 5, weights, 0.0))
    for k in (9, 12, None):
        assert keep_top(weights, k) is weights


def test_fewer_tokens_than_the_top_are_all_written():
    with seeded(0):
        x = torch.randn(2, 3, 16)
    few = PMI(16, **SMALL).eval()
    all_ = PMI(16, **SMALL, top_k=None).eval()
    all_.load_state_dict(few.state_dict())
    assert torch.equal(few(x)[0], all_(x)[0])
    assert few(x[:, :1])[0].shape == (2, 1, 16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"merge": "outer", "norm": "pre"},
        {"merge": "frozen", "read": "direct", "affine": False},
        {"read": "long-term", "shared": False, "merge": "outer"},
        {"read": "corrected", "top_k": None},
        {"read": "working", "positions": False},
    ],
)
def test_with_sets_of_one_it_is_a_causal_layer(options):
    check_layer(PMI(16, **SMALL, segment=1, **options), length=7, splits=(0, 1, 4))


@pytest.mark.parametrize("options", [{}, {"merge": "outer", "shared": False, "norm": "pre"}])
def test_a_stream_may_be_split_where_a_set_ends(options):
    layer = randomise(PMI(16, **SMALL, segment=5, **options)).double()
    with seeded(0):
        x = torch.randn(2, 18, 16, dtype=DOUBLE)
    with torch.no_grad():
        y, end = layer(x)
        sequence_layers._splits(layer, x, y, end, (0, 5, 15), DOUBLE)
        whole = copy.deepcopy(layer)
        whole.segment = None  # one call, one set
        sequence_layers._splits(whole, x, y, end, (5, 10, 15), DOUBLE)
        for row in range(2):
            close(layer(x[row : row + 1])[0], y[row : row + 1], DOUBLE)
        one, state = layer.step(x[:, 0])
        again, expected = whole(x[:, :1])
        close(one, again[:, 0], DOUBLE)
        close_states(state, expected, DOUBLE)
    sequence_layers._refusals(layer, x)


def test_within_a_set_it_is_not_causal_and_across_sets_it_is():
    layer = randomise(PMI(16, **SMALL, segment=4)).double()
    with seeded(0):
        x = torch.randn(1, 12, 16, dtype=DOUBLE)
    changed = x.clone()
    changed[:, 6] += 1
    with torch.no_grad():
        before, after = layer(x)[0], layer(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:6], after[:, 4:6])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_state_can_be_saved_and_taken_up(tmp_path):
    layer = PMI(16, **SMALL, shared=False).eval()
    with seeded(0), torch.no_grad():
        x = torch.randn(2, 9, 16)
        _, state = layer(x[:, :4])
        save_state(tmp_path / "state.safetensors", state)
        once, _ = layer(x[:, 4:], state)
        again, end = layer(x[:, 4:], load_state(tmp_path / "state.safetensors"))
    assert torch.equal(once, again)
    assert state["working"].shape == (2, 2, 4, 16) and state["long_term"].shape == (2, 2, 3, 4, 16)
    assert end["position"].tolist() == [9, 9]


def test_start_follows_the_seed_alone():
    a, b, c = PMI(16, **SMALL), PMI(16, **SMALL), PMI(16, **SMALL, seed=1)
    first = a.initial_state(3)
    assert torch.equal(first["long_term"], b.initial_state(3)["long_term"])
    assert not torch.equal(first["long_term"], c.initial_state(3)["long_term"])
    assert torch.equal(first["long_term"][0], first["long_term"][1])
    assert torch.equal(first["working"][0, 0], torch.eye(4, 16))
    assert first["long_term"].min() >= 0 and first["long_term"].max() < 1
    drawn = a.initial_state(2, torch.Generator().manual_seed(0))["long_term"]
    assert not torch.equal(drawn[0], drawn[1]) and drawn.min() >= 0 and drawn.max() < 1
    with seeded(5):
        x = torch.randn(2, 6, 16)
    b.load_state_dict(a.state_dict())
    assert torch.equal(a.eval()(x)[0], b.eval()(x)[0])


def test_programs_merge_vanishes_but_for_the_first_time_until_gains_are_learned():
    task = Merges(0, 10)
    sizes, _ = task.follow(merge="code")
    assert sizes[0] > 1 and max(sizes[1:]) < 1e-12
    assert min(task.follow(merge="outer")[0]) > 0.1
    memory = DualMemory(16, 4, 3, affine=True).double()
    with seeded(0), torch.no_grad():
        memory.norm_merged.weight.add_(0.3 * torch.randn(16, dtype=DOUBLE))
        long_term, written = torch.rand(1, 2, 3, 16).double(), torch.randn(1, 3, 16).double()
        again = memory.merge(memory.merge(long_term, written), written)
        assert memory.merged(again, written).norm() > 0.1


def test_merges_are_the_sums_of_the_published_program_and_of_the_outer_product():
    with seeded(0):
        long_term, written = torch.rand(2, 5, 3, 8), torch.randn(2, 3, 8)
    code, outer = (
        DualMemory(8, 2, 3, merge=m).merged(long_term, written) for m in ("code", "outer")
    )
    torch.testing.assert_close(code, torch.einsum("bmnd,bnf->bmnf", long_term, written))
    expected = torch.einsum("bcnd,bkd,bke->bcne", long_term, written, written) / 3
    torch.testing.assert_close(outer, expected)


def test_long_term_memory_is_bounded_only_when_it_is_normalised():
    task = Merges(1)
    assert task.follow(merge="outer")[1] < 32**0.5
    assert task.follow(merge="outer", normalise=False)[1] > 1e30


def test_gates_start_with_the_published_biases():
    memory = DualMemory(8, 2, 3).double()
    with torch.no_grad():
        for name in ("gate_inputs", "gate_memory"):
            for parameter in getattr(memory, name).parameters():
                parameter.zero_()
    with seeded(0):
        tokens, working, written = (torch.randn(1, n, 8, dtype=DOUBLE) for n in (4, 3, 3))
    stays = 1 / (1 + np.exp(-1.0))
    expected = 0.5 * written.tanh() + stays * working
    torch.testing.assert_close(memory.gate(tokens, working, written), expected)


def test_ablations_read_what_they_say():
    with seeded(0):
        tokens, working, long_term = (
            torch.randn(1, 4, 8),
            torch.randn(1, 3, 8),
            torch.rand(1, 2, 3, 8),
        )
    reads = ("full", "direct", "long-term", "corrected", "working")
    layer = DualMemory(8, 2, 3)
    found = {}
    for read in reads:
        layer.reading = read
        found[read] = layer.read(tokens, working, long_term)[0]
    torch.testing.assert_close(found["full"], 0.7 * found["working"] + 0.3 * found["corrected"])
    torch.testing.assert_close(found["direct"], 0.7 * found["working"] + 0.3 * found["long-term"])
    expected, _ = layer.attend(found["long-term"], found["working"])
    torch.testing.assert_close(found["corrected"], expected)


def test_slot_attention_shows_who_writes_and_what_is_read():
    layer = PMI(16, **SMALL, top_k=2).eval()
    with seeded(0):
        maps = layer.slot_attention(torch.randn(3, 7, 16))
    assert maps["write"].shape == (2, 3, 4, 4, 7)
    assert maps["working"].shape == maps["long_term"].shape == (2, 3, 4, 7, 4)
    assert ((maps["write"] > 0).sum(-1) == 2).all() and (maps["write"].sum(-1) < 1).all()
    torch.testing.assert_close(maps["working"].sum(-1), torch.ones(2, 3, 4, 7))
    assert ((maps["long_term"] > 0).sum(-1) == 2).all()
    with pytest.raises(DataError, match="no token"):
        layer.slot_attention(torch.randn(3, 0, 16))


def test_every_weight_learns():
    layer = PMI(16, **SMALL, merge="outer", shared=False)
    with seeded(0):
        layer(torch.randn(2, 6, 16))[0].square().sum().backward()
    assert [n for n, p in layer.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 3}, "do not divide"),
        ({"merge": "sum"}, "merge"),
        ({"read": "all"}, "read"),
        ({"norm": "none"}, "norm"),
        ({"top_k": 0}, "at least 1"),
        ({"segment": 0}, "at least 1"),
        ({"alpha": 1.5}, "between 0 and 1"),
    ],
)
def test_choices_that_cannot_be_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        PMI(16, **options)


def test_other_sizes_are_refused():
    with pytest.raises(ConfigError, match="huge"):
        PMI.published("huge")
    with pytest.raises(DataError, match="shape"):
        PMI(16, **SMALL)(torch.randn(2, 3, 16), PMI(16, **SMALL).initial_state(3))


def test_it_is_registered_with_its_contract():
    card = systems.get("pmi")
    assert card.contract == ("SequenceLayer",) and isinstance(card.factory(), SequenceLayer)
    assert card.factory(dim=32).dim == 32 and set(card.tasks) == {"babi", "sort-of-clevr"}


def test_sinusoids_tell_positions_apart():
    table = sinusoids(torch.arange(200), 17)
    assert table.shape == (200, 17) and table.abs().max() <= 1
    assert torch.cdist(table, table).add(torch.eye(200) * 9).min() > 0.05
    np.testing.assert_allclose(table[3, 0], np.sin(3.0))


def test_baseline_is_torchs_encoder():
    layer = Transformer(16, blocks=2, applications=2, dropout=0.0, ffn=24).eval()
    with seeded(0):
        x = torch.randn(2, 5, 16)
    stack = x + sinusoids(torch.arange(5), 16).float()
    for block in layer.blocks:
        stack = block(stack)
    torch.testing.assert_close(layer(x)[0], stack)


def test_models_answer_what_they_were_taught():
    def batch(rng):
        story = torch.from_numpy(rng.integers(1, 5, (32, 3, 2)))
        return (story, torch.ones(32, 2, dtype=torch.long)), story[:, 0, 0]

    with seeded(0):
        model = StoryReader(PMI(16, **SMALL, norm="pre"), 6, 2, 6)
    history = learn(model, batch, steps=60, seed=0)
    assert history[-1] < 0.8 * history[0]
    inputs, answers = batch(np.random.default_rng(1))
    assert correct(model, inputs, answers).mean() > 0.3
    with pytest.raises(ConfigError, match="at least 10 steps"):
        learn(model, batch, steps=3, seed=0)


def test_class_token_sees_the_set_whatever_its_order_without_positions():
    model = ClassToken(PMI(16, **SMALL, positions=False), 3).eval()
    with seeded(0):
        x = torch.randn(2, 6, 16)
    torch.testing.assert_close(model(x), model(x.flip(1)), rtol=1e-4, atol=1e-5)
    assert Viewer(PMI(16, **SMALL), 10)(torch.randn(2, 6, 10), torch.rand(2, 18)).shape == (2, 10)
