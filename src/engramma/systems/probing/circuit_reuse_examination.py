"""What `CircuitReuse.examine` does: both tasks in a model, from the behaviour to the repair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import spearmanr

from engramma.encoding.scores import bootstrap_interval
from engramma.errors import NotTestableError
from engramma.probing.ablation import Head, random_heads
from engramma.probing.findings import Examination, Finding, Panel, Table
from engramma.probing.model import LanguageModel
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.paired_tasks import coloured_objects, docstrings, indirect_objects
from engramma.probing.patching import Patching
from engramma.probing.scores import mean_interval

#: Prompts of each task to search with, and as many to test with.
PROMPTS, PROMPTS_QUICK = 20, 8
#: Random sets of heads that a located one is compared with.
RANDOM_SETS = 5
#: Share of right answers above which a repair has nothing to do.
NEAR_PERFECT = 0.9


def examine(model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
    """See `CircuitReuse.examine`."""
    from engramma.systems.probing.circuit_reuse import CircuitReuse

    rng = np.random.default_rng(seed)
    n = PROMPTS_QUICK if quick else PROMPTS
    search = CircuitReuse(steps=2)
    first = indirect_objects(model, 2 * n, rng=rng)
    require(model, first, 0.8)
    effects = {first.name: search.locate(model, first[:n])}
    circuit = search.circuit(model, first[:n])
    findings = [causal(model, first[n:], circuit.heads, rng)]
    notes = [
        "Circuits are searched for two steps back, at the last token: heads that move the answer, "
        "and those that write their queries."
    ]
    colours = coloured_objects(model, 2 * n, rng=rng)
    second = colours
    try:
        require(model, colours[:n], colours.chance + 0.25)
    except NotTestableError as error:
        notes.append(f"{error} Reuse is looked for in docstrings instead.")
        second = docstrings(model, n, rng=rng)
    try:
        require(model, second[:n], second.chance + 0.25)
        effects[second.name] = search.locate(model, second[:n])
        other = search.circuit(model, second[:n])
        overlap = search.overlap(model, circuit, other)
        notes.append(
            f"Of the {len(other.heads)} heads of the circuit of {other.task}, {overlap.share:.0%} "
            f"are in that of {circuit.task}; {overlap.chance:.0%} of heads drawn at random from "
            "the same layers would be."
        )
        findings.append(reuse(effects[first.name], effects[second.name], second.name, rng))
    except NotTestableError as error:
        notes.append(f"{error} Reuse is not tested.")
    findings += repaired(model, colours[:n], colours[n:], rng, notes)
    rows = [
        (role, *map(str, head), f"{score:.2f}")
        for role, heads in circuit.roles.items()
        for head, score in sorted(heads.items(), key=lambda item: -abs(item[1]))
    ]
    panels = [
        Panel(
            "matrix",
            f"Heads that answer {name}",
            scores.numpy(),
            x="head",
            y="layer",
            unit="share of the logit difference",
            caption="Change when a head's output at the last token is that to another prompt.",
        )
        for name, scores in effects.items()
    ]
    table = Table(
        "Circuit of indirect objects", ("role", "layer", "head", "path patching score"), rows
    )
    return Examination(findings, panels, [table], notes)


def require(model: LanguageModel, prompts: PairedPrompts, share: float) -> None:
    """Refuse a model that does not do a task.

    Raises
    ------
    NotTestableError
        If less than ``share`` of the answers are right.
    """
    right = prompts.right(model.logits(prompts.clean, at=prompts.last)).float().mean()
    if right < share:
        raise NotTestableError(
            f"{model.name} prefers the right answer in {right:.0%} of {prompts.name} prompts, and "
            f"{prompts.chance:.0%} would be chance"
        )


def causal(
    model: LanguageModel, prompts: PairedPrompts, heads: list[Head], rng: np.random.Generator
) -> Finding:
    """Exchange the heads of a circuit on new prompts."""
    patching = Patching(model, prompts)
    sets = [heads, *(random_heads(model, heads, rng) for _ in range(RANDOM_SETS))]
    moved = patching.exchange(sets).difference - patching.clean
    shares = moved / (patching.corrupted - patching.clean).mean()
    anatomy = model.anatomy
    return Finding(
        name="circuit of indirect objects",
        sentence=f"{len(heads)} of {anatomy.n_layers * anatomy.n_heads} heads carry which of two "
        "people receives something",
        value=mean_interval(prompts.right(patching.ends.logits).float(), rng=rng),
        unit="share of right answers",
        chance=prompts.chance,
        caused=mean_interval(shares[0], rng=rng),
        control=mean_interval(shares[1:].mean(dim=0), rng=rng),
        intervention="output of these heads at the last token as for a prompt without answer; "
        "change of the logit difference, 1 being all of it",
    )


def reuse(a: torch.Tensor, b: torch.Tensor, task: str, rng: np.random.Generator) -> Finding:
    """Compare the effects of each head in two tasks, beside heads shuffled within layers."""
    x, y = a.numpy(), b.numpy()
    shuffled = list(shuffled_correlations(x, y, rng, 200))
    interval = bootstrap_interval(
        lambda rows: float(spearmanr(x.ravel()[rows], y.ravel()[rows])[0]), x.size, rng=rng
    )
    return Finding(
        name="heads used again",
        sentence=f"Heads are ranked by their effects on {task} as on indirect objects with a "
        f"correlation of {interval.value:.2f}; heads shuffled within layers reach "
        f"{np.quantile(shuffled, 0.95):.2f} in one of twenty cases",
        value=interval,
        unit="rank correlation over heads",
        chance=float(np.percentile(shuffled, 95)),
    )


def shuffled_correlations(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, n: int
) -> Iterator[float]:
    """Rank correlations of effects (layer, head) with those of heads shuffled within layers."""
    for _ in range(n):
        yield float(spearmanr(x.ravel(), rng.permuted(y, axis=1).ravel())[0])


def repaired(
    model: LanguageModel,
    chosen_on: PairedPrompts,
    tested_on: PairedPrompts,
    rng: np.random.Generator,
    notes: list[str],
) -> list[Finding]:
    """Lead the attention of the best four heads to the wrong colours."""
    from engramma.systems.probing.circuit_reuse import CircuitReuse

    patching = Patching(model, tested_on)
    before = patching.clean_right.float()
    if before.mean() >= NEAR_PERFECT:
        notes.append("Coloured objects are answered nearly perfectly: there is nothing to repair.")
        return []
    heads = CircuitReuse().best_repair(model, chosen_on)
    sets = [heads, *(random_heads(model, heads, rng) for _ in range(RANDOM_SETS))]
    gain = patching.overwrite(sets, tested_on.marked).right.float() - before
    named = ", ".join(f"{layer}.{head}" for layer, head in heads)
    return [
        Finding(
            name="repair of coloured objects",
            sentence=f"Heads {named} attend to the two wrong colours, and the right one is named",
            value=mean_interval(before, rng=rng),
            unit="share of right answers before",
            chance=tested_on.chance,
            caused=mean_interval(gain[0], rng=rng),
            control=mean_interval(gain[1:].mean(dim=0), rng=rng),
            intervention="attention of four heads at the last token set to 0.5 on each wrong "
            "colour; change of the share of right answers",
        )
    ]
