r"""Characterizing Verbatim Short-Term Memory in Neural Language Models (Armeni et al. 2022, CoNLL).

**What it does.** Shows a language model a list of nouns, then some other text, then a second list,
and asks how much less surprising the second list is.

**Stimuli.** *Before the meeting, Mary wrote down the following list of words:* list 1 *.* what
happens in between *When she got back, she read the list again:* list 2 *.* The second list is the
first again (*repeat*), its nouns in another order (*permute*; never the same order), or other nouns
(*novel*): what repeat has over permute is memory of order, what permute has over novel is memory of
which nouns there were. Crossed with it: length of the list (3, 5, 7, 10), length of the gap, kind
of nouns (arbitrary, or of one category), preface, and what lies in between (as it is, its words
scrambled, about something else, or nothing).

**Measure.** A noun's surprisal is the sum of :math:`-\ln p` of its tokens (not their mean);
punctuation is left out. With :math:`\bar x_1, \bar x_2` the means over the nouns of each list,

.. math:: r = 100 \, \bar x_2 / \bar x_1 \ \%,

one value a stimulus: 100 % is no memory, 0 % a perfect copy. The first noun of the second list only
tells *that* the list repeats, so that everything is given with and without it. Intervals are drawn
over pools of lists that share nouns, since the 230 published lists of a length are circular shifts
of few pools.

**Where it is.** `locate` scores heads by how much of their attention goes, just before the i-th
noun of list 2, to the i-th noun of list 1 (i > 1). `intervene` scrambles what heads attend to: each
row of the pattern keeps its weights and gives them to random visible positions (our reading of the
paper's control, whose code is not exact about it).

**Models.** Any transformer with a tokenizer; networks of token numbers, with
`engramma.probing.list_streams`; and recurrent ones
(`engramma.probing.recurrent_model.RecurrentModel`). The paper trains transformers of 1 to 12 layers
and an LSTM on 40 million tokens; our miniatures have one, two and four layers and learned streams
in which 70 % of the lists came twice, none of them permuted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from engramma.contracts import Estimate
from engramma.encoding.scores import bootstrap_interval
from engramma.errors import ConfigError, DataError
from engramma.probing.ablation import Head, random_heads
from engramma.probing.attention_edits import note_attention, scramble_attention
from engramma.probing.findings import Examination, Finding, Panel
from engramma.probing.list_streams import CONDITIONS, Condition, ListPairs
from engramma.probing.model import LanguageModel
from engramma.probing.noun_lists import Kind, Stimulus, draw_noun_lists, noun_stimuli
from engramma.probing.word_surprisal import (
    ListSurprisal,
    Surprising,
    tokens_of_spans,
    word_surprisal,
)
from engramma.registry import system
from engramma.systems.probing.verbatim_memory_claims import CLAIMS

BIBTEX = """@inproceedings{armeni2022verbatim,
  title = {Characterizing Verbatim Short-Term Memory in Neural Language Models},
  author = {Armeni, Kristijan and Honey, Christopher and Linzen, Tal},
  booktitle = {Proceedings of the 26th Conference on Computational Natural Language Learning},
  year = {2022}}"""


@system(
    "verbatim-memory",
    family="probing",
    title="Verbatim short-term memory: lists that are read twice",
    contract="Probe",
    paper="Armeni, Honey & Linzen 2022, CoNLL",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class VerbatimMemory:
    """Measures how much of a list is remembered, and by which heads.

    Parameters
    ----------
    n : int
        Lists of each kind, in `stimuli` and `factors`.
    """

    def __init__(self, n: int = 12) -> None:
        if n < 1:
            raise ConfigError(f"{n} lists cannot be shown", where="VerbatimMemory", mend="use 1+")
        self.n = n

    @classmethod
    def published(cls) -> VerbatimMemory:
        """Return one with as many lists as published: 230 of each length."""
        return cls(230)

    # -- the measure -----------------------------------------------------------------------

    def stimuli(
        self,
        rng: np.random.Generator,
        *,
        nouns: int = 5,
        condition: Condition = "repeat",
        kind: Kind = "arbitrary",
        **options: Any,
    ) -> list[Stimulus]:
        """Draw stimuli; ``options`` are those of `noun_stimuli`.

        The same state of the generator gives the same first lists under all conditions.
        """
        lists, others = draw_noun_lists(rng, self.n, nouns, kind)
        # Drawn one by one, lists are independent, whichever nouns they happen to share.
        return noun_stimuli(
            rng, lists, others, condition=condition, pools=range(len(lists)), **options
        )

    def surprisal(
        self, model: Surprising, examples: Sequence[Stimulus] | ListPairs
    ) -> ListSurprisal:
        """Surprisal of both lists.

        Parameters
        ----------
        model : LanguageModel or RecurrentModel
            The latter knows token numbers only.
        examples : sequence of Stimulus (of one length of list) or ListPairs

        Raises
        ------
        DataError
            If a stimulus is longer than the model takes, or lists differ in length.
        """
        if isinstance(examples, ListPairs):
            if examples.tokens.shape[1] > model.context:
                raise DataError(
                    f"streams of {examples.tokens.shape[1]} tokens are too long",
                    where=model.name,
                    mend=f"it takes {model.context}",
                )
            values = model.surprisal(torch.from_numpy(examples.tokens)).numpy()
            first, second = (
                np.take_along_axis(values, places, axis=1)
                for places in (examples.first, examples.second)
            )
            return ListSurprisal(first, second, np.arange(len(values)))
        if not isinstance(model, LanguageModel):
            raise ConfigError(
                f"{model.name} knows no words", mend="give it streams of tokens (list_pairs)"
            )
        sizes = {s.nouns for s in examples}
        if len(sizes) != 1:
            raise DataError(f"lists have different lengths: {sorted(sizes)}", where="examples")
        found = np.stack(
            word_surprisal(
                model, [s.text for s in examples], [s.first + s.second for s in examples]
            )
        )
        half = found.shape[1] // 2
        pools = np.array([s.pool for s in examples])
        return ListSurprisal(found[:, :half], found[:, half:], pools)

    def repeat_surprisal(
        self,
        values: ListSurprisal,
        *,
        rng: np.random.Generator,
        skip_first: bool = False,
        average: Callable[[np.ndarray], Any] = np.mean,
    ) -> Estimate:
        """Mean (or median) over stimuli, per cent, with a bootstrap interval over pools."""
        return _over_pools(values.percent(skip_first), values.pool, rng, average)

    def factors(
        self,
        model: LanguageModel,
        *,
        lengths: Iterable[int] = (3, 5, 7, 10),
        gaps: Iterable[int] = (20, 100),
        conditions: Iterable[Condition] = CONDITIONS,
        seed: int = 0,
        **options: Any,
    ) -> pd.DataFrame:
        """Cross lengths, gaps and conditions.

        Returns
        -------
        DataFrame
            ``nouns, gap, condition``, and ``percent, low, high`` with and ``rest`` without the
            first noun.
        """
        rows = []
        for nouns in lengths:
            for gap in gaps:
                for condition in conditions:
                    stimuli = self.stimuli(
                        np.random.default_rng([seed, nouns]), nouns=nouns, gap=gap,
                        condition=condition, **options,
                    )  # fmt: skip
                    values = self.surprisal(model, stimuli)
                    whole = self.repeat_surprisal(values, rng=np.random.default_rng(seed))
                    rest = float(np.mean(values.percent(True))) if nouns > 1 else np.nan
                    rows.append(
                        (nouns, stimuli[0].gap, condition, whole.value, whole.low, whole.high, rest)
                    )
        names = ["nouns", "gap", "condition", "percent", "low", "high", "rest"]
        return pd.DataFrame(rows, columns=names)

    # -- the Probe contract ----------------------------------------------------------------

    def locate(self, model: LanguageModel, examples: Sequence[Stimulus] | ListPairs) -> np.ndarray:
        """Attention from before each noun of list 2 to its like in list 1, layer x head."""
        total = np.zeros((model.anatomy.n_layers, model.anatomy.n_heads))
        rows = _rows(model, examples)
        for tokens, first, second in rows:
            seen: dict[int, Tensor] = {}
            edits = [note_attention(layer, seen, second, first) for layer in range(len(total))]
            model.logits(tokens, at=0, edits=edits)
            total += np.stack([seen[layer].numpy() for layer in range(len(total))])
        return total / len(rows)

    def intervene(
        self, model: LanguageModel, where: Iterable[Head]
    ) -> AbstractContextManager[None]:
        """Keep the attention of heads scrambled within a ``with`` block."""
        return model.edited(scramble_attention(model, where))

    # -- any language model ----------------------------------------------------------------

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Memory for identity and order by length of list and gap, and the heads that carry it."""
        probe = VerbatimMemory(4 if quick else self.n)
        by_length = probe.factors(
            model, lengths=(5,) if quick else (3, 5, 10), gaps=(20,), seed=seed
        )
        by_gap = probe.factors(
            model, lengths=(5,), gaps=(9, 100) if quick else (9, 100, 200),
            conditions=("repeat", "permute"), seed=seed,
        )  # fmt: skip
        five = {
            c: probe.surprisal(model, probe.stimuli(np.random.default_rng([seed, 5]), condition=c))
            for c in CONDITIONS
        }
        rng = np.random.default_rng(seed)
        order = five["permute"].percent() - five["repeat"].percent()
        identity = five["novel"].percent() - five["permute"].percent()
        new = probe.stimuli(np.random.default_rng([seed, 1, 5]))
        scores = self.locate(model, probe.stimuli(np.random.default_rng([seed, 2, 5])))
        k = max(1, scores.size // 25)
        best = [
            (int(i) // scores.shape[1], int(i) % scores.shape[1])
            for i in np.argsort(-scores, None)[:k]
        ]
        intact = probe.surprisal(model, new).percent()
        changes = []
        for heads in (best, random_heads(model, best, rng)):
            with self.intervene(model, heads):
                changes.append(probe.surprisal(model, new).percent() - intact)

        def mean(x: np.ndarray) -> Estimate:
            return _over_pools(x, five["repeat"].pool, rng)

        whole, rest = (
            probe.repeat_surprisal(five["repeat"], rng=rng, skip_first=skip)
            for skip in (False, True)
        )
        findings = [
            Finding(
                "verbatim memory",
                f"Five nouns that come again have {whole.value:.0f} % of the surprisal they had at "
                f"first ({rest.value:.0f} % from the second noun on); other nouns have "
                f"{five['novel'].percent().mean():.0f} %.",
                whole,
                "% of first surprisal",
                chance=float(five["novel"].percent().mean()),
                caused=mean(changes[0]),
                control=mean(changes[1]),
                intervention=f"attention of {k} heads scrambled: change in per cent",
            ),
            Finding(
                "memory for order",
                f"In another order the same nouns are {order.mean():.0f} points more surprising.",
                mean(order),
                "percentage points",
                chance=0.0,
            ),
            Finding(
                "memory for identity",
                f"Nouns of the list in another order are {identity.mean():.0f} points less "
                "surprising than other nouns.",
                mean(identity),
                "percentage points",
                chance=0.0,
            ),
        ]
        panels = [
            _curves("Second list by length", "nouns", by_length),
            _curves("Second list of five by gap", "gap", by_gap),
            Panel(
                "matrix", "Attention to the like noun of the first list", scores, "head", "layer",
                unit="share of attention",
            ),
        ]  # fmt: skip
        notes = [f"{probe.n} lists of each kind; 100 % is no memory, 0 % a perfect copy."]
        return Examination(findings, panels, (), notes)


#: Tokens of some sequences, and for each where attention should go to, and from where.
_Group = tuple[Tensor, Tensor, Tensor]


def _rows(model: LanguageModel, examples: Sequence[Stimulus] | ListPairs) -> list[_Group]:
    """Positions of the nouns (from the second on), and of what is read just before their like."""
    if isinstance(examples, ListPairs):
        first, second = (torch.from_numpy(x[:, 1:]) for x in (examples.first, examples.second))
        return [(torch.from_numpy(examples.tokens), first, second - 1)]
    found = []
    for stimulus in examples:
        tokens, _ = model.encode([stimulus.text])
        one, two = (
            torch.tensor([[int(p[0]) for p in tokens_of_spans(model, stimulus.text, spans)[1:]]])
            for spans in (stimulus.first, stimulus.second)
        )
        found.append((tokens, one, two - 1))
    return found


def _over_pools(
    values: np.ndarray,
    pools: np.ndarray,
    rng: np.random.Generator,
    average: Callable[[np.ndarray], Any] = np.mean,
) -> Estimate:
    """Average with an interval over pools; without one where there is a single pool."""
    if len(np.unique(pools)) < 2:
        return Estimate(float(average(values)))
    return bootstrap_interval(lambda i: float(average(values[i])), pools, rng=rng)


def _curves(title: str, factor: str, table: pd.DataFrame) -> Panel:
    curves = {
        str(name): tuple(part[column].to_numpy() for column in (factor, "percent", "low", "high"))
        for name, part in table.groupby("condition", sort=False)
    }
    return Panel("curves", title, curves, factor, "% of first surprisal")
