r"""Synthetic gradients: train a recurrence in short windows without losing credit across the cuts.

A sequence is cut into windows, and the graph is cut with it. What the cut takes away from window w
is the gradient of all later losses with respect to the state :math:`s_w` it ends in. A predictor
:math:`G_\phi` supplies it (Jaderberg et al. 2017, section 2 and figure 2b of the supplement):

=========  =========================================================================================
fast       the recurrence learns from :math:`L_w + \langle \hat g_w, s_w \rangle`, with
           :math:`\hat g_w = G_\phi(s_w, \text{label})` held fixed, right after each window
slow       the same backward pass gives the gradient at the window's *start*,
           :math:`g_{w-1} = \partial (L_w + \langle \hat g_w, s_w \rangle) / \partial s_{w-1}`:
           true within the window, bootstrapped by :math:`\hat g_w` beyond it. :math:`\phi` descends
           :math:`\|G_\phi(s_{w-1}) - g_{w-1}\|^2` with an Adam of its own
=========  =========================================================================================

With frozen weights the fixed point is exact: the last window has no future, so its target is the
true gradient; then that of the window before, and so on. For a linear recurrence with a quadratic
loss the true gradient is an affine map of the state (`affine_gradient`), which an affine
:math:`G_\phi` can therefore learn without error.

All gradients are those of one sequence's own loss, so that they do not depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError
from engramma.memory.layer import State

#: ``loss(prediction, target) -> loss`` of every token: (batch x token).
TokenLoss = Callable[[Tensor, Tensor], Tensor]


class Recurrent(Protocol):
    """What is trained: a `MemoryLayer`, or a module around one."""

    def initial_state(self, batch: int) -> State:
        """State before the first token."""
        ...

    def __call__(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map a piece of a sequence and a state to predictions and the next state."""
        ...


# -- the predictor -------------------------------------------------------------------------


class SyntheticGradient(nn.Module):
    r"""Predicts the gradient of future losses from a state, and learns to.

    State tensors of one vector a sequence, (batch x width), are joined and predicted by one
    network. Of a tensor with slots, (batch x slot x width), each slot is predicted from itself and
    those vectors, with the same weights for all slots. Last layers start at zero: an untrained
    predictor is truncated backpropagation.

    Parameters
    ----------
    state : mapping of str to Tensor
        A state to take names and shapes from; of any batch size.
    condition : int
        Width of what is given beside the state, such as the label (Jaderberg's cDNI).
    hidden : int
        Units of the two-layer networks; 0 makes them affine.
    learning_rate : float
        Of the predictor's own Adam.
    rescale : bool
        Whether targets are divided by a running root mean square, tensor by tensor, and
        predictions multiplied by it: gradients shrink by orders of magnitude as a model learns,
        and with the distance to the end of a sequence.
    momentum : float
        Of the running mean; it starts as a plain mean of all targets so far.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        *,
        condition: int = 0,
        hidden: int = 64,
        learning_rate: float = 3e-4,
        rescale: bool = True,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        shapes = {k: tuple(t.shape[1:]) for k, t in state.items() if t.is_floating_point()}
        if not shapes or not all(shapes.values()):
            raise ConfigError(
                f"a state needs tensors of batch x width or batch x slot x width, not {shapes}",
                where="state",
            )
        self.vectors = {k: shape[-1] for k, shape in shapes.items() if len(shape) == 1}
        self.slots = {k: shape[-1] for k, shape in shapes.items() if len(shape) > 1}
        self.condition, self.rescale, self.momentum = condition, rescale, momentum
        joined = sum(self.vectors.values())
        self.joint = _network(joined + condition, joined, hidden) if joined else None
        self.each = nn.ModuleDict(
            {
                _key(k): _network(width + joined + condition, width, hidden)
                for k, width in self.slots.items()
            }
        )
        self.squares: Tensor
        self.seen: Tensor
        self.register_buffer("squares", torch.ones(len(shapes)))
        self.register_buffer("seen", torch.zeros(()))
        self.names = tuple(shapes)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)

    def forward(self, state: Mapping[str, Tensor], condition: Tensor | None = None) -> State:
        """Predicted gradients, shaped as the state (batch x condition may come with it)."""
        raw = self._raw(state, condition)
        scales = self.scales()
        return {name: raw[name] * scales[name] for name in self.names}

    def learn(
        self,
        state: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        condition: Tensor | None = None,
    ) -> float:
        """Take one slow step towards ``target``; return the mean squared error, rescaled.

        Parameters
        ----------
        state, target : mapping of str to Tensor
            States and gradients of the loss with respect to them, sequence by sequence.
        condition : Tensor, optional, shape (batch, condition)
        """
        if self.rescale:
            self._follow(target)
        scales = self.scales()
        with torch.enable_grad():
            raw = self._raw({k: t.detach() for k, t in state.items()}, condition)
            errors = [(raw[k] - target[k].detach() / scales[k]).square().mean() for k in self.names]
            error = torch.stack(errors).mean()
            self.optimizer.zero_grad(set_to_none=True)
            error.backward()
        self.optimizer.step()
        return float(error.detach())

    def scales(self) -> dict[str, Tensor]:
        """Return the running root mean square of the targets, by tensor."""
        tiny = torch.finfo(self.squares.dtype).tiny ** 0.5
        return dict(zip(self.names, self.squares.sqrt().clamp_min(tiny), strict=True))

    def _follow(self, target: Mapping[str, Tensor]) -> None:
        now = torch.stack([target[k].detach().square().mean() for k in self.names])
        self.seen += 1
        weight = max(1.0 / float(self.seen), 1.0 - self.momentum)
        self.squares.lerp_(now.to(self.squares), weight)

    def _raw(self, state: Mapping[str, Tensor], condition: Tensor | None) -> State:
        batch = len(state[self.names[0]])
        given = [state[k] for k in self.vectors]
        if self.condition:
            if condition is None or condition.shape != (batch, self.condition):
                raise ConfigError(
                    f"the predictor needs a condition of shape {(batch, self.condition)}, not "
                    f"{None if condition is None else tuple(condition.shape)}",
                    mend="pass the label it was built for, or build it with condition=0",
                )
            given.append(condition.to(state[self.names[0]]))
        context = torch.cat(given, -1) if given else None
        found: State = {}
        if self.joint is not None:
            parts = self.joint(context).split(list(self.vectors.values()), -1)
            found.update(zip(self.vectors, parts, strict=True))
        for name in self.slots:
            x = state[name]
            if context is not None:
                middle = (1,) * (x.ndim - 2)
                wide = context.reshape(batch, *middle, -1).expand(*x.shape[:-1], -1)
                x = torch.cat([x, wide], -1)
            found[name] = self.each[_key(name)](x)
        return found


def _network(n_in: int, n_out: int, hidden: int) -> nn.Module:
    last = nn.Linear(hidden or n_in, n_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU(), last) if hidden else last


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's name holds no dot, and joined states do


# -- training in windows -------------------------------------------------------------------


def windows(length: int, window: int | None) -> Iterator[slice]:
    """Cut ``length`` tokens into windows; the last may be shorter, and None makes it one."""
    size = length if window is None else window
    for start in range(0, length, max(size, 1)):
        yield slice(start, min(start + size, length))


class WindowTrainer:
    """Trains a recurrence window by window, with or without a predictor at the cuts.

    Parameters
    ----------
    model : module
        With ``initial_state(batch)`` and ``model(x, state) -> (prediction, state)``.
    loss : callable
        ``loss(prediction, target)``: loss of every token, (batch x token).
    optimizer : Optimizer
        Of the model; stepped after each window.
    window : int, optional
        Tokens a window; None backpropagates through the whole sequence.
    predictor : SyntheticGradient or sequence of them, optional
        What stands in for the future at a cut: one for all cuts, or one for each, in order.
        Without one the gradient is truncated.
    clip : float, optional
        Largest norm of the model's gradient.
    alter : callable, optional
        Applied to the predicted gradients before they are used for the model and for targets
        (controls of claims shuffle them here).
    """

    def __init__(
        self,
        model: Any,
        loss: TokenLoss,
        optimizer: torch.optim.Optimizer,
        *,
        window: int | None = None,
        predictor: SyntheticGradient | Sequence[SyntheticGradient] | None = None,
        clip: float | None = 1.0,
        alter: Callable[[State], State] | None = None,
    ) -> None:
        if window is not None and window < 1:
            raise ConfigError(f"a window holds at least one token, not {window}", where="window")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.window, self.predictor, self.clip, self.alter = window, predictor, clip, alter
        self.updates = 0

    def sequence(
        self,
        x: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> float:
        """Learn from one batch of sequences; return its mean loss.

        Parameters
        ----------
        x : Tensor, shape (batch, token, ...)
        target : Tensor, shape (batch, token, ...)
        weight : Tensor, optional, shape (batch, token)
            Weight of each token's loss; by default all weigh the same, and sum to 1.
        condition : Tensor, optional, shape (batch, token, width)
            Given to the predictor at a cut: that of the last token before it.

        Notes
        -----
        The state passes the cuts; the weights change between them.
        """
        batch, length = x.shape[:2]
        if weight is None:
            weight = torch.full((batch, length), 1.0 / length, dtype=x.dtype)
        cuts = list(windows(length, self.window))
        state, total = self.model.initial_state(batch), 0.0
        for index, piece in enumerate(cuts):
            start = state if index == 0 else _leaf(state)
            y, end = self.model(x[:, piece], start)
            value = (self.loss(y, target[:, piece]) * weight[:, piece]).sum() / batch
            given = None if condition is None else condition[:, piece.stop - 1]
            future = {} if index + 1 == len(cuts) else self._future(index, end, given)
            bridge = sum((future[k] * end[k]).sum() for k in future) / batch
            self._step(value + bridge)
            if index:
                before = None if condition is None else condition[:, piece.start - 1]
                self._teach(index - 1, start, before)
            state = {k: t.detach() for k, t in end.items()}
            total += float(value.detach())
        return total

    def _future(self, cut: int, state: State, condition: Tensor | None) -> State:
        predictor = self.at(cut)
        if predictor is None:
            return {}
        with torch.no_grad():
            predicted = predictor(state, condition)
            return predicted if self.alter is None else self.alter(predicted)

    def _step(self, value: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if not value.requires_grad:
            return
        value.backward()
        if self.clip is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip)
        self.optimizer.step()
        self.updates += 1

    def _teach(self, cut: int, start: State, condition: Tensor | None) -> None:
        predictor = self.at(cut)
        if predictor is not None:
            predictor.learn(start, _gradients(start), condition)

    def at(self, cut: int) -> SyntheticGradient | None:
        """Predictor of a cut."""
        if self.predictor is None or isinstance(self.predictor, SyntheticGradient):
            return self.predictor
        return self.predictor[cut]


def _leaf(state: State) -> State:
    return {
        k: t.detach().requires_grad_() if t.is_floating_point() else t for k, t in state.items()
    }


def _gradients(state: State) -> State:
    """Gradients at leaves, as those of each sequence's own loss."""
    return {
        k: torch.zeros_like(t) if t.grad is None else t.grad * len(t)
        for k, t in state.items()
        if t.is_floating_point()
    }


# -- against the truth ---------------------------------------------------------------------


def true_gradients(
    model: Any,
    loss: TokenLoss,
    x: Tensor,
    target: Tensor,
    window: int,
    *,
    weight: Tensor | None = None,
    state: State | None = None,
) -> list[tuple[State, State]]:
    """State at each cut, and the gradient of all later losses there, by full backpropagation."""
    batch, length = x.shape[:2]
    if weight is None:
        weight = torch.full((batch, length), 1.0 / length, dtype=x.dtype)
    state = _leaf(model.initial_state(batch) if state is None else state)
    total: Tensor = x.new_zeros(())
    starts: list[State] = []
    for piece in windows(length, window):
        y, state = model(x[:, piece], state)
        total = total + (loss(y, target[:, piece]) * weight[:, piece]).sum()
        # A copy, as the outputs before the cut may be made of these very tensors.
        state = {k: t.clone() for k, t in state.items()}
        starts.append(state)
    flat = [t for s in starts[:-1] for t in s.values() if t.is_floating_point()]
    found = iter(torch.autograd.grad(total, flat, allow_unused=True, materialize_grads=True))
    return [
        (
            {k: t.detach() for k, t in s.items()},
            {k: next(found) for k, t in s.items() if t.is_floating_point()},
        )
        for s in starts[:-1]
    ]


def cosines(predicted: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> Tensor:
    """Cosine between predicted and true gradient of each sequence, all state tensors joined.

    A prediction of nothing has cosine 0; sequences without a gradient are left out.
    """
    a, b = (torch.cat([g[k].flatten(1) for k in true], 1) for g in (predicted, true))
    norms = a.norm(dim=1) * b.norm(dim=1)
    cosine = (a * b).sum(1) / norms.where(norms > 0, torch.ones_like(norms))
    return cosine[b.norm(dim=1) > 0]


def affine_gradient(
    transition: Tensor, readout: Tensor, drive: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Gradient of future losses in a linear memory, in closed form: :math:`g(s) = H s + b`.

    For :math:`s_k = A s_{k-1} + u_k` and :math:`L = \sum_{k=1}^{K} \|C s_k - y_k\|^2`, unrolling
    gives :math:`s_k = A^k s + d_k` with :math:`d_k = A d_{k-1} + u_k`, and therefore
    :math:`H = 2 \sum_k (A^k)^\top C^\top C A^k`,
    :math:`b = 2 \sum_k (A^k)^\top C^\top (C d_k - y_k)`.

    Parameters
    ----------
    transition : Tensor, shape (width, width)
        A.
    readout : Tensor, shape (out, width)
        C.
    drive : Tensor, shape (K, width)
        u, what the inputs add to the state.
    target : Tensor, shape (K, out)
        y.

    Returns
    -------
    H : Tensor, shape (width, width)
    b : Tensor, shape (width,)
    """
    power, offset = torch.eye(len(transition)).to(transition), torch.zeros_like(drive[0])
    slope, intercept = torch.zeros_like(transition), torch.zeros_like(offset)
    for u, y in zip(drive, target, strict=True):
        power, offset = transition @ power, transition @ offset + u
        back = 2 * power.T @ readout.T
        slope = slope + back @ readout @ power
        intercept = intercept + back @ (readout @ offset - y)
    return slope, intercept
