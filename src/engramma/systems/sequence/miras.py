r"""It's All Connected: test-time memorization, attentional bias, retention (Behrouz et al. 2025).

**What it does.** A recurrent layer is described by four choices: the *memory* (a network whose
weights store what was read), the *attentional bias* (the objective it minimises while it reads),
the *retention* (what keeps it near what it was) and the *optimiser*. Known layers are points of
that grid, and Moneta, Yaad and Memora are three new ones. This layer takes any point of it.

**Layer.** q, k, v are linear in x, pass a causal convolution of 4 tokens and SiLU, and are split
into heads; q and k get length 1. Step :math:`\eta_t`, kept share :math:`\alpha_t`, momentum
:math:`\mu_t` and threshold :math:`\delta_t` are functions of x: one number a head, or
(``gates="channel"``) one for each output of each of the memory's maps, through a bottleneck of
``rank``. Each head's memory is written and read (`engramma.memory.online`); what is read passes a
layer norm, is gated by :math:`\mathrm{SiLU}(W_g x)` and projected.

**Grid.** Any of each column can be combined with any of the others:

========  ==================  ===============================================  ================
memory    attentional bias    retention                                        optimiser
========  ==================  ===============================================  ================
vector    dot                 none: :math:`W_t = W_{t-1} - \eta_t g_t`         gd
matrix    l2                  l2: :math:`\alpha_t W_{t-1} - \eta_t g_t`        momentum:
mlp       lp                  lq: :math:`A_t / \|A_t\|_q^{q-2}`                :math:`\mu_t m_{t-1}
          huber, -norm,       kl: :math:`c\,\mathrm{softmax}(\alpha_t \log     - \eta_t g_t` for
          -coordinate         W_{t-1} - \eta_t g_t)`                           :math:`-\eta_t g_t`
          shift               elastic-net: :math:`\mathrm{soft}_\gamma(\lambda
                              W_{t-1} - \eta\lambda g_t)`
                              bregman: :math:`\sigma(\mathrm{logit} W_{t-1} -
                              \eta_t g_t)`
========  ==================  ===============================================  ================

**Points** (`presets`).

======================  ======  =====  =========  =========  =====================================
name                    memory  bias   retention  optimiser  note
======================  ======  =====  =========  =========  =====================================
moneta                  mlp     lp     lq         gd         p = 3, q = 4
yaad                    mlp     huber  l2         gd         threshold from the input
memora                  mlp     l2     kl         gd
linear-attention        matrix  dot    none       gd         for any chunk
gated-linear-attention  matrix  dot    l2         gd         RetNet, Mamba-2, GLA
deltanet                matrix  l2     none       gd         with ``chunk=1``
gated-delta             matrix  l2     l2         gd         gated DeltaNet decays before the error
titans                  mlp     l2     l2         momentum   Titans' memory, with half the step
ttt                     mlp     l2     none       gd         test-time training
======================  ======  =====  =========  =========  =====================================

**Chunks.** Gradients are taken at the start of chunks of b tokens (16 or 64 in the paper). That is
exact only for the dot product and a linear memory. `MirasLayer.gap` measures what it costs: the
norm of the difference to the recurrence over the norm of what the recurrence reads. Of 128 random
tokens, as initialised (steps near 0.12):

=======================  ========  =========  =========
preset, memory           chunks 4  chunks 16  chunks 64
=======================  ========  =========  =========
linear-attention matrix  0         0          0
deltanet matrix          0.047     0.12       0.32
gated-delta matrix       0.048     0.11       0.28
yaad matrix              0.14      0.28       0.49
yaad mlp                 1.3       1.3        1.3
memora matrix            0.31      0.44       0.74
memora mlp               0.48      0.77       0.97
moneta matrix            5.1e+02   18         6.3
moneta mlp               1.2       1.2        1.6
titans matrix            0.073     0.22       0.6
titans mlp               0.44      0.75       0.99
=======================  ========  =========  =========

Moneta on an empty matrix is another model in chunks: its weights are the accumulated gradients over
the square of their norm, which has no limit at 0, so that any other order of normalising shows.
Gradients of one start also overshoot where a key comes again and again: with "l2" or "shift" and a
matrix, n writes of step :math:`\eta` diverge once :math:`n \eta > 2`, so that either chunk or
``largest_step`` must be small. Yaad, Moneta and Memora stay bounded.

**Choices**, where the paper is silent: the objective of "l2" is half the squared error, so that
step 1 is that of the delta rule. Inside a chunk "lq" reads with the norm of its start. Thresholds
of "elastic-net" add up over a chunk. For "kl" and "bregman" inputs are offered as [x, -x] over the
square root of 2, as weights cannot be negative; the mass c is such that the mean weight is 1; and
weights that the linear part of a chunk has led below a floor are raised to it before the logarithm.
Memories of one map start empty, an MLP's start is learned. SiLU on q, k, v and in the gate. The
printed "lq" lacks the power q - 1 of each element that the minimiser of its objective has; it is
followed as printed.

**Scale.** Published: width 1024, 24 layers, MLP memory with expansion 4, learning rate 1.5e-3, 15
billion tokens in contexts of 4096 (`MirasLayer.published`). The default is small: width 64, 4
heads, matrix memory, and Yaad's rule, which of the three is the one that stays close to a baseline
(without large errors it *is* a gated delta rule), cannot overshoot, and had the best perplexity at
the larger scales.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError
from engramma.memory.attention import check_heads, merge_heads, split_heads
from engramma.memory.convolution import ShortConvolution
from engramma.memory.layer import MemoryLayer, State, join, part
from engramma.memory.objectives import Huber, Objective
from engramma.memory.online import OnlineMemory, Writing
from engramma.memory.retention import Retention, log_share
from engramma.registry import system
from engramma.systems.sequence.miras_claims import CLAIMS

BIBTEX = """@article{behrouz2025connected,
  title = {It's All Connected: A Journey Through Test-Time Memorization, Attentional Bias,
    Retention, and Online Optimization},
  author = {Behrouz, Ali and Razaviyayn, Meisam and Zhong, Peilin and Mirrokni, Vahab},
  journal = {arXiv preprint arXiv:2504.13173},
  year = {2025}}"""

#: Leaderboards of causal layers.
TASKS = (
    "recall",
    "recall-noise",
    "needle",
    "copy",
    "selective-copy",
    "bytes",
    "event-segmentation",
)


def presets() -> dict[str, dict[str, str]]:
    """Named points of the grid, as options of `MirasLayer`."""
    points = {
        "moneta": ("mlp", "lp", "lq", "gd"),
        "yaad": ("mlp", "huber", "l2", "gd"),
        "memora": ("mlp", "l2", "kl", "gd"),
        "linear-attention": ("matrix", "dot", "none", "gd"),
        "gated-linear-attention": ("matrix", "dot", "l2", "gd"),
        "deltanet": ("matrix", "l2", "none", "gd"),
        "gated-delta": ("matrix", "l2", "l2", "gd"),
        "titans": ("mlp", "l2", "l2", "momentum"),
        "ttt": ("mlp", "l2", "none", "gd"),
    }
    names = ("memory", "bias", "retention", "optimizer")
    return {name: dict(zip(names, point, strict=True)) for name, point in points.items()}


class Gate(nn.Module):
    """Numbers of each token and head, linear in the input.

    Parameters
    ----------
    dim, heads : int
    width : int
        Numbers a head.
    rank : int, optional
        Of the linear map; full by default.
    bias : float
        Where they start.
    """

    def __init__(self, dim: int, heads: int, width: int, rank: int | None, bias: float) -> None:
        super().__init__()
        self.heads = heads
        last = nn.Linear(rank or dim, heads * width)
        nn.init.constant_(last.bias, bias)
        self.map = nn.Sequential(nn.Linear(dim, rank, bias=False), last) if rank else last

    def forward(self, x: Tensor) -> Tensor:
        """Map batch x token x dim to batch x head x token x width."""
        return split_heads(self.map(x), self.heads)


class MirasLayer(MemoryLayer):
    """Any point of the grid as a sequence layer.

    Parameters
    ----------
    dim : int
    memory : {"matrix", "vector", "mlp"}
    bias : str or Objective
        Name of the module's table, or an objective with its own parameters, such as
        ``Power(p=4)``.
    retention : str or Retention
        Name of the module's table, or a retention with its own parameters, such as
        ``NormPower(q=3)``.
    optimizer : {"gd", "momentum"}
    heads : int
    gates : {"scalar", "channel"}
        One number a head, or one for each output of each map of the memory.
    rank : int
        Bottleneck of the channels' gates (32 or 64 in the paper).
    chunk : int
        Tokens whose gradients are taken at the same weights; 1 for the recurrence itself.
    convolution : int
        Tokens of the short convolution.
    largest_step : float
        Steps lie between 0 and this.
    step, keep, threshold : float, optional
        Constants instead of gates.

    Raises
    ------
    ConfigError
        For names that do not exist, and for constants out of range or without a use.
    """

    def __init__(
        self,
        dim: int = 64,
        memory: str = "matrix",
        bias: str | Objective = "huber",
        retention: str | Retention = "l2",
        optimizer: Literal["gd", "momentum"] = "gd",
        *,
        heads: int = 4,
        gates: Literal["scalar", "channel"] = "scalar",
        rank: int = 32,
        chunk: int = 16,
        convolution: int = 4,
        largest_step: float = 1.0,
        step: float | None = None,
        keep: float | None = None,
        threshold: float | None = None,
    ) -> None:
        super().__init__(dim)
        width = check_heads(dim, heads)
        if optimizer not in ("gd", "momentum"):
            raise ConfigError(
                f"there is no optimiser {optimizer!r}",
                where="optimizer",
                mend="use 'gd' or 'momentum'",
            )
        if gates not in ("scalar", "channel"):
            raise ConfigError(f"there are no gates {gates!r}", mend="use 'scalar' or 'channel'")
        if rank < 1:
            raise ConfigError(f"a bottleneck has a rank of at least 1, not {rank}", where="rank")
        self.heads = heads
        self.memory = OnlineMemory(
            heads, width, memory, bias, retention, momentum=optimizer == "momentum", chunk=chunk
        )
        objective, retained = self.memory.objective, self.memory.retention
        self._check("step", step, True, step is None or step >= 0, "not negative")
        self._check(
            "threshold", threshold, objective.thresholded, threshold is None or threshold > 0,
            "positive",
        )  # fmt: skip
        self._check("keep", keep, retained.gated, True, "")
        if not largest_step > 0:
            raise ConfigError(f"steps are positive, not up to {largest_step}", where="largest_step")
        self.largest_step = largest_step
        self.fixed = {"step": step, "threshold": threshold}
        self.fixed["keep"] = None if keep is None else log_share(keep)

        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.convolution = ShortConvolution(3 * dim, convolution)
        channel = gates == "channel"
        outputs = sum(self.memory.widths) if channel else 1
        per_token = {"step": (outputs, -2.0)}
        if retained.gated:
            per_token["keep"] = (outputs, math.log(0.99 / 0.01))
        if optimizer == "momentum":
            per_token["momentum"] = (outputs, 0.0)
        if objective.thresholded:
            # A whole error has one length: only clipped coordinates have thresholds of their own.
            own = isinstance(objective, Huber) and objective.form == "coordinate"
            per_token["threshold"] = (width if channel and own else 1, math.log(math.e - 1))
        self.gates = nn.ModuleDict(
            {
                name: Gate(dim, heads, n, rank if n > 1 else None, start)
                for name, (n, start) in per_token.items()
                if self.fixed.get(name) is None
            }
        )
        self.gate = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(dim, dim, bias=False)

    @classmethod
    def preset(cls, name: str, dim: int = 64, **options: Any) -> MirasLayer:
        """Return a named point of the grid; ``options`` go before those of the point."""
        points = presets()
        if name not in points:
            raise ConfigError(
                f"there is no preset {name!r}", mend=f"use one of {', '.join(sorted(points))}"
            )
        return cls(dim, **{**points[name], **options})

    @classmethod
    def published(cls, name: str = "yaad", **options: Any) -> MirasLayer:
        """Return one layer of the published models of 340 million parameters (24 such layers)."""
        settings: dict[str, Any] = {
            "dim": 1024, "heads": 16, "gates": "channel", "rank": 64, "chunk": 64
        }  # fmt: skip
        return cls.preset(name, **{**settings, **options})

    # -- the two forms -----------------------------------------------------------------------

    def initial_state(self, batch: int) -> State:
        """State before the first token."""
        memory = self.memory.initial_state(batch, self.output.weight)
        return join(memory=memory, recent=self.convolution.initial_state(batch))

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map a piece of any length."""
        mixed, recent = self.convolution(self.project(x), part(state, "recent"))
        read, memory = self._read(x, mixed, part(state, "memory"), self.memory)
        y = merge_heads(self.norm(read)) * F.silu(self.gate(x))
        return self.output(y), join(memory=memory, recent=recent)

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map one token."""
        mixed, recent = self.convolution.step(self.project(x), part(state, "recent"))
        x = x.unsqueeze(1)
        read, memory = self._read(x, mixed.unsqueeze(1), part(state, "memory"), self.memory)
        y = merge_heads(self.norm(read)) * F.silu(self.gate(x))
        return self.output(y).squeeze(1), join(memory=memory, recent=recent)

    @torch.no_grad()
    def gap(self, x: Tensor) -> float:
        """How far what is read in chunks is from what the recurrence itself would read.

        Parameters
        ----------
        x : Tensor, shape (batch, token, dim)

        Returns
        -------
        float
            Norm of the difference over the norm of what the recurrence reads.
        """
        state = self.initial_state(len(x))
        mixed, _ = self.convolution(self.project(x), part(state, "recent"))
        reads = [
            self._read(x, mixed, part(state, "memory"), memory)[0]
            for memory in (self.memory, self.memory.recurrent())
        ]
        return float((reads[0] - reads[1]).norm() / reads[1].norm())

    def _read(
        self, x: Tensor, mixed: Tensor, state: State, memory: OnlineMemory
    ) -> tuple[Tensor, State]:
        q, k, v = (split_heads(t, self.heads) for t in mixed.chunk(3, -1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return memory(q, k, v, self.writing(x), state)

    def writing(self, x: Tensor) -> Writing:
        """How each token of x (batch, token, dim) is written."""
        forms = {
            "step": lambda z: self.largest_step * torch.sigmoid(z),
            "keep": F.logsigmoid,
            "momentum": F.logsigmoid,
            "threshold": F.softplus,
        }
        found: dict[str, Tensor | None] = {}
        for name, form in forms.items():
            value = self.fixed.get(name)
            if name in self.gates:
                found[name] = form(self.gates[name](x))
            elif value is not None:
                found[name] = x.new_full((len(x), self.heads, x.shape[1], 1), value)
            else:
                found[name] = None
        step = found["step"]
        assert step is not None
        return Writing(step, found["keep"], found["momentum"], found["threshold"])

    @staticmethod
    def _check(name: str, value: float | None, used: bool, fits: bool, needs: str) -> None:
        if value is None:
            return
        if not used:
            raise ConfigError(
                f"{name} = {value} is given, and nothing uses it",
                where=name,
                mend="keep belongs to retention l2, lq and kl, threshold to bias huber",
            )
        if not fits:
            raise ConfigError(f"{name} is {needs}; {value} is given", where=name)


class Moneta(MirasLayer):
    """Cubed errors, retention by the fourth power of a norm."""

    def __init__(self, dim: int = 64, memory: str = "matrix", **options: Any) -> None:
        super().__init__(dim, **{**presets()["moneta"], "memory": memory, **options})


class Memora(MirasLayer):
    """Weights that are probabilities, with entropy for retention."""

    def __init__(self, dim: int = 64, memory: str = "matrix", **options: Any) -> None:
        super().__init__(dim, **{**presets()["memora"], "memory": memory, **options})


def _register(slug: str, what: type[MirasLayer], title: str, **more: Any) -> None:
    system(
        slug,
        family="sequence",
        title=title,
        contract="SequenceLayer",
        paper="Behrouz, Razaviyayn, Zhong & Mirrokni (2025). arXiv:2504.13173.",
        bibtex=BIBTEX,
        tasks=TASKS,
        **more,
    )(what)


TITLE = (
    "It's All Connected: A Journey Through Test-Time Memorization, Attentional Bias, Retention, "
    "and Online Optimization"
)
_register("miras", MirasLayer, TITLE, claims=CLAIMS)
_register("miras-moneta", Moneta, "Moneta, of It's All Connected")
_register("miras-memora", Memora, "Memora, of It's All Connected")
