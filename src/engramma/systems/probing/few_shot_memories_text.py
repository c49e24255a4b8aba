"""Few-shot memories of a model that reads text: `FewShotMemories.examine`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from engramma.contracts import Estimate
from engramma.probing.bigrams import english_foils, english_sentences
from engramma.probing.findings import Examination, Finding, Panel
from engramma.probing.model import LanguageModel
from engramma.probing.scores import mean_interval
from engramma.systems.probing.few_shot_memories import FewShotMemories

RATE, ROWS, EXPOSURES = 2e-4, 8, 3


@dataclass
class _Course:
    """Tests of studied sentences, and of others that never were, one entry a test."""

    labels: list[str] = field(default_factory=list)
    recognised: list[np.ndarray] = field(default_factory=list)
    synonyms: list[np.ndarray] = field(default_factory=list)
    unstudied: list[np.ndarray] = field(default_factory=list)
    recalled: list[np.ndarray] = field(default_factory=list)


def course(model: LanguageModel, *, seed: int, quick: bool) -> _Course:
    """Study sentences, test after each exposure, interfere, and test again.

    Parameters
    ----------
    model : LanguageModel
    seed : int
    quick : bool
    """
    rng = np.random.default_rng(seed)
    n, updates = (8, (4,)) if quick else (24, (5, 15))
    sentences = english_sentences(4 * n, rng=rng)
    studied, foils, others, stream = (sentences[i * n : (i + 1) * n] for i in range(4))
    synonyms = english_foils(studied, "synonym", rng=rng)
    memory = FewShotMemories(model, rate=RATE, rows=ROWS, seed=seed, half=True)
    found = _Course()

    def test(label: str) -> None:
        seen, unseen = memory.surprisal(studied), memory.surprisal(foils)
        found.labels.append(label)
        found.recognised.append((seen < unseen).astype(float))
        found.synonyms.append((seen < memory.surprisal(synonyms)).astype(float))
        found.unstudied.append((memory.surprisal(others) < unseen).astype(float))
        found.recalled.append(memory.recalled(studied).rouge_1)

    test("before study")
    for exposure in range(EXPOSURES):
        memory.write(studied)
        if exposure in (0, EXPOSURES - 1):
            test(f"{exposure + 1} seen")
    done = 0
    for step in updates:
        memory.interfere(stream, step - done)
        done = step
        test(f"{step} updates later")
    return found


@torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
def examine(model: LanguageModel, *, seed: int, quick: bool) -> Examination:
    """See `FewShotMemories.examine`. Matrix products are in bfloat16, several times as quick."""
    rng = np.random.default_rng([seed, 1])
    found = course(model, seed=seed, quick=quick)
    updates = found.labels[-1].split()[0]

    def mean(values: np.ndarray) -> Estimate:
        return mean_interval(values, rng=rng)

    findings = [
        Finding(
            "recognition after one exposure",
            f"{found.recognised[1].mean():.0%} of sentences that were studied once surprise the "
            "model less than others of the same kind.",
            mean(found.recognised[1]),
            unit="share of sentences",
            chance=0.5,
            caused=mean(found.recognised[1] - found.recognised[0]),
            control=mean(found.unstudied[1] - found.unstudied[0]),
            intervention="studied once (control: sentences that were not studied)",
        ),
        Finding(
            "recognition beside one synonym",
            f"After {EXPOSURES} exposures {found.synonyms[2].mean():.0%} do beside themselves with "
            "one word replaced by a synonym.",
            mean(found.synonyms[2]),
            unit="share of sentences",
            chance=0.5,
            caused=mean(found.synonyms[2] - found.synonyms[0]),
            control=mean(found.unstudied[2] - found.unstudied[0]),
            intervention=f"studied {EXPOSURES} times (control: sentences that were not studied)",
        ),
        Finding(
            "recall",
            f"ROUGE-1 of the second half, recalled from the first, after {EXPOSURES} exposures; "
            f"{found.recalled[1].mean():.2f} after one, {found.recalled[0].mean():.2f} before.",
            mean(found.recalled[2]),
            unit="ROUGE-1 of the continuation",
            chance=float(found.recalled[0].mean()),
            caused=mean(found.recalled[2] - found.recalled[0]),
            intervention=f"studied {EXPOSURES} times",
        ),
        Finding(
            "retention",
            f"After {updates} updates on other sentences recall is at "
            f"{found.recalled[-1].mean():.2f}, and recognition at "
            f"{found.recognised[-1].mean():.2f}.",
            mean(found.recalled[-1]),
            unit="ROUGE-1 of the continuation",
            chance=float(found.recalled[0].mean()),
            caused=mean(found.recalled[-1] - found.recalled[2]),
            intervention=f"{updates} updates on other sentences",
        ),
    ]
    tests = {
        "recognition": found.recognised,
        "recognition beside a synonym": found.synonyms,
        "recall (ROUGE-1)": found.recalled,
        "recognition of what was not studied": found.unstudied,
    }
    x = np.arange(len(found.labels))
    panel = Panel(
        "curves",
        "Study and interference",
        {name: (x, np.array([v.mean() for v in values])) for name, values in tests.items()},
        x=", ".join(f"{i}: {label}" for i, label in enumerate(found.labels)),
        y="share",
    )
    note = (
        f"the model was trained on {len(found.recognised[0])} made-up sentences at a rate of "
        f"{RATE:g}, {ROWS} a step; a copy was, the model itself is as before"
    )
    return Examination(findings, [panel], [], [note])
