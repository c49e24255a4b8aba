r"""Decoding specialised feature neurons with the final projection layer (Davies 2025).

arXiv:2501.02688.

**What it does.** It reads, from weights alone, what a feed-forward neuron is about. The rows of the
up-projection :math:`W_{up}` (n x D) live in the residual stream, as those of the output embedding
:math:`W_{LM}` (V x D) do, so that

.. math:: S = W_{up} W_{LM}^\top, \qquad p_j = \mathrm{softmax}(S_j)

says which tokens neuron j is aligned with. Its *concentration* is :math:`\max p_j`. Products are
taken some neurons at a time and only the best m tokens are kept.

1. `FeatureNeurons.decode` does it for a layer, or all. Gate rows and the columns of the
   down-projection (what a neuron writes) are read in the same way.
2. A neuron is specialised for a concept where the concept's variants (" dog", "dog", " dogs") fill
   its list: `find` ranks neurons by the sum of p over the variants.
3. `clamp` keeps the output of the up-projection of one neuron at a constant c, at every position.
   A gated network still multiplies it by :math:`\mathrm{SiLU}(gate)`, so that what is written is
   :math:`\mathrm{SiLU}(gate_j)\, c\, W_{down,j}`, whose sign is open; both signs of c are tried.
   The measure is the share of the vocabulary whose log probability rises less than that of the
   decoded token: 0.5 is chance.
4. `agreement` is the share of neurons with the same best token in two models, such as a base model
   and one fine-tuned from it.

**Choices.** `fold_gain` multiplies :math:`W_{LM}` by the gain of the final norm first (not stated
in the paper). The sign of c is chosen with some prompts and tested with others. The control is the
same row with its coordinates permuted: same numbers, no direction. Alignment is all that is read:
neurons that are no word, or several at once, stay opaque, and early layers use another basis.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError
from engramma.probing.ablation import Neuron, clamp_neurons
from engramma.probing.findings import Examination, Finding, Panel, Table
from engramma.probing.model import LanguageModel
from engramma.probing.neurons import TopTokens, top_tokens
from engramma.probing.places import Place
from engramma.probing.scores import mean_interval
from engramma.probing.vocabulary import concept_tokens, several_spellings
from engramma.registry import system
from engramma.systems.probing.feature_neurons_claims import CLAIMS

BIBTEX = """@article{davies2025decoding,
  title = {Decoding specialised feature neurons in {LLMs} with the final projection layer},
  author = {Davies, Harry J.},
  journal = {arXiv preprint arXiv:2501.02688}, year = {2025}}"""

Source = Literal["gate", "up", "down"]
SOURCES: tuple[Source, ...] = ("up", "gate", "down")
#: Prompts that any noun can follow: the sign of a clamp is chosen with the first half.
PROMPTS = (
    "I would like to tell you about the",
    "The first thing that comes to mind is",
    "Yesterday we talked a lot about",
    "My favourite thing in the world is",
    "The article was mainly about",
    "She could not stop thinking about the",
    "What everybody wanted to see was the",
    "The word that I am thinking of is",
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Specialised:
    """A neuron and how much of its probability lies on a concept."""

    layer: int
    neuron: int
    mass: float


@system(
    "feature-neurons",
    family="probing",
    title="Neurons read through the output embedding",
    contract="Probe",
    paper="Davies 2025, arXiv:2501.02688",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class FeatureNeurons:
    """Read neurons from weights, and clamp them.

    Parameters
    ----------
    m : int
        Tokens kept of each neuron.
    fold_gain : bool
        Whether the gain of the final norm is applied to the output embedding first.
    value : float
        Size c of a clamp.
    """

    def __init__(self, m: int = 10, fold_gain: bool = False, value: float = 10.0) -> None:
        if m < 1:
            raise ConfigError(f"{m} tokens cannot be kept", where="m", mend="keep at least one")
        self.m, self.fold_gain, self.value = m, fold_gain, value

    # -- reading -------------------------------------------------------------------------------

    def vocabulary(self, model: LanguageModel) -> Tensor:
        """Rows of the output embedding, token x D.

        A model whose file has no output embedding of its own shares that of the input; this is
        logged.

        Raises
        ------
        ConfigError
            If the weights are still quantised.
        """
        head = check_weight(model.anatomy.head.weight, "output embedding")
        if head is model.network.get_input_embeddings().weight:
            _log.info("%s has no output embedding of its own: the input's is used", model.name)
        rows = head.detach().float()
        if self.fold_gain:
            gain = check_weight(model.anatomy.norm.weight, "final norm").detach().float()
            # Gemma keeps the gain as a difference from 1.
            rows = rows * (gain + 1.0 if "Gemma" in type(model.anatomy.norm).__name__ else gain)
        return rows

    def rows(self, model: LanguageModel, layer: int, source: Source = "up") -> Tensor:
        """Weight vectors of a layer's neurons, N x D."""
        weight = model.anatomy.neuron_weight(layer, source)
        return check_weight(weight, f"{source} of layer {layer}").detach().float()

    def decode(
        self, model: LanguageModel, layer: int | None = None, source: Source = "up"
    ) -> TopTokens:
        """Tokens that the neurons of a layer are aligned with; of all layers by default.

        Returns
        -------
        TopTokens
            Neurons of all layers follow each other, N a layer.
        """
        layers = range(model.anatomy.n_layers) if layer is None else [layer]
        vocabulary = self.vocabulary(model)
        parts = [top_tokens(self.rows(model, x, source), vocabulary, self.m) for x in layers]
        return TopTokens(
            torch.cat([p.tokens for p in parts]), torch.cat([p.probability for p in parts])
        )

    def decode_permuted(
        self, model: LanguageModel, layer: int, rng: np.random.Generator, source: Source = "up"
    ) -> TopTokens:
        """Decode rows whose coordinates are permuted, each in its own way: the control."""
        rows = self.rows(model, layer, source).numpy()
        permuted = torch.as_tensor(rng.permuted(rows, axis=1))
        return top_tokens(permuted, self.vocabulary(model), self.m)

    def locate(self, model: LanguageModel, examples: Sequence[str]) -> np.ndarray:
        """Probability that each neuron's list puts on the variants of words, layer x neuron."""
        return self.masses(model, self.decode(model), concept_tokens(model, examples))

    def masses(
        self, model: LanguageModel, decoded: TopTokens, concept: Sequence[int]
    ) -> np.ndarray:
        """Sum of the kept probabilities over the tokens of a concept, layer x neuron."""
        mine = torch.isin(decoded.tokens, torch.tensor(list(concept)))
        mass = (decoded.probability * mine).sum(dim=1).numpy()
        return np.asarray(mass.reshape(-1, model.anatomy.n_neurons))

    def find(
        self,
        model: LanguageModel,
        concept: str,
        k: int = 5,
        decoded: TopTokens | None = None,
    ) -> list[Specialised]:
        """Return the k neurons most specialised for a word, best first.

        Warns
        -----
        DataWarning
            If the word is several tokens: its first is used.
        """
        decoded = self.decode(model) if decoded is None else decoded
        mass = self.masses(model, decoded, concept_tokens(model, [concept]))
        best = np.argsort(-mass, axis=None, kind="stable")[:k]
        places = zip(*np.unravel_index(best, mass.shape), strict=True)
        return [Specialised(int(x), int(j), float(mass[x, j])) for x, j in places]

    def agreement(
        self, model: LanguageModel, other: LanguageModel, source: Source = "up"
    ) -> np.ndarray:
        """Share of neurons with the same best token in two models, layer by layer.

        Raises
        ------
        ConfigError
            If the models differ in size.
        """
        a, b = model.anatomy, other.anatomy
        sizes = [(x.n_layers, x.n_neurons, x.vocabulary) for x in (a, b)]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"{sizes[0]} and {sizes[1]} layers, neurons and tokens cannot be compared",
                mend="compare a model with one that was fine-tuned from it",
            )
        best = [self.decode(m, source=source).tokens[:, 0] for m in (model, other)]
        return (best[0] == best[1]).float().view(a.n_layers, -1).mean(dim=1).numpy()

    # -- clamping ------------------------------------------------------------------------------

    @contextmanager
    def clamp(
        self, model: LanguageModel, layer: int, neuron: int, value: float
    ) -> Iterator[LanguageModel]:
        """Keep the up-projection of a neuron at a value within the ``with`` block."""
        with model.edited(clamp_neurons(model, [(layer, neuron)], value, "up")):
            yield model

    def intervene(self, model: LanguageModel, where: Neuron) -> object:
        """Clamp one neuron, as (layer, neuron), to `value`; see `clamp`."""
        return self.clamp(model, *where, self.value)

    def percentiles(
        self,
        model: LanguageModel,
        tokens: Tensor,
        last: Tensor,
        neurons: Sequence[Neuron],
        words: Tensor,
        value: float,
    ) -> np.ndarray:
        """Share of the vocabulary that gains less than decoded words under a clamp.

        Parameters
        ----------
        model : LanguageModel
        tokens, last : Tensor
            Prompts.
        neurons : sequence of (layer, neuron)
        words : Tensor of int64, shape (neuron, k)
            Decoded tokens of each neuron, and others to compare.
        value : float

        Returns
        -------
        ndarray, shape (neuron, k, prompt)
        """
        layers = sorted({layer for layer, _ in neurons})
        run = model.run(tokens, keep=[Place("residual", x) for x in layers], at=last)
        plain = run.logits.float().log_softmax(dim=-1)
        found = np.empty((len(neurons), words.shape[1], len(tokens)))
        for number, (layer, neuron) in enumerate(neurons):
            # What lies before the layer is the same for all clamps.
            logits = model.run(
                tokens,
                at=last,
                edits=clamp_neurons(model, [(layer, neuron)], value, "up"),
                start=(layer, run["residual", layer]),
            ).logits
            gain = logits.float().log_softmax(dim=-1) - plain
            for k, word in enumerate(words[number].tolist()):
                found[number, k] = (gain < gain[:, word, None]).float().mean(dim=1).numpy()
        return found

    def best_sign(
        self,
        model: LanguageModel,
        tokens: Tensor,
        last: Tensor,
        neurons: Sequence[Neuron],
        words: Tensor,
    ) -> np.ndarray:
        """Percentile of decoded words under the better sign of c, neuron x k.

        The sign is chosen with the first half of the prompts and tested with the second.
        """
        both = np.stack(
            [
                self.percentiles(model, tokens, last, neurons, words, sign * self.value)
                for sign in (1, -1)
            ]
        )
        half = len(tokens) // 2
        sign = both[..., :half].mean(axis=-1).argmax(axis=0)
        return np.take_along_axis(both[..., half:].mean(axis=-1), sign[None], axis=0)[0]

    # -- a user's model ------------------------------------------------------------------------

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Decode and clamp a model's neurons: see `engramma.probing.findings.Examiner`."""
        rng = np.random.default_rng(seed)
        n = model.anatomy.n_layers
        # The upper half: early layers use another basis.
        layers = list(range(n // 2, n, max(1, n // (10 if quick else 20))))
        tokens, last = model.encode(PROMPTS)
        decoded = {x: self.decode(model, x) for x in layers}
        permuted = {x: self.decode_permuted(model, x, rng) for x in layers}
        lexical = np.concatenate([several_spellings(model, decoded[x].tokens) for x in layers])
        floor = np.concatenate([several_spellings(model, permuted[x].tokens) for x in layers])
        neurons, words = picked(decoded, permuted, 8 if quick else 24)
        found = self.best_sign(model, tokens, last, neurons, words)
        shares = lexical.reshape(len(layers), -1).mean(axis=1)
        rows = [
            [
                f"{layer}.{neuron}",
                ", ".join(repr(model.decode([t])) for t in best[:5]),
                f"{share:.2f}",
            ]
            for (layer, neuron), best, share in zip(
                neurons, _lists(decoded, neurons), found[:, 0], strict=True
            )
        ]
        return Examination(
            [
                Finding(
                    "neurons that are a word",
                    f"In {lexical.mean():.0%} of the neurons of the upper half, the ten best "
                    f"tokens hold a word in several spellings; with permuted rows, in "
                    f"{floor.mean():.0%}.",
                    mean_interval(lexical, rng=rng),
                    "share of neurons",
                    float(floor.mean()),
                    caused=mean_interval(found[:, 0], rng=rng),
                    control=mean_interval(found[:, 1], rng=rng),
                    intervention=f"{len(neurons)} most concentrated neurons clamped to "
                    f"±{self.value:g}: share of the vocabulary that gains less than the decoded "
                    "token (chance 0.5); control: the token decoded from the permuted row",
                ),
                Finding(
                    "clamps that work",
                    f"Clamped, {(found[:, 0] > 0.8).mean():.0%} of the most concentrated neurons "
                    "lift the decoded token above 80 % of the vocabulary.",
                    mean_interval((found[:, 0] > 0.8).astype(float), rng=rng),
                    "share of clamped neurons",
                    0.2,
                ),
            ],
            [
                Panel(
                    "curves",
                    "Neurons that are a word",
                    {"as they are": (np.array(layers) / n, shares)},
                    x="relative depth",
                    y="share of neurons",
                )
            ],
            [Table("Most concentrated neurons", ["neuron", "tokens", "percentile"], rows)],
            [f"Read were the layers {', '.join(map(str, layers))}."],
        )


def picked(
    decoded: dict[int, TopTokens], permuted: dict[int, TopTokens], n: int
) -> tuple[list[Neuron], Tensor]:
    """Return the n most concentrated neurons; best token of each row, and of the permuted row."""
    every = [(float(c), x, j) for x, d in decoded.items() for j, c in enumerate(d.concentration)]
    best = sorted(every, reverse=True)[:n]
    neurons = [(x, j) for _, x, j in best]
    words = [[int(d[x].tokens[j, 0]) for d in (decoded, permuted)] for x, j in neurons]
    return neurons, torch.tensor(words)


def check_weight(weight: Any, where: str) -> Tensor:
    """Refuse weights that are still quantised.

    Raises
    ------
    ConfigError
    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise ConfigError(
            f"weights are {getattr(weight, 'dtype', None)}, and no numbers to multiply with",
            where=where,
            mend="load the model dequantised (GGUF files are, by LanguageModel.load)",
        )
    return weight


def _lists(decoded: dict[int, TopTokens], neurons: Sequence[Neuron]) -> list[list[int]]:
    return [decoded[x].tokens[j].tolist() for x, j in neurons]
