"""What `SAECircuits.examine` does: score the heads of a model, and exchange the best."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from engramma.encoding.scores import bootstrap_interval
from engramma.errors import NotTestableError
from engramma.probing.ablation import random_heads
from engramma.probing.findings import Examination, Finding, Panel
from engramma.probing.head_outputs import paired_head_outputs
from engramma.probing.model import LanguageModel
from engramma.probing.paired_tasks import indirect_objects
from engramma.probing.patching import Patching
from engramma.probing.scores import mean_interval
from engramma.systems.probing.sae_circuits_claims import mean_difference

#: Prompts whose heads are scored, and those whose heads are exchanged; steps of training.
PROMPTS, EXCHANGED, STEPS = 100, 20, 150
PROMPTS_QUICK, EXCHANGED_QUICK, STEPS_QUICK = 30, 8, 50
#: Share of heads that are exchanged together, and of those that count as the circuit.
SHARE = 0.05
RANDOM_SETS = 5


def examine(model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
    """See `SAECircuits.examine`."""
    from engramma.systems.probing.sae_circuits import SAECircuits

    rng = np.random.default_rng(seed)
    n, exchanged, steps = (
        (PROMPTS_QUICK, EXCHANGED_QUICK, STEPS_QUICK) if quick else (PROMPTS, EXCHANGED, STEPS)
    )
    prompts = indirect_objects(model, n + exchanged, rng=rng)
    patching = Patching(model, prompts[n:])
    share = float(patching.clean_right.float().mean())
    if share < 0.8:
        raise NotTestableError(
            f"{model.name} prefers the right person in {share:.0%} of sentences, and 50% would be "
            "chance"
        )
    x, y = paired_head_outputs(model, prompts[:n])
    system = SAECircuits(steps=steps, seed=seed).fit(x, y)
    scores, means = system.head_scores(), mean_difference(x, y)
    effects = patching.score(patching.exchange([[h] for h in patching.heads]).difference).numpy()
    count = max(1, round(SHARE * len(scores)))
    truth = np.zeros(len(scores), dtype=bool)
    truth[np.argsort(-np.abs(effects))[:count]] = True
    best = [patching.heads[i] for i in np.argsort(-scores, kind="stable")[:count]]
    sets = [best, *(random_heads(model, best, rng) for _ in range(RANDOM_SETS))]
    moved = patching.exchange(sets).difference - patching.clean
    shares = moved / (patching.corrupted - patching.clean).mean()

    def area(rows: np.ndarray) -> float:
        both = 0 < truth[rows].sum() < len(rows)
        return float(roc_auc_score(truth[rows], scores[rows])) if both else float("nan")

    shape = (model.anatomy.n_layers, model.anatomy.n_heads)
    told = bootstrap_interval(area, len(scores), rng=rng)
    finding = Finding(
        name="heads told by their codes",
        sentence="Codes that occur only where a person is named twice tell the "
        f"{count} heads whose exchange changes the answer most from the others with an area under "
        f"the ROC curve of {told.value:.2f} (chance 0.50).",
        value=told,
        unit="area under the ROC curve",
        chance=0.5,
        caused=mean_interval(shares[0], rng=rng),
        control=mean_interval(shares[1:].mean(dim=0), rng=rng),
        intervention=f"output of the {count} best heads at the last token as for a prompt without "
        "answer; change of the logit difference, 1 being all of it",
    )
    panel = Panel(
        "matrix",
        "Codes that positive prompts alone have",
        scores.reshape(shape),
        x="head",
        y="layer",
        unit="z over permuted labels",
        caption="Beside: what exchanging each head does, in the examination of circuit-reuse.",
    )
    notes = (
        f"The autoencoder was trained for {steps} steps on ten prompts. The distance of the means "
        f"of both classes has an area of {roc_auc_score(truth, means):.2f} for the same heads.",
    )
    return Examination([finding], [panel], (), notes)
