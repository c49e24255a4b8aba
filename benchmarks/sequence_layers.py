"""The delta rule and MoM against loops and flash-linear-attention: answers first, then time.

``python benchmarks/sequence_layers.py`` runs forward and backward at batch 4, 2048 tokens, width
256 (4 heads of 64), float32; then streams of up to 65,536 tokens, for how time and state grow.
"""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from _measure import arguments, table, timed, write_json
from engramma.memory import delta
from engramma.memory.layer import state_size
from engramma.memory.linear import GatedDeltaNet
from engramma.nn.seed import seeded
from engramma.systems.sequence import mom

#: Least ratios of their time to ours, and largest differences.
TARGETS = {"loop": 20.0, "flash-linear-attention": 1.5}
TOLERANCE, EXPONENT = 1e-4, 1.1
HEADS, DIM = 4, 256
#: Loops through MoM run over so small a part of the tokens: all would keep some 10 GB.
SHARE = 8

Outputs = tuple[Tensor, ...]


def peer() -> ModuleType | None:
    """Pure-torch reference of flash-linear-attention, or None where it is not installed.

    Its packages want Triton, which has no build for processors; this file of theirs does not.
    """
    for name in ("fla-core", "flash-linear-attention"):
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.as_posix().endswith("fla/ops/gated_delta_rule/naive.py"):
                spec = importlib.util.spec_from_file_location("fla_naive", file.locate())
                assert spec is not None and spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    return None


def inputs(batch: int, length: int) -> list[Tensor]:
    """Draw queries, keys, values, rates and log decays: batch x head x token (x channel)."""
    g = torch.Generator().manual_seed(0)

    def draw(*more: int) -> Tensor:
        return torch.randn(batch, HEADS, length, *more, generator=g)

    q, k = (F.normalize(draw(DIM // HEADS), dim=-1) for _ in "qk")
    tensors = [q, k, draw(DIM // HEADS), draw().sigmoid(), -F.softplus(draw() - 3)]
    return [t.requires_grad_() for t in tensors]


# -- contestants of the delta rule -------------------------------------------------------------


def empty(v: Tensor) -> Tensor:
    """No memory yet: batch x head x key x value."""
    return v.new_zeros(*v.shape[:2], v.shape[-1], v.shape[-1])


def chunked(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_decay: Tensor) -> Tensor:
    """Ours."""
    return delta.delta_rule(q, k, v, rate, log_decay, empty(v))[0]


def loop(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_decay: Tensor) -> Tensor:
    """Write the recurrence as it usually is: index token t, update, append."""
    memory, outputs = empty(v), []
    for t in range(q.shape[2]):
        memory = memory * log_decay[:, :, t].exp()[..., None, None]
        error = v[:, :, t] - torch.einsum("bhkv,bhk->bhv", memory, k[:, :, t])
        written = rate[:, :, t, None] * error
        memory = memory + torch.einsum("bhk,bhv->bhkv", k[:, :, t], written)
        outputs.append(torch.einsum("bhkv,bhk->bhv", memory, q[:, :, t]))
    return torch.stack(outputs, 2)


def careful_loop(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_decay: Tensor) -> Tensor:
    """Do so over ``unbind``, whose gradient does not write all zeros anew for each token."""
    memory, outputs = empty(v), []
    for token in zip(*(t.unbind(2) for t in (q, k, v, rate, log_decay)), strict=True):
        y, memory = delta.delta_rule_step(*token, memory)
        outputs.append(y)
    return torch.stack(outputs, 2)


def flash(module: ModuleType) -> Callable[..., Tensor]:
    """Their reference in chunks of 64, as it comes (batch x token x head), no scaling of q."""

    def run(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_decay: Tensor) -> Tensor:
        q, k, v, rate, log_decay = (t.transpose(1, 2) for t in (q, k, v, rate, log_decay))
        y, _ = module.naive_chunk_gated_delta_rule(q, k, v, log_decay, rate, scale=1.0)
        return y.transpose(1, 2)

    return run


def differentiated(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Outputs:
    """Return outputs and all gradients of a random combination of them."""
    y = function(*tensors)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return y.detach(), *torch.autograd.grad((y * weights).sum(), tensors)


# -- contestants of MoM ------------------------------------------------------------------------


def mixture(**options: Any) -> mom.MoM:
    """Four memories of which two are used, and the shared one."""
    with seeded(0):
        return mom.MoM(DIM, HEADS, **options)


def through(layer: Any, run: Callable[[Tensor], Any], x: Tensor) -> Outputs:
    """Return outputs and the gradients of the input and of all parameters."""
    return differentiated(lambda x, *_: run(x)[0], [x, *layer.parameters()])


def with_their_rule(layer: mom.MoM, module: ModuleType) -> Callable[[Tensor], Any]:
    """Run the same layer, reordered tokens and all, on flash-linear-attention's reference."""

    def rule(
        q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_decay: Tensor, memory: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        q, k, v, rate, log_decay = (t.transpose(1, 2) for t in (q, k, v, rate, log_decay))
        y, memory = module.naive_chunk_gated_delta_rule(
            q, k, v, log_decay, rate, chunk, 1.0, memory, True
        )
        return y.transpose(1, 2), memory

    def run(x: Tensor) -> Any:
        ours = mom.SEQUENCE_RULES["delta"]
        mom.SEQUENCE_RULES["delta"] = rule
        try:
            return layer(x)
        finally:
            mom.SEQUENCE_RULES["delta"] = ours

    return run


def indexed_run(layer: mom.MoM) -> Callable[[Tensor], Any]:
    """Run step by step, the tokens picked out by their index, as a loop is usually written."""

    def run(x: Tensor) -> Any:
        state, outputs = layer.initial_state(len(x)), []
        for t in range(x.shape[1]):
            y, state = layer.token(x[:, t], state)
            outputs.append(y)
        return torch.stack(outputs, 1), state

    return run


# -- measuring ---------------------------------------------------------------------------------


def difference(found: Outputs, expected: Outputs) -> float:
    """Largest difference of outputs and gradients, in units of each one's largest value or 1."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1.0))
        for a, b in zip(found, expected, strict=True)
    )


@dataclass(frozen=True)
class Contestant:
    """Another way to the same answer.

    A loop that would keep too much memory for its gradient runs over a piece of 1 / ``share`` of
    the tokens, is compared with ours (``ours``) on that piece, and its time is multiplied.
    """

    run: Callable[[], Outputs]
    repeats: int = 1
    share: int = 1
    ours: Callable[[], Outputs] | None = None


def compare(
    what: str, ours: Callable[[], Outputs], others: dict[str, Contestant]
) -> dict[str, Any]:
    """Compare answers, then time all contestants."""
    found = ours()  # threads and memory are warm from now on
    seconds, results = timed(ours, repeats=7)[0], {}
    for name, other in others.items():
        their_seconds, expected = timed(other.run, repeats=other.repeats)
        their_seconds *= other.share
        error = difference(other.ours() if other.ours else found, expected)
        del expected
        gc.collect()
        ratio = their_seconds / seconds
        results[name] = {"seconds": their_seconds, "difference": error, "speed_up": ratio}
    return {"what": what, "seconds": seconds, "others": results}


def scaling(name: str, layer: Any, lengths: Sequence[int]) -> dict[str, Any]:
    """Time one pass without gradient over streams of several lengths, and weigh the state."""
    layer.eval()
    seconds, sizes = [], []
    for length in lengths:
        x = torch.randn(1, length, DIM, generator=torch.Generator().manual_seed(2))

        def streamed(x: Tensor = x) -> Any:
            state = None
            with torch.no_grad():
                for piece in x.split(2048, 1):
                    _, state = layer(piece, state)
            return state

        streamed()
        elapsed, state = timed(streamed, repeats=3)
        seconds.append(elapsed)
        sizes.append(state_size(state))
    exponent = float(np.polyfit(np.log(lengths), np.log(seconds), 1)[0])
    return {
        "layer": name,
        "tokens": list(lengths),
        "seconds": seconds,
        "exponent": exponent,
        "state_numbers": sizes,
    }


def main() -> int:
    """Compare, measure, print; return 1 where an answer differs or a target is missed."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(options.threads)
    batch, length = (2, 256) if options.small else (4, 2048)
    module, missed = peer(), []
    if module is None:
        missed.append("flash-linear-attention is not installed: pip install -e .[benchmarks]")

    tensors = inputs(batch, length)
    others: dict[str, Contestant] = {}
    if module is not None:
        others["flash-linear-attention"] = Contestant(
            lambda: differentiated(flash(module), tensors), repeats=5
        )
    others["loop"] = Contestant(lambda: differentiated(loop, tensors))
    others["careful loop"] = Contestant(lambda: differentiated(careful_loop, tensors))
    rule = compare("gated delta rule", lambda: differentiated(chunked, tensors), others)

    layer = mixture().train()
    x = torch.randn(batch, length, DIM, generator=torch.Generator().manual_seed(3)).requires_grad_()
    piece = x[:, : length // SHARE].detach().requires_grad_()
    on_piece = {"share": SHARE, "ours": lambda: through(layer, layer, piece)}
    others = {}
    if module is not None:
        theirs = with_their_rule(layer, module)
        others["flash-linear-attention"] = Contestant(lambda: through(layer, theirs, x), repeats=5)
    others["loop"] = Contestant(lambda: through(layer, indexed_run(layer), piece), **on_piece)
    others["careful loop"] = Contestant(lambda: through(layer, layer.run, piece), **on_piece)
    whole = compare("MoM", lambda: through(layer, layer, x), others)
    plain, masked = (mixture(layout=m, convolution=1).train() for m in ("reorder", "masked"))
    layouts = compare(
        "MoM without convolution",
        lambda: through(plain, plain, x),
        {"masked layout": Contestant(lambda: through(masked, masked, x), repeats=5)},
    )

    lengths = [1024, 2048, 4096] if options.small else [2048, 4096, 8192, 16_384, 32_768, 65_536]
    with seeded(0):
        layers = {"gated DeltaNet": GatedDeltaNet(DIM, HEADS), "MoM": mixture()}
    streams = [scaling(name, one, lengths) for name, one in layers.items()]

    for result in (rule, whole, layouts):
        rows = []
        for name, other in result["others"].items():
            target = TARGETS.get(name)
            if other["difference"] > TOLERANCE:
                missed.append(f"{result['what']}: {name} differs by {other['difference']:.1e}")
            if target and other["speed_up"] < target and not options.small:
                missed.append(
                    f"{result['what']}: {other['speed_up']:.1f} times as fast as {name}, "
                    f"not {target:g}"
                )
            numbers = (other["difference"], result["seconds"], other["seconds"], other["speed_up"])
            rows.append((name, *numbers, f"{target:g}" if target else ""))
        columns = ("against", "difference", "ours, s", "theirs, s", "speed-up", "target")
        title = f"{result['what']}, forward and backward, {batch} x {length} x {DIM}"
        table(f"{title}, {options.threads} threads", columns, rows)
    for stream in streams:
        if len(set(stream["state_numbers"])) > 1:
            missed.append(f"{stream['layer']}: the state grows with the stream")
        if stream["exponent"] > EXPONENT and not options.small:
            missed.append(f"{stream['layer']}: time grows as length^{stream['exponent']:.2f}")
    table(
        f"Streams, one sequence of width {DIM}, no gradient",
        ("", "exponent", "state", f"{lengths[0]} tokens, s", f"{lengths[-1]} tokens, s"),
        [
            (s["layer"], s["exponent"], s["state_numbers"][0], s["seconds"][0], s["seconds"][-1])
            for s in streams
        ],
    )
    for line in missed:
        print("MISSED", line)
    results = {"delta_rule": rule, "mom": whole, "layouts": layouts, "streams": streams}
    write_json(options.json, {"size": [batch, length, DIM], **results, "missed": missed})
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main())
