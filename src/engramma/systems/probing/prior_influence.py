r"""Prior influence (Zhang, Veselovsky, McCoy & Griffiths 2025, arXiv:2504.12585).

**What it does.** A language model that is asked a question with one right answer tends to miss
answers that are rare in themselves. The method measures that, finds the layers where an answer's
prior shows, and frees the right answer by a prompt or by tuning a single layer on a few items.

**Prior.** Of an answer :math:`a = a_1 \dots a_k`: :math:`\log p(a \mid \mathrm{neutral})`, the mean
over its tokens, after a prompt that says nothing of the question. In text an answer ends with a
line break, which is a part of it: else "1" would be right where "12" is.

**Dominance.** Pearson correlation over items of being right (all tokens of the answer, decoded
greedily) with the log prior; and accuracy in the likeliest and the rarest third. Also the
correlation of the log probability of the right answer with the log prior, which is graded.

**Prompting.** The same items behind an instruction to compute exactly; in the trained cipher the
mode EXACT.

**Localisation.** The logit lens: what enters block l, at the token before :math:`a_i`, goes through
the final norm and head, :math:`\log p_l(a_i)`; its correlation over items with
:math:`\log p(a_i \mid a_{<i}, \mathrm{neutral})`, and the share of items where :math:`a_i` comes
first. (The paper's own statistic is not known to us; this is the nearest reading.)

**Tuning.** All parameters stand still but those of chosen blocks (full weights; the paper's use
low-rank updates, unverified). A few steps on prompts with some answers; tested on answers that were
never tuned on, which is enforced.

**The trained cipher.** The miniatures (GPT-2, four blocks, d = 64, 128 neurons) learn
`engramma.probing.priors.CipherWorld`, where an ideal observer's answers are known exactly: no
model is better in mode NORMAL, over all that comes, than Bayes' rule allows.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engramma.contracts import Estimate
from engramma.encoding.scores import bootstrap_interval
from engramma.errors import ConfigError, DataWarning, LeakageError
from engramma.memory.miniatures import load_trained
from engramma.probing.answers import Items, Score, correlation, score
from engramma.probing.findings import Examination
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel
from engramma.probing.places import Place
from engramma.probing.priors import CipherWorld, Mode
from engramma.probing.training import learned_position_model, train_language_model
from engramma.registry import system
from engramma.systems.probing.prior_influence_claims import CLAIMS

BIBTEX = """@article{zhang2025prior,
  title = {Identifying and Mitigating the Influence of the Prior Distribution in Large Language
           Models},
  author = {Zhang, Liyi and Veselovsky, Veniamin and McCoy, R. Thomas and Griffiths, Thomas L.},
  journal = {arXiv preprint arXiv:2504.12585}, year = {2025}}"""

FILE = Path(__file__).parent / "weights" / "prior-influence-cipher.safetensors"
NOISY_STEPS, CLEAN_STEPS = 700, 250
SCRIPT = "scripts/train_prior_influence.py"


# -- the prior's hold ------------------------------------------------------------------------


@dataclass(frozen=True)
class Dominance:
    """How far being right follows the prior.

    Parameters
    ----------
    correlation : Estimate
        Of being right with the log prior; NaN if all or none are right.
    graded : Estimate
        Of the log probability of the right answer with the log prior.
    likely, rare : float
        Accuracy in the likeliest and the rarest third.
    """

    correlation: Estimate
    graded: Estimate
    likely: float
    rare: float


def dominance(result: Score, log_prior: np.ndarray, *, rng: np.random.Generator) -> Dominance:
    """Compare right and wrong answers with their log prior (item,), nats.

    Warns where all items are right, or all wrong: the correlation is undefined then.
    """
    correct = result.correct.astype(float)
    if np.ptp(correct) == 0:
        warnings.warn(
            f"all {len(correct)} items are {'right' if correct[0] else 'wrong'}: the correlation "
            "of being right with the prior is undefined",
            DataWarning,
            stacklevel=2,
        )
    order = np.argsort(-log_prior, kind="stable")
    third = max(1, len(order) // 3)

    def estimated(values: np.ndarray) -> Estimate:
        def value(rows: np.ndarray) -> float:
            return correlation(values[rows], log_prior[rows])

        if not np.isfinite(value(np.arange(len(values)))):
            return Estimate(float("nan"))
        return bootstrap_interval(value, len(values), rng=rng)

    return Dominance(
        estimated(correct),
        estimated(result.mean_log_probability),
        float(correct[order[:third]].mean()),
        float(correct[order[-third:]].mean()),
    )


@dataclass(frozen=True)
class LayerCurve:
    """Logit lens before each block and after the last one (layer + 1,)."""

    correlation: np.ndarray
    accuracy: np.ndarray


@torch.no_grad()
def layer_prior_curve(
    model: LanguageModel, items: Items, log_prior: np.ndarray, token: int = -1
) -> LayerCurve:
    """Read one token of the answer at each layer; see the module's text.

    Parameters
    ----------
    model : LanguageModel
    items : Items
    log_prior : ndarray, shape (item,)
        Of that token, given those before it.
    token : int
        Which of the answer's; -1 is the last one of the longest answer.
    """
    places = [Place("residual", layer) for layer in range(model.anatomy.n_layers + 1)]
    run = model.run(items.tokens, keep=places, at=0)
    rows, at, target = torch.arange(len(items)), items.at[:, token], items.targets[:, token]
    related, right = [], []
    for place in places:
        logits = model.unembed(run[place][rows, at]).float()
        chosen = logits.log_softmax(dim=1)[rows, target]
        related.append(correlation(chosen.numpy(), log_prior))
        right.append(float((logits.argmax(dim=1) == target).float().mean()))
    return LayerCurve(np.array(related), np.array(right))


def layer_parameters(model: LanguageModel, layers: Iterable[int]) -> list[torch.nn.Parameter]:
    """Parameters of blocks; the number after the last block names final norm and head.

    Raises
    ------
    ConfigError
        If there is no such layer.
    """
    modules = [*model.anatomy.blocks, torch.nn.ModuleList([model.anatomy.norm, model.anatomy.head])]
    chosen: list[torch.nn.Parameter] = []
    for layer in layers:
        if not 0 <= layer < len(modules):
            raise ConfigError(
                f"there is no layer {layer} to tune",
                where=model.name,
                mend=f"blocks are 0 to {len(modules) - 2}; {len(modules) - 1} is norm and head",
            )
        chosen += list(modules[layer].parameters())
    return chosen


@system(
    "prior-influence",
    family="probing",
    title="Prior influence: right answers that are rare in themselves",
    contract=("Probe", "Learner"),
    paper="Zhang, Veselovsky, McCoy & Griffiths 2025, arXiv:2504.12585",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class PriorInfluence:
    """A model, its prior, and the layers that are tuned.

    Parameters
    ----------
    model : LanguageModel, optional
        The first trained cipher by default.
    neutral : sequence of int or str, optional
        Prompt that says nothing of a question; the mode LANGUAGE of the cipher by default.
    layers : sequence of int, optional
        Blocks that `observe` tunes; the first by default.
    steps : int
        Of `tune`.
    rate : float
    rows : int, optional
        Items a step; all by default.
    half : bool
        Whether to tune in bfloat16 where that is safe (autocast).
    seed : int
    """

    def __init__(
        self,
        model: LanguageModel | None = None,
        *,
        neutral: Sequence[int] | str | None = None,
        layers: Sequence[int] = (0,),
        steps: int = 60,
        rate: float = 1e-3,
        rows: int | None = None,
        half: bool = False,
        seed: int = 0,
    ) -> None:
        if model is None:
            model = miniature("noisy", 0)
            neutral = neutral or miniature_neutral(miniature_world("noisy", 0))
        if not neutral:
            raise ConfigError(
                "without a neutral prompt there is no prior",
                where="PriorInfluence",
                mend='give neutral="Answer:", or token numbers',
            )
        self.model = model
        self.neutral = model.token_ids(neutral) if isinstance(neutral, str) else list(neutral)
        self.layers, self.steps, self.rate, self.rows = tuple(layers), steps, rate, rows
        self.half, self.seed = half, seed
        self._tuned: set[tuple[int, ...]] = set()
        self._optimizer: torch.optim.Optimizer | None = None

    # -- what is there -----------------------------------------------------------------------

    def prior(self, items: Items) -> np.ndarray:
        """Log prior of each token of the answers (item, k), nats; NaN where there is none."""
        neutral = Items.of([self.neutral] * len(items), items.answers)
        return score(self.model, neutral).log_probability

    def dominance(self, items: Items) -> Dominance:
        """Return how far being right follows the prior."""
        prior = np.nanmean(self.prior(items), axis=1)
        return dominance(score(self.model, items), prior, rng=np.random.default_rng(self.seed))

    def layer_prior_curve(self, items: Items, token: int = -1) -> LayerCurve:
        """Correlation of the logit lens with the prior, layer by layer."""
        return layer_prior_curve(self.model, items, self.prior(items)[:, token], token)

    def locate(self, model: LanguageModel, examples: Items) -> np.ndarray:
        """Correlation of each layer's lens with the model's own prior (layer + 1,)."""
        return self._with(model).layer_prior_curve(examples).correlation

    @contextmanager
    def intervene(self, model: LanguageModel, where: Iterable[int]) -> Iterator[LanguageModel]:
        """Let blocks add nothing to the residual stream while the ``with`` block runs."""
        edits = [
            Edit(Place(kind, layer), torch.zeros_like)
            for layer in where
            for kind in ("attention", "mlp")
        ]
        with model.edited(edits):
            yield model

    # -- tuning ------------------------------------------------------------------------------

    def tune(self, layers: Iterable[int], items: Items) -> PriorInfluence:
        """Copy the model and tune some of its blocks on items; this one stays as it is.

        Raises
        ------
        ConfigError
            If there is no such layer.
        """
        network = copy.deepcopy(self.model.network)
        tuned = self._with(LanguageModel(network, self.model.tokenizer, self.model.name))
        layers = tuple(layers)
        tuned.layers = layers

        def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
            if self.rows is None or self.rows >= len(items):
                return items.batch()
            return items[rng.choice(len(items), self.rows, replace=False)].batch()

        # Without the cache, which would keep the weights of the first step for all steps.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half, cache_enabled=False):
            train_language_model(
                network,
                batch,
                steps=self.steps,
                rate=self.rate,
                weight_decay=0.0,
                warm_up=min(10, self.steps // 4),
                parameters=layer_parameters(tuned.model, layers),
                seed=self.seed,
                description="tuning",
            )
        tuned._tuned = self._tuned | set(map(tuple, items.answers))
        return tuned

    def evaluate(self, heldout: Items) -> float:
        """Share of items that are right.

        Raises
        ------
        LeakageError
            If the model was tuned on one of their answers.
        """
        shared = self._tuned & set(map(tuple, heldout.answers))
        if shared:
            raise LeakageError(
                f"{len(shared)} answers were tuned on and are tested",
                where="evaluate",
                mend="test on items whose answers were not among those of tune or observe",
            )
        return float(score(self.model, heldout).correct.mean())

    # -- a learner ---------------------------------------------------------------------------

    def observe(self, batch: Items) -> None:
        """Make one step on the blocks ``layers`` of the model itself."""
        chosen = layer_parameters(self.model, self.layers)
        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(chosen, lr=self.rate, weight_decay=0.0)
        network, (tokens, weights) = self.model.network, batch.batch()
        logits = network(input_ids=tokens, use_cache=False).logits[:, :-1].float()
        errors = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        counts = weights[:, 1:].flatten()
        gradients = torch.autograd.grad((errors * counts).sum() / counts.sum(), chosen)
        for parameter, gradient in zip(chosen, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._tuned |= set(map(tuple, batch.answers))

    def predict(self, x: Items) -> list[list[int]]:
        """Decode as many tokens for each prompt as its answer has, greedily."""
        found = []
        for prompt, answer in zip(x.prompts, x.answers, strict=True):
            new = self.model.continue_greedily(torch.tensor([prompt]), len(answer))
            found.append(new[0].tolist())
        return found

    def end_of_task(self) -> None:
        """Forget the moments of the optimiser."""
        self._optimizer = None

    # -- any model ---------------------------------------------------------------------------

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Look for the prior's hold on a model that reads text.

        Raises
        ------
        NotTestableError
            If the model can do none of the tasks.
        """
        from engramma.systems.probing.prior_influence_text import examine

        return examine(model, seed=seed, quick=quick)

    def _with(self, model: LanguageModel) -> PriorInfluence:
        return PriorInfluence(
            model,
            neutral=self.neutral,
            layers=self.layers,
            steps=self.steps,
            rate=self.rate,
            rows=self.rows,
            half=self.half,
            seed=self.seed,
        )


# -- the trained cipher ----------------------------------------------------------------------


def miniature_world(kind: str, seed: int) -> CipherWorld:
    """Return the cipher that a miniature was trained on; ``clean`` has no noise."""
    world = CipherWorld(seed=seed)
    return world if kind == "noisy" else replace(world, noise=0.0)


def miniature(kind: str, seed: int, *, trained: bool = True) -> LanguageModel:
    """Return a small model of the cipher: ``noisy`` or ``clean``, seeds 0 to 2."""
    world = miniature_world(kind, seed)
    network = learned_position_model(
        world.vocabulary, dim=64, layers=4, heads=4, neurons=128, positions=6, seed=seed
    )
    if trained:
        network = load_trained(network, FILE, f"{kind}-{seed}", SCRIPT)
    return LanguageModel(network, name=f"cipher-{kind}-{seed}")


def miniature_items(world: CipherWorld, answers: np.ndarray, mode: Mode) -> Items:
    """Clean prompts of answers (n,) in one of the modes."""
    rows = world.sequences(answers, mode).tolist()
    return Items.of([row[:4] for row in rows], [row[4:] for row in rows])


def miniature_neutral(world: CipherWorld) -> list[int]:
    """Mode LANGUAGE, two blanks, and the sign "="."""
    return [int(t) for t in world.sequences(np.array([0]), "language")[0, :4]]
