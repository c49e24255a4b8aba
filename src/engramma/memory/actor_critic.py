r"""Off-policy actor-critic learning with V-trace, for agents with a memory.

Espeholt et al. 2018 (IMPALA, arXiv:1802.01561, section 4). Actors play with a policy :math:`\mu`;
the learner corrects for its own :math:`\pi` having moved on. With
:math:`\rho_t = \min(\bar\rho, \pi(a_t)/\mu(a_t))` and
:math:`c_t = \min(\bar c, \pi(a_t)/\mu(a_t))`,

.. math::
    v_t - V(x_t) = \rho_t \delta_t + \gamma_t c_t (v_{t+1} - V(x_{t+1})),
    \quad \delta_t = r_t + \gamma_t V(x_{t+1}) - V(x_t),

and the policy follows :math:`\rho_t (r_t + \gamma_t v_{t+1} - V(x_t)) \nabla \log \pi(a_t)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.memory.layer import State, detach
from engramma.nn.seed import seeded

#: Observations of a batch: names to tensors, batch x step x ...
Observations = dict[str, Tensor]


@dataclass(frozen=True)
class Heads:
    """What an agent makes of a piece of its life.

    Parameters
    ----------
    logits : Tensor, shape (batch, step, action)
    values : Tensor, shape (batch, step)
    auxiliary : Tensor, shape ()
        Self-supervised loss: how well observations are given back.
    """

    logits: Tensor
    values: Tensor
    auxiliary: Tensor


class Player(Protocol):
    """An agent that can be trained here: a module with a memory state."""

    def initial_state(self, batch: int) -> State:
        """State before the first step."""
        ...

    def encode(self, observations: Sequence[dict[str, Any]]) -> Observations:
        """Observations of several environments as tensors, batch x ..."""
        ...

    def play(self, observations: Observations, begins: Tensor, state: State) -> tuple[Heads, State]:
        """Actor's form: one step, batch x ..."""
        ...

    def learn(
        self, observations: Observations, begins: Tensor, state: State
    ) -> tuple[Heads, State]:
        """Learner's form: many steps, batch x step x ..."""
        ...


@torch.no_grad()
def vtrace(
    log_ratio: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    values: Tensor,
    last_value: Tensor,
    *,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> tuple[Tensor, Tensor]:
    r"""Targets of the values, and advantages for the policy.

    Parameters
    ----------
    log_ratio : Tensor, shape (batch, step)
        :math:`\log \pi(a_t) - \log \mu(a_t)`.
    rewards, discounts : Tensor, shape (batch, step)
        Discounts are 0 where the episode ended.
    values : Tensor, shape (batch, step)
    last_value : Tensor, shape (batch,)
        Of the observation after the last step.
    rho_bar, c_bar : float

    Returns
    -------
    targets, advantages : Tensor, shape (batch, step)
        No gradient flows through them.
    """
    ratio = log_ratio.exp()
    rho, c = ratio.clamp(max=rho_bar), ratio.clamp(max=c_bar)
    following = torch.cat([values[:, 1:], last_value[:, None]], 1)
    delta = rho * (rewards + discounts * following - values)
    correction, corrections = torch.zeros_like(last_value), []
    for t in range(values.shape[1] - 1, -1, -1):
        correction = delta[:, t] + discounts[:, t] * c[:, t] * correction
        corrections.append(correction)
    targets = values + torch.stack(corrections[::-1], 1)
    next_targets = torch.cat([targets[:, 1:], last_value[:, None]], 1)
    return targets, rho * (rewards + discounts * next_targets - values)


@dataclass
class Unroll:
    """Some steps of several environments, as an actor saw them.

    Parameters
    ----------
    observations : Observations
        One more than there are steps: the last one gives the last value.
    begins : Tensor of bool, shape (batch, step + 1)
        Whether an episode begins with this observation.
    actions, log_probabilities, rewards, ends : Tensor, shape (batch, step)
    state : State
        Before the first step.
    """

    observations: Observations
    begins: Tensor
    actions: Tensor
    log_probabilities: Tensor
    rewards: Tensor
    ends: Tensor
    state: State


class Actors:
    """Several environments, played side by side by one agent, for ever.

    Parameters
    ----------
    agent : Player
    environments : sequence
        With the interface of gymnasium.
    seed : int
        Of the actions; environment i is reset with ``seed + i``.
    """

    def __init__(self, agent: Player, environments: Sequence[Any], seed: int = 0) -> None:
        self.agent, self.environments = agent, environments
        self._generator = torch.Generator().manual_seed(seed)
        seen = [env.reset(seed=seed + i)[0] for i, env in enumerate(environments)]
        self._seen, self._begins = seen, torch.ones(len(seen), dtype=torch.bool)
        self._state = agent.initial_state(len(seen))
        #: Return of every episode that has ended so far.
        self.returns: list[float] = []
        self._running = np.zeros(len(seen))

    @torch.no_grad()
    def unroll(self, steps: int) -> Unroll:
        """Play on for so many steps."""
        start, rows = self._state, []
        for _ in range(steps):
            observations, begins = self.agent.encode(self._seen), self._begins
            heads, self._state = self.agent.play(observations, begins, self._state)
            log_p = heads.logits.log_softmax(-1)
            action = torch.multinomial(log_p.exp(), 1, generator=self._generator)
            reward, ended = self._step(action.flatten().tolist())
            rows.append((observations, begins, action[:, 0], log_p.gather(1, action)[:, 0], reward))
            self._begins = ended
        # The last observation is seen again by the next unroll: its state is not kept.
        last = (self.agent.encode(self._seen), self._begins)
        seen = [row[0] for row in rows] + [last[0]]
        begins = torch.stack([row[1] for row in rows] + [last[1]], 1)
        return Unroll(
            observations={name: torch.stack([o[name] for o in seen], 1) for name in last[0]},
            begins=begins,
            actions=torch.stack([row[2] for row in rows], 1),
            log_probabilities=torch.stack([row[3] for row in rows], 1),
            rewards=torch.stack([row[4] for row in rows], 1),
            ends=begins[:, 1:],
            state=detach(start),
        )

    def _step(self, actions: Sequence[int]) -> tuple[Tensor, Tensor]:
        rewards, ended = np.zeros(len(actions), dtype=np.float32), []
        for i, (env, action) in enumerate(zip(self.environments, actions, strict=True)):
            self._seen[i], rewards[i], terminated, truncated, _ = env.step(action)
            self._running[i] += rewards[i]
            ended.append(terminated or truncated)
            if ended[-1]:
                self.returns.append(float(self._running[i]))
                self._running[i] = 0.0
                self._seen[i] = env.reset()[0]
        return torch.from_numpy(rewards), torch.tensor(ended)


def actor_critic_loss(
    heads: Heads,
    unroll: Unroll,
    *,
    discount: float = 0.99,
    value: float = 0.5,
    entropy: float = 0.01,
    auxiliary: float = 1.0,
) -> Tensor:
    """V-trace policy gradient, squared error of the values, entropy, and self-supervision.

    Parameters
    ----------
    heads : Heads
        Of all observations of the unroll, the last included.
    unroll : Unroll
    discount : float
    value, entropy, auxiliary : float
        Weights of the other terms beside the policy's.
    """
    log_p = heads.logits[:, :-1].log_softmax(-1)
    chosen = log_p.gather(2, unroll.actions[..., None])[..., 0]
    targets, advantages = vtrace(
        chosen.detach() - unroll.log_probabilities,
        unroll.rewards,
        discount * (~unroll.ends).float(),
        heads.values[:, :-1].detach(),
        heads.values[:, -1].detach(),
    )
    policy = -(advantages * chosen).mean()
    error = F.mse_loss(heads.values[:, :-1], targets)
    uncertainty = -(log_p.exp() * log_p).sum(-1).mean()
    return policy + value * error - entropy * uncertainty + auxiliary * heads.auxiliary


def train_agent(
    agent: Any,
    environments: Sequence[Any],
    *,
    updates: int,
    steps: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    report: Callable[[int, list[float]], None] | None = None,
    **weights: float,
) -> list[float]:
    """Play and learn in turn.

    Parameters
    ----------
    agent : Player and nn.Module
        Left in evaluation mode.
    environments : sequence
    updates : int
        Unrolls played, each followed by one step of Adam.
    steps : int
        Length of an unroll.
    learning_rate : float
    seed : int
    report : callable, optional
        ``report(update, returns of all episodes so far)``.
    **weights
        As in `actor_critic_loss`.

    Returns
    -------
    list of float
        Return of every episode, in the order in which they ended.
    """
    optimizer = torch.optim.Adam(agent.parameters(), lr=learning_rate)
    actors = Actors(agent, environments, seed)
    agent.train()
    with seeded(seed):
        for update in range(updates):
            unroll = actors.unroll(steps)
            heads, _ = agent.learn(unroll.observations, unroll.begins, unroll.state)
            loss = actor_critic_loss(heads, unroll, **weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
            optimizer.step()
            if report is not None:
                report(update, actors.returns)
    agent.eval()
    return actors.returns
