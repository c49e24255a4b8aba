r"""Fast & Slow Learning: Synthetic Gradients in Neural Memory Controllers (Fernando et al. 2020).

**What it does.** A network reads and writes a memory of N slots. Its controllers learn at once,
from windows of a few steps, with predicted ("synthetic") gradients in place of what the cut takes
away; the predictor learns slowly, from true gradients, and may serve several networks.

**Reconstruction.** Only the paper's abstract was at hand, so this is no replication of its
numbers. The memory follows the neural semantic encoder (Munkhdalai & Yu 2017), as earlier memory
networks of the authors are said to; synthetic gradients follow Jaderberg et al. 2017. Left open by
both, and chosen here: the learned :math:`M_0`, which starts at N(0, 1); forget gates that start
open; tanh in the compose network; a predictor that sees each slot beside all controller states; and
targets rescaled by their running norm.

**Memory network** (M: N slots of width d; :math:`M_0` learned).

=======  ====================================================================  ==================
step     equation                                                              shape
=======  ====================================================================  ==================
read     :math:`o_t = \mathrm{LSTM}_r(x_t)`                                    d
address  :math:`z_t = \mathrm{softmax}(M_{t-1} o_t)`                           N
recall   :math:`m_t = z_t^\top M_{t-1}`                                        d
compose  :math:`c_t = \mathrm{MLP}(o_t, m_t)`, two layers, tanh                d
output   :math:`y_t = W c_t`                                                   dim
write    :math:`w_t = \mathrm{LSTM}_w(c_t)`                                    d
store    :math:`M_t = M_{t-1} \odot (1 - z_t 1^\top) + z_t w_t^\top`           N x d
=======  ====================================================================  ==================

What is erased is what was read, and as much as is added: each slot moves towards :math:`w_t` by its
share of the attention. :math:`\mathrm{LSTM}_r` sees the input only, so it runs over a whole piece
at once; the rest is a loop over tokens.

**Fast learning.** Episodes are cut into windows of n steps; at a cut the state is
:math:`s = (M, h_r, c_r, h_w, c_w)`. After each window the controllers learn from its loss and
:math:`\langle \hat g, s_{end} \rangle`, :math:`\hat g = G_\phi(s_{end}, \text{label})` held fixed.
The label is the target of the last step before the cut, which the network is shown one step later
and must then bind to what it holds (in delayed copy: the answer that is to come). It is told to
the predictor in training only; nothing of it reaches the network's output.

**Slow learning.** :math:`\phi` regresses the gradient at a window's start, bootstrapped by
:math:`\hat g` at its end, with an Adam of its own at 0.3 times the rate. See
`engramma.memory.synthetic_gradients`.

==============  =================================================================================
variant         what passes a cut backwards
==============  =================================================================================
``bptt``        everything: one window
``tbptt``       nothing
``sg``          the prediction of this network's own :math:`G_\phi`
``sg_shared``   the prediction of a :math:`G_\phi` that several networks use and teach
==============  =================================================================================

**Losses.** Cross-entropy for labels, squared error for numbers; Adam 1e-3, gradient norm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError
from engramma.memory.layer import MemoryLayer, State
from engramma.memory.synthetic_gradients import (
    SyntheticGradient,
    WindowTrainer,
    cosines,
    true_gradients,
)
from engramma.nn.seed import seeded
from engramma.registry import system
from engramma.systems.sequence.fast_slow_nmn_claims import CLAIMS
from engramma.worlds.few_shot import EpisodeSource, FewShotEpisodes

BIBTEX = """@article{fernando2020fast,
  title = {Fast \\& Slow Learning: Incorporating Synthetic Gradients in Neural Memory Controllers},
  author = {Fernando, Tharindu and Denman, Simon and Sridharan, Sridha and Fookes, Clinton},
  journal = {arXiv preprint arXiv:2011.05438},
  year = {2020}}"""

Variant = Literal["bptt", "tbptt", "sg", "sg_shared"]
VARIANTS: tuple[Variant, ...] = ("bptt", "tbptt", "sg", "sg_shared")


@system(
    "fast-slow-nmn",
    family="sequence",
    title="Neural memory network with synthetic gradients",
    contract="SequenceLayer",
    paper="Fernando T, Denman S, Sridharan S, Fookes C (2020). Fast & Slow Learning: "
    "Incorporating Synthetic Gradients in Neural Memory Controllers. arXiv:2011.05438",
    bibtex=BIBTEX,
    claims=CLAIMS,
    tasks=[
        "recall",
        "recall-noise",
        "needle",
        "copy",
        "selective-copy",
        "bytes",
        "event-segmentation",
        "few-shot-regression",
        "few-shot-classification",
    ],
)
class FastSlowNMN(MemoryLayer):
    """Memory network: read, compose, write.

    As a layer it learns from whatever gradient it is given; `FastSlowLearner` trains it by windows.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs.
    slots : int
        N.
    width : int, optional
        d, of slots and controllers; half of ``dim`` by default.
    hidden : int, optional
        Units of the compose network; ``dim`` by default.
    """

    def __init__(
        self, dim: int = 64, *, slots: int = 16, width: int | None = None, hidden: int | None = None
    ) -> None:
        super().__init__(dim)
        if slots < 1:
            raise ConfigError(f"a memory needs at least one slot, not {slots}", where="slots")
        self.slots, self.width = slots, width or max(1, dim // 2)
        d, hidden = self.width, hidden or dim
        self.reader = nn.LSTM(dim, d, batch_first=True)
        self.compose = nn.Sequential(nn.Linear(2 * d, hidden), nn.Tanh(), nn.Linear(hidden, d))
        self.writer = nn.LSTMCell(d, d)
        self.output = nn.Linear(d, dim)
        # Slots must differ from the start, or they are read and written alike for ever.
        self.memory = nn.Parameter(torch.randn(slots, d))
        for name, parameter in (*self.reader.named_parameters(), *self.writer.named_parameters()):
            if name.startswith("bias_ih"):
                nn.init.ones_(parameter[d : 2 * d])  # forget gates start open

    def initial_state(self, batch: int) -> State:
        """Return the learned memory, and controllers at rest."""
        rest = self.memory.new_zeros(batch, self.width)
        names = ("read_hidden", "read_cell", "write_hidden", "write_cell")
        return {"memory": self.memory.expand(batch, -1, -1), **dict.fromkeys(names, rest)}

    def read(self, cue: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Address the slots by a cue (batch x d); return the address and what is there."""
        address = torch.softmax(torch.bmm(memory, cue.unsqueeze(2)).squeeze(2), -1)
        return address, torch.bmm(address.unsqueeze(1), memory).squeeze(1)

    def write(self, value: Tensor, address: Tensor, memory: Tensor) -> Tensor:
        """Erase and add ``value`` (batch x d) at an address (batch x slot)."""
        return torch.lerp(memory, value.unsqueeze(1), address.unsqueeze(2))

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Read controller over the whole piece, then token by token."""
        before = (state["read_hidden"][None], state["read_cell"][None])
        cues, (read_hidden, read_cell) = self.reader(x, before)
        memory = state["memory"]
        written = (state["write_hidden"], state["write_cell"])
        composed = []
        for cue in cues.unbind(1):
            address, recalled = self.read(cue, memory)
            c = self.compose(torch.cat([cue, recalled], -1))
            written = self.writer(c, written)
            memory = self.write(written[0], address, memory)
            composed.append(c)
        return self.output(torch.stack(composed, 1)), {
            "memory": memory,
            "read_hidden": read_hidden[0],
            "read_cell": read_cell[0],
            "write_hidden": written[0],
            "write_cell": written[1],
        }

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token."""
        y, state = self.sequence(x.unsqueeze(1), state)
        return y.squeeze(1), state


class MemoryNetwork(nn.Module):
    """Input map, memory layer, head: what a learner trains.

    Parameters
    ----------
    n_inputs, n_outputs : int
    layer : MemoryLayer
    """

    def __init__(self, n_inputs: int, n_outputs: int, layer: MemoryLayer) -> None:
        super().__init__()
        self.embed, self.layer = nn.Linear(n_inputs, layer.dim), layer
        self.head = nn.Linear(layer.dim, n_outputs)

    def initial_state(self, batch: int) -> State:
        """State of the layer."""
        return self.layer.initial_state(batch)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map batch x step x n_inputs to batch x step x n_outputs."""
        y, state = self.layer(self.embed(x), state)
        return self.head(y), state


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every step."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of every step, over values."""
    return (prediction - target).square().mean(-1)


class FastSlowLearner:
    """Learns to learn from episodes, fast in the controllers and slowly in the predictor.

    Fulfils `engramma.contracts.Learner`: `observe` a batch of episodes, `predict`, and forget the
    present problem at `end_of_task`. `adapt` brings a problem's examples into memory, without
    changing a weight.

    Parameters
    ----------
    n_inputs : int
        Features of an input, without what is shown of earlier targets.
    n_outputs : int
        Labels, or values.
    loss : {"ce", "mse"}
        Cross-entropy for labels, squared error for numbers.
    shows : bool
        Whether earlier targets are shown beside the input.
    variant : {"bptt", "tbptt", "sg", "sg_shared"}
    window : int
        Steps between cuts; episodes shorter than that are one window.
    dim, slots, width, hidden : int
        Of the memory network.
    learning_rate, clip : float
        Of the controllers.
    slow : float
        Rate of the predictor, as a share of the controllers'.
    predictor : SyntheticGradient, optional
        For ``sg_shared``: the one that other learners have.
    seed : int
        Of all initial weights.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        loss: Literal["ce", "mse"] = "ce",
        shows: bool = True,
        variant: Variant = "sg",
        window: int = 5,
        dim: int = 64,
        slots: int = 16,
        width: int | None = None,
        hidden: int | None = None,
        learning_rate: float = 1e-3,
        slow: float = 0.3,
        clip: float = 1.0,
        predictor: SyntheticGradient | None = None,
        seed: int = 0,
    ) -> None:
        if variant not in VARIANTS or loss not in ("ce", "mse"):
            raise ConfigError(
                f"there is no variant {variant!r} with loss {loss!r}",
                mend=f"variants are {', '.join(VARIANTS)}; losses ce and mse",
            )
        if (predictor is not None) != (variant == "sg_shared"):
            raise ConfigError(
                "a predictor is given exactly to those that share one",
                where=f"variant={variant!r}",
                mend="sg_shared takes predictor=other.predictor; leave it out elsewhere",
            )
        self.n_inputs, self.n_outputs, self.shows = n_inputs, n_outputs, shows
        self.classifies, self.variant, self.window = loss == "ce", variant, window
        with seeded(seed):
            layer = FastSlowNMN(dim, slots=slots, width=width, hidden=hidden)
            width_in = n_inputs + (n_outputs if shows else 0)
            self.model = MemoryNetwork(width_in, n_outputs, layer)
            if variant == "sg":
                predictor = SyntheticGradient(
                    layer.initial_state(1),
                    condition=n_outputs,
                    hidden=dim,
                    learning_rate=slow * learning_rate,
                )
        self.predictor = predictor
        self.loss = cross_entropy if self.classifies else squared_error
        self.trainer = WindowTrainer(
            self.model,
            self.loss,
            torch.optim.Adam(self.model.parameters(), lr=learning_rate),
            window=None if variant == "bptt" else window,
            predictor=predictor,
            clip=clip,
        )
        self.history: list[float] = []
        self._adapted: tuple[State, Tensor] | None = None

    # -- Learner ---------------------------------------------------------------------------

    def observe(self, batch: FewShotEpisodes) -> None:
        """Learn from one batch of episodes, window by window.

        Raises
        ------
        LeakageError
            If a target is shown with its own input.
        DataError
            If the loss is not finite, or the episodes are of another kind.
        """
        x, target, weight, label = self._tensors(batch)
        self.model.train()
        loss = self.trainer.sequence(x, target, weight=weight, condition=label)
        if not np.isfinite(loss):
            raise DataError(
                f"the loss became {loss}",
                where=f"batch {len(self.history) + 1}",
                mend="check the episodes for NaN, or lower the learning rate",
            )
        self.history.append(loss)

    def predict(self, x: FewShotEpisodes | np.ndarray) -> np.ndarray:
        """Answers of each step: probabilities of the labels, or values.

        Parameters
        ----------
        x : FewShotEpisodes, or ndarray of shape (episode, query, feature)
            Episodes are gone through from an empty memory. Bare inputs are queries to the problem
            that was adapted to, each put on its own, right after its examples.

        Returns
        -------
        ndarray, shape (episode, step, output)
        """
        with torch.no_grad():
            self.model.eval()
            if isinstance(x, FewShotEpisodes):
                y, _ = self.model(self._tensors(x)[0])
            else:
                y = self._queries(x)
            return (y.softmax(-1) if self.classifies else y).numpy()

    def end_of_task(self) -> None:
        """Forget the examples adapted to; what was learned about learning stays."""
        self._adapted = None

    def adapt(self, episode: FewShotEpisodes) -> FastSlowLearner:
        """Take in the examples of a problem: they go into memory, and no weight changes."""
        x = self._tensors(episode)[0]
        with torch.no_grad():
            self.model.eval()
            _, state = self.model(x, None if self._adapted is None else self._adapted[0])
        self._adapted = state, torch.as_tensor(episode.codes[:, -1])
        return self

    # -- how good the predictor is ---------------------------------------------------------

    def gradient_cosine(self, batch: FewShotEpisodes, window: int | None = None) -> float:
        """Mean cosine between predicted and true gradient, over cuts and episodes.

        0 where nothing is predicted.
        """
        x, target, weight, label = self._tensors(batch)
        window = window or self.window
        cuts = true_gradients(self.model, self.loss, x, target, window, weight=weight)
        found = []
        for cut, (state, true) in enumerate(cuts):
            predictor = self.trainer.at(cut)
            predicted = {k: torch.zeros_like(t) for k, t in true.items()}
            if predictor is not None:
                with torch.no_grad():
                    predicted = predictor(state, label[:, (cut + 1) * window - 1])
            found.append(cosines(predicted, true))
        return float(torch.cat(found).mean()) if found else float("nan")

    # -- inside ----------------------------------------------------------------------------

    def _tensors(self, batch: FewShotEpisodes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch.check_delay()
        outputs = batch.n_classes or batch.targets.shape[-1]
        wanted = (self.n_inputs, self.n_outputs, self.classifies, self.shows)
        found = (
            batch.inputs.shape[-1],
            outputs,
            batch.n_classes > 0,
            batch.shown.shape[-1] > 0,
        )
        if wanted != found:
            raise DataError(
                f"the episodes have (inputs, outputs, labels, shown) = {found}, and the learner "
                f"was made for {wanted}",
                mend="make the learner with the numbers of the episodes",
            )
        scored = torch.as_tensor(batch.scored, dtype=torch.float32)
        weight = scored / scored.sum(1, keepdim=True).clamp_min(1)
        arrays = (batch.observed, batch.targets, batch.told)
        x, target, label = (torch.as_tensor(a) for a in arrays)
        return x, target, weight, label

    def _queries(self, inputs: np.ndarray) -> Tensor:
        if self._adapted is None:
            raise ConfigError("there is no problem to answer for", mend="adapt to examples first")
        state, last = self._adapted
        x = torch.as_tensor(inputs, dtype=torch.float32)
        if x.ndim != 3 or len(x) != len(last) or x.shape[-1] != self.n_inputs:
            raise DataError(
                f"queries have shape {tuple(x.shape)}, where {len(last)} episodes x query x "
                f"{self.n_inputs} is needed",
                mend="ask as many episodes as were adapted to",
            )
        episodes, queries = x.shape[:2]
        if self.shows:
            x = torch.cat([x, last[:, None].expand(-1, queries, -1)], -1)
        many = {k: t.repeat_interleave(queries, 0) for k, t in state.items()}
        y, _ = self.model(x.flatten(0, 1)[:, None], many)
        return y.view(episodes, queries, -1)


def train_learner(
    learner: FastSlowLearner, source: EpisodeSource, *, steps: int, batch: int = 32, seed: int = 0
) -> FastSlowLearner:
    """Let a learner observe batches of new episodes."""
    for step in range(steps):
        learner.observe(source.draw(np.random.default_rng([seed, step]), batch))
    return learner


def accuracy(
    learner: FastSlowLearner, episodes: FewShotEpisodes, instances: Sequence[int] = ()
) -> float:
    """Fraction of scored answers that are right, at all or at some instances of a class."""
    asked = episodes.scored
    if len(instances):
        asked = asked & np.isin(episodes.instance, instances)
    right = learner.predict(episodes).argmax(-1) == episodes.targets
    return float(right[asked].mean())
