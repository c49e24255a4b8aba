"""The long-term memory of Titans against titans-pytorch: answers first, then time.

``python benchmarks/titans.py`` needs ``pip install titans-pytorch``.

**Same definition.** ``NeuralMemory(chunk_size=1, batch_size=64)`` of titans-pytorch takes gradients
at the weights of the last multiple of 64 tokens, has gates for every token, and lets every token
read through its own weights; so do we with ``chunk=64``. With the norms and the residual around its
network left out (``pre_rmsnorm=False, mem_model_norm_add_residual=False``), SiLU for its GELU (a
network of our own, handed to it as ``model=``), and its weights copied across, outputs and
gradients must agree. Its loss is a mean over channels where ours is a sum: theta is divided by
their number.

**Cheaper definitions.** ``chunk_size=64`` alone, as it is mostly used, takes *all* gradients at the
initial weights, shares gates among 64 tokens, and reads through weights up to 64 tokens old. With
``batch_size=64`` gradients are taken at the start of each chunk. These do less than ours; they are
timed at the full size, where the same definition does not fit into memory on their side (it forms
the weights of every token). ``NeuralMemory`` as it comes, with norms, a residual and a network
twice as wide, is timed beside a whole layer of ours with as wide a network.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from _measure import arguments, peak_rss_of, table, timed, write_json
from engramma.memory.layer import state_size
from engramma.memory.neural_memory import Gates, NeuralMemory
from engramma.memory.stream import stream
from engramma.nn.seed import seeded

TARGET, TOLERANCE, EXPONENT = 5.0, 1e-5, 1.1
DIM, HEADS, HEAD, CHUNK, EXPANSION = 256, 4, 64, 64, 2
#: Steps of the inner loop that neither vanish nor diverge.
LARGEST_STEP = 2.0


class SiluNetwork(nn.Module):
    """Two layers with SiLU between, as titans-pytorch wants its memory model."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(dim, hidden) * dim**-0.5)
        self.second = nn.Parameter(torch.randn(hidden, dim) * hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map ... x dim to the same."""
        return F.silu(x @ self.first) @ self.second


def theirs(dim: int, heads: int, **options: Any) -> Any:
    """Return a NeuralMemory of titans-pytorch without norms and residual."""
    warnings.filterwarnings("ignore")
    from titans_pytorch import NeuralMemory as Theirs

    head = dim // heads
    return Theirs(
        dim=dim,
        heads=heads,
        dim_head=head,
        model=SiluNetwork(head, EXPANSION * head),
        pre_rmsnorm=False,
        mem_model_norm_add_residual=False,
        default_step_transform_max_lr=LARGEST_STEP,
        **options,
    )


def _linear(module: nn.Module) -> nn.Linear:
    """Return the only linear map of a module."""
    (found,) = (m for m in module.modules() if isinstance(m, nn.Linear))
    return found


class Ours(nn.Module):
    """Our memory between the projections that titans-pytorch has, and with its weights."""

    def __init__(self, source: Any, dim: int, heads: int, **options: Any) -> None:
        super().__init__()
        self.heads, self.head = heads, dim // heads
        self.memory = NeuralMemory(heads, self.head, expansion=EXPANSION, **options)
        parts = [_linear(p) for p in (source.to_queries, source.to_keys, source.to_values)]
        gates = [source.to_decay_factor[0], source.to_momentum[0], source.to_adaptive_step[0]]
        self.project = nn.Parameter(torch.cat([p.weight for p in parts]).detach().clone())
        self.gates = nn.Linear(dim, 3 * heads)
        self.retrieve, self.combine = nn.Linear(dim, heads, bias=False), nn.Linear(dim, dim, False)
        with torch.no_grad():
            self.gates.weight.copy_(torch.cat([g.weight for g in gates]))
            self.gates.bias.copy_(torch.cat([g.bias for g in gates]))
            self.retrieve.weight.copy_(_linear(source.retrieve_gate).weight)
            self.combine.weight.copy_(source.combine_heads.weight)
            for own, other in zip(self.memory.weights, source.memory_model_parameters, strict=True):
                own.copy_(other)

    def forward(self, x: Tensor) -> Tensor:
        """Map batch x token x dim to the same."""
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in F.linear(x, self.project).chunk(3, -1)
        )
        alpha, eta, theta = self.gates(x).transpose(1, 2).chunk(3, 1)
        step = LARGEST_STEP / self.head * torch.sigmoid(theta)
        gates = Gates(F.logsigmoid(-alpha), F.logsigmoid(eta), step)
        y, _, _ = self.memory(q, k, v, gates, self.memory.initial_state(len(x)))
        y = y * torch.sigmoid(self.retrieve(x)).transpose(1, 2).unsqueeze(-1)
        return self.combine(y.transpose(1, 2).flatten(2))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def compare() -> dict[str, float]:
    """Largest differences of outputs and of gradients by the input, relative to the largest."""
    with seeded(0):
        dim, heads, chunk = 32, 2, 8
        other = theirs(dim, heads, chunk_size=1, batch_size=chunk)
        own = Ours(other, dim, heads, chunk=chunk)
        x = torch.randn(2, 50, dim)
        direction = torch.randn(2, 50, dim)
    found, slopes = [], []
    for run in (own, lambda x: other(x)[0]):
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        (y * direction).sum().backward()
        found.append(y.detach())
        slopes.append(leaf.grad)
    still = relative(own(x).detach(), Ours(other, dim, heads, chunk=1000)(x).detach())
    return {
        "outputs": relative(*found),
        "gradients": relative(*slopes),
        "what_staleness_changes": still,
    }


def seconds(run: Callable[[Tensor], Tensor], shape: tuple[int, int], repeats: int) -> float:
    """Shortest time of a forward and a backward pass."""
    with seeded(1):
        x = torch.randn(*shape, DIM)

    def both() -> None:
        run(x.requires_grad_()).sum().backward()

    both()
    return timed(both, repeats)[0]


def contestants(compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    with seeded(0):
        same = theirs(DIM, HEADS, chunk_size=1, batch_size=CHUNK)
        frozen = theirs(DIM, HEADS, chunk_size=CHUNK)
        chunked = theirs(DIM, HEADS, chunk_size=CHUNK, batch_size=CHUNK)
    warnings.filterwarnings("ignore")
    from titans_pytorch import NeuralMemory as Theirs

    from engramma.systems.sequence.titans import Titans

    with seeded(0):
        default = Theirs(dim=DIM, chunk_size=CHUNK, heads=HEADS, dim_head=HEAD)
        layer = Titans(DIM, "memory", heads=HEADS, chunk=CHUNK, expansion=4.0)
    token = Ours(same, DIM, HEADS, chunk=CHUNK)
    lagged = Ours(same, DIM, HEADS, chunk=CHUNK, readout="lagged")
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": token,
        "ours, lagged": lagged,
        "theirs, chunk_size=64": lambda x: frozen(x)[0],
        "theirs, chunk_size=64, batch_size=64": lambda x: chunked(x)[0],
        "theirs, chunk_size=1, batch_size=64": lambda x: same(x)[0],
        "ours, whole layer, expansion 4": lambda x: layer(x)[0],
        "theirs, as it comes, expansion 4": lambda x: default(x)[0],
    }
    if compiled:
        found["ours, torch.compile"] = torch.compile(token)
    return found


def memory(name: str, shape: tuple[int, int]) -> dict[str, Any]:
    """Forward and backward pass in a process of its own."""
    run = contestants(False)[name]
    seconds(run, (1, 2 * CHUNK), 1)
    from _measure import rss

    before = rss()
    seconds(run, shape, 1)
    return {"baseline": before}


def growth(lengths: list[int]) -> tuple[list[float], float, int]:
    """Seconds of a stream without gradients, the fitted exponent, and the numbers in the state."""
    from engramma.systems.sequence.titans import Titans

    with seeded(0):
        layer = Titans(DIM, "memory", heads=HEADS, chunk=CHUNK).eval()
        piece = torch.randn(1, 1024, DIM)

    def run(n: int) -> int:
        for _, state in stream(layer, (piece for _ in range(n // 1024))):
            size = state_size(state)
        return size

    run(1024)
    measured = [timed(lambda n=n: run(n), 2) for n in lengths]
    if len({size for _, size in measured}) != 1:
        raise RuntimeError("the state has grown")
    times = [t for t, _ in measured]
    return times, float(np.polyfit(np.log(lengths), np.log(times), 1)[0]), measured[0][1]


def main() -> int:
    """Compare, measure, print; return 1 where an answer differs or a target is missed."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    repeats = 1 if options.small else 5
    full, short = ((1, 256), (1, 128)) if options.small else ((4, 2048), (1, 512))
    missed = []
    answers = compare()
    for name in ("outputs", "gradients"):
        if answers[name] > TOLERANCE:
            missed.append(f"{name} differ by {answers[name]:.1e}")
    table("Same definition, relative to the largest", ("", "difference"), list(answers.items()))
    runs = contestants(options.compile)
    rows, found = [], {}
    for name, run in runs.items():
        for shape in (full, short):
            if shape == full and "chunk_size=1," in name:
                continue
            t = seconds(run, shape, repeats)
            found[f"{name} {shape}"] = t
            rate, own = shape[0] * shape[1] / t, found[f"ours {shape}"]
            rows.append((name, f"{shape[0]} x {shape[1]}", t, rate, t / own))
    table("Forward and backward", ("", "size", "s", "tokens/s", "times as long as ours"), rows)
    for name, shape in (
        ("theirs, chunk_size=1, batch_size=64", short),
        ("theirs, chunk_size=64", full),
        ("theirs, as it comes, expansion 4", full),
    ):
        own = "ours, whole layer, expansion 4" if "expansion 4" in name else "ours"
        ratio = found[f"{name} {shape}"] / found[f"{own} {shape}"]
        if ratio < TARGET and not options.small:
            missed.append(f"{ratio:.2f} times as fast as {name}, not {TARGET:g}")
    lengths = [1024, 2048] if options.small else [4096, 8192, 16_384, 32_768, 65_536]
    times, exponent, size = growth(lengths)
    table(
        f"Stream without gradients; exponent {exponent:.3f}, state of {size:,} numbers",
        ("tokens", "s"),
        list(zip(map(str, lengths), times, strict=True)),
    )
    if exponent > EXPONENT and not options.small:
        missed.append(f"time grows with length to the power of {exponent:.2f}")
    peaks = {}
    if not options.small:
        for name, shape in (
            ("ours", full),
            ("theirs, chunk_size=64", full),
            ("theirs, chunk_size=1, batch_size=64", short),
            ("ours", short),
        ):
            peaks[f"{name} {shape}"] = peak_rss_of(memory, name, shape)[0]
        table("Peak memory, MiB", ("", "MiB"), [(k, v / 2**20) for k, v in peaks.items()])
    for line in missed:
        print("MISSED", line)
    results = {
        "answers": answers,
        "seconds": found,
        "peak_bytes": peaks,
        "growth": {"lengths": lengths, "seconds": times, "exponent": exponent, "state": size},
        "missed": missed,
    }
    write_json(options.json, results)
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main())
