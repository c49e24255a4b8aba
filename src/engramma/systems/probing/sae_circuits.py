r"""Sparse Autoencoders Enable Scalable and Reliable Circuit Identification (O'Neill & Bui 2024).

**What it does.** What attention heads put out for some positive prompts (on which a behaviour is
possible) and negative ones (on which it is not) gives a score for each head, or pair of heads: how
likely it belongs to the circuit of the behaviour. No head has to be ablated.

**Method.**

1. What each head adds to the residual stream, :math:`z_h W_{O,h}`, pooled over the positions of a
   prompt: X, prompt x head x d. Names of the published files suggest the mean; ``pool="last"``
   takes the last token.
2. One sparse autoencoder with F features serves all heads
   (`engramma.probing.sparse_autoencoder`). Its loss is
   :math:`\|x - \hat x\|^2 / d + \lambda\, \mathrm{mean}|c| + \alpha\, \mathrm{sim}`, where
   :math:`\mathrm{sim} = \cos(c_+, c_-) + 1 - \cos(c_+, c_+')` is a mean over heads and pairs of
   prompts. Released setting: F = 300, lambda = 0.02, alpha = 0, Adam at 1e-3, 500 steps on ten
   random prompts.
3. The code of head h for prompt i is :math:`\arg\max_j c_{ij}`, an integer.
   :math:`U_h` are the codes that occur with positive prompts and never with negative ones. Raw
   score: :math:`|U_h|`; normalised: over the number of codes of h.
4. Node score: softmax over heads. Heads above a threshold are the circuit.
5. Edge score of a pair of heads: number of pairs of codes that occur together with positive prompts
   only, over all pairs that occur. Pairs are counted as integers, since an array of all
   head x head x F x F would not fit.

**The default score is not the paper's.** A head that uses many codes has many that chance shows in
one class only: with shuffled labels the raw count still ranks heads by how rich their codes are
(claim ``raw-count-needs-no-labels``). So the raw count is compared with 30 permutations of the
labels: :math:`z_h = (|U_h| - \mathrm{mean}) / \mathrm{sd}`.

**Other deviations.** X is divided by its root mean square, so that lambda means the same in every
model. The released script calls the harmonic mean of TPR and 1 - FPR "f1"; here F1 is F1.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.probing.ablation import Head
from engramma.probing.findings import Examination
from engramma.probing.head_edits import without_heads
from engramma.probing.head_outputs import Pool, paired_head_outputs
from engramma.probing.model import LanguageModel
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.sparse_autoencoder import SparseAutoencoder, fit_sparse_autoencoder
from engramma.registry import system
from engramma.systems.probing.sae_circuits_claims import CLAIMS

BIBTEX = """@article{oneill2024sparse,
  title = {Sparse Autoencoders Enable Scalable and Reliable Circuit Identification in Language
           Models},
  author = {O'Neill, Charles and Bui, Thang},
  journal = {arXiv preprint arXiv:2405.12522}, year = {2024}}"""

Score = Literal["z", "raw", "normalised"]


@system(
    "sae-circuits",
    family="probing",
    title="Circuits from the codes of a sparse autoencoder",
    contract="Probe",
    paper="O'Neill & Bui 2024, arXiv:2405.12522",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class SAECircuits:
    """Scores of heads by codes that positive prompts alone have.

    Parameters
    ----------
    features : int
        F of the autoencoder.
    sparsity, similarity : float
        Lambda and alpha.
    rate : float
    steps : int
    examples : int
        Prompts that the autoencoder is trained on, half of them positive.
    pool : {"mean", "last"}
    score : {"z", "raw", "normalised"}
    permutations : int
        Of the labels, for ``"z"``.
    seed : int

    Raises
    ------
    ConfigError
        If an option is out of range.
    """

    def __init__(
        self,
        *,
        features: int = 300,
        sparsity: float = 0.02,
        similarity: float = 0.0,
        rate: float = 1e-3,
        steps: int = 500,
        examples: int = 10,
        pool: Pool = "mean",
        score: Score = "z",
        permutations: int = 30,
        seed: int = 0,
    ) -> None:
        if pool not in ("mean", "last") or score not in ("z", "raw", "normalised"):
            raise ConfigError(
                f"there is no pool {pool!r} with score {score!r}",
                where="SAECircuits",
                mend="pool is mean or last; score is z, raw or normalised",
            )
        if min(examples, permutations) < 2:
            raise ConfigError(
                f"{examples} examples and {permutations} permutations are too few",
                where="SAECircuits",
                mend="give at least two of each",
            )
        self.features, self.sparsity, self.similarity = features, sparsity, similarity
        self.rate, self.steps, self.examples = rate, steps, examples
        self.pool: Pool = pool
        self.score: Score = score
        self.permutations, self.seed = permutations, seed
        self._found: tuple[np.ndarray, np.ndarray] | None = None

    # -- the method ----------------------------------------------------------------------------

    def fit(self, x: Tensor, y: np.ndarray | Sequence[int]) -> SAECircuits:
        """Train the autoencoder on a few prompts, and code all.

        Parameters
        ----------
        x : Tensor, shape (prompt, head, d)
            What heads put out; see `head_outputs`.
        y : array of 0 and 1, shape (prompt,)
            Whether the behaviour is possible.

        Raises
        ------
        DataError
            If shapes do not go together, values are not finite, a class is missing, or all codes
            are the same.
        """
        labels = np.asarray(y)
        _check(x, labels)
        rng = np.random.default_rng(self.seed)
        rows = _balanced(labels, rng)
        x, labels = x[rows].float(), labels[rows].astype(bool)
        self.scale = float(x.square().mean().sqrt())
        self.network = SparseAutoencoder(x.shape[-1], self.features, seed=self.seed)
        half = min(max(1, self.examples // 2), int(labels.sum()))
        chosen = [rng.permutation(np.flatnonzero(labels == c))[:half] for c in (True, False)]
        self.losses = fit_sparse_autoencoder(
            self.network,
            x[np.concatenate(chosen)] / self.scale,
            sparsity=self.sparsity,
            rate=self.rate,
            steps=self.steps,
            penalty=self._dissimilar if self.similarity else None,
        )
        codes = self.codes(x)
        if len(np.unique(codes)) == 1:
            raise DataError(
                "the autoencoder has collapsed: every head has the same code for every prompt",
                where="fit",
                mend=f"lower lambda (sparsity), which is {self.sparsity:g}",
            )
        self._found = codes, labels
        return self

    @torch.no_grad()
    def codes(self, x: Tensor) -> np.ndarray:
        """Strongest feature of each head for each prompt; int64, prompt x head."""
        parts = [self.network.encode(part.float() / self.scale) for part in x.split(64)]
        return np.concatenate([part.argmax(dim=-1).numpy() for part in parts])

    def head_scores(self) -> np.ndarray:
        """Score of each head, (head,); see ``score``."""
        codes, labels = self._codes()
        raw, distinct = _positive_only(codes, labels, self.features)
        if self.score == "raw":
            return raw
        if self.score == "normalised":
            return raw / distinct
        rng = np.random.default_rng([self.seed, 1])
        shuffled = np.stack(
            [
                _positive_only(codes, rng.permutation(labels), self.features)[0]
                for _ in range(self.permutations)
            ]
        )
        # A head with one code has the same count under every permutation: 0 from its mean.
        return (raw - shuffled.mean(axis=0)) / np.maximum(shuffled.std(axis=0, ddof=1), 0.5)

    def node_scores(self) -> np.ndarray:
        """Softmax of `head_scores` over heads."""
        scores = self.head_scores()
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()

    def edge_scores(self) -> np.ndarray:
        """Share of pairs of codes that occur with positive prompts only, head x head.

        Symmetric; the diagonal is NaN.
        """
        codes, labels = self._codes()
        n_heads = codes.shape[1]
        numbered = codes + np.arange(n_heads) * self.features
        scores = np.full((n_heads, n_heads), np.nan)
        for head in range(n_heads - 1):
            pairs = codes[:, [head]] * (n_heads * self.features) + numbered[:, head + 1 :]
            seen, first = np.unique(pairs, return_index=True)
            of = first % (n_heads - 1 - head)
            negative = np.isin(seen, pairs[~labels])
            alone = np.bincount(of[~negative], minlength=n_heads - 1 - head)
            share = alone / np.bincount(of, minlength=n_heads - 1 - head)
            scores[head, head + 1 :] = scores[head + 1 :, head] = share
        return scores

    def circuit(self, theta: float | None = None) -> np.ndarray:
        """Whether each head's node score is above ``theta``; an even share by default."""
        scores = self.node_scores()
        return scores > (1 / len(scores) if theta is None else theta)

    # -- the Probe contract --------------------------------------------------------------------

    def locate(self, model: LanguageModel, examples: PairedPrompts) -> np.ndarray:
        """Score of each head, layer x head: clean prompts are positive, corrupted negative."""
        x, y = paired_head_outputs(model, examples, self.pool)
        return self.fit(x, y).head_scores().reshape(model.anatomy.n_layers, -1)

    def intervene(
        self, model: LanguageModel, where: Iterable[Head], examples: PairedPrompts | None = None
    ) -> AbstractContextManager[LanguageModel]:
        """Keep heads at their mean over the prompts of ``examples``, or at zero without them."""
        return without_heads(model, where, examples)

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Score the heads of a model for indirect objects, and compare with interchange.

        Raises
        ------
        NotTestableError
            If the model does not tell an indirect object from a subject.
        """
        from engramma.systems.probing.sae_circuits_examination import examine

        return examine(model, seed=seed, quick=quick)

    # -- parts ---------------------------------------------------------------------------------

    def _codes(self) -> tuple[np.ndarray, np.ndarray]:
        if self._found is None:
            raise ConfigError("nothing has been fitted yet", where="SAECircuits", mend="call fit")
        return self._found

    def _dissimilar(self, features: Tensor) -> Tensor:
        """Alpha times the similarity term; the first half of the prompts is positive."""
        positive, negative = functional.normalize(features, dim=-1).chunk(2)
        across = torch.einsum("ihf,jhf->ijh", positive, negative).mean()
        within = torch.einsum("ihf,jhf->ijh", positive, positive).mean()
        return self.similarity * (across + 1 - within)


def _check(x: Tensor, labels: np.ndarray) -> None:
    if x.ndim != 3 or len(x) != len(labels) or labels.ndim != 1:
        raise DataError(
            f"x has shape {tuple(x.shape)} and y {labels.shape}",
            where="fit",
            mend="give x as prompt x head x d, and one label a prompt",
        )
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise DataError(
            f"labels are {np.unique(labels).tolist()[:5]}",
            where="y",
            mend="give 1 for positive prompts and 0 for negative ones, some of each",
        )
    if not float(x.abs().max()):
        raise DataError("all heads put out nothing", where="x", mend="look at where x comes from")


def _balanced(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows with as many positive as negative prompts."""
    classes = [np.flatnonzero(labels == c) for c in (1, 0)]
    n = min(map(len, classes))
    if len(classes[0]) != len(classes[1]):
        warnings.warn(
            f"there are {len(classes[0])} positive and {len(classes[1])} negative prompts; {n} of "
            "each are used, since more prompts show more codes",
            DataWarning,
            stacklevel=3,
        )
    return np.sort(np.concatenate([rng.permutation(c)[:n] for c in classes]))


def _positive_only(
    codes: np.ndarray, labels: np.ndarray, features: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count each head's codes with positive prompts only, and all its codes."""
    heads = np.arange(codes.shape[1])
    seen = np.zeros((2, codes.shape[1], features), dtype=bool)
    for number, rows in enumerate((labels, ~labels)):
        seen[number, heads, codes[rows]] = True
    return (seen[0] & ~seen[1]).sum(axis=1).astype(float), seen.any(axis=0).sum(axis=1)


def agreement(scores: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> Mapping[str, float]:
    """How well scores find the heads (or edges) of a circuit.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    truth : ndarray of bool, shape (n,)
    chosen : ndarray of bool, shape (n,)
        Those taken for the circuit.

    Returns
    -------
    mapping
        ``auc`` (area under the ROC curve), ``precision``, ``recall``, ``f1``; NaN where undefined.
    """
    from sklearn.metrics import roc_auc_score

    both = 0 < truth.sum() < len(truth)
    hits = int((truth & chosen).sum())
    precision = hits / chosen.sum() if chosen.any() else float("nan")
    recall = hits / truth.sum() if truth.any() else float("nan")
    total = int(chosen.sum() + truth.sum())
    return {
        "auc": float(roc_auc_score(truth, scores)) if both else float("nan"),
        "precision": float(precision),
        "recall": float(recall),
        "f1": 2 * hits / total if total else float("nan"),
    }
