r"""Retrieval Head Mechanistically Explains Long-Context Factuality (Wu et al. 2024, 2404.15574).

**What it does.** Finds the attention heads that copy from a long context, and shows what a model
can no longer do without them.

**Retrieval score.** A needle k (a sentence) is hidden in a text that has nothing to do with it, and
asked for at its end. The model answers greedily, for 50 tokens at most or to the end of the line.
At each step, head h attends most to one position j. Where j lies in the needle *and* the token
there is the very one that is generated, the head has retrieved it: it goes into the set
:math:`g_h`. One run gives

.. math:: s_h = |g_h \cap k| \, / \, |k|,

k as a set of different tokens. A head's score is the mean over runs with more than half of the
answer's words (ROUGE-1 recall > 0.5); a *retrieval head* has 0.1 or more. Only the last row of each
attention pattern is looked at, and only the position of its maximum is kept.

**Blocking.** The K best heads against K random ones, outside the 100 best (here: outside all
retrieval heads, as small models have few heads), matched by layer. ``mode="uniform"`` (as in the
released code, which sets the logits to 0) lets a head attend to all positions alike;
``mode="zero"`` removes what it puts out. ``phase="decode"`` (as released) acts from the step that
generates the first token of the answer on; ``phase="all"`` on the reading of the prompt as well.

**Deviations.** The released code counts a needle's token again each time it is copied, so that some
published scores exceed 1; here it counts once. ROUGE is that of whole words without stemming.
Where no run succeeds, scores are undefined, and an error says so. In the paper haystacks have 1,000
to 50,000 tokens at 20 lengths and 10 depths (`RetrievalHeads.published`); the default is small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
import torch

from engramma.errors import ConfigError, NotTestableError
from engramma.probing.ablation import Head, ablate_heads, random_heads
from engramma.probing.attention_edits import note_strongest, uniform_attention
from engramma.probing.findings import Examination, Finding, Panel, Table
from engramma.probing.head_scores import RETRIEVAL, HeadScores
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel
from engramma.probing.needles import (
    NEEDLES,
    Needle,
    NeedlePrompt,
    needle_prompts,
    story_haystack,
    words,
)
from engramma.probing.rouge import rouge_1_recall
from engramma.probing.scores import mean_interval
from engramma.registry import system
from engramma.systems.probing.retrieval_heads_claims import CLAIMS

BIBTEX = """@article{wu2024retrieval,
  title = {Retrieval Head Mechanistically Explains Long-Context Factuality},
  author = {Wu, Wenhao and Wang, Yizhong and Xiao, Guangxuan and Peng, Hao and Fu, Yao},
  journal = {arXiv preprint arXiv:2404.15574}, year = {2024}}"""

Mode = Literal["uniform", "zero"]
Phase = Literal["decode", "all"]


@dataclass(frozen=True)
class Answers:
    """What a model answered to prompts of one length.

    Parameters
    ----------
    tokens : ndarray of int64, shape (prompt, step)
        Generated; -1 after the end of an answer.
    attended : ndarray of int64, shape (prompt, step, layer, head)
        Position of the strongest attention of each head at each step; empty where it was not
        recorded.
    recall : ndarray, shape (prompt,)
        ROUGE-1 recall of the answer.
    texts : tuple of str
    """

    tokens: np.ndarray
    attended: np.ndarray
    recall: np.ndarray
    texts: tuple[str, ...]


@system(
    "retrieval-heads",
    family="probing",
    title="Retrieval heads: which attention heads copy from a long context",
    contract="Probe",
    paper="Wu et al. 2024, arXiv:2404.15574 (ICLR 2025)",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class RetrievalHeads:
    """Scores heads by what they copy, and blocks them.

    Parameters
    ----------
    n_new : int
        Most tokens of an answer.
    success : float
        Recall above which a run counts.
    lengths : sequence of int
        Of the haystacks, in tokens, for `prompts`.
    depths : sequence of float
        From 0 to 1, for `prompts`.
    """

    def __init__(
        self,
        n_new: int = 24,
        success: float = 0.5,
        lengths: Sequence[int] = (256,),
        depths: Sequence[float] = (0.0, 0.33, 0.67, 1.0),
    ) -> None:
        if n_new < 1 or not 0 <= success <= 1:
            raise ConfigError(
                f"answers of {n_new} tokens that count from a recall of {success} on cannot be",
                where="RetrievalHeads",
                mend="use at least one token, and a share for success",
            )
        self.n_new, self.success = n_new, success
        self.lengths, self.depths = tuple(lengths), tuple(depths)
        self.scores: HeadScores | None = None

    @classmethod
    def published(cls) -> RetrievalHeads:
        """Return the published grid: 20 lengths from 1,000 to 50,000 tokens, 10 depths."""
        lengths = np.linspace(1000, 50_000, 20).astype(int).tolist()
        return cls(n_new=50, lengths=lengths, depths=np.linspace(0, 1, 10).tolist())

    def prompts(
        self, model: LanguageModel, haystack: str | None = None, needles: Iterable[Needle] = NEEDLES
    ) -> list[NeedlePrompt]:
        """Return the grid of needle, length and depth, in a generated story unless given."""
        text = story_haystack(n_sentences=max(100, max(self.lengths) // 6))
        return needle_prompts(
            model, haystack or text, needles, lengths=self.lengths, depths=self.depths
        )

    # -- the Probe contract ----------------------------------------------------------------

    def locate(self, model: LanguageModel, examples: Sequence[NeedlePrompt]) -> np.ndarray:
        """Return the retrieval score of each head, layer x head; see `score_heads`."""
        return self.score_heads(model, examples).mean

    def intervene(
        self, model: LanguageModel, where: Iterable[Head]
    ) -> AbstractContextManager[None]:
        """Keep heads (layer, head) blocked within a ``with`` block, as the paper does."""
        return model.edited(self.block(model, where))

    # -- scores ----------------------------------------------------------------------------

    def score_heads(
        self,
        model: LanguageModel,
        prompts: Sequence[NeedlePrompt],
        *,
        successful_only: bool = True,
    ) -> HeadScores:
        """Score all heads on prompts.

        Parameters
        ----------
        model : LanguageModel
        prompts : sequence of NeedlePrompt
        successful_only : bool
            Whether only runs count in which the needle is found; else all, for comparison with a
            model that finds none.

        Raises
        ------
        NotTestableError
            If the model answers none of the prompts: scores are undefined, not 0.
        """
        runs, recalls = [], []
        for group in _by_length(prompts):
            answers = self.answer(model, group, record=True)
            recalls.append(answers.recall)
            runs += [
                copied(prompt, tokens, attended)
                for prompt, tokens, attended, recall in zip(
                    group, answers.tokens, answers.attended, answers.recall, strict=True
                )
                if recall > self.success or not successful_only
            ]
        if not runs:
            raise NotTestableError(
                f"{model.name} finds none of {len(prompts)} needles (best recall "
                f"{max(float(r.max()) for r in recalls):.2f}): retrieval scores are undefined"
            )
        self.scores = HeadScores(np.stack(runs), len(prompts))
        return self.scores

    def top(self, k: int) -> list[Head]:
        """Return the ``k`` best heads of the last scoring, best first.

        Raises
        ------
        ConfigError
            If nothing has been scored.
        """
        if self.scores is None:
            raise ConfigError("no heads have been scored", where="top", mend="call score_heads")
        return self.scores.top(k)

    def answer(
        self,
        model: LanguageModel,
        prompts: Sequence[NeedlePrompt],
        *,
        edits: Iterable[Edit] = (),
        record: bool = False,
    ) -> Answers:
        """Let the model answer prompts of one length, and record where heads look."""
        seen: dict[int, list[np.ndarray]] = {}
        watching = [note_strongest(layer, seen) for layer in range(model.anatomy.n_layers * record)]
        tokens = torch.tensor([prompt.tokens for prompt in prompts])
        found = model.continue_greedily(
            tokens, self.n_new, edits=[*edits, *watching], stop=_ends(model, prompts)
        ).numpy()
        attended = (
            np.stack([np.stack(seen[layer], axis=1) for layer in sorted(seen)], axis=2)
            if record
            else np.empty((len(prompts), 0, 0, 0), dtype=np.int64)
        )
        texts = tuple(model.decode(row[row >= 0]) for row in found)
        recall = [
            rouge_1_recall(prompt.answer, row.tolist() if model.tokenizer is None else words(text))
            for prompt, row, text in zip(prompts, found, texts, strict=True)
        ]
        return Answers(found, attended, np.array(recall), texts)

    # -- blocking --------------------------------------------------------------------------

    def block(
        self,
        model: LanguageModel,
        heads: Iterable[Head],
        mode: Mode = "uniform",
        phase: Phase = "decode",
    ) -> list[Edit]:
        """Edits that block heads.

        With ``phase="decode"`` they act on the last position of what the model is given: the step
        that generates the first token, and each one after it.

        Raises
        ------
        ConfigError
            If there is no such head, mode or phase.
        """
        if mode not in ("uniform", "zero") or phase not in ("decode", "all"):
            raise ConfigError(
                f"heads cannot be blocked by {mode!r} in {phase!r}",
                where="block",
                mend="modes are uniform and zero, phases decode and all",
            )
        rows = slice(-1, None) if phase == "decode" else slice(None)
        if mode == "zero":
            return ablate_heads(model, heads, positions=rows)
        return uniform_attention(model, heads, rows)

    def needle_eval(
        self, model: LanguageModel, grid: Sequence[NeedlePrompt], edits: Iterable[Edit] = ()
    ) -> pd.DataFrame:
        """Recall of each prompt: ``needle, length, depth, recall, answer``."""
        edits = list(edits)
        rows = []
        for group in _by_length(grid):
            answers = self.answer(model, group, edits=edits)
            rows += [
                (p.name, len(p.tokens), p.depth, recall, text)
                for p, recall, text in zip(group, answers.recall, answers.texts, strict=True)
            ]
        return pd.DataFrame(rows, columns=["needle", "length", "depth", "recall", "answer"])

    def _recall(
        self, model: LanguageModel, prompts: Sequence[NeedlePrompt], heads: Sequence[Head]
    ) -> np.ndarray:
        """Recall of each prompt with heads blocked."""
        table = self.needle_eval(model, prompts, self.block(model, heads))
        return np.asarray(table["recall"], dtype=float)

    # -- any language model ----------------------------------------------------------------

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Which heads retrieve, and how much is found without them.

        Heads are found with one half of the needles, and blocked with the other half.
        """
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(NEEDLES))
        half = len(order) // 2 if not quick else 2
        known = [NEEDLES[i] for i in order[:half]]
        new = [NEEDLES[i] for i in order[-half:]]
        haystack = story_haystack(seed)
        scores = self.score_heads(model, self.prompts(model, haystack, known))
        prompts = self.prompts(model, haystack, new)
        k = max(1, model.anatomy.n_layers * model.anatomy.n_heads // 25)
        best = scores.top(k)
        intact = self._recall(model, prompts, [])
        blocked = self._recall(model, prompts, best)
        draws = [
            random_heads(model, best, rng, exclude=scores.heads(RETRIEVAL))
            for _ in range(1 if quick else 2)
        ]
        others = np.mean([self._recall(model, prompts, d) for d in draws], axis=0)
        return _examination(scores, best, intact, blocked, others, rng)


def _examination(
    scores: HeadScores,
    best: Sequence[Head],
    intact: np.ndarray,
    blocked: np.ndarray,
    others: np.ndarray,
    rng: np.random.Generator,
) -> Examination:
    """Put scores, and recall by prompt with and without heads, into words and pictures."""
    recall = {
        "intact": intact,
        f"{len(best)} best heads blocked": blocked,
        f"{len(best)} random heads blocked": others,
    }
    findings = [
        Finding(
            "heads that retrieve",
            f"{scores.share():.1%} of {scores.mean.size} heads copy needles (score of at least "
            f"{RETRIEVAL}); the best, layer {best[0][0]} head {best[0][1]}, has a score of "
            f"{scores.mean[best[0]]:.2f}.",
            scores.share_interval(RETRIEVAL, rng),
            "share of heads",
            chance=0.0,
            caused=mean_interval(intact - blocked, rng=rng),
            control=mean_interval(intact - others, rng=rng),
            intervention=f"attention of the {len(best)} best heads made uniform while answering: "
            "loss of recall of needles that they were not found with",
        ),
        Finding(
            "needles found",
            f"The model gives {intact.mean():.0%} of the words of hidden answers, "
            f"{blocked.mean():.0%} without its {len(best)} best retrieval heads, and "
            f"{others.mean():.0%} without {len(best)} others.",
            mean_interval(intact, rng=rng),
            "share of words",
        ),
    ]
    panels = [
        Panel("matrix", "Retrieval score", scores.mean, "head", "layer", unit="score"),
        Panel(
            "bars",
            "Recall of needles",
            {name: mean_interval(values, rng=rng) for name, values in recall.items()},
            y="share of the answer's words",
        ),
    ]
    table = Table(
        "Retrieval heads",
        ("layer", "head", "score"),
        [(str(x), str(h), f"{scores.mean[x, h]:.2f}") for x, h in scores.heads(RETRIEVAL)],
    )
    notes = [f"{scores.n_successful} of {scores.n_prompts} needles were found to score heads."]
    return Examination(findings, panels, [table], notes)


def copied(prompt: NeedlePrompt, generated: np.ndarray, attended: np.ndarray) -> np.ndarray:
    """Score of one run, layer x head.

    Parameters
    ----------
    prompt : NeedlePrompt
    generated : ndarray of int, shape (step,)
        Tokens of the answer; -1 after its end.
    attended : ndarray of int, shape (step, layer, head)
        Positions.
    """
    needle = np.asarray(prompt.needle)
    inside = (attended >= prompt.start) & (attended < prompt.stop)
    there = needle[np.where(inside, attended - prompt.start, 0)]
    taken = inside & (there == generated[:, None, None])
    kinds = np.unique(needle)
    # Each different token of the needle counts once, however often it is copied.
    hit = taken[:, None] & (generated[:, None] == kinds)[:, :, None, None]
    return np.asarray(hit.any(axis=0).sum(axis=0) / len(kinds))


def _ends(model: LanguageModel, prompts: Sequence[NeedlePrompt]) -> list[int]:
    eos = getattr(model.tokenizer, "eos_token_id", None)
    return [*prompts[0].end, *([] if eos is None else [int(eos)])]


def _by_length(prompts: Sequence[NeedlePrompt]) -> list[list[NeedlePrompt]]:
    ordered = sorted(prompts, key=lambda p: len(p.tokens))
    return [list(group) for _, group in groupby(ordered, key=lambda p: len(p.tokens))]
