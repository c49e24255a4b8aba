"""Synthetic gradients against closed forms, full backpropagation and another implementation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from engramma.contracts import Learner, SequenceLayer
from engramma.errors import ConfigError, DataError, LeakageError
from engramma.memory.synthetic_gradients import (
    SyntheticGradient,
    WindowTrainer,
    affine_gradient,
    cosines,
    true_gradients,
    windows,
)
from engramma.nn.seed import seeded
from engramma.systems.sequence.fast_slow_nmn import (
    FastSlowLearner,
    FastSlowNMN,
    accuracy,
    squared_error,
    train_learner,
)
from engramma.systems.sequence.fast_slow_nmn_claims import (
    Linear,
    WholeWindow,
    shuffled,
    summed_square,
)
from engramma.worlds.few_shot import DelayedCopy, ImageEpisodes, SinusoidEpisodes, digits
from sequence_layers import check_layer

COPY = DelayedCopy(symbols=3, delay=6)


def copier(variant="sg", **options):
    settings = {"window": 2, "dim": 12, "slots": 4, "shows": False, "learning_rate": 3e-3}
    return FastSlowLearner(5, 3, variant=variant, **{**settings, **options})


def weights(learner):
    return nn.utils.parameters_to_vector(learner.model.parameters()).detach()


# -- the memory network --------------------------------------------------------------------


@pytest.mark.parametrize("slots, width", [(5, None), (1, 3)])
def test_layer_contract(slots, width):
    layer = FastSlowNMN(8, slots=slots, width=width)
    assert isinstance(layer, SequenceLayer)
    check_layer(layer, length=23)


def test_a_step_is_what_the_equations_say():
    with seeded(0):
        layer = FastSlowNMN(6, slots=4, width=3).double()
        x = torch.randn(2, 6, dtype=torch.float64)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731

    def lstm(v, h, c, cell, suffix=""):
        p = {k: getattr(cell, k + suffix).detach().numpy() for k in names}
        gates = v @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p["bias_hh"]
        i, f, g, o = np.split(gates, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    first, _, last = layer.compose
    state, memory = None, np.repeat(layer.memory.detach().numpy()[None], 2, axis=0)
    read = write = (np.zeros((2, 3)), np.zeros((2, 3)))
    for token in (x, -x, 2 * x):
        with torch.no_grad():
            y, state = layer.step(token, state)
        read = lstm(token.numpy(), *read, layer.reader, "_l0")
        scores = np.einsum("bd,bnd->bn", read[0], memory)
        z = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        m = np.einsum("bn,bnd->bd", z, memory)
        with torch.no_grad():
            c = last(torch.tanh(first(torch.tensor(np.hstack([read[0], m]))))).numpy()
        write = lstm(c, *write, layer.writer)
        memory = memory * (1 - z[:, :, None]) + np.einsum("bn,bd->bnd", z, write[0])
        expected = c @ layer.output.weight.detach().numpy().T + layer.output.bias.detach().numpy()
        np.testing.assert_allclose(y.numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(state["memory"].numpy(), memory, atol=1e-12)


# -- synthetic gradients -------------------------------------------------------------------


def true_gradients_of(task, batch):
    memory, x, y = task.parts
    with torch.enable_grad():
        many = (a.expand(batch, -1, -1) for a in (x, y))
        return true_gradients(memory, summed_square, *many, task.window)


def test_closed_form_of_a_linear_memory_agrees_with_finite_differences():
    rng = np.random.default_rng(0)
    a, c = rng.standard_normal((5, 5)) * 0.5, rng.standard_normal((2, 5))
    u, y, s = (rng.standard_normal(shape) for shape in ((6, 5), (6, 2), 5))

    def loss(state):
        total = 0.0
        for k in range(6):
            state = a @ state + u[k]
            total += ((c @ state - y[k]) ** 2).sum()
        return total

    eps = 1e-6
    numeric = [(loss(s + eps * e) - loss(s - eps * e)) / (2 * eps) for e in np.eye(5)]
    slope, offset = (t.numpy() for t in affine_gradient(*map(torch.tensor, (a, c, u, y))))
    np.testing.assert_allclose(slope @ s + offset, numeric, rtol=1e-6)


def test_an_affine_predictor_finds_the_closed_form():
    task = Linear(7)
    np.testing.assert_allclose(task.closed_form(), 1.0, atol=1e-5)
    memory, x, y = task.parts
    predictors = task.trained()
    assert task.learned(predictors) > 0.98 > task.learned(task.predictors()) == 0
    # Not only the direction: at the last cut it is H s + b, a token's loss weighing 1 / 12.
    with seeded(1), torch.no_grad():
        slope, offset = affine_gradient(
            memory.transition, memory.readout, x[9:] @ memory.drive.T, y[9:]
        )
        (_, _, (state, true)) = true_gradients_of(task, 32)
        expected = (state["s"] @ slope.T + offset) / 12
        torch.testing.assert_close(true["s"], expected, atol=1e-5, rtol=1e-4)
        error = predictors[-1](state)["s"] - expected
    assert error.norm() < 0.1 * expected.norm()


def test_the_window_of_the_whole_episode_is_full_backpropagation():
    task = WholeWindow(3, steps=2)
    assert task.distance("sg", 12) == task.distance("sg", 100) == 0
    assert task.distance("sg", 6) > 1e-4


def test_numbers_of_another_implementation():
    """mtanghu/DNI-RNN, its LSTM synthesizer with ReLU, run once on these weights and inputs.

    There the loss of a window and its synthetic gradient are summed over batch and tokens, and the
    predictor's error is a mean over hidden and cell state; its weights stay within a sequence.
    """

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(2, 4, batch_first=True)

        def initial_state(self, batch):
            return {k: torch.zeros(batch, 4, dtype=torch.float64) for k in ("hidden", "cell")}

        def forward(self, x, state=None):
            y, (h, c) = self.cell(x, (state["hidden"][None], state["cell"][None]))
            return y, {"hidden": h[0], "cell": c[0]}

    def fill(module):
        k = 0
        for p in module.parameters():
            p.data = torch.sin(torch.arange(k, k + p.numel()).double() * 1.7).view_as(p) * 0.4
            k += p.numel()

    model = Reference().double()
    predictor = SyntheticGradient(
        model.initial_state(1), hidden=8, learning_rate=0.0, rescale=False
    ).double()
    fill(model)
    fill(predictor)
    x = torch.cos(torch.arange(54).double() * 0.9).view(9, 3, 2).transpose(0, 1)
    y = torch.sin(torch.arange(108).double() * 0.6).view(9, 3, 4).transpose(0, 1)
    losses, gradients, errors, phi = [], [], [], []
    learn = predictor.learn

    def note(*args):
        errors.append(learn(*args))
        phi.append([p.grad.sum().item() for p in predictor.parameters()])

    predictor.learn = note

    def loss(prediction, target):
        value = (prediction - target).square().sum(-1)
        losses.append(value.sum().item())
        return value

    trainer = WindowTrainer(
        model,
        loss,
        torch.optim.SGD(model.parameters(), lr=0.5 * 3),  # gradients here are means over 3
        window=3,
        predictor=predictor,
        clip=None,
    )
    step = trainer._step

    def watched(value):
        step(value)
        gradients.append([3 * p.grad.sum().item() for p in model.parameters()])

    trainer._step = watched
    trainer.sequence(x, y, weight=torch.ones(3, 9, dtype=torch.float64))
    reference = [18.312710603964945, 19.77298825965382, 20.85788576537363]
    np.testing.assert_allclose(losses, reference, rtol=1e-10)
    reference = [
        [-1.4798748940749915, -0.17624318314464457, -0.09035369297018248, -0.09035369297018248],
        [1.192752043244998, 0.3149393818602982, 0.8908689307442863, 0.8908689307442867],
    ]
    np.testing.assert_allclose(gradients[:2], reference, rtol=1e-10)
    np.testing.assert_allclose(errors[0], 0.26329093440232426, rtol=1e-10)
    reference = [0.16947598646020923, 0.4033270488394858, -0.09788612841376734, -0.0324661951006926]
    np.testing.assert_allclose(phi[0], reference, rtol=1e-10)


def test_untrained_predictors_change_nothing():
    """Last layers start at zero; a predictor that never learns leaves truncation as it is."""
    plain, still = copier("tbptt"), copier("sg", slow=0.0)
    for learner in (plain, still):
        train_learner(learner, COPY, steps=3, batch=8)
    assert torch.equal(weights(plain), weights(still))
    trained = train_learner(copier("sg"), COPY, steps=3, batch=8)
    assert not torch.equal(weights(plain), weights(trained))
    assert plain.trainer.updates == trained.trainer.updates == 3 * 4


def test_frozen_weights_and_bootstrapping_reach_the_true_gradient():
    """Cosine of a predictor that learns beside a network that does not."""
    learner = copier("sg", dim=8, slots=2, learning_rate=1e-2, slow=1.0)
    learner.trainer.optimizer = torch.optim.SGD(learner.model.parameters(), lr=0.0)
    test = COPY.draw(np.random.default_rng(5), 64)
    assert learner.gradient_cosine(test) == 0
    train_learner(learner, COPY, steps=150, batch=32)
    assert learner.gradient_cosine(test) > 0.9
    learner.trainer.alter = shuffled(0)
    control = copier("sg", dim=8, slots=2, learning_rate=1e-2, slow=1.0)
    control.trainer.optimizer = torch.optim.SGD(control.model.parameters(), lr=0.0)
    control.trainer.alter = shuffled(0)
    train_learner(control, COPY, steps=150, batch=32)
    assert control.gradient_cosine(test) < learner.gradient_cosine(test) - 0.1


def test_true_gradients_are_those_of_the_future_only():
    class Echo(nn.Module):
        def initial_state(self, batch):
            return {"s": torch.ones(batch, 1)}

        def forward(self, x, state=None):
            s = state["s"]
            out = []
            for token in x.unbind(1):
                s = s + token
                out.append(s)  # the output is the state itself
            return torch.stack(out, 1), {"s": s}

    x, y = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]), torch.zeros(1, 4, 1)
    ((state, gradient),) = true_gradients(Echo(), squared_error, x, y, 2, weight=torch.ones(1, 4))
    assert state["s"].item() == 4
    assert gradient["s"].item() == 2 * (7 + 11)


def test_scales_follow_the_targets_and_slots_share_weights():
    state = {"slots": torch.randn(6, 4, 3), "h": torch.randn(6, 2), "steps": torch.ones(6).long()}
    with seeded(0):
        predictor = SyntheticGradient(state, condition=2, hidden=8, learning_rate=1e-2)
    label = torch.eye(2)[torch.arange(6) % 2]
    assert all(not v.any() for v in predictor(state, label).values())
    target = {"slots": 1e-4 * state["slots"], "h": 1e3 * state["h"]}
    first = predictor.learn(state, target, label)
    assert first == pytest.approx(1.0, rel=1e-4)  # nothing predicted, targets of unit size
    for _ in range(400):
        last = predictor.learn(state, target, label)
    assert last < 0.05
    for name, scale in predictor.scales().items():
        torch.testing.assert_close(scale, target[name].square().mean().sqrt())
    order = [2, 0, 3, 1]
    turned = predictor({**state, "slots": state["slots"][:, order]}, label)
    torch.testing.assert_close(turned["slots"], predictor(state, label)["slots"][:, order])
    twin = copy.deepcopy(predictor)
    twin.learn(state, {k: -t for k, t in target.items()}, label)
    assert not torch.equal(twin.joint[0].weight, predictor.joint[0].weight)
    with pytest.raises(ConfigError, match="condition"):
        predictor(state)
    with pytest.raises(ConfigError, match="width"):
        SyntheticGradient({"s": torch.ones(3)})


def test_cosines_leave_out_what_has_no_gradient():
    true = {"a": torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])}
    predicted = {"a": torch.tensor([[6.0, 8.0], [1.0, 0.0], [0.0, 0.0]])}
    torch.testing.assert_close(cosines(predicted, true), torch.tensor([1.0, 0.0]))


def test_windows_hold_every_token():
    assert list(windows(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(windows(3, 5)) == list(windows(3, None)) == [slice(0, 3)]
    with pytest.raises(ConfigError, match="token"):
        copier(window=0)


# -- the learner ---------------------------------------------------------------------------


def test_it_learns_across_cuts():
    test = COPY.draw(np.random.default_rng(9), 128)
    learner = train_learner(copier("bptt", dim=24, learning_rate=1e-2), COPY, steps=150, batch=64)
    assert accuracy(learner, test) > 0.6
    learner = train_learner(copier("tbptt", dim=24, learning_rate=1e-2), COPY, steps=60, batch=64)
    assert accuracy(learner, test) < 0.55


def test_adapting_and_asking_is_the_stream():
    source = SinusoidEpisodes(5)
    learner = FastSlowLearner(1, 1, loss="mse", window=3, dim=8, slots=3)
    assert isinstance(learner, Learner)
    episodes = source.draw(np.random.default_rng(0), 4)
    learner.observe(episodes)
    stream = learner.predict(episodes)
    assert stream.shape == (4, 6, 1)
    examples = copy.copy(episodes)
    for name in ("inputs", "shown", "targets", "scored", "instance"):
        object.__setattr__(examples, name, getattr(episodes, name)[:, :5])
    before = weights(learner)
    asked = np.repeat(episodes.inputs[:, 5:], 3, axis=1)
    said = learner.adapt(examples).predict(asked)
    assert torch.equal(before, weights(learner))
    for query in range(3):  # each query stands on its own
        np.testing.assert_allclose(said[:, query], stream[:, 5], atol=1e-6)
    with pytest.raises(DataError, match="queries"):
        learner.predict(asked[:2])
    learner.end_of_task()
    with pytest.raises(ConfigError, match="adapt"):
        learner.predict(asked)


def test_one_predictor_serves_two():
    first = copier("sg")
    second = copier("sg_shared", predictor=first.predictor, seed=1)
    assert second.predictor is first.predictor
    train_learner(second, COPY, steps=2, batch=8)
    assert float(first.predictor.seen) == 2 * 3
    with pytest.raises(ConfigError, match="predictor"):
        copier("sg_shared")
    with pytest.raises(ConfigError, match="predictor"):
        copier("bptt", predictor=first.predictor)
    with pytest.raises(ConfigError, match="variants"):
        copier("dni")


def test_a_label_beside_its_own_input_is_refused():
    episodes = ImageEpisodes(digits(), ways=3, length=9).draw(np.random.default_rng(0), 5)
    learner = FastSlowLearner(64, 3, dim=8, slots=3)
    learner.observe(episodes)
    leaking = copy.copy(episodes)
    object.__setattr__(leaking, "shown", episodes.codes)
    for use in (learner.observe, learner.predict, learner.adapt):
        with pytest.raises(LeakageError, match="step before"):
            use(leaking)


def test_other_episodes_and_lost_numbers_are_refused():
    learner = FastSlowLearner(1, 1, loss="mse", dim=8, slots=3)
    with pytest.raises(DataError, match="learner"):
        learner.observe(COPY.draw(np.random.default_rng(0), 2))
    episodes = SinusoidEpisodes(5).draw(np.random.default_rng(0), 2)
    episodes.inputs[0, 0] = np.nan
    with pytest.raises(DataError, match="loss became nan"):
        learner.observe(episodes)
