"""What Shen et al. claim of formats and positions, on small models.

Products are learned when a claim is checked, and runs are shared by the claims of a process. Sums
take longer: these models come with engramma (``scripts/train_positional_arithmetic.py``). All
accuracies are exact matches of free decoding on pairs that were kept from training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from engramma.contracts import Claim, Control
from engramma.errors import NotTestableError
from engramma.memory.language_model import PROBING_WEIGHTS

if TYPE_CHECKING:
    from engramma.systems.probing.positional_arithmetic import PositionalArithmetic

PAPER = "Shen, Bubeck, Eldan, Lee, Li & Zhang 2023, arXiv:2311.14737"
#: Options of `Format` for products of 1-digit and up to 4-digit numbers.
PRODUCTS: dict[str, dict[str, bool]] = {
    "plain": {},
    "padded": {"padded": True},
    "padded, answer reversed": {"padded": True, "reversed_answer": True},
    "numbers reversed": {"reversed_numbers": True},
}
LONGEST, TESTED, STEPS = 4, 200, 1000


@dataclass(frozen=True)
class Sums:
    """How sums of two numbers are written and learned."""

    steps: int
    rows: int = 128
    digits: int = 3
    positions: Literal["absolute", "tags"] = "absolute"
    #: Half of them stand within sentences.
    spoken: bool = False
    options: dict[str, Any] = field(default_factory=dict)


SUMS = {
    "basic": Sums(5000),
    "spaces": Sums(5000, options={"space": 0.3}),
    "scratchpad": Sums(6000, rows=32, options={"space": 0.3, "scratchpad": True}),
    "spoken_absolute": Sums(6000, digits=2, spoken=True),
    "spoken_tags": Sums(6000, digits=2, spoken=True, positions="tags"),
}


@lru_cache
def products(seed: int, name: str) -> Any:
    """Train on products in one format."""
    from engramma.probing.arithmetic import Format
    from engramma.systems.probing.positional_arithmetic import PositionalArithmetic

    learner = PositionalArithmetic(Format("*", (1, LONGEST), **PRODUCTS[name]), seed=seed)
    learner.train(STEPS)
    return learner


@lru_cache
def multiplied(seed: int, name: str) -> float:
    """Accuracy on products of 1-digit and 4-digit numbers."""
    return float(products(seed, name).accuracy_by_length([(1, LONGEST)], TESTED)[1, LONGEST])


def sums_learner(seed: int, name: str) -> PositionalArithmetic:
    """Build an untrained learner of sums."""
    from engramma.probing.arithmetic import TEMPLATES, Format
    from engramma.systems.probing.positional_arithmetic import PositionalArithmetic

    recipe = SUMS[name]
    return PositionalArithmetic(
        Format("+", (recipe.digits, recipe.digits), **recipe.options),
        recipe.positions,
        templates=TEMPLATES if recipe.spoken else (),
        layers=3,
        context=160,
        rows=recipe.rows,
        rate=2e-3,
        seed=seed,
    )


def weights_name(seed: int, name: str) -> str:
    """Name of the file of a shipped learner."""
    return f"positional_arithmetic_{name}_{seed}.safetensors"


@lru_cache
def sums(seed: int, name: str) -> PositionalArithmetic:
    """Read a shipped learner of sums."""
    if seed > 2:
        raise NotTestableError("models are shipped for the seeds 0, 1 and 2")
    learner = sums_learner(seed, name)
    learner.load(PROBING_WEIGHTS / weights_name(seed, name))
    # To be asked for longer ones.
    longer = SUMS[name].digits + 1
    learner.format = dataclasses.replace(learner.format, digits=(longer, longer))
    return learner


@lru_cache
def added(seed: int, name: str, digits: int) -> float:
    """Accuracy on sums of two numbers of so many digits; 3 were trained."""
    return float(sums(seed, name).accuracy_by_length([(digits, digits)], 100)[digits, digits])


def spoken(seed: int, positions: str, unseen: bool = True) -> float:
    """Accuracy on 2-digit sums in sentences of a kind that was, or was not, trained on."""
    from engramma.probing.arithmetic import TEMPLATES, UNSEEN_TEMPLATES

    templates = UNSEEN_TEMPLATES if unseen else TEMPLATES
    learner = sums(seed, f"spoken_{positions}")
    return float(learner.accuracy_in_text(templates, SUMS[f"spoken_{positions}"].digits))


def without_neighbours(seed: int) -> float:
    """Lead of tags over absolute positions where the neighbour's tag is an unrelated one."""
    import torch

    learner: Any = sums(seed, "spoken_tags")
    network = learner.network
    drawn = type(network).tags

    def unrelated(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        own, _ = drawn(network, rows, length)
        return own, drawn(network, rows, length)[0]

    network.tags = unrelated
    try:
        return spoken(seed, "tags") - spoken(seed, "absolute")
    finally:
        del network.tags


def adds(seed: int, name: str = "scratchpad") -> tuple[bool, str]:
    """Whether a format was learned at the lengths that were trained."""
    share = added(seed, name, 3)
    return share > 0.5, f"{share:.2f} of the 3-digit sums are right, which were trained"


def speaks(seed: int) -> tuple[bool, str]:
    """Whether any of the two can add in the sentences that were trained."""
    shares = [spoken(seed, positions, unseen=False) for positions in ("tags", "absolute")]
    return max(shares) > 0.5, f"in sentences that were trained {max(shares):.2f} are right"


BOTH = "padded, answer reversed"
SCRATCHPAD = "scratchpad"

CLAIMS = (
    Claim(
        name="format-teaches-products",
        sentence="With padding and the answer's last digit first, after 1000 steps at least 25 "
        "points more of the 1-digit by 4-digit products are right than in the plain format",
        source=f"{PAPER}, section 2 (multiplication)",
        metric="exact match, free decoding, pairs never trained on",
        prepare=lambda seed: seed,
        system=lambda seed: multiplied(seed, BOTH),
        baseline=lambda seed: multiplied(seed, "plain"),
        baseline_name="the plain format",
        margin=0.25,
        control=Control(
            "factors reversed and the product not",
            lambda seed: multiplied(seed, "numbers reversed") - multiplied(seed, "plain"),
        ),
        seeds=3,
    ),
    Claim(
        name="products-are-nearly-perfect",
        sentence="At most 10 % of them are wrong",
        source=f"{PAPER}, section 2 (multiplication)",
        metric="share of wrong answers, free decoding, pairs never trained on",
        prepare=lambda seed: seed,
        system=lambda seed: 1 - multiplied(seed, BOTH),
        baseline=lambda seed: 0.0,
        baseline_name="no error",
        margin=0.1,
        direction="below",
        control=Control("the plain format", lambda seed: 1 - multiplied(seed, "plain")),
        seeds=3,
    ),
    Claim(
        name="padding-alone-is-not-enough",
        sentence="Reversing the padded answer adds at least 5 points to padding alone",
        source=f"{PAPER}, section 2 (multiplication)",
        metric="exact match, free decoding, pairs never trained on",
        prepare=lambda seed: seed,
        system=lambda seed: multiplied(seed, BOTH),
        baseline=lambda seed: multiplied(seed, "padded"),
        baseline_name="padding alone",
        margin=0.05,
        control=Control(
            "factors reversed and the product not, unpadded",
            lambda seed: multiplied(seed, "numbers reversed") - multiplied(seed, "padded"),
        ),
        seeds=3,
        tried="Padding alone reaches 0.85 to 0.89 by itself at this size; the gain is 10 to 15 "
        "points, its interval with three seeds just reaches below the margin.",
    ),
    Claim(
        name="basic-sums-do-not-extrapolate",
        sentence="In the basic format, of sums one digit longer than trained at most 5 % are right",
        source=f"{PAPER}, section 3 (length extrapolation); 3 digits trained instead of 5",
        metric="exact match, free decoding",
        prepare=lambda seed: seed,
        system=lambda seed: added(seed, "basic", 4),
        baseline=lambda seed: 0.0,
        baseline_name="none right",
        margin=0.05,
        direction="below",
        control=Control("sums as long as trained", lambda seed: added(seed, "basic", 3)),
        presupposes=lambda seed: adds(seed, "basic"),
        seeds=3,
        tried="First run without the gate: 0 right at four digits, and 0.02 at the three that "
        "were trained, where the control should have been right. Models of 1000 steps in place had "
        "not learned sums; shipped ones of 5000 steps have (tried on seed 10).",
    ),
    Claim(
        name="scratchpad-extrapolates",
        sentence="With spaces at random places and the recursive scratchpad at least 20 points "
        "more of them are right",
        source=f"{PAPER}, section 3 (length extrapolation); 3 digits trained instead of 5",
        metric="exact match, free decoding",
        prepare=lambda seed: seed,
        system=lambda seed: added(seed, SCRATCHPAD, 4),
        baseline=lambda seed: added(seed, "basic", 4),
        baseline_name="the basic format",
        margin=0.2,
        control=Control(
            "spaces without scratchpad",
            lambda seed: added(seed, "spaces", 4) - added(seed, "basic", 4),
        ),
        presupposes=adds,
        seeds=3,
        tried="Models that get 0.96 to 1 of the three-digit sums right with the scratchpad (6000 "
        "steps) get none of the longer ones: in the first step they carry over two of the three "
        "digits that are left, as many as there ever were.",
    ),
    Claim(
        name="tags-carry-sums-into-sentences",
        sentence="In sentences of a new kind at least 5 points more of the 2-digit sums are right "
        "with random tags than with absolute positions",
        source=f"{PAPER}, section 4 (addition in natural language)",
        metric="exact match, free decoding",
        prepare=lambda seed: seed,
        system=lambda seed: spoken(seed, "tags"),
        baseline=lambda seed: spoken(seed, "absolute"),
        baseline_name="learned absolute positions",
        margin=0.05,
        control=Control("the neighbour's tag is an unrelated one", without_neighbours),
        presupposes=speaks,
        seeds=3,
        tried="Two layers trained in place for 1000 steps on up to three digits added in no "
        "sentence, with either positions. Shipped models of three layers learn up to two digits in "
        "6000 steps (tried on seed 10). The margin was 0 at first, below which a control that gets "
        "no sum right, as absolute positions do, cannot lie; the stricter one was set after that.",
    ),
)
