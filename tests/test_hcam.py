"""Hierarchical chunk attention, against the authors' code, closed forms and its own two forms."""

import itertools

import numpy as np
import pytest
import torch

from engramma.contracts import Agent, SequenceLayer
from engramma.errors import ConfigError, DataError
from engramma.memory.actor_critic import Actors, Heads, Unroll, actor_critic_loss, vtrace
from engramma.memory.chunks import ChunkAttention, ChunkMemory, positions
from engramma.memory.layer import detach, state_size
from engramma.nn.seed import seeded
from engramma.registry import systems
from engramma.systems.sequence.hcam import HCAM
from engramma.systems.sequence.hcam_agent import HCAMAgent, LanguageEncoder
from engramma.worlds.ballet import Ballet
from sequence_layers import check_layer, randomise

# -- against deepmind-research, hierarchical_transformer_memory/htm_attention.py -------------


def grid(n, *shape):
    """Numbers without structure that two programs can both make."""
    return torch.from_numpy(np.sin(n + np.arange(np.prod(shape)) ** 2 * 0.7).reshape(shape))


@pytest.mark.parametrize("how", ["dense", "sparse"])
def test_the_read_gives_the_numbers_of_the_authors_code(how):
    # htm_attention.py was run once, in float64, with these very weights, queries and memory
    # (k = 2 of 4 chunks of 3 tokens, two heads): outputs, the sum of their squares, its gradient.
    layer = ChunkAttention(8, chunk=3, top_k=2, heads=2).double()
    layer.norm = torch.nn.Identity()  # it takes normalised queries
    maps = ("query", "key", "inner_query", "inner_key", "inner_value", "output")
    with torch.no_grad():
        for n, name in enumerate(maps):
            getattr(layer, name).weight.copy_(grid(10 + n, 8, 8).T * 0.5)
            if n > 1:
                getattr(layer, name).bias.copy_(grid(20 + n, 8) * 0.1)
    queries, contents = grid(1, 2, 3, 8).requires_grad_(), grid(2, 2, 4, 3, 8)
    mask = torch.ones(3, 4).tril(1).bool().repeat(2, 1, 1)
    mask[1, 2, 0] = False
    y = layer(queries, contents.mean(2), contents, mask, how)
    expected = [
        [
            [0.086997810291, 0.824044958259, 0.426706570174],
            [0.048768308227, 0.680031797515, 0.312487854563],
            [0.130058847439, 0.824672978938, 0.463175213077],
        ],
        [
            [-0.36307031712, 0.735803110935, 0.423084379019],
            [-0.519048614142, 0.668627532494, 0.030974535219],
            [0.159162623247, 0.798811913313, 0.601407570873],
        ],
    ]
    np.testing.assert_allclose(y[:, :, :3].detach(), expected, atol=1e-11)
    total = y.square().sum()
    assert total.item() == pytest.approx(19.800600603363538, abs=1e-11)
    total.backward()
    gradient = [
        [-0.14541174311, 0.006476638081],
        [-0.054242539501, 0.121391412647],
        [-0.093782328229, -0.218714726548],
    ]
    np.testing.assert_allclose(queries.grad[0, :, :2], gradient, atol=1e-11)


def test_positions_are_those_of_the_authors_code():
    expected = [
        [0.909297426826, 0.198669330795, 0.019998666693, 0.001999998667],
        [0.841470984808, 0.099833416647, 0.009999833334, 0.000999999833],
        [0.0, 0.0, 0.0, 0.0],
    ]
    place = positions(3, 8).numpy()
    np.testing.assert_allclose(place[:, :4], expected, atol=1e-11)
    cosines = [
        [-0.416146836547, 0.980066577841, 0.999800006667, 0.999998000001],
        [0.540302305868, 0.995004165278, 0.999950000417, 0.9999995],
        [1.0, 1.0, 1.0, 1.0],
    ]
    np.testing.assert_allclose(place[:, 4:], cosines, atol=1e-11)


def test_initial_weights_have_variance_two_over_inputs_and_are_cut():
    with seeded(0):
        weight = ChunkMemory(64).attention.query.weight.detach()
    std = (2 / 64) ** 0.5
    assert float(weight.std()) == pytest.approx(std, rel=0.03)
    assert float(weight.abs().max()) <= 2 * std / 0.8796 + 1e-6


# -- the layer -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"capacity": 2},
        {"capacity": 5, "top_k": 3},
        {"top_k": 1},
        {"chunk": 1, "positional": False, "heads": 1},
    ],
)
def test_memory_has_two_equal_forms(options):
    check_layer(ChunkMemory(8, **{"chunk": 4, "top_k": 2, "heads": 2, **options}))


@pytest.mark.parametrize("options", [{}, {"capacity": 3}])
def test_stack_has_two_equal_forms(options):
    check_layer(HCAM(8, chunk=4, top_k=2, heads=2, window=5, **options))


def test_only_whole_chunks_that_ended_before_a_token_are_read():
    layer = randomise(ChunkMemory(8, chunk=4, heads=2)).double()
    x = torch.randn(1, 12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, state = layer(x)
    update = (y - x).abs().sum(-1)[0]
    assert (update[:4] == 0).all(), "nothing stored: x unchanged"
    assert (update[4:] > 0).all()
    torch.testing.assert_close(state["keys"], x.unflatten(1, (3, 4)).mean(2))
    assert torch.equal(state["contents"], x.unflatten(1, (3, 4)))


def test_recalled_contents_pass_no_gradient():
    layer = randomise(ChunkMemory(8, chunk=4, heads=2))
    x = torch.randn(1, 9, 8, requires_grad=True)
    layer(x)[0][:, 8].sum().backward()
    assert (x.grad[:, :8] == 0).all()
    assert x.grad[:, 8].abs().sum() > 0
    assert layer.attention.inner_value.weight.grad.abs().sum() > 0


def test_more_chunks_asked_for_than_stored_are_all_read():
    few, many = (randomise(ChunkMemory(8, chunk=2, top_k=k, heads=2)) for k in (3, 50))
    many.load_state_dict(few.state_dict())
    x = torch.randn(1, 7, 8)
    torch.testing.assert_close(few(x)[0], many(x)[0])


def test_state_keeps_its_size_with_a_capacity_and_grows_without():
    x = torch.randn(1, 64, 8)
    sizes = {}
    for capacity in (None, 2):
        layer = ChunkMemory(8, chunk=4, heads=2, capacity=capacity)
        sizes[capacity] = [state_size(layer(x[:, :n])[1]) for n in (8, 32, 64)]
    assert sizes[2][0] == sizes[2][1] == sizes[2][2] == (2 * 5 + 4) * 8
    assert sizes[None] == [(n // 4 * 5 + 4) * 8 for n in (8, 32, 64)]


def test_the_oldest_chunk_is_overwritten():
    layer = ChunkMemory(8, chunk=2, heads=2, capacity=3)
    x = torch.randn(1, 10, 8)
    _, state = layer(x)
    chunks = x.unflatten(1, (5, 2))
    assert torch.equal(state["contents"][0], chunks[0, [3, 4, 2]])


# -- episodes --------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [None, 3])
def test_rows_that_begin_episodes_at_different_times_are_as_if_alone(capacity):
    layer = randomise(HCAM(8, chunk=4, top_k=2, heads=2, window=5, capacity=capacity)).double()
    x = torch.randn(3, 30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    begins = torch.zeros(3, 30, dtype=torch.bool)
    begins[0, 9], begins[1, 17], begins[1, 18] = True, True, True
    with torch.no_grad():
        y, end = layer(x, begins=begins)
        for row, cuts in enumerate([(0, 9, 30), (0, 17, 18, 30), (0, 30)]):
            for start, stop in itertools.pairwise(cuts):
                alone, _ = layer(x[row : row + 1, start:stop])
                torch.testing.assert_close(y[row : row + 1, start:stop], alone, atol=1e-10, rtol=0)
        state = layer.initial_state(3)
        for token, begin in zip(x.unbind(1), begins.unbind(1), strict=True):
            _, state = layer.step(token, layer.reset(state, begin))
    for name in end:
        torch.testing.assert_close(end[name], state[name], atol=1e-10, rtol=0)


def test_without_reset_what_was_learned_in_the_episode_before_is_kept():
    layer = randomise(HCAM(8, chunk=4, heads=2, window=2)).double()
    x = torch.randn(1, 20, 8, dtype=torch.float64)
    _, state = layer(x[:, :10])
    kept, _ = layer(x[:, 10:], state)
    lost, _ = layer(x[:, 10:], layer.reset(state, torch.tensor([True])))
    assert (kept - lost).abs().max() > 1e-3


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"chunk": 0}, {"top_k": 0}, {"heads": 3}, {"layers": 0}, {"capacity": 0}]
)
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ConfigError):
        HCAM(8, **{"heads": 2, **options})


def test_begins_of_another_shape_are_refused():
    with pytest.raises(DataError, match="begins"):
        HCAM(8, heads=2)(torch.zeros(2, 5, 8), begins=torch.zeros(2, 4, dtype=torch.bool))


# -- V-trace ---------------------------------------------------------------------------------


def test_vtrace_is_the_published_sum():
    rng = np.random.default_rng(0)
    shape = (2, 6)
    log_ratio, rewards, values = (torch.from_numpy(rng.standard_normal(shape)) for _ in range(3))
    discounts = torch.from_numpy(rng.random(shape)) * torch.from_numpy(rng.random(shape) > 0.2)
    last = torch.from_numpy(rng.standard_normal(2))
    targets, advantages = vtrace(
        log_ratio, rewards, discounts, values, last, rho_bar=1.2, c_bar=0.9
    )
    ratio = log_ratio.exp().numpy()
    rho, c = np.minimum(ratio, 1.2), np.minimum(ratio, 0.9)
    following = np.concatenate([values[:, 1:], last[:, None]], 1)
    delta = rho * (rewards + discounts * following - values).numpy()
    for b in range(2):
        for s in range(6):
            # Equation 1 of Espeholt et al. 2018, term by term.
            total = float(values[b, s])
            for t in range(s, 6):
                weight = np.prod([float(discounts[b, i]) * c[b, i] for i in range(s, t)])
                total += weight * delta[b, t]
            assert float(targets[b, s]) == pytest.approx(total, abs=1e-12)
    after = np.concatenate([targets[:, 1:], last[:, None]], 1)
    expected = rho * (rewards + discounts * after - values).numpy()
    np.testing.assert_allclose(advantages, expected, atol=1e-12)


def test_vtrace_on_policy_is_the_n_step_return():
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    zeros = torch.zeros(1, 3)
    targets, _ = vtrace(zeros, rewards, zeros + 0.5, zeros + 7.0, torch.tensor([8.0]))
    torch.testing.assert_close(targets, torch.tensor([[4.0, 6.0, 8.0]]))


# -- the agent -------------------------------------------------------------------------------


def small_agent(vision="symbolic", **world):
    stage = Ballet(**{"n_dancers": 1, "delay": 1, "max_steps": 24, "vision": vision, **world})
    return HCAMAgent(stage, dim=16, layers=1, chunk=4, heads=2), stage


@pytest.mark.parametrize("vision", ["symbolic", "pixels"])
def test_agent_acts_until_the_episode_ends(vision):
    agent, stage = small_agent(vision)
    assert isinstance(agent, Agent)
    observation, _ = stage.reset(seed=0)
    state, over, steps = None, False, 0
    while not over:
        action, state = agent.act(observation, state)
        assert 0 <= action < 8
        observation, _, terminated, truncated, _ = stage.step(action)
        over, steps = terminated or truncated, steps + 1
    assert steps <= 24
    size = state_size(state)
    assert size == state_size(agent.initial_state(1)), "the state of an agent does not grow"


def test_actor_and_learner_agree_over_episodes():
    agent, _ = small_agent()
    worlds = [Ballet(n_dancers=1, delay=1, max_steps=n, vision="symbolic") for n in (9, 13)]
    actors = Actors(agent, worlds, seed=3)
    for _ in range(2):
        unroll = actors.unroll(15)
        with torch.no_grad():
            heads, _ = agent.learn(unroll.observations, unroll.begins, unroll.state)
        log_p = heads.logits[:, :-1].log_softmax(-1).gather(2, unroll.actions[..., None])[..., 0]
        torch.testing.assert_close(log_p, unroll.log_probabilities, atol=1e-5, rtol=1e-5)
    assert unroll.begins.any()
    assert len(actors.returns) == 5  # 30 steps of episodes of 9 and 13


def test_loss_reaches_every_parameter():
    agent, _ = small_agent()
    worlds = [Ballet(n_dancers=1, delay=1, max_steps=24, vision="symbolic") for _ in range(2)]
    unroll = Actors(agent, worlds).unroll(20)
    heads, _ = agent.learn(unroll.observations, unroll.begins, unroll.state)
    actor_critic_loss(heads, unroll).backward()
    grads = {n: p.grad for n, p in agent.named_parameters() if p.numel()}
    missing = [n for n, grad in grads.items() if grad is None or not grad.any()]
    # Softmax ignores what is added to all scores alike: biases of keys within a chunk.
    assert all(n.endswith("inner_key.bias") for n in missing), missing


def test_policy_gradient_prefers_the_rewarded_action():
    logits = torch.zeros(1, 3, 2, requires_grad=True)
    heads = Heads(logits, torch.zeros(1, 3), torch.zeros(()))
    unroll = Unroll(
        {},
        torch.zeros(1, 3, dtype=torch.bool),
        torch.tensor([[0, 1]]),
        torch.full((1, 2), 0.5).log(),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[True, True]]),
        {},
    )
    actor_critic_loss(heads, unroll, entropy=0.0, value=0.0).backward()
    assert logits.grad[0, 0, 0] < 0 < logits.grad[0, 0, 1]
    assert (logits.grad[0, 1] == 0).all()


def test_training_runs_and_is_repeatable():
    returns = []
    for _ in range(2):
        agent, _ = small_agent()
        worlds = [Ballet(n_dancers=1, delay=1, max_steps=24, vision="symbolic") for _ in range(2)]
        returns.append(agent.fit(worlds, updates=3, steps=20, seed=1))
        weight = agent.policy[1].weight.detach().clone()
        returns[-1].append(float(weight.sum()))
    assert returns[0] == returns[1]


def test_words_are_shared_between_names():
    with seeded(0):
        language = LanguageEncoder(8, ("watch", "plus_cw", "plus_ccw"))
    assert language.words == ["ccw", "cw", "plus", "watch"]
    said = language(torch.tensor([1, 2, 1]))
    assert torch.equal(said[0], said[2])
    assert not torch.equal(said[0], said[1])


def test_agent_refuses_another_vision():
    agent, _ = small_agent("symbolic")
    observation, _ = Ballet(vision="pixels").reset()
    with pytest.raises(DataError, match="symbols"):
        agent.act(observation, None)


# -- as a system -----------------------------------------------------------------------------


def test_system_is_registered_with_the_small_configuration():
    card = systems.get("hcam")
    layer = card.factory()
    assert isinstance(layer, SequenceLayer)
    assert (layer.dim, len(layer.blocks), layer.blocks[0].memory.chunk) == (64, 2, 16)
    assert len(card.claims) == 8
    y, state = layer(torch.zeros(1, 3, 64))
    assert y.shape == (1, 3, 64)
    assert detach(state).keys() == state.keys()
