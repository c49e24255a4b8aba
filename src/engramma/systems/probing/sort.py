r"""Assessing Episodic Memory in LLMs with Sequence Order Recall Tasks (Pink et al. 2024).

**What it does.** Asks which of two segments of a text came first (or last): a question about
*when* that needs no annotation and can be built from any text.

**Questions.** Excerpts of :math:`L_E` words begin at sentences, drawn uniformly over the text; from
each, one pair of segments of :math:`L_S` words in each of four bins of distance D (from start to
start), :math:`(L_S, L_E/4], (L_E/4, L_E/3], (L_E/3, L_E/2], (L_E/2, L_E/1.25]` (with
:math:`L_E \ge 10{,}000`: 1,000 and :math:`L_E/4` for the first two edges). In every text and bin,
the segment that came first is shown first in *exactly* half of the questions. (The released code
balances before it drops surplus samples, which leaves about half.)

**Prompt.** System text, the excerpt or nothing, both segments as *Segment A* and *Segment B*, the
question, and the beginning of the answer, *Answer: Segment*. The answer is the likelier one of A
and B as the next token, and X, which is wrong, where neither is among the likeliest
(``candidates``). A model that likes one letter better can still know: `discrimination` is how well
the log odds of A tell questions whose answer is A from others. A prompt can be chosen on questions
that are not used for the report (`choose_prompt`; of the published 110 excerpts a text, 100 to
109).

**Memory.** The text is in the context; or nowhere (what the segments give away by themselves:
always report this one beside it); or in the weights, by training on it as plain text (`fine_tune`:
5 epochs, rate :math:`5 \cdot 10^{-6}`, cosine, batches of 24, other samples mixed in); or in a
store (`engramma.probing.passage_store`), with positions kept or dropped.

**As a probe.** `locate` reads the answer off the residual stream after each block (logit lens) and
gives the accuracy at each depth. `intervene` takes the attention of blocks away.

**Deviations.** The four prompts are ours. A prompt that is longer than the model takes is refused;
the released code cuts it, and may cut the question. A segment whose words occur twice in its
excerpt is not used.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor

from engramma.contracts import Estimate
from engramma.encoding.scores import bootstrap_interval
from engramma.errors import ConfigError, DataError, NotTestableError
from engramma.probing.findings import Examination, Finding, Panel
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel, pad
from engramma.probing.order_questions import (
    OrderItem,
    OrderQuestions,
    build_order_questions,
    sentence_starts,
)
from engramma.probing.passage_store import PassageStore
from engramma.probing.places import Place
from engramma.probing.scores import mean_interval
from engramma.probing.training import train_language_model
from engramma.registry import system
from engramma.systems.probing.sort_claims import CLAIMS
from engramma.systems.probing.sort_prompts import (
    PROMPTS,
    Context,
    OrderPrompt,
    encode_prompts,
)
from engramma.worlds.stories import stories

BIBTEX = """@article{pink2024assessing,
  title = {Assessing Episodic Memory in {LLMs} with Sequence Order Recall Tasks},
  author = {Pink, Mathis and Vo, Vy A. and Wu, Qinyuan and Mu, Jianing and Turek, Javier S. and
            Hasson, Uri and Norman, Kenneth A. and Michelmann, Sebastian and Huth, Alexander and
            Toneva, Mariya},
  journal = {arXiv preprint arXiv:2410.08133}, year = {2024}}"""


@system(
    "sort",
    family="probing",
    title="Sequence order recall: which of two segments came first",
    contract="Probe",
    paper="Pink et al. 2024, arXiv:2410.08133",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class SequenceOrderRecall:
    """Builds questions about order, asks them, and scores the answers.

    Parameters
    ----------
    task : {"first", "last"}
        What is asked for.
    prompt : OrderPrompt
    candidates : int
        An answer counts where A or B is among this many likeliest tokens.
    rows : int
        Prompts at a time.
    """

    def __init__(
        self,
        task: Literal["first", "last"] = "first",
        prompt: OrderPrompt = PROMPTS[0],
        candidates: int = 20,
        rows: int = 4,
    ) -> None:
        if task not in ("first", "last") or candidates < 1 or rows < 1:
            raise ConfigError(
                f"which came {task!r} cannot be asked with {candidates} candidates",
                where="SequenceOrderRecall",
                mend="ask for first or last, with at least one candidate and one row",
            )
        self.task, self.prompt, self.candidates, self.rows = task, prompt, candidates, rows

    def build(self, texts: Mapping[str, str], **options: Any) -> OrderQuestions:
        """Draw questions from texts; ``options`` are those of `build_order_questions`."""
        return build_order_questions(texts, **options)

    # -- asking ----------------------------------------------------------------------------

    def ask(
        self,
        memory: LanguageModel | PassageStore,
        items: Sequence[OrderItem],
        context: Context = "excerpt",
    ) -> pd.DataFrame:
        """Ask a language model, or a store of passages.

        Parameters
        ----------
        memory : LanguageModel or PassageStore
            A store is read with each segment; without positions it answers A.
        items : sequence of OrderItem
        context : {"excerpt", "none"}
            Whether a language model is shown the excerpt.

        Returns
        -------
        DataFrame
            ``book, excerpt, bin, answer, correct, right`` (the right answer), and for a language
            model ``log_odds`` of A.

        Raises
        ------
        DataError
            If a prompt is longer than the model takes, or there are no questions.
        """
        if not items:
            raise DataError("there is nothing to ask", where="items")
        if isinstance(memory, PassageStore):
            answers = [self._look_up(memory, item) for item in items]
            odds = np.full(len(items), np.nan)
        else:
            answers, odds = self._answers(memory, items, context)
        right = [("A" if item.a_is_first == (self.task == "first") else "B") for item in items]
        return pd.DataFrame(
            {
                "book": [item.book for item in items],
                "excerpt": [item.excerpt_number for item in items],
                "bin": [item.distance_bin for item in items],
                "answer": answers,
                "correct": [a == r for a, r in zip(answers, right, strict=True)],
                "right": right,
                "log_odds": odds,
            }
        )

    def score(self, answers: pd.DataFrame, *, rng: np.random.Generator) -> pd.DataFrame:
        """Accuracy by bin, and of all.

        Intervals are drawn over texts where there are several; else they are binomial
        (Clopper-Pearson).

        Returns
        -------
        DataFrame
            ``accuracy, low, high, share_a, n`` by bin; ``"all"`` comes first.
        """
        parts = {"all": answers, **{str(name): part for name, part in answers.groupby("bin")}}
        rows = []
        for part in parts.values():
            accuracy = _accuracy(part, rng)
            share = float((part["answer"] == "A").mean())
            rows.append((accuracy.value, accuracy.low, accuracy.high, share, len(part)))
        names = ["accuracy", "low", "high", "share_a", "n"]
        return pd.DataFrame(rows, columns=names, index=pd.Index(parts, name="bin"))

    def discrimination(self, answers: pd.DataFrame, *, rng: np.random.Generator) -> Estimate:
        """Measure how well the log odds of A tell questions whose answer is A from those with B.

        Returns
        -------
        Estimate
            Area under the receiver operating characteristic, 0.5 by chance, with an interval over
            texts where there are several, else over questions.

        Raises
        ------
        DataError
            If there are no log odds, as from a store, or only one letter is ever right.
        """
        if answers["log_odds"].isna().any() or answers["right"].nunique() < 2:
            raise DataError(
                "there are no log odds, or only one letter is ever right",
                where="answers",
                mend="ask a language model questions of both kinds",
            )
        groups = answers["book"] if answers["book"].nunique() > 1 else len(answers)
        return bootstrap_interval(lambda i: _area(answers.iloc[i]), groups, rng=rng)

    def choose_prompt(
        self,
        model: LanguageModel,
        items: Sequence[OrderItem],
        prompts: Sequence[OrderPrompt] = PROMPTS,
    ) -> OrderPrompt:
        """Take the prompt that works best on questions set aside, and keep it.

        Parameters
        ----------
        items : sequence of OrderItem
            Not those of the report: ``questions.items(100, 110)``.
        """
        accuracy = []
        for prompt in prompts:
            self.prompt = prompt
            accuracy.append(float(self.ask(model, items)["correct"].mean()))
        self.prompt = prompts[int(np.argmax(accuracy))]
        return self.prompt

    # -- memories --------------------------------------------------------------------------

    def fine_tune(
        self,
        model: LanguageModel,
        texts: Iterable[str],
        *,
        others: Iterable[str] = (),
        epochs: int = 5,
        rate: float = 5e-6,
        chunk: int = 512,
        batch: int = 24,
        seed: int = 0,
    ) -> LanguageModel:
        """Return a copy of a model that was trained on texts, as they are, in chunks.

        Parameters
        ----------
        texts : iterable of str
            Those to be remembered.
        others : iterable of str
            Samples mixed in, such as instructions with answers, so that it goes on answering.
        epochs : int
            Passes over the chunks of all texts.
        rate : float
            Peak, with a cosine decay.
        chunk, batch : int
            Tokens of a chunk, and chunks of a step.
        seed : int

        Raises
        ------
        DataError
            If the texts have no tokens.
        """
        length = min(chunk, model.context)
        rows = [
            ids[start : start + length]
            for text in (*texts, *others)
            for ids in [model.token_ids(text)]
            for start in range(0, len(ids), length)
        ]
        rows = [row for row in rows if len(row) > 1]
        if not rows:
            raise DataError("there is no text to learn", where="fine_tune")
        passes = [np.random.default_rng([seed, e]).permutation(len(rows)) for e in range(epochs)]
        order = np.concatenate(passes)
        parts = [order[start : start + batch] for start in range(0, len(order), batch)]
        steps, queue = len(parts), iter(parts)
        network = copy.deepcopy(model.network).requires_grad_(True)

        def draw(_: np.random.Generator) -> tuple[Tensor, Tensor]:
            tokens, last = pad([rows[i] for i in next(queue)])
            return tokens, (torch.arange(tokens.shape[1]) <= last[:, None]).float()

        train_language_model(
            network, draw, steps=steps, rate=rate, warm_up=max(1, steps // 20), seed=seed,
            description="reading",
        )  # fmt: skip
        return LanguageModel(network, model.tokenizer, f"{model.name} after reading")

    def remember(
        self, questions: OrderQuestions, book: int = 0, positions: bool = True
    ) -> PassageStore:
        """Store the excerpts of a text, as passages of a segment's length from each sentence on.

        Positions are those in the text, in words.
        """
        store = PassageStore(positions)
        total = int(questions.books.set_index("book_idx")["num_words"][book])
        written: dict[int, str] = {}
        rows = questions.excerpts[questions.excerpts["book_idx"] == book]
        for text, place in zip(rows["excerpt_text"], rows["excerpt_pos"], strict=True):
            words, start = str(text).split(), round(float(place) * total)
            for i in sentence_starts(words):
                passage = " ".join(words[i : i + questions.segment_words])
                # One at the end of an excerpt is cut off; another excerpt may have it whole.
                written[start + int(i)] = max(passage, written.get(start + int(i), ""), key=len)
        for position, text in sorted(written.items()):
            store.write(text, position)
        return store

    # -- the Probe contract ----------------------------------------------------------------

    def locate(self, model: LanguageModel, examples: Sequence[OrderItem]) -> np.ndarray:
        """Accuracy of the answer read off after each block, shape (layer,)."""
        places = [Place("residual", layer + 1) for layer in range(model.anatomy.n_layers)]
        a, b = self.prompt.labels(model)
        right = np.zeros(len(places))
        for item in examples:
            text = self.prompt.fill(model, item, self.task)
            tokens, last = encode_prompts(model, [text])
            run = model.run(tokens, keep=places, at=last)
            wanted = item.a_is_first == (self.task == "first")
            for index, place in enumerate(places):
                logits = model.unembed(run[place][0, int(last[0])])
                right[index] += bool(logits[a] >= logits[b]) == wanted
        return right / len(examples)

    def intervene(self, model: LanguageModel, where: Iterable[int]) -> AbstractContextManager[None]:
        """Take the attention of blocks (by number) away within a ``with`` block."""
        return model.edited([Edit(Place("attention", layer), torch.zeros_like) for layer in where])

    # -- any language model ----------------------------------------------------------------

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Order in context and without text, in a new story of short sentences."""
        rng = np.random.default_rng(seed)
        story = {"a story": stories(seed, n_sentences=400).text}
        items = self.build(story, n=2 if quick else 6, rng=rng).items()
        answers = {
            "in context": self.ask(model, items),
            "sentences in another order": self.ask(model, [shuffled(i, rng) for i in items]),
            "without text": self.ask(model, items, "none"),
        }
        seen = answers["in context"]
        if (seen["answer"] == "X").mean() > 0.5:
            raise NotTestableError(f"{model.name} does not answer with A or B")
        right = {name: table["correct"].to_numpy(dtype=float) for name, table in answers.items()}
        loss = right["in context"] - right["sentences in another order"]
        accuracy = {name: _accuracy(table, rng) for name, table in answers.items()}
        share = float((seen["answer"] == "A").mean())
        findings = [
            Finding(
                "order in context",
                f"With the text before it, the model says rightly in "
                f"{accuracy['in context'].value:.0%} of questions which segment came first, and in "
                f"{accuracy['without text'].value:.0%} without (chance 50 %). It says A in "
                f"{share:.0%}.",
                accuracy["in context"],
                "share of right answers",
                chance=0.5,
                caused=mean_interval(loss, rng=rng),
                control=mean_interval(right["in context"] - right["without text"], rng=rng),
                intervention="loss of accuracy when the sentences of the text are put in another "
                "order; beside it, when the text is left out",
            ),
            self._finding_of_odds(answers, rng),
        ]
        by_bin = self.score(seen, rng=rng).iloc[1:]
        bars = {
            f"up to {name} words": Estimate(row.accuracy, row.low, row.high)
            for name, row in by_bin.iterrows()
        }
        panels = [
            Panel("bars", "Which came first?", accuracy, y="share of right answers"),
            Panel("bars", "In context, by distance", bars, y="share of right answers"),
        ]
        notes = ["Excerpts of 250 words, segments of 20; a new story that no model has read."]
        return Examination(findings, panels, (), notes)

    def _finding_of_odds(
        self, answers: Mapping[str, pd.DataFrame], rng: np.random.Generator
    ) -> Finding:
        seen, mixed, without = answers.values()
        area = self.discrimination(seen, rng=rng)

        def loss(other: pd.DataFrame) -> Estimate:
            return bootstrap_interval(
                lambda i: _area(seen.iloc[i]) - _area(other.iloc[i]), len(seen), rng=rng
            )

        return Finding(
            "order in the odds",
            "Whichever letter the model likes better: the odds of A are higher in a question whose "
            f"answer is A than in one whose answer is B in {area.value:.0%} of all pairs (chance "
            "50 %).",
            area,
            "area under the curve of the log odds",
            chance=0.5,
            caused=loss(mixed),
            control=loss(without),
            intervention="loss of area when the sentences of the text are put in another order; "
            "beside it, when the text is left out",
        )

    def _answers(
        self, model: LanguageModel, items: Sequence[OrderItem], context: Context
    ) -> tuple[list[str], np.ndarray]:
        a, b = self.prompt.labels(model)
        texts = [self.prompt.fill(model, item, self.task, context) for item in items]
        answers, odds = [], []
        for start in range(0, len(texts), self.rows):
            tokens, last = encode_prompts(model, texts[start : start + self.rows])
            logits = model.logits(tokens, at=last)
            k = min(self.candidates, logits.shape[1])
            least = logits.topk(k, dim=1).values[:, -1]
            for row, limit in zip(logits, least, strict=True):
                known = max(float(row[a]), float(row[b])) >= float(limit)
                answers.append(("A" if row[a] >= row[b] else "B") if known else "X")
                odds.append(float(row[a] - row[b]))
        return answers, np.array(odds)

    def _look_up(self, store: PassageStore, item: OrderItem) -> str:
        a, b = (store.read(segment).position for segment in (item.segment_a, item.segment_b))
        if a is None or b is None:
            return "A"
        return "A" if (a <= b) == (self.task == "first") else "B"


def shuffled(item: OrderItem, rng: np.random.Generator) -> OrderItem:
    """Return the question with the sentences of its excerpt in random order."""
    words = item.excerpt.split()
    pieces = np.split(np.array(words, dtype=object), sentence_starts(words)[1:])
    order = rng.permutation(len(pieces))
    return replace(item, excerpt=" ".join(" ".join(pieces[i]) for i in order))


def _area(answers: pd.DataFrame) -> float:
    """Area under the curve of the log odds of A; 0.5 where only one letter is ever right."""
    is_a = answers["right"] == "A"
    return float(roc_auc_score(is_a, answers["log_odds"])) if is_a.nunique() > 1 else 0.5


def _accuracy(answers: pd.DataFrame, rng: np.random.Generator) -> Estimate:
    right = answers["correct"].to_numpy(dtype=float)
    if answers["book"].nunique() > 1:
        return bootstrap_interval(lambda i: float(right[i].mean()), answers["book"], rng=rng)
    exact = stats.binomtest(int(right.sum()), len(right)).proportion_ci()
    return Estimate(float(right.mean()), float(exact.low), float(exact.high))
