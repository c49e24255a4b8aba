r"""Few-shot memories (Orhan 2023, arXiv:2303.17557).

**What it does.** A pretrained language model reads a study set one to three times, as training,
and is then tested as a person would be: does it *recognise* a sentence beside a foil, can it
*recall* the second half from the first, and how much of both is left after training on other text?
The memory is the weights.

**Study.** All parameters, AdamW at a constant rate. One pass over the set (in random order,
``rows`` sentences a step) is one exposure. The paper's grid: rates 1e-4, 3e-5, 1e-5, batches of 1,
4, 16; 600 sentences; models from 125M to 20B parameters.

**Recognition.** Mean surprisal of a sentence's tokens, :math:`-\frac1{T-1} \sum_{t>1} \log
p(w_t \mid w_{<t})`, against that of its aligned foil: right if the studied one is lower. Chance is
0.5 where the foil has the same length and prior, which is measured before study.

**Recall.** The first half of the tokens is the cue; greedy decoding to the original length.
ROUGE-1, -2 and -L, the share of tokens in place, and of sentences recalled whole. All are of the
continuation *only*: the released evaluation counts the cue too, for which an empty memory gets
about 0.5.

**Retention.** Training goes on with other sentences, and both tests are made at log-spaced steps.

**As a Memory.** ``write(sentences, exposures)`` studies, ``read(cue)`` recalls, ``consolidate()``
studies all that was written once more, interleaved, and ``forget(which)`` unlearns exactly: the
weights from before study are trained again with all that happened since, without the sentences
named. ``save`` and ``load`` keep the weights, those from before, and the history.

**Pretrained here.** A GPT-2 of three blocks, d = 96, on `engramma.probing.bigrams.BigramLanguage`
(200 words, 20 a sentence), with rates of 3e-4 to 2e-3, as a small model needs; three languages.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.memory.miniatures import load_trained
from engramma.probing.bigrams import BigramLanguage, shares_ngram
from engramma.probing.findings import Examination
from engramma.probing.model import LanguageModel, pad
from engramma.probing.rouge import rouge
from engramma.probing.training import learned_position_model, train_language_model
from engramma.registry import system
from engramma.systems.probing.few_shot_memories_claims import CLAIMS

BIBTEX = """@article{orhan2023recognition,
  title = {Recognition, recall, and retention of few-shot memories in large language models},
  author = {Orhan, A. Emin},
  journal = {arXiv preprint arXiv:2303.17557}, year = {2023}}"""

FILE = Path(__file__).parent / "weights" / "few-shot-memories-bigrams.safetensors"
SCRIPT = "scripts/train_few_shot_memories.py"

#: Sentences: text, or lists of token numbers.
Sentences = Sequence[str] | Sequence[Sequence[int]] | np.ndarray


@dataclass(frozen=True)
class Recall:
    """How well second halves were continued (sentence,); of the continuation alone.

    Parameters
    ----------
    matched : ndarray
        Share of tokens in place.
    whole : ndarray of bool
    rouge_1, rouge_2, rouge_l : ndarray
    """

    matched: np.ndarray
    whole: np.ndarray
    rouge_1: np.ndarray
    rouge_2: np.ndarray
    rouge_l: np.ndarray


@dataclass(frozen=True)
class Retention:
    """Both tests after so many updates on other sentences."""

    steps: list[int]
    recognised: list[float]
    recalled: list[float]


@dataclass(frozen=True)
class _Event:
    """A stretch of training: sentences, passes over them, a limit of steps, and what it was."""

    sentences: list[list[int]]
    exposures: int
    steps: int | None
    study: bool


@system(
    "few-shot-memories",
    family="probing",
    title="Few-shot memories: recognition, recall and retention in the weights",
    contract="Memory",
    paper="Orhan 2023, arXiv:2303.17557",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class FewShotMemories:
    """A language model that studies sentences.

    Parameters
    ----------
    model : LanguageModel, optional
        Copied, so that it stays as it is; the first trained bigram model by default.
    rate : float
        Of AdamW, constant.
    rows : int
        Sentences a step.
    seed : int
        Of the order of study.
    half : bool
        Whether to train in bfloat16 where that is safe (autocast).
    pretraining : sequence of sequences, optional
        Token lists that the model was trained on; studying what shares 8 tokens in a row with
        them warns.

    Raises
    ------
    ConfigError
        If the rate is negative, or there is no sentence a step.
    """

    def __init__(
        self,
        model: LanguageModel | None = None,
        *,
        rate: float = 1e-3,
        rows: int = 4,
        seed: int = 0,
        half: bool = False,
        pretraining: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if rate < 0 or rows < 1:
            raise ConfigError(
                f"nothing is studied at rate {rate} with {rows} sentences a step",
                where="FewShotMemories",
                mend="rates are 0 or more, and a step has one sentence or more",
            )
        source = miniature(0) if model is None else model
        self.model = LanguageModel(copy.deepcopy(source.network), source.tokenizer, source.name)
        self.rate, self.rows, self.seed, self.half = rate, rows, seed, half
        self.pretraining = pretraining
        self._before = _weights(self.model)
        self._history: list[_Event] = []

    # -- the memory --------------------------------------------------------------------------

    @property
    def items(self) -> list[list[int]]:
        """All that was studied, as tokens, in order of first study."""
        found = {tuple(s): None for e in self._history if e.study for s in e.sentences}
        return [list(s) for s in found]

    def write(self, key: Sentences, value: int = 1) -> None:
        """Study sentences (``key``) so many times (``value``)."""
        sentences = self._tokens(key)
        if value < 1:
            raise ConfigError(f"sentences are seen once or more, not {value} times", where="write")
        if self.pretraining is not None:
            known = int(shares_ngram(sentences, self.pretraining).sum())
            if known:
                warnings.warn(
                    f"{known} of {len(sentences)} sentences share eight tokens in a row with the "
                    "pretraining text: what is recalled of them may be older than the study",
                    DataWarning,
                    stacklevel=2,
                )
        self._live(_Event(sentences, value, None, True))

    def read(self, cue: Any) -> list[int]:
        """Continue a cue (text or tokens) by as many tokens as it has itself."""
        cues = self._tokens([cue])
        return self.recall(cues, [len(cues[0])])[0]

    def consolidate(self) -> None:
        """Study all that was written once more, in a new random order."""
        if self.items:
            self._live(_Event(self.items, 1, None, True))

    def forget(self, which: Sentences) -> None:
        """Unlearn sentences exactly: live again from before study, without them.

        Raises
        ------
        DataError
            If one of them was not studied.
        """
        named = {tuple(s) for s in self._tokens(which)}
        unknown = named - set(map(tuple, self.items))
        if unknown:
            raise DataError(
                f"{len(unknown)} of the sentences were not studied",
                where="forget",
                mend="name sentences that write was given",
            )
        history, self._history = self._history, []
        self.model.network.load_state_dict(self._before)
        for event in history:
            kept = [s for s in event.sentences if not (event.study and tuple(s) in named)]
            if kept:
                self._live(_Event(kept, event.exposures, event.steps, event.study))

    def interfere(
        self,
        stream: Sentences,
        steps: int,
        after_step: Callable[[int], None] | None = None,
    ) -> None:
        """Train on other sentences for so many steps; over and over, if they are few."""
        self._live(_Event(self._tokens(stream), 1, steps, False), after_step)

    def save(self, path: Path) -> None:
        """Write weights and history into a folder, which is replaced once they are complete."""
        from safetensors.torch import save_file

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=path.parent))
        try:
            save_file(_weights(self.model), work / "now.safetensors")
            save_file(self._before, work / "before.safetensors")
            history = [vars(event) for event in self._history]
            (work / "history.json").write_text(json.dumps(history))
            if path.exists():
                for file in work.iterdir():
                    file.replace(path / file.name)
            else:
                work.replace(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def load(self, path: Path) -> None:
        """Take up what ``save`` wrote.

        Raises
        ------
        DataError
            If a file is missing, damaged, or of another model.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(path)
        try:
            now, before = (load_file(path / f"{n}.safetensors") for n in ("now", "before"))
            history = [_Event(**e) for e in json.loads((path / "history.json").read_text())]
            for state in (now, before):
                if {k: v.shape for k, v in state.items()} != self._shapes:
                    raise ValueError("its weights have other names or shapes")
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise DataError(
                f"this is no memory of {self.model.name} ({error})",
                where=str(path),
                mend="name a folder that save wrote with the same model",
            ) from error
        self.model.network.load_state_dict(now)
        self._before, self._history = before, history

    @property
    def _shapes(self) -> dict[str, torch.Size]:
        return {k: v.shape for k, v in self._before.items()}

    # -- the tests ---------------------------------------------------------------------------

    def surprisal(self, sentences: Sentences) -> np.ndarray:
        """Mean surprisal of each sentence's tokens after the first (sentence,), nats."""
        tokens, last = pad(self._tokens(sentences))
        values = self.model.surprisal(tokens)
        there = torch.arange(tokens.shape[1]) <= last[:, None]
        return torch.where(there, values, torch.nan).nanmean(dim=1).numpy()

    def recognise(self, items: Sentences, foils: Sentences) -> np.ndarray:
        """Whether each item is less surprising than its aligned foil (item,).

        Raises
        ------
        DataError
            If they differ in number.
        """
        if len(items) != len(foils):
            raise DataError(
                f"{len(items)} items stand beside {len(foils)} foils",
                where="recognise",
                mend="give one foil an item, in the same order",
            )
        return np.asarray(self.surprisal(items) < self.surprisal(foils))

    def recall(self, cues: Sentences, lengths: Sequence[int]) -> list[list[int]]:
        """Continue each cue greedily by so many tokens."""
        rows = self._tokens(cues)
        found: list[list[int]] = [[] for _ in rows]
        for size in sorted({len(row) for row in rows}):  # those of one length together
            group = [n for n, row in enumerate(rows) if len(row) == size]
            longest = max(lengths[n] for n in group)
            new = self.model.continue_greedily(torch.tensor([rows[n] for n in group]), longest)
            for n, tokens in zip(group, new.tolist(), strict=True):
                found[n] = tokens[: lengths[n]]
        return found

    def recalled(self, items: Sentences) -> Recall:
        """Cue with the first half of each item, and score the continuation."""
        rows = self._tokens(items)
        halves = [len(row) // 2 for row in rows]
        second = [row[half:] for row, half in zip(rows, halves, strict=True)]
        cues = [row[:half] for row, half in zip(rows, halves, strict=True)]
        found = self.recall(cues, [len(s) for s in second])
        matched = [np.equal(f, s).mean() for f, s in zip(found, second, strict=True)]
        scores = [rouge(f, s) for f, s in zip(found, second, strict=True)]
        return Recall(
            np.array(matched),
            np.array(matched) == 1.0,
            np.array([s.one for s in scores]),
            np.array([s.two for s in scores]),
            np.array([s.longest for s in scores]),
        )

    def retention(
        self, items: Sentences, foils: Sentences, stream: Sentences, steps: Sequence[int]
    ) -> Retention:
        """Test both before and after ``steps`` (increasing) updates on other sentences."""
        found = Retention([], [], [])

        def test(step: int) -> None:
            if step in (0, *steps):
                self.model.network.eval()
                found.steps.append(step)
                found.recognised.append(float(self.recognise(items, foils).mean()))
                found.recalled.append(float(self.recalled(items).matched.mean()))
                self.model.network.train()

        test(0)
        self.interfere(stream, max(steps), test)
        self.model.network.eval()  # the last test comes after training has ended
        return found

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Let a model that reads text study sentences of a small grammar, and test it.

        The model itself stays as it is.
        """
        from engramma.systems.probing.few_shot_memories_text import examine

        return examine(model, seed=seed, quick=quick)

    # -- training ----------------------------------------------------------------------------

    def _tokens(self, sentences: Sentences) -> list[list[int]]:
        rows = [
            self.model.token_ids(s) if isinstance(s, str) else [int(t) for t in s]
            for s in sentences
        ]
        short = [n for n, row in enumerate(rows) if not 2 <= len(row) <= self.model.context]
        if short or not rows:
            raise DataError(
                f"{len(short)} of {len(rows)} sentences are too short or too long",
                where=f"sentence {short[0]}" if short else None,
                mend=f"give one or more, of 2 to {self.model.context} tokens",
            )
        return rows

    def _live(self, event: _Event, after_step: Callable[[int], None] | None = None) -> None:
        passes = len(self._history)
        self._history.append(event)
        a_pass = -(-len(event.sentences) // self.rows)
        batches = self._batches(event.sentences, np.random.default_rng([self.seed, passes]))
        # Without the cache, which would keep the weights of the first step for all steps.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half, cache_enabled=False):
            train_language_model(
                self.model.network,
                lambda _: next(batches),
                steps=event.exposures * a_pass if event.steps is None else event.steps,
                rate=self.rate,
                warm_up=0,
                decay=False,
                after_step=after_step,
                description="study" if event.study else "interference",
            )

    def _batches(
        self, sentences: list[list[int]], rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go over the sentences again and again, each time in a new order."""
        while True:
            order = rng.permutation(len(sentences))
            for start in range(0, len(order), self.rows):
                tokens, last = pad([sentences[n] for n in order[start : start + self.rows]])
                yield tokens, (torch.arange(tokens.shape[1]) <= last[:, None]).float()


def _weights(model: LanguageModel) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.network.state_dict().items()}


# -- pretrained here -------------------------------------------------------------------------


def miniature(seed: int, *, trained: bool = True) -> LanguageModel:
    """Return a small model of the bigram language of this seed, 0 to 2."""
    language = BigramLanguage(seed=seed)
    network = learned_position_model(
        language.words,
        dim=96,
        layers=3,
        heads=4,
        neurons=192,
        positions=language.length,
        tied=True,
        seed=seed,
    )
    if trained:
        network = load_trained(network, FILE, f"bigrams-{seed}", SCRIPT)
    return LanguageModel(network, name=f"bigrams-{seed}")
