"""Prior influence in a model that reads text: `PriorInfluence.examine`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from engramma.contracts import Estimate
from engramma.errors import DataWarning, NotTestableError
from engramma.probing.answers import Items, Score, score, text_items
from engramma.probing.findings import Examination, Finding, Panel, Table
from engramma.probing.model import LanguageModel
from engramma.probing.priors import TASKS, with_examples
from engramma.probing.scores import mean_interval
from engramma.systems.probing.prior_influence import Dominance, PriorInfluence, dominance

NEUTRAL = "Answer:"
INSTRUCTION = (
    "Ignore which answers are common. Work out each answer exactly, even if it looks odd.\n\n"
)
#: As long as the instruction, and about nothing.
FILLER = "Here are a few short lines of text. Each of them is followed by an empty line.\n\n"
#: Article swapping is left out: its answers are sentences, which take long and say no more.
ASKED = ("acronyms", "counting", "shift-cipher")
SHOTS = 5
#: A task is solved in part where this share of answers is right, and not all are.
SOLVED = (0.1, 0.98)


@dataclass(frozen=True)
class Asked:
    """A task as put to a model: plainly, behind an instruction, behind a filler."""

    name: str
    items: Items
    log_prior: np.ndarray
    plain: Score
    instructed: Score
    filled: Score
    dominance: Dominance

    @property
    def accuracy(self) -> float:
        """Share of right answers, put plainly."""
        return float(self.plain.correct.mean())

    @property
    def solved(self) -> bool:
        """Whether the model can do the task in part."""
        return SOLVED[0] <= self.accuracy <= SOLVED[1]

    @property
    def rare(self) -> np.ndarray:
        """Items of the rarer half."""
        return np.argsort(self.log_prior, kind="stable")[: len(self.log_prior) // 2]


def ask(model: LanguageModel, name: str, n: int, *, rng: np.random.Generator) -> Asked:
    """Put n items of a task to a model, after a few solved examples.

    Parameters
    ----------
    model : LanguageModel
    name : str
        Of `engramma.probing.priors.TASKS`.
    n : int
    rng : numpy.random.Generator
    """
    drawn = TASKS[name](n + SHOTS, rng=rng)
    examples, asked = drawn[:SHOTS], drawn[SHOTS:]
    prompts, answers = with_examples(asked, examples), [item.answer for item in asked]
    items = text_items(model, prompts, answers)
    probe = PriorInfluence(model, neutral=NEUTRAL)
    log_prior = np.nanmean(probe.prior(items), axis=1)
    plain, instructed, filled = (
        score(model, text_items(model, [before + p for p in prompts], answers), rows=16)
        for before in ("", INSTRUCTION, FILLER)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # what is not solved is said in the notes
        held = dominance(plain, log_prior, rng=rng)
    return Asked(name, items, log_prior, plain, instructed, filled, held)


@torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
def examine(model: LanguageModel, *, seed: int, quick: bool) -> Examination:
    """See `PriorInfluence.examine`. Matrix products are in bfloat16, several times as quick."""
    rng = np.random.default_rng(seed)
    tasks = [ask(model, name, 16 if quick else 48, rng=rng) for name in ASKED]
    solved = [task for task in tasks if task.solved]
    if not solved:
        shares = ", ".join(f"{task.accuracy:.0%} of {task.name}" for task in tasks)
        raise NotTestableError(
            f"the model does none of the tasks in part: it has {shares} right",
            where=model.name,
            mend="use a model that can take initials, count or decipher, if not always",
        )
    findings = [finding for task in solved for finding in _prior(task, rng)]
    main = max(solved, key=lambda task: -abs(task.accuracy - 0.5))
    curve_panel, layer = _localise(model, main)
    findings.append(_tune(model, main, layer, seed, 6 if quick else 16, rng))
    notes = [
        f"{task.name}: {task.accuracy:.0%} right, so nothing can be said of its prior"
        for task in tasks
        if not task.solved
    ]
    notes.append("in counting, rarer answers are larger numbers, which are harder as such")
    return Examination(findings, [curve_panel], [_table(tasks)], notes)


def _prior(task: Asked, rng: np.random.Generator) -> list[Finding]:
    rare = task.rare
    plain, instructed, filled = (
        s.correct[rare].astype(float) for s in (task.plain, task.instructed, task.filled)
    )
    graded = task.dominance.graded
    return [
        Finding(
            f"{task.name}: right where the answer is likely",
            f"Over {len(task.log_prior)} items, being right correlates with the prior of the "
            f"answer by {task.dominance.correlation.value:.2f}: {task.dominance.likely:.0%} of the "
            f"likeliest third and {task.dominance.rare:.0%} of the rarest third are right. The "
            f"log probability of the right answer correlates by {graded.value:.2f}.",
            task.dominance.correlation,
            unit="correlation",
            chance=0.0,
            caused=mean_interval(instructed - plain, rng=rng),
            control=mean_interval(filled - plain, rng=rng),
            intervention="change of accuracy on the rarer half behind an instruction to be exact "
            "(control: a filler as long)",
        )
    ]


def _localise(model: LanguageModel, task: Asked) -> tuple[Panel, int]:
    probe = PriorInfluence(model, neutral=NEUTRAL)
    prior = probe.prior(task.items)
    # The first token that tells answers apart: before digits some tokenizers put a bare space.
    token = int(np.argmax(np.ptp(prior, axis=0) > 1e-3))
    curve = probe.layer_prior_curve(task.items, token)
    depth = np.arange(len(curve.correlation))
    panel = Panel(
        "curves",
        f"The prior in the layers ({task.name})",
        {
            "correlation with the log prior": (depth, curve.correlation),
            "right answers": (depth, curve.accuracy),
        },
        x="blocks passed",
        y="correlation, or share",
        caption="Logit lens on the first token that tells answers apart.",
    )
    return panel, int(np.nanargmax(curve.correlation[1:]))


def _tune(
    model: LanguageModel, task: Asked, layer: int, seed: int, steps: int, rng: np.random.Generator
) -> Finding:
    tuned_on, heldout = _split(task.items, rng)
    probe = PriorInfluence(
        model, neutral=NEUTRAL, steps=steps, rate=2e-4, rows=8, half=True, seed=seed
    )
    before = score(model, heldout, rows=16).correct.astype(float)
    shuffled = tuned_on.answered([tuned_on.answers[n] for n in rng.permutation(len(tuned_on))])
    gains = [
        score(probe.tune([layer], items).model, heldout, rows=16).correct - before
        for items in (tuned_on, shuffled)
    ]
    gain, control = (mean_interval(g, rng=rng) for g in gains)
    return Finding(
        f"{task.name}: tuning one block",
        f"Block {layer}, after which the logit lens follows the prior best, was tuned for {steps} "
        f"steps on {len(tuned_on)} items; of {len(heldout)} items with other answers "
        f"{before.mean():.0%} were right before, {before.mean() + gain.value:.0%} after.",
        Estimate(float(before.mean() + gain.value)),
        unit="share of held-out items",
        caused=gain,
        control=control,
        intervention=f"block {layer} tuned (control: on shuffled answers)",
    )


def _split(items: Items, rng: np.random.Generator) -> tuple[Items, Items]:
    """Half of the different answers to tune on, and items with the other answers."""
    answers = [tuple(a) for a in items.answers]
    different = sorted(set(answers))
    chosen = {different[n] for n in rng.permutation(len(different))[: len(different) // 2]}
    inside = np.array([a in chosen for a in answers])
    return items[np.flatnonzero(inside)], items[np.flatnonzero(~inside)]


def _table(tasks: list[Asked]) -> Table:
    def shown(task: Asked) -> list[str]:
        held = task.dominance
        rare = task.rare
        values = [
            task.accuracy,
            held.likely,
            held.rare,
            task.plain.correct[rare].mean(),
            task.instructed.correct[rare].mean(),
        ]
        return [task.name, *(f"{v:.0%}" for v in values), f"{held.graded.value:.2f}"]

    return Table(
        "Tasks with one right answer",
        [
            "task",
            "right",
            "likeliest third",
            "rarest third",
            "rarer half",
            "rarer half, instructed",
            "log probability ~ log prior",
        ],
        [shown(task) for task in tasks],
        "Log prior: after a neutral prompt, mean over the answer's tokens.",
    )
