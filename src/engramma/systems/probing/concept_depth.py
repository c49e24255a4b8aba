r"""Exploring concept depth (Jin et al. 2025, COLING, arXiv:2404.07066).

**What it does.** It asks at which relative depth of a language model a concept becomes readable by
a linear probe, and whether noise in the text or fewer bits in the weights move that depth.

1. Each text is put into the prompt of its set. For each of d layers the values at the last token
   are taken: what enters the feed-forward network, normalised (the output of
   ``post_attention_layernorm``, as in the released code; the place ``mlp_in``), or the residual
   stream (place ``residual``, which has a value more, before the first block: the embeddings).
2. In each layer, logistic regression with an L2 penalty (C = 1) is fitted to 60 % of the texts and
   tested on 40 %: accuracy, F1 and area under the ROC curve.
3. With the variation rate :math:`\beta_i = acc_i / acc_{i-1}`, the *jump point* is the first
   :math:`i/d` where :math:`\beta_i \ge 1.1`, and the *converging point* the first :math:`i/d` after
   which :math:`|\beta_j - 1| < 0.03` for all j. Where no layer jumps there is no jump point; a
   curve that is flat from the start has neither.
4. Compared are texts with ``aaa`` or ``bbb`` in front, and matrices rounded to 16, 8 or 4 bits.

Beside each curve stand two floors, without which a probe's accuracy means little: the same model
with random weights, and shuffled labels.

**Choices.** Texts that occur twice are dropped, so that none is on both sides. The first layer has
none before it; ``before=0.5`` sets it against chance, so that what is readable at once jumps at 0.
Features can be standardised (``standardise=True``): without it the solver may not converge within
its 100 steps, which is reported. `intervene` takes a direction out of the residual stream; that
is ours, as the paper reads only. The thresholds 1.1 and 0.03 are options.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engramma.contracts import Estimate
from engramma.errors import ConfigError, DataError
from engramma.nn.seed import seeded
from engramma.probing.concepts import OWN, LabelledTexts, own_texts
from engramma.probing.findings import Examination, Finding, Panel, Table
from engramma.probing.hooks import Change, Edit
from engramma.probing.model import LanguageModel
from engramma.probing.neurons import by_length
from engramma.probing.places import Place
from engramma.probing.quantise import quantised
from engramma.probing.scores import mean_interval
from engramma.registry import system
from engramma.systems.probing.concept_depth_claims import CLAIMS

BIBTEX = """@inproceedings{jin2025concept,
  title = {Exploring Concept Depth: How Large Language Models Acquire Knowledge and Concept at
           Different Layers?},
  author = {Jin, Mingyu and Yu, Qinkai and Huang, Jingyuan and Zeng, Qingcheng and Wang, Zhenting
            and Hua, Wenyue and Zhao, Haiyan and Mei, Kai and Meng, Yanda and Ding, Kaize and
            Yang, Fan and Du, Mengnan and Zhang, Yongfeng},
  booktitle = {Proceedings of COLING}, year = {2025}, note = {arXiv:2404.07066}}"""

#: Fewest texts of a class.
FEWEST = 20


@dataclass(frozen=True)
class Curve:
    """What probes read in each layer.

    Parameters
    ----------
    accuracy, f1, auc : ndarray, shape (layer,)
        On held-out texts.
    converged : ndarray of bool, shape (layer,)
        Whether the solver came to an end.
    right : ndarray of bool, shape (layer, text)
        Which held-out texts were told rightly.
    directions : ndarray, shape (layer, D)
        Unit vectors along which the probes read, in the space of the features.
    dropped : int
        Texts left out because they occurred before.
    """

    accuracy: np.ndarray
    f1: np.ndarray
    auc: np.ndarray
    converged: np.ndarray
    right: np.ndarray
    directions: np.ndarray
    dropped: int = 0


@dataclass(frozen=True)
class Depth:
    """Relative depths at which a curve jumps and comes to rest; None where there is none."""

    jump: float | None
    converging: float | None


@system(
    "concept-depth",
    family="probing",
    title="The depth at which concepts become readable",
    contract="Probe",
    paper="Jin et al. 2025, COLING, arXiv:2404.07066",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class ConceptDepth:
    """Read concepts in every layer.

    Parameters
    ----------
    place : {"mlp_in", "residual"}
    jump : float
        Least variation rate of a jump.
    settled : float
        Largest departure of the variation rate from 1 behind the converging point.
    before : float, optional
        Accuracy ahead of the first layer, such as 0.5; by default the first has no rate.
    standardise : bool
        Whether features are brought to unit variance before the probe is fitted.
    random_state : int
        Of the split.
    """

    def __init__(
        self,
        place: Literal["mlp_in", "residual"] = "mlp_in",
        *,
        jump: float = 1.1,
        settled: float = 0.03,
        before: float | None = None,
        standardise: bool = False,
        random_state: int = 42,
    ) -> None:
        if place not in ("mlp_in", "residual"):
            raise ConfigError(f"no concept is read at {place!r}", mend="use mlp_in or residual")
        self.place: Literal["mlp_in", "residual"] = place
        self.jump, self.settled, self.before = jump, settled, before
        self.standardise, self.random_state = standardise, random_state

    # -- features and probes -------------------------------------------------------------------

    def layer_features(self, model: LanguageModel, texts: Sequence[str]) -> np.ndarray:
        """Values at the last token of each text, layer x text x D."""
        return self.token_features(model, *model.encode(texts))

    def token_features(self, model: LanguageModel, tokens: Tensor, last: Tensor) -> np.ndarray:
        """Like `layer_features`, for token numbers padded on the right."""
        n = model.anatomy.n_layers + (self.place == "residual")
        places = [Place(self.place, layer) for layer in range(n)]
        found = np.empty((n, len(tokens), model.anatomy.dim), dtype=np.float32)
        for index, part, end in by_length(tokens, last):
            run = model.run(part, keep=places, at=0)
            row = torch.arange(len(part))
            found[:, index] = torch.stack([run[p][row, end] for p in places]).float().numpy()
        return found

    def fit_curve(self, features: np.ndarray, labels: np.ndarray, dropped: int = 0) -> Curve:
        """Fit a probe in each layer.

        Parameters
        ----------
        features : ndarray, shape (layer, text, D)
        labels : ndarray of int, shape (text,)
            0 or 1.
        dropped : int
            Handed on.

        Raises
        ------
        DataError
            If there are not two classes of at least 20 texts.
        """
        check_classes(labels)
        from sklearn.model_selection import train_test_split

        train, test = train_test_split(
            np.arange(len(labels)), test_size=0.4, random_state=self.random_state
        )
        layers = [self._probe(x, labels, train, test) for x in features]
        accuracy, f1, auc, converged, right, directions = map(np.stack, zip(*layers, strict=True))
        return Curve(accuracy, f1, auc, converged, right, directions, dropped)

    def _probe(
        self, x: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import f1_score, roc_auc_score

        spread = x[train].std(axis=0) if self.standardise else np.ones(x.shape[1])
        centre = x[train].mean(axis=0) if self.standardise else np.zeros(x.shape[1])
        spread = np.where(spread > 1e-6, spread, 1.0)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", ConvergenceWarning)
            probe = LogisticRegression(C=1.0).fit((x[train] - centre) / spread, labels[train])
        stuck = any(issubclass(w.category, ConvergenceWarning) for w in seen)
        score = probe.decision_function((x[test] - centre) / spread)
        said, truth = (score > 0).astype(int), labels[test]
        both = len(np.unique(truth)) == 2
        direction = probe.coef_[0] / spread
        return (
            np.array((said == truth).mean()),
            np.array(f1_score(truth, said, zero_division=0.0)),
            np.array(roc_auc_score(truth, score) if both else np.nan),
            np.array(not stuck),
            said == truth,
            direction / max(float(np.linalg.norm(direction)), 1e-12),
        )

    def depth(self, accuracy: np.ndarray) -> Depth:
        """Jump point and converging point of a curve (layer,), relative to the number of layers.

        Raises
        ------
        DataError
            If an accuracy is 0 or not finite, or there are fewer than two layers.
        """
        curve = np.asarray(accuracy, dtype=float)
        if len(curve) < 2 or not np.isfinite(curve).all() or (curve[:-1] <= 0).any():
            raise DataError(
                "a depth needs two layers or more, all with an accuracy above 0",
                where=f"{len(curve)} layers",
            )
        ahead = curve[0] if self.before is None else self.before
        rate = curve / np.concatenate([[ahead], curve[:-1]])
        d = len(curve) - (self.place == "residual")
        jumps = np.flatnonzero(rate >= self.jump)
        moving = np.flatnonzero(np.abs(rate - 1) >= self.settled)
        return Depth(
            float(jumps[0] / d) if len(jumps) else None,
            float(moving[-1] / d) if len(moving) else None,
        )

    # -- contract ------------------------------------------------------------------------------

    def locate(self, model: LanguageModel, examples: LabelledTexts) -> Curve:
        """Read a concept in every layer of a model."""
        check_classes(examples.labels)
        texts, dropped = examples.distinct()
        features = self.layer_features(model, texts.prompts())
        return self.fit_curve(features, texts.labels, dropped)

    @contextmanager
    def intervene(
        self, model: LanguageModel, where: Mapping[int, np.ndarray]
    ) -> Iterator[LanguageModel]:
        """Take directions out of the residual stream within the ``with`` block.

        Parameters
        ----------
        model : LanguageModel
        where : mapping of int to ndarray, shape (D,)
            Layers, and the unit vector that is projected out of what enters each.
        """
        edits = [
            Edit(Place("residual", layer), without(torch.as_tensor(v, dtype=torch.float32)))
            for layer, v in where.items()
        ]
        with model.edited(edits):
            yield model

    def compare(
        self,
        model: LanguageModel,
        examples: LabelledTexts,
        *,
        noise: np.random.Generator | None = None,
        bits: int | None = None,
    ) -> tuple[Curve, Curve]:
        """Curves without and with noise in the texts, or fewer bits in the weights.

        Raises
        ------
        ConfigError
            Unless one of ``noise`` and ``bits`` is given.
        """
        if (noise is None) == (bits is None):
            raise ConfigError("compare needs noise or bits", mend="give one of the two")
        plain = self.locate(model, examples)
        if bits is None:
            assert noise is not None
            texts, _ = examples.distinct()
            return plain, self.locate(model, texts.noisy(noise))
        with quantised(model, bits):
            return plain, self.locate(model, examples)

    # -- a user's model ------------------------------------------------------------------------

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Find the depth of five concepts: see `engramma.probing.findings.Examiner`."""
        rng = np.random.default_rng(seed)
        probe = ConceptDepth(self.place, before=0.5, standardise=True, random_state=42 + seed)
        blank = random_copy(model, seed)
        findings, curves, rows = [], {}, []
        names = ["good or bad", "one or many"] if quick else list(OWN)
        for name in names:
            texts = own_texts(name, seed).at_most(60, rng)
            features = probe.layer_features(model, texts.prompts())
            found = probe.fit_curve(features, texts.labels)
            floor = probe.locate(blank, texts)
            shuffled = probe.fit_curve(features, rng.permutation(texts.labels))
            best = int(found.accuracy.argmax())
            depth = probe.depth(found.accuracy)
            value = mean_interval(found.right[best].astype(float), rng=rng)
            gain = found.right[best].astype(float) - floor.right[best]
            findings.append(
                Finding(
                    name,
                    f"“{name}” is read best in layer {best} of {len(features)}, and first well "
                    f"above chance at a depth of {_show(depth.jump)}.",
                    value,
                    "accuracy on held-out texts",
                    0.5,
                    caused=mean_interval(gain, rng=rng),
                    control=Estimate(float(shuffled.accuracy.mean() - 0.5)),
                    intervention="trained weights replaced by random ones: accuracy that they "
                    "cost in the same layer; control: accuracy above chance with shuffled labels",
                )
            )
            x = np.arange(len(features)) / model.anatomy.n_layers
            curves[name] = (x, found.accuracy)
            curves[f"{name}, random weights"] = (x, floor.accuracy)
            rows.append(
                [
                    name,
                    f"{found.accuracy[best]:.2f}",
                    f"{floor.accuracy.max():.2f}",
                    f"{shuffled.accuracy.max():.2f}",
                    _show(depth.jump),
                    _show(depth.converging),
                    f"{int((~found.converged).sum())}",
                ]
            )
        columns = ["concept", "best", "random weights", "shuffled", "jump", "converging", "stuck"]
        return Examination(
            findings,
            [Panel("curves", "Accuracy of probes", curves, x="relative depth", y="accuracy")],
            [Table("Depth of concepts", columns, rows, "Best: of all layers, which favours it.")],
            ["What random weights let a probe read comes from the words alone."],
        )


def check_classes(labels: np.ndarray) -> None:
    """Refuse what is not two classes of enough texts.

    Raises
    ------
    DataError
    """
    counts = {int(c): int((labels == c).sum()) for c in (0, 1)}
    if min(counts.values()) < FEWEST or sum(counts.values()) != len(labels):
        raise DataError(
            f"there are {counts[0]} and {counts[1]} texts of the classes 0 and 1, of {len(labels)}",
            where="labels",
            mend=f"give two classes of at least {FEWEST} texts",
        )


def without(direction: Tensor) -> Change:
    """Return the change that projects a unit vector out of values (..., D)."""
    return lambda values: values - (values @ direction)[..., None] * direction


def random_copy(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """Build the same network with random weights: the floor of what a probe can read."""
    with seeded(seed):
        network = type(model.network)(model.network.config)
    return LanguageModel(network, model.tokenizer, name=f"{model.name}, random weights")


def _show(depth: float | None) -> str:
    return "none" if depth is None else f"{depth:.2f}"
