r"""Positional description matters for arithmetic (Shen et al. 2023, arXiv:2311.14737).

**What it does.** A small transformer is trained on arithmetic as text. How the *place* of a digit
is described decides what it learns: with zero-padding and the answer's last digit first it learns
products from a tiny training set; with spaces at random places and a scratchpad, sums longer than
those it has seen; with random tags instead of absolute positions, sums inside sentences.

**Formats** (`engramma.probing.arithmetic.Format`). Padding of numbers and answer, reversal of the
answer or of the numbers, spaces, a recursive scratchpad. One token a character; the loss counts the
answer only (with the scratchpad, if there is one). Numbers have uniformly many digits, then are
uniform; a tenth of all pairs, chosen by a hash, is never trained on.

**Positions.** ``absolute``: learned, as in GPT-2. ``tags``: no positions; each token carries
:math:`[e(w_p) ; t_p ; t_{p-1}]`, with tags :math:`t \sim N(0, 1)` of 16 dimensions that are drawn
anew for each sequence, so that heads find the token before or after another by its tag. (Ours, from
the paper's idea of random embeddings, which redraws them by layer too; unverified.)

**Exact match is of free decoding**: the model writes the answer by itself, greedily, up to the end
of the line. `teacher_forced` is the share of single tokens that are right when all before them are
given, and is no exact match.

**As a Codec.** ``encode`` takes rows [a, b, answer] (int64) and returns their lines as ASCII;
``decode`` reads lines back. It is lossless: ``decode(encode(rows))`` is ``rows``, with spaces or a
scratchpad too. Rows with wrong answers are refused, as their text would be no example; ``decode``
takes wrong answers, since models write them.

**Scale.** The paper: 12 layers, 12 heads, width 768, 300 000 products, 120 000 sums; here 2 layers,
4 heads, d = 64, and 1-digit times up to 4-digit numbers. **Not on a given model**: what is shown is
how to train, so there is nothing to examine in a model that is trained already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from engramma.errors import ConfigError, DataError
from engramma.nn.seed import seeded
from engramma.nn.weights import read_weights, save_weights
from engramma.probing.arithmetic import END, Format, draw_pairs
from engramma.probing.training import learned_position_model, train_language_model
from engramma.registry import system
from engramma.systems.probing.positional_arithmetic_claims import CLAIMS

BIBTEX = """@article{shen2023positional,
  title = {Positional Description Matters for Transformers Arithmetic},
  author = {Shen, Ruoqi and Bubeck, Sebastien and Eldan, Ronen and Lee, Yin Tat and Li, Yuanzhi and
            Zhang, Yi},
  journal = {arXiv preprint arXiv:2311.14737}, year = {2023}}"""

Positions = Literal["absolute", "tags"]
#: One token a character.
ALPHABET = END + " 0123456789+*=,;:?.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CODE = {character: number for number, character in enumerate(ALPHABET)}
#: Width of a tag.
TAG = 16


class TaggedModel(nn.Module):
    """GPT-2 without positions, whose tokens carry random tags: their own, and their neighbour's.

    Parameters
    ----------
    network : GPT2LMHeadModel
    seed : int
        Of the tags.
    """

    def __init__(self, network: Any, seed: int) -> None:
        super().__init__()
        self.network = network
        positions = network.transformer.wpe.weight
        nn.init.zeros_(positions)
        positions.requires_grad_(False)
        dim = network.config.n_embd
        self.words = nn.Embedding(network.config.vocab_size, dim - 2 * TAG)
        nn.init.normal_(self.words.weight, std=0.5 * dim**-0.5)
        self.seed, self.generator = seed, torch.Generator().manual_seed(seed)

    def restart(self) -> None:
        """Draw the same tags again from here on."""
        self.generator.manual_seed(self.seed)

    def tags(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Draw each token's tag, and that of the one before it (row x token x TAG each).

        Tags of a position do not depend on the length, so that decoding token by token from the
        same start sees the same ones.
        """
        drawn = torch.randn(length + 1, rows, TAG, generator=self.generator).transpose(0, 1)
        return drawn[:, 1:], drawn[:, :-1]

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        """Run on fresh tags; nothing is cached."""
        embedded = torch.cat([self.words(input_ids), *self.tags(*input_ids.shape)], dim=2)
        return self.network(inputs_embeds=embedded, use_cache=False)


@system(
    "positional-arithmetic",
    family="probing",
    title="Positional description: formats that let small transformers calculate",
    contract=("Codec", "Learner"),
    paper="Shen, Bubeck, Eldan, Lee, Li & Zhang 2023, arXiv:2311.14737",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class PositionalArithmetic:
    """A format, and a small transformer that learns arithmetic in it.

    Parameters
    ----------
    format : Format, optional
        Padded products with reversed answers by default.
    positions : {"absolute", "tags"}
    templates : sequence of str
        Sentences with ``{a}``, ``{b}`` and, at the end, ``{c}``, which half of the training
        examples are put into; none by default.
    dim, layers, heads, context : int
    rate : float
        Of AdamW; warm-up and cosine decay.
    rows : int
        Examples a step.
    seed : int

    Raises
    ------
    ConfigError
        If there are no such positions, or tags leave no room for words.
    """

    def __init__(
        self,
        format: Format | None = None,
        positions: Positions = "absolute",
        *,
        templates: Sequence[str] = (),
        dim: int = 64,
        layers: int = 2,
        heads: int = 4,
        context: int = 128,
        rate: float = 4e-3,
        rows: int = 64,
        seed: int = 0,
    ) -> None:
        if positions not in ("absolute", "tags") or (positions == "tags" and dim <= 2 * TAG):
            raise ConfigError(
                f"there are no positions {positions!r} in a width of {dim}",
                mend=f"use absolute, or tags and a width above {2 * TAG}",
            )
        self.format = format or Format(padded=True, reversed_answer=True)
        self.templates, self.rate, self.rows, self.seed = tuple(templates), rate, rows, seed
        self.network: Any = learned_position_model(
            len(ALPHABET),
            dim=dim,
            layers=layers,
            heads=heads,
            neurons=2 * dim,
            positions=context,
            seed=seed,
        )
        if positions == "tags":
            with seeded(seed):
                self.network = TaggedModel(self.network, seed).eval()
        self.seen: set[tuple[int, int]] = set()
        self._steps = 0

    # -- codec -------------------------------------------------------------------------------

    def encode(self, array: np.ndarray) -> bytes:
        """Write rows [a, b, answer] as lines.

        Raises
        ------
        DataError
            If the array has another form, a number does not fit the format, or an answer is wrong.
        """
        rows = np.asarray(array)
        if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iu":
            raise DataError(
                f"an array of shape {rows.shape} and type {rows.dtype} holds no arithmetic",
                where="encode",
                mend="give integers, rows of [a, b, answer]",
            )
        rng = np.random.default_rng([self.seed, 3])
        lines = []
        for a, b, c in rows.tolist():
            if c != self.format.result(a, b):
                raise DataError(
                    f"{a}{self.format.operation}{b} is not {c}",
                    where="encode",
                    mend=f"the answer is {self.format.result(a, b)}",
                )
            lines.append(self.format.question(a, b, rng) + self.format.answer(a, b, rng) + END)
        return "".join(lines).encode("ascii")

    def decode(self, data: bytes) -> np.ndarray:
        """Read lines back into rows [a, b, answer], n x 3; answers may be wrong.

        Raises
        ------
        DataError
            If a line is not of this format.
        """
        lines = data.decode("ascii", errors="replace").splitlines()
        return np.array([self.format.read(line) for line in lines], dtype=np.int64).reshape(-1, 3)

    # -- learner -----------------------------------------------------------------------------

    def train(self, steps: int = 1000) -> list[float]:
        """Learn from pairs that are not kept for tests; returns the loss of every 100 steps."""

        def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
            pairs = draw_pairs(self.rows, self.format.digits, rng=rng, test=False)
            self.seen.update(map(tuple, pairs.tolist()))
            return self._batch(pairs, rng)

        return train_language_model(
            self.network,
            batch,
            steps=steps,
            rate=self.rate,
            warm_up=min(100, steps // 4),
            parameters=[p for p in self.network.parameters() if p.requires_grad],
            seed=self.seed,
            description="learning arithmetic",
        )

    def observe(self, batch: np.ndarray) -> None:
        """Make one step on pairs (n, 2)."""
        rng = np.random.default_rng([self.seed, 4, self._steps])
        self._steps += 1
        self.seen.update(map(tuple, np.asarray(batch).tolist()))
        train_language_model(
            self.network,
            lambda _: self._batch(np.asarray(batch), rng),
            steps=1,
            rate=self.rate,
            warm_up=0,
            decay=False,
            parameters=[p for p in self.network.parameters() if p.requires_grad],
            description="one step",
        )

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Decode the answers to pairs (n, 2) freely; -1 where what is written is no answer (n,)."""
        rng = np.random.default_rng([self.seed, 5])
        questions = [self.format.question(a, b, rng) for a, b in np.asarray(x).tolist()]
        written = self.write(questions)
        return np.array([self._read(q + w) for q, w in zip(questions, written, strict=True)])

    def end_of_task(self) -> None:
        """Do nothing: no state is kept between tasks but the weights."""

    def accuracy_by_length(
        self, lengths: Sequence[tuple[int, int]], n: int = 100
    ) -> dict[tuple[int, int], float]:
        """Exact match on pairs kept for tests with exactly so many digits, decoded freely."""
        found = {}
        for length in lengths:
            rng = np.random.default_rng([self.seed, 6, *length])
            pairs = draw_pairs(n, length, rng=rng, test=True, exactly=True)
            right = [self.format.result(a, b) for a, b in pairs.tolist()]
            found[length] = float((self.predict(pairs) == right).mean())
        return found

    def accuracy_in_text(self, templates: Sequence[str], digits: int, n: int = 100) -> float:
        """Exact match of sums of ``digits``-digit numbers within sentences, decoded freely."""
        rng = np.random.default_rng([self.seed, 7, digits])
        pairs = draw_pairs(n, (digits, digits), rng=rng, test=True, exactly=True).tolist()
        chosen = rng.integers(0, len(templates), n)
        cues = [
            templates[t].split("{c}")[0].format(a=a, b=b)
            for t, (a, b) in zip(chosen, pairs, strict=True)
        ]
        right = [str(self.format.result(a, b)) for a, b in pairs]
        return float(np.mean([w == r for w, r in zip(self.write(cues), right, strict=True)]))

    def share_seen(self) -> float:
        """Share of all pairs of the format that training has drawn."""
        a, b = self.format.digits
        return len(self.seen) / 10 ** (a + b)

    # -- weights -----------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the network's weights, in half precision."""
        save_weights(path, self.network.state_dict(), format=self.format.to_json())

    def load(self, path: str | Path) -> None:
        """Read weights that `save` wrote; which pairs they were trained on is not known then.

        Raises
        ------
        DataError
            If there are none, or they are of a network of another size or kind.
        """
        tensors, _ = read_weights(path)
        try:
            self.network.load_state_dict(tensors)
        except RuntimeError as error:
            raise DataError(
                f"these are weights of another network ({error})",
                where=str(path),
                mend="build a learner with the same sizes and positions",
            ) from error

    # -- text --------------------------------------------------------------------------------

    @torch.no_grad()
    def write(self, cues: Sequence[str], most: int | None = None) -> list[str]:
        """Continue texts greedily up to the end of the line.

        Parameters
        ----------
        cues : sequence of str
        most : int, optional
            Characters; as many as the context has by default.
        """
        found = [""] * len(cues)
        for size in sorted({len(cue) for cue in cues}):  # those of one length together
            group = [n for n, cue in enumerate(cues) if len(cue) == size]
            tokens = torch.tensor([_tokens(cues[n]) for n in group])
            ended = torch.zeros(len(group), dtype=torch.bool)
            limit = self._context() - size if most is None else min(most, self._context() - size)
            for _ in range(limit):
                if isinstance(self.network, TaggedModel):
                    self.network.restart()
                logits = self.network(input_ids=tokens, use_cache=False).logits[:, -1]
                new = logits.argmax(dim=1)
                ended |= new == 0
                tokens = torch.cat([tokens, new[:, None]], dim=1)
                if bool(ended.all()):
                    break
            for n, row in zip(group, tokens[:, size:].tolist(), strict=True):
                found[n] = "".join(ALPHABET[t] for t in row).split(END)[0]
        return found

    @torch.no_grad()
    def teacher_forced(self, pairs: np.ndarray) -> float:
        """Share of single tokens of the answer that are right after the right ones (not exact)."""
        tokens, weights = self._batch(pairs, np.random.default_rng([self.seed, 8]))
        found = self.network(input_ids=tokens, use_cache=False).logits[:, :-1].argmax(dim=2)
        counted = weights[:, 1:] > 0
        return float((found == tokens[:, 1:])[counted].float().mean())

    def _context(self) -> int:
        network = getattr(self.network, "network", self.network)
        return int(network.config.n_positions)

    def _read(self, text: str) -> int:
        try:
            return self.format.read(text)[2]
        except DataError:
            return -1

    def _batch(self, pairs: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Token numbers of examples, and weights that count the answers only."""
        texts = [self._example(a, b, rng) for a, b in pairs.tolist()]
        width = max(len(q) + len(a) for q, a in texts) + 1
        if width > self._context():
            raise DataError(
                f"an example has {width} characters, and the model takes {self._context()}",
                where="training",
                mend="give a larger context",
            )
        tokens = np.zeros((len(texts), width), np.int64)
        weights = np.zeros((len(texts), width), np.float32)
        for row, (question, answer) in enumerate(texts):
            whole = question + answer + END
            tokens[row, : len(whole)] = _tokens(whole)
            weights[row, len(question) : len(whole)] = 1.0
        return torch.from_numpy(tokens), torch.from_numpy(weights)

    def _example(self, a: int, b: int, rng: np.random.Generator) -> tuple[str, str]:
        if self.templates and rng.random() < 0.5:
            text = self.templates[rng.integers(len(self.templates))]
            return text.split("{c}")[0].format(a=a, b=b), str(self.format.result(a, b))
        return self.format.question(a, b, rng), self.format.answer(a, b, rng)


def _tokens(text: str) -> list[int]:
    return [_CODE[c] for c in text]
