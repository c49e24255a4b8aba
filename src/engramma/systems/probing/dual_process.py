r"""Dual process learning (Anand, Lepori, Merullo & Pavlick, ICLR 2025, arXiv:2406.00053).

**What it does.** Whether a word is a noun or an adjective can be told in two ways: from the words
around it (in context), and from the word itself (in weights). A transformer uses what pays, and
once it knows its words it unlearns to look at the context of new ones. *Forgetting* words on
purpose, for a while, makes a model that can do both.

**Task** (`engramma.probing.word_classes`). ``[pattern, w1, w2, ?, query]``; the answer is the class
of the query, which is w1 or w2. Pattern A says that w1 is the noun and w2 the adjective, pattern B
the reverse. Words have a class of their own, all but a share ``ambiguous`` that are used in both.
Frequencies are Zipf's, or a treebank's. A share of ``blanked`` sequences has no context, ``[-, -,
-, ?, query]``: the answer is the word's own class.

**Regimes.** ``vanilla``: plain training. ``active`` (after Chen et al. 2023): every k steps all
word embeddings are drawn anew from N(0, 0.02^2) and their optimiser state is cleared; all else goes
on. ``temporary``: the same for the first N steps, then no more. With ``probability`` below 1 each
word is drawn anew with that probability (a later version of the paper). See `Forgetter`.

**Tests.** ``structural``: random words with fresh embeddings, drawn like those of a reset but
never seen: share of answers that follow the context; chance 0.5. ``head_switch``, ``tail_switch``:
frequent (the first tenth) or rare (the second half) unambiguous words used against their own
class: share of answers that follow the context. ``in_weights``: words without context: share of
answers that are the word's own class, words drawn by frequency. All depend on the *phase*: right
after a reset nothing is known in weights, shortly before the next one much is.

**Model.** A pre-LN transformer encoder that reads the last position: 2 layers, 4 heads, d = 32, and
words with an embedding table of their own. The paper also resets the pattern's tokens (its toy
model is a BERT); here the signs keep theirs, so that what must be learned anew are words only.
Scale: 1000 words, k = 100 and N = 1500 of 2000 steps, where the paper has 10 000 words and k of
about 1000.

**Left out.** The paper also follows checkpoints of BERT-like models on parts of speech, and
fine-tunes GPT-2 with forgetting. `Forgetter` works on any model of transformers, and `conllu_world`
takes words and frequencies from a treebank, but those two studies are not rebuilt here; so there is
nothing to examine in a model that is trained already.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.probing.forgetting import Forgetter
from engramma.probing.word_classes import SIGNS, PatternWorld, zipf_world
from engramma.registry import system
from engramma.systems.probing.dual_process_claims import CLAIMS

BIBTEX = """@inproceedings{anand2025dual,
  title = {Dual Process Learning: Controlling Use of In-Context vs. In-Weights Strategies with
           Weight Forgetting},
  author = {Anand, Suraj and Lepori, Michael A. and Merullo, Jack and Pavlick, Ellie},
  booktitle = {International Conference on Learning Representations}, year = {2025}}"""

Regime = Literal["vanilla", "active", "temporary"]
#: Standard deviation of fresh embeddings.
FRESH = 0.02


# -- the model -------------------------------------------------------------------------------


class WordClassifier(nn.Module):
    """Transformer encoder that tells the class of the last word."""

    def __init__(self, words: int, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, dim)
        self.signs = nn.Embedding(SIGNS, dim)
        self.positions = nn.Parameter(torch.empty(5, dim))
        layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False
        )
        self.head = nn.Linear(dim, 2)
        for weight in (self.words.weight, self.signs.weight, self.positions):
            nn.init.normal_(weight, std=FRESH)

    def get_input_embeddings(self) -> nn.Embedding:
        """Embeddings of words, which can be forgotten."""
        return self.words

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the two classes, sequence x 2; tokens are sequence x 5."""
        table = torch.cat([self.words.weight, self.signs.weight])
        hidden = self.encoder(functional.embedding(tokens, table) + self.positions)
        logits: Tensor = self.head(hidden[:, -1])
        return logits


@dataclass(frozen=True)
class Strategies:
    """What a model relies on; see the module's text. Chance is 0.5 in the first and the last.

    ``unstructured`` is ``structural`` with patterns drawn at random: what can be had without them.
    """

    structural: float
    head_switch: float
    tail_switch: float
    in_weights: float
    unstructured: float


@dataclass(frozen=True)
class Snapshot:
    """Strategies after ``step`` steps; ``fresh`` if words have just been forgotten."""

    step: int
    fresh: bool
    strategies: Strategies


@system(
    "dual-process",
    family="probing",
    title="Dual process learning: temporary forgetting keeps both strategies",
    contract="Learner",
    paper="Anand, Lepori, Merullo & Pavlick, ICLR 2025, arXiv:2406.00053",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class DualProcess:
    """A small transformer and the regime that it learns under.

    Parameters
    ----------
    world : PatternWorld, optional
        `zipf_world` by default.
    regime : {"temporary", "active", "vanilla"}
    every : int
        Steps k between resets.
    until : int
        Last step N with a reset; for ``temporary``.
    probability : float
        See `Forgetter`.
    blanked : float
        Share of sequences without context.
    dim, layers, heads : int
    rate : float
        Of AdamW.
    rows : int
        Sequences a step.
    seed : int
        Of weights, resets, training and test sequences.

    Raises
    ------
    ConfigError
        If there is no such regime.
    """

    def __init__(
        self,
        world: PatternWorld | None = None,
        regime: Regime = "temporary",
        *,
        every: int = 100,
        until: int = 1500,
        probability: float = 1.0,
        blanked: float = 0.3,
        dim: int = 32,
        layers: int = 2,
        heads: int = 4,
        rate: float = 1e-3,
        rows: int = 64,
        seed: int = 0,
    ) -> None:
        if regime not in ("vanilla", "active", "temporary"):
            raise ConfigError(
                f"there is no regime {regime!r}", mend="use vanilla, active or temporary"
            )
        self.world = zipf_world(seed=seed) if world is None else world
        self.regime, self.blanked, self.rows, self.seed = regime, blanked, rows, seed
        self.forgetter = None
        if regime != "vanilla":
            last = until if regime == "temporary" else None
            self.forgetter = Forgetter(every, last, probability, seed=seed)
        with seeded(seed):
            self.network = WordClassifier(self.world.words, dim, layers, heads).eval()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=rate)
        self.steps = 0
        self.snapshots: list[Snapshot] = []

    def train(self, steps: int = 2000, evaluate_at: Iterable[int] = ()) -> list[Snapshot]:
        """Make so many steps more, and evaluate at some of them.

        Where words are forgotten at a step that is evaluated, two snapshots are taken: before and
        after.

        Parameters
        ----------
        steps : int
        evaluate_at : iterable of int
            Steps made so far.

        Returns
        -------
        list of Snapshot
        """
        end = self.steps + steps
        self._warn_if_active(end)
        rng = np.random.default_rng([self.seed, 1, self.steps])
        stream = (self.world.sample(self.rows, rng=rng, blanked=self.blanked) for _ in range(steps))
        known = len(self.snapshots)
        wanted = set(evaluate_at)
        self._learn(stream, wanted)
        if end in wanted:
            self.snapshots.append(Snapshot(end, False, self.evaluate()))
        return self.snapshots[known:]

    def observe(self, batch: tuple[Tensor, Tensor]) -> None:
        """Make one step on sequences and targets, after forgetting if it is time to."""
        self._learn([batch], set())

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Class of the query of each sequence (n, 5): 0 noun, 1 adjective."""
        classes: Tensor = self.network(x).argmax(dim=1)
        return classes

    def end_of_task(self) -> None:
        """Go on without forgetting: the end of its phase."""
        self.forgetter = None

    def evaluate(self, n: int = 500) -> Strategies:
        """Measure the strategies on n sequences each; the same sequences at each call."""
        rng = np.random.default_rng([self.seed, 2])
        world, sure = self.world, ~self.world.ambiguous
        order = np.arange(world.words)
        head, tail = order < world.words // 10, order >= world.words // 2
        nouns = rng.integers(0, world.words, n)
        adjectives = (nouns + rng.integers(1, world.words, n)) % world.words
        tokens, targets = world.sequences(nouns, adjectives, rng=rng)
        without = tokens.clone()
        without[:, 0] = torch.from_numpy(world.words + rng.integers(0, 2, n))
        with self._fresh_words():
            structural, unstructured = (self._accuracy(t, targets) for t in (tokens, without))
        switched = []
        for group in (head, tail):
            against = [np.flatnonzero(group & sure & (world.own == own)) for own in (1, 0)]
            if not all(map(len, against)):
                raise DataError(
                    "too few unambiguous words are frequent, or rare",
                    where="evaluate",
                    mend="use more words, or fewer ambiguous ones",
                )
            pair = [rng.choice(words, n) for words in against]
            switched.append(self._accuracy(*world.sequences(*pair, rng=rng)))
        frequency = np.where(sure, world.counts.sum(axis=1), 0.0)
        asked = rng.choice(world.words, n, p=frequency / frequency.sum())
        return Strategies(
            structural=structural,
            head_switch=switched[0],
            tail_switch=switched[1],
            in_weights=self._accuracy(*world.blanked(asked)),
            unstructured=unstructured,
        )

    def _accuracy(self, tokens: Tensor, targets: Tensor) -> float:
        return float((self.predict(tokens) == targets).float().mean())

    @contextmanager
    def _fresh_words(self) -> Iterator[None]:
        """Give all words embeddings that were never trained, while the ``with`` block runs."""
        weight = self.network.words.weight
        known = weight.detach().clone()
        generator = torch.Generator().manual_seed(1_000_003 * self.seed)
        try:
            with torch.no_grad():
                weight.copy_(FRESH * torch.randn(weight.shape, generator=generator))
            yield
        finally:
            with torch.no_grad():
                weight.copy_(known)

    def _learn(self, batches: Iterable[tuple[Tensor, Tensor]], evaluate_at: set[int]) -> None:
        def stream(_: int) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in batches:
                self._begin_step(self.steps in evaluate_at)
                yield batch
                self.steps += 1

        train(
            self.network,
            lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
            stream,
            epochs=1,
            optimizer=self.optimiser,
            description=f"{self.regime} training",
        )

    def _begin_step(self, evaluated: bool) -> None:
        if evaluated:
            self.snapshots.append(Snapshot(self.steps, False, self.evaluate()))
        forgot = self.forgetter is not None and self.forgetter.step(
            self.network, self.optimiser, self.steps
        )
        if forgot and evaluated:
            self.snapshots.append(Snapshot(self.steps, True, self.evaluate()))

    def _warn_if_active(self, end: int) -> None:
        until = self.forgetter.until if self.forgetter else None
        if until is not None and until >= end:
            warnings.warn(
                f"words are forgotten until step {until} and training ends at {end}: this is "
                "active forgetting, and what it leaves in weights is what the last reset left",
                DataWarning,
                stacklevel=3,
            )
