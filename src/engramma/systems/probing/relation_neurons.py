r"""On relation-specific neurons in large language models (Liu et al. 2025, arXiv:2502.17355).

**What it does.** It looks for feed-forward neurons that are tied to a *relation* ("capital of"),
whatever the entity, and switches them off.

1. Each relation r asks for facts (s, r, o) in several templates
   (`engramma.probing.facts`). Only prompts are kept whose answer the model gets right: the first
   token of o is the likeliest. Subjects are divided, over all relations at once, into an
   identification and an evaluation set.
2. The response :math:`a_j(x)` of neuron j to a prompt is its intermediate activation at the last
   token: :math:`\mathrm{SiLU}(W_{gate} x)_j` where neurons are gated, else their activation.
3. Expertise is the average precision of :math:`a_j` as a detector: positives are the prompts of r,
   negatives those of all other relations, with as many prompts of each relation. The k best of all
   layers are the neurons of r.
4. They are set to 0 at every position. The drop of accuracy on evaluation prompts of r (intra) is
   set against that of all other relations (inter), and against as many random neurons of the same
   layers. Rows of the effect matrix are the relation whose neurons are off, columns the relation
   that is asked for.
5. The same for growing k (cumulativity), the overlap of the sets (versatility), and the pairs where
   an answer becomes likelier without the neurons of another relation (interference).

**Deviations.** selfcond (Suau et al. 2022), which the paper's code builds on, takes the largest
response over tokens; here it is that of the last token, where the relation is asked for. The paper
takes the best 3,000 of 352,256 neurons of Llama-2-7B; here k is a share, 1 % by default. Facts are
ours (those of the LRE set can be read), and so are the numbers: the paper's are not reproduced.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from engramma.errors import ConfigError, DataWarning, NotTestableError
from engramma.probing.ablation import Neuron, ablate_neurons, random_neurons
from engramma.probing.facts import FactPrompts, check_disjoint, fact_prompts, relations
from engramma.probing.findings import Examination
from engramma.probing.model import LanguageModel
from engramma.probing.neurons import Recorded, average_precision, by_length, record
from engramma.probing.places import Kind
from engramma.probing.scores import log_probability
from engramma.registry import system
from engramma.systems.probing.relation_neurons_claims import CLAIMS
from engramma.systems.probing.relation_neurons_effects import (
    Effects,
    Expertise,
    detection,
    facts_known,
    matrices,
    specificity,
)

BIBTEX = """@inproceedings{liu2025relation,
  title = {On Relation-Specific Neurons in Large Language Models},
  author = {Liu, Yihong and Chen, Runsheng and Hirlimann, Lea and Hakimi, Ahmad Dawar and
            Wang, Mingyang and Kargaran, Amir Hossein and Rothe, Sascha and Yvon, Fran{\\c{c}}ois
            and Sch{\\"u}tze, Hinrich},
  booktitle = {Proceedings of EMNLP}, year = {2025}, note = {arXiv:2502.17355}}"""

#: Fewest prompts of a relation that the model must get right.
FEWEST = 8
#: Draws of random neurons that are compared with.
DRAWS = 5


def answer(
    model: LanguageModel, prompts: FactPrompts, neurons: Iterable[Neuron] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Ask all prompts while some neurons are off.

    Returns
    -------
    right : ndarray of bool, shape (prompt,)
    log_p : ndarray, shape (prompt,)
        Log probability of the answer's first token, nats.
    """
    edits = ablate_neurons(model, neurons)
    right = np.empty(len(prompts), dtype=bool)
    log_p = np.empty(len(prompts))
    for index, tokens, last in by_length(prompts.tokens, prompts.last):
        logits = model.logits(tokens, at=last, edits=edits)
        right[index] = (logits.argmax(dim=-1) == prompts.answers[index]).numpy()
        log_p[index] = log_probability(logits, prompts.answers[index]).numpy()
    return right, log_p


@system(
    "relation-neurons",
    family="probing",
    title="Neurons tied to a relation, whatever the entity",
    contract="Probe",
    paper="Liu et al. 2025, EMNLP, arXiv:2502.17355",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class RelationNeurons:
    """Find the neurons of relations, and switch them off.

    Parameters
    ----------
    top : float
        Share of all neurons that are a relation's.
    share : float
        Of the subjects, for identification.
    """

    def __init__(self, top: float = 0.01, share: float = 0.5) -> None:
        if not 0 < top < 1:
            raise ConfigError(f"{top} is no share of neurons", where="top", mend="0 < top < 1")
        self.top, self.share = top, share

    def place(self, model: LanguageModel) -> Kind:
        """Where the response of a neuron is read: behind SiLU where neurons are gated."""
        return "gate" if model.anatomy.gated else "neurons"

    def count(self, model: LanguageModel) -> int:
        """Neurons of a relation, k."""
        return max(1, round(self.top * model.anatomy.n_layers * model.anatomy.n_neurons))

    def score(self, model: LanguageModel, prompts: FactPrompts, labels: np.ndarray) -> np.ndarray:
        """Average precision of every neuron for labels, layer x neuron."""
        found = record(model, prompts.tokens, prompts.last, self.place(model))
        return average_precision(found.responses, labels)

    def locate(
        self,
        model: LanguageModel,
        examples: FactPrompts,
        *,
        recorded: Recorded | None = None,
        rng: np.random.Generator | None = None,
    ) -> Expertise:
        """Score every neuron for every relation.

        Parameters
        ----------
        model : LanguageModel
        examples : FactPrompts
            Identification prompts.
        recorded : Recorded, optional
            Responses to them, where they are known already.
        rng : numpy.random.Generator, optional
            Draws the prompts that are left out where relations have different numbers of them.

        Warns
        -----
        DataWarning
            If prompts are left out for that.
        """
        if recorded is None:
            recorded = record(model, examples.tokens, examples.last, self.place(model))
        counts = examples.counts()
        responses = recorded.responses
        if counts.min() != counts.max():
            warnings.warn(
                f"relations have {counts.min()} to {counts.max()} prompts: {counts.min()} of each "
                "are used, so that average precisions can be compared",
                DataWarning,
                stacklevel=2,
            )
            rows = examples.balanced(np.random.default_rng(0) if rng is None else rng)
            examples, responses = examples.pick(rows), responses[rows]
        labels = examples.relation == np.arange(len(examples.names))[:, None]
        return Expertise(
            average_precision(responses, labels), examples.names, float(labels[0].mean())
        )

    @contextmanager
    def intervene(self, model: LanguageModel, where: Iterable[Neuron]) -> Iterator[LanguageModel]:
        """Keep neurons, as (layer, neuron), at 0 within the ``with`` block."""
        with model.edited(ablate_neurons(model, where)):
            yield model

    deactivate = intervene

    def known(
        self, model: LanguageModel, prompts: FactPrompts, recorded: Recorded | None = None
    ) -> np.ndarray:
        """Mask of the prompts that the model answers rightly."""
        if recorded is None:
            return answer(model, prompts)[0]
        return (recorded.likeliest == prompts.answers).numpy()

    def effects(
        self, model: LanguageModel, sets: Iterable[Iterable[Neuron]], evaluation: FactPrompts
    ) -> Effects:
        """Switch sets of neurons off, one after the other."""
        before, likely = answer(model, evaluation)
        pairs = [answer(model, evaluation, neurons) for neurons in sets]
        return Effects(
            np.stack([right for right, _ in pairs]),
            np.stack([log_p - likely for _, log_p in pairs]),
            before,
            evaluation.relation,
        )

    def effect_matrix(
        self,
        model: LanguageModel,
        expertise: Expertise,
        evaluation: FactPrompts,
        k: int | None = None,
        *,
        identification: FactPrompts | None = None,
    ) -> np.ndarray:
        """Drop of accuracy in points: neurons of which relation x facts of which relation.

        Raises
        ------
        LeakageError
            If ``identification`` is given and shares a subject with ``evaluation``.
        """
        if identification is not None:
            check_disjoint(identification, evaluation)
        k = self.count(model) if k is None else k
        sets = [expertise.select(r, k) for r in range(len(expertise.names))]
        return self.effects(model, sets, evaluation).matrix()

    # -- a user's model ------------------------------------------------------------------------

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Look for neurons of relations in a model: see `engramma.probing.findings.Examiner`."""
        rng = np.random.default_rng(seed)
        # Of two wordings one is for testing, and neurons would be found that tell the other one.
        prompts = fact_prompts(model, relations(), templates=3)
        recorded = record(model, prompts.tokens, prompts.last, self.place(model))
        known = self.known(model, prompts, recorded)
        identified, tested = prompts.split(self.share, rng)
        finding, testing = prompts.split_templates(known)
        sides = known & identified & finding, known & tested & testing
        kept = enough(prompts, known, sides)
        chosen = np.isin(prompts.relation, kept)
        first = np.flatnonzero(sides[0] & chosen)
        part = prompts.pick(first).of_relations(kept)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # a note says how many are known
            expertise = self.locate(
                model,
                part,
                recorded=Recorded(recorded.responses[first], recorded.likeliest[first]),
                rng=rng,
            )
        second = np.flatnonzero(sides[1] & chosen)
        held_out = prompts.pick(second).of_relations(kept)
        check_disjoint(part, held_out)
        best = [expertise.select(r, 1)[0] for r in range(len(kept))]
        detectors = np.stack([recorded.responses[second, x, j] for x, j in best], axis=1)
        evaluation = held_out.pick(_few(held_out, 6 if quick else 12, rng))
        k = self.count(model)
        sets = [expertise.select(r, k) for r in range(len(kept))]
        own = self.effects(model, sets, evaluation)
        drawn = Effects.of_draws(
            [
                self.effects(model, [random_neurons(model, s, rng) for s in sets], evaluation)
                for _ in range(3 if quick else DRAWS)
            ]
        )
        findings = [
            *detection(expertise, detectors, held_out.relation, own, drawn, k, rng),
            specificity(own, drawn, k, rng),
        ]
        notes = [
            f"{int(known.sum())} of {len(known)} prompts are answered rightly; the others are left "
            "out.",
            "Answers become likelier by more than 0.1 nats without the neurons of another relation "
            f"in {int((own.gains() > 0.1).sum())} of {own.gains().size} pairs.",
        ]
        return Examination(
            findings,
            matrices(expertise, own, k),
            [facts_known(prompts, known, expertise.names)],
            notes,
        )


def enough(
    prompts: FactPrompts,
    known: np.ndarray,
    sides: tuple[np.ndarray, np.ndarray],
    fewest: int = FEWEST,
) -> list[int]:
    """Relations of which enough prompts are known, to find neurons with and to test them with.

    Raises
    ------
    NotTestableError
        If there are fewer than three.
    """
    n = len(prompts.names)
    counts = [np.bincount(prompts.relation[side], minlength=n) for side in sides]
    kept = np.flatnonzero(np.minimum(*counts) >= fewest).tolist()
    if len(kept) < 3:
        raise NotTestableError(
            f"the model knows {int(known.sum())} of {len(known)} facts, and of {len(kept)} "
            f"relations only at least {fewest} to find neurons with and to test them with; three "
            "are needed"
        )
    return [int(r) for r in kept]


def _few(prompts: FactPrompts, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many prompts of each relation, as indices."""
    rows = [
        rng.permutation(np.flatnonzero(prompts.relation == r))[:most]
        for r in range(len(prompts.names))
    ]
    return np.sort(np.concatenate(rows))
