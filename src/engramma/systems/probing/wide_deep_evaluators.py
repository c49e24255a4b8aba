r"""Wider and Deeper LLM Networks are Fairer LLM Evaluators (Zhang et al. 2023, arXiv:2308.01862).

**What it does.** Given a question and two answers, says which one people would prefer, by a small
network of calls to a language model: reviewers with different roles (width) who judge, read each
other, and judge again (depth).

**Roles.** One call at temperature 0 asks for the angles from which to compare these two answers, as
many as matter (``limited``: the two most important). Each becomes a neuron i with role r_i.

**Layer 1.** Neuron i reads question and answers, writes evidence, and scores both from 1 to 10. It
does so twice, with the answers exchanged the second time. Of the second reply the scores are turned
back, and the names inside its text too:

.. math:: (s^1_{i,1}, s^2_{i,1}), e_{i,1} = J(r_i; q, a^1, a^2), \qquad
          (s^2_{i,2}, s^1_{i,2}), \tilde e_{i,2} = J(r_i; q, a^2, a^1).

**Layer l > 1.** Neuron i also reads its own evaluations of all layers before and those of neurons
i - 1 and i + 1 in the layer before, and takes the union of their roles for its angle.

**Decision.** Mean of all scores over layers, neurons and orders; the larger one wins, equal within
1e-6 is a tie. ``aggregate="last"`` takes the last layer alone; ``"vote"`` lets each neuron of each
layer vote by its mean over both orders.

A comparison takes :math:`1 + 2 \cdot \mathrm{width} \cdot \mathrm{depth}` calls, those of a layer
side by side.

**Deviations.** Exchanging the answers turns the decision round *exactly*, for every judge that
answers the same to the same prompt, temperature and seed. In the released code it does not: the
call for roles shows the answers in the order given (here in alphabetical order), earlier evidence
is listed in the item's order (here the one made in the same order of presentation comes first), and
the union of roles is a set in no order. A neuron's own evaluations of *all* earlier layers are kept
(there, a mistake leaves the last). A reply that cannot be read is asked for again, with another
seed, up to ten times, or until a reply comes back word for word; then the neuron drops out, with
both of its orders (one alone would be biased by position), and this is recorded, where the released
code scores (0, 0). Equal answers, two empty ones among them, are a tie without a call; an answer
against an empty one is judged. A back end that fails leaves a partial decision, marked incomplete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from engramma.agents.endpoint import Endpoint
from engramma.agents.errors import ModelError
from engramma.agents.model import Completion, Message, TextModel
from engramma.agents.parallel import map_many
from engramma.agents.request import Request
from engramma.errors import ConfigError, DataError, EngrammaError
from engramma.registry import system
from engramma.systems.probing.wide_deep_agreement import agreement
from engramma.systems.probing.wide_deep_decisions import (
    Agreement,
    Cost,
    Decision,
    Judgement,
    Layer,
    decide,
)
from engramma.systems.probing.wide_deep_evaluators_claims import CLAIMS
from engramma.systems.probing.wide_deep_prompts import (
    FALLBACK_ROLES,
    Item,
    ask_roles,
    ask_scores,
    exchange_names,
    parse_roles,
    parse_scores,
)

BIBTEX = """@article{zhang2023wider,
  title = {Wider and Deeper {LLM} Networks are Fairer {LLM} Evaluators},
  author = {Zhang, Xinghua and Yu, Bowen and Yu, Haiyang and Lv, Yangyu and Liu, Tingwen and
            Huang, Fei and Xu, Hongbo and Li, Yongbin},
  journal = {arXiv preprint arXiv:2308.01862}, year = {2023}}"""


class _Reading(NamedTuple):
    value: Any
    replies: tuple[Completion, ...]
    problem: str = ""
    failed: bool = False


@system(
    "wide-deep-evaluators",
    family="probing",
    title="Wider and deeper networks of language models as evaluators",
    contract="Orchestrator",
    paper="Zhang et al. 2023, arXiv:2308.01862",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class WideDeep:
    """A network of reviewers that compares two answers.

    Parameters
    ----------
    llm : TextModel, optional
        The model that all neurons are; an `engramma.agents.endpoint.Endpoint` by default.
    depth : int
        Layers.
    limited : bool
        Ask for the two most important roles only.
    roles : sequence of str, optional
        Given roles, one a neuron; nothing is asked then. The same role may be given several times.
    aggregate : {"mean", "last", "vote"}
    order_swap : bool
        Whether each neuron judges in both orders.
    temperature : float
        Of the judgements; 1 in the released code.
    tries : int
        Replies that are asked for until one can be read.
    most_roles : int
        Roles beyond are left out, and noted.
    max_tokens : int
        Of a reply.
    workers : int
        Calls at a time.
    seed : int
        Of the judgements' draws.

    Raises
    ------
    ConfigError
        If an option is out of range.
    """

    def __init__(
        self,
        llm: TextModel | None = None,
        *,
        depth: int = 2,
        limited: bool = False,
        roles: Sequence[str] | None = None,
        aggregate: Literal["mean", "last", "vote"] = "mean",
        order_swap: bool = True,
        temperature: float = 1.0,
        tries: int = 10,
        most_roles: int = 20,
        max_tokens: int = 512,
        workers: int = 8,
        seed: int = 0,
    ) -> None:
        if aggregate not in ("mean", "last", "vote"):
            raise ConfigError(f"there is no aggregate {aggregate!r}", mend="use mean, last or vote")
        if min(depth, tries, most_roles, max_tokens, workers) < 1 or seed < 0 or temperature < 0:
            raise ConfigError(
                "depth, tries, most_roles, max_tokens and workers are at least 1, seed and "
                "temperature at least 0",
                where="WideDeep",
            )
        if roles is not None and (isinstance(roles, str) or not roles):
            raise ConfigError("roles are a list of at least one text", where="WideDeep.roles")
        self.llm, self.depth, self.limited = llm, depth, limited
        self.roles = None if roles is None else tuple(roles)
        self.aggregate, self.order_swap, self.temperature = aggregate, order_swap, temperature
        self.tries, self.most_roles, self.max_tokens = tries, most_roles, max_tokens
        self.workers, self.seed = workers, seed

    def run(self, task: Item | Sequence[Item], llm: TextModel) -> Decision | Agreement:
        """Compare one pair, or score a set of them, with ``llm``."""
        return self.evaluate(task, llm) if isinstance(task, Item) else self.score(task, llm)

    def evaluate(self, item: Item, llm: TextModel | None = None) -> Decision:
        """Compare two answers.

        Raises
        ------
        ConfigError
            If the model is set up wrongly (no endpoint, key refused); other failures of the model
            leave an incomplete decision.
        """
        return self._evaluate(item, llm or self.llm or Endpoint(), self.workers)

    def score(
        self,
        dataset: Sequence[Item],
        llm: TextModel | None = None,
        *,
        rng: np.random.Generator | None = None,
    ) -> Agreement:
        """Compare all pairs, several at a time, and measure agreement with people.

        Parameters
        ----------
        dataset : sequence of Item
            With human preferences.
        llm : TextModel, optional
        rng : numpy.random.Generator, optional
            Of the intervals; one of seed 0 by default.

        Raises
        ------
        DataError
            If there is no item, or one without human preference.
        ModelError
            If no item could be decided.
        """
        human = [item.human for item in dataset]
        if not human or None in human:
            raise DataError(
                f"item {human.index(None)} has no human preference" if human else "no item",
                where="score",
                mend="give items whose `human` is first, second or tie",
            )
        model = llm or self.llm or Endpoint()
        decisions = []
        for outcome in map_many(
            lambda item: self._evaluate(item, model, 1), dataset, self.workers, "comparing"
        ):
            if isinstance(outcome, Exception):
                raise outcome
            decisions.append(outcome)
        decided = [
            (h, d.preference) for h, d in zip(human, decisions, strict=True) if h and d.preference
        ]
        if not decided:
            raise ModelError(
                f"no item could be decided: {'; '.join(decisions[0].notes)}",
                where=f"model {model.name!r}",
            )
        return Agreement(
            **agreement(*zip(*decided, strict=True), rng=rng),
            n=len(decisions),
            undecided=len(decisions) - len(decided),
            incomplete=sum(not d.complete for d in decisions),
            cost=Cost(*(sum(parts) for parts in zip(*(d.cost for d in decisions), strict=True))),
            decisions=tuple(decisions),
        )

    # -- one comparison --------------------------------------------------------------------

    def _evaluate(self, item: Item, llm: TextModel, workers: int) -> Decision:
        if item.first.strip() == item.second.strip():
            unscored = (math.nan, math.nan)
            return Decision("tie", unscored, notes=("the answers are equal; nobody was asked",))
        asked, roles, notes = self._find_roles(item, llm)
        layers: list[Layer] = []
        trace: list[Judgement] = []
        neurons: dict[int, tuple[str, ...]] = {i: (role,) for i, role in enumerate(roles, start=1)}
        for layer in range(1, self.depth + 1):
            said = self._ask_layer(item, llm, layer, neurons, layers, workers)
            trace += [j for judgements in said.values() for j in judgements]
            kept = {i: js for i, js in said.items() if all(j.scores for j in js)}
            if not kept:
                break
            layers.append(kept)
            neurons = {i: _union(neurons, kept, i) for i in kept}
        notes += [f"layer {j.layer}, neuron {j.neuron}: {j.problem}" for j in trace if j.problem]
        preference, scores = decide(layers, self.aggregate)
        replies = [*asked.replies, *(r for j in trace for r in j.replies)]
        return Decision(
            preference,
            scores,
            tuple(roles),
            tuple(trace),
            Cost.of(replies),
            preference is not None and not asked.failed and not any(j.failed for j in trace),
            tuple(notes),
        )

    def _find_roles(self, item: Item, llm: TextModel) -> tuple[_Reading, list[str], list[str]]:
        if self.roles is not None:
            return _Reading(None, ()), list(self.roles), []
        asked = self._read(llm, ask_roles(item, self.limited), parse_roles, 0.0, self._seed(0, 0))
        if asked.failed:
            return asked, [], [f"no roles: {asked.problem}"]
        if not asked.value:
            return asked, list(FALLBACK_ROLES), [f"standard roles, as {asked.problem}"]
        most = 2 if self.limited else self.most_roles
        cut = len(asked.value) > most
        return asked, asked.value[:most], [f"{most} of {len(asked.value)} roles"] if cut else []

    def _ask_layer(
        self,
        item: Item,
        llm: TextModel,
        layer: int,
        neurons: dict[int, tuple[str, ...]],
        before: Sequence[Layer],
        workers: int,
    ) -> Layer:
        """All judgements of one layer, side by side."""
        items = {False: item, True: item.exchanged()}

        def judge(job: tuple[int, bool]) -> Judgement:
            neuron, exchanged = job
            own = [j for past in before for j in past[neuron]]
            others = [j for i in (neuron - 1, neuron + 1) if before for j in before[-1].get(i, ())]
            messages = ask_scores(
                items[exchanged],
                neurons[neuron],
                _retell(own, exchanged),
                _retell(others, exchanged),
            )
            seed = self._seed(layer, neuron)
            found = self._read(llm, messages, parse_scores, self.temperature, seed)
            scores, text = found.value, found.replies[-1].text if found.replies else ""
            if exchanged:
                scores, text = scores and scores[::-1], exchange_names(text)
            return Judgement(layer, neuron, exchanged, neurons[neuron], scores, text, *found[1:])

        jobs = [(i, o) for i in neurons for o in ((False, True) if self.order_swap else (False,))]
        said: dict[int, list[Judgement]] = {i: [] for i in neurons}
        for outcome in map_many(judge, jobs, workers, f"layer {layer}"):
            if isinstance(outcome, Exception):
                raise outcome
            said[outcome.neuron].append(outcome)
        return {i: tuple(js) for i, js in said.items()}

    def _read(
        self, llm: TextModel, messages: list[Message], parse: Any, temperature: float, seed: int
    ) -> _Reading:
        """Ask until a reply can be read, or a reply comes back word for word."""
        replies: list[Completion] = []
        for attempt in range(self.tries):
            request = Request(messages, temperature, self.max_tokens, seed=seed + attempt)
            try:
                reply = request.ask(llm)
            except ConfigError:
                raise
            except (EngrammaError, OSError) as error:
                return _Reading(None, tuple(replies), str(error), failed=True)
            again = any(reply.text == earlier.text for earlier in replies)
            replies.append(reply)
            value = parse(reply.text)
            if value or again:
                break
        problem = "" if value else f"nothing could be read from {len(replies)} replies"
        return _Reading(value or None, tuple(replies), problem)

    def _seed(self, layer: int, neuron: int) -> int:
        """Seed of a neuron's first reply; both orders have the same."""
        return (self.seed * 100 + layer) * 10_000 + neuron * 100


def _union(roles: dict[int, tuple[str, ...]], kept: Layer, i: int) -> tuple[str, ...]:
    """Roles of a neuron and of its neighbours, its own first, each once."""
    return tuple(dict.fromkeys(r for n in (i, i - 1, i + 1) if n in kept for r in roles[n]))


def _retell(judgements: Sequence[Judgement], exchanged: bool) -> list[str]:
    """Texts as they read in one order of the answers, those given in that order first."""
    nearest = sorted(judgements, key=lambda j: (-j.layer, j.exchanged != exchanged))
    return [exchange_names(j.evidence) if exchanged else j.evidence for j in nearest]
