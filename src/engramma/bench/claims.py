"""Claims, checked by running them against a baseline and a control."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from engramma import registry
from engramma.bench.seed_workers import Measured, SeedWorkers
from engramma.contracts import Claim, Estimate, SystemCard
from engramma.errors import ConfigError, DataError, MissingPackageError, NotTestableError
from engramma.progress import track
from engramma.registry import systems
from engramma.versions import versions

Answer = Literal["holds", "fails", "undecided", "not testable"]


@dataclass(frozen=True)
class Verdict:
    """Outcome of one claim.

    Parameters
    ----------
    claim : str
        ``SLUG/NAME``.
    answer : {"holds", "fails", "undecided", "not testable"}
    reason : str
        Why, in one sentence.
    effect, control : Estimate
        Mean over seeds of system minus baseline, and of what the control gives.
    per_seed : mapping
        The paired values.
    """

    claim: str
    sentence: str
    answer: Answer
    reason: str
    metric: str = ""
    margin: float = float("nan")
    direction: str = "above"
    baseline: str = ""
    control_sentence: str = ""
    effect: Estimate = field(default_factory=lambda: Estimate(float("nan")))
    control: Estimate = field(default_factory=lambda: Estimate(float("nan")))
    per_seed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tried: str = ""
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)


def mean_interval(values: Sequence[float], n_bootstrap: int = 10_000) -> Estimate:
    """Mean over seeds with a 95 % interval.

    The interval is the wider of the percentile bootstrap and Student's t: with three to ten
    seeds the bootstrap alone is too narrow (with three it can never reach beyond the values
    themselves), and a verdict must not rest on that.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or not np.isfinite(x).all():
        return Estimate(float(x.mean()) if len(x) else float("nan"))
    draws = np.random.default_rng(0).integers(0, len(x), (n_bootstrap, len(x)))
    low, high = np.percentile(x[draws].mean(axis=1), [2.5, 97.5])
    half = stats.t.ppf(0.975, len(x) - 1) * stats.sem(x)
    return Estimate(
        float(x.mean()), float(min(low, x.mean() - half)), float(max(high, x.mean() + half))
    )


def measure(claim: Claim, seed: int) -> Measured:
    """Measure system, baseline and control with one seed, or say why that cannot be done."""
    try:
        task = claim.prepare(seed)
        testable, why = claim.presupposes(task) if claim.presupposes else (True, "")
        if not testable:
            return why
        return (
            float(claim.system(task)),
            float(claim.baseline(task)),
            float(claim.control.measure(task)),
        )
    except (NotTestableError, MissingPackageError) as error:
        return str(error)


def verify_claim(
    card: SystemCard,
    claim: Claim,
    *,
    seeds: int | None = None,
    first_seed: int = 0,
    workers: SeedWorkers | None = None,
) -> Verdict:
    """Run one claim on its seeds and judge it.

    Parameters
    ----------
    card : SystemCard
    claim : Claim
    seeds : int, optional
        Number of seeds instead of the claim's own; at least three.
    first_seed : int
    workers : SeedWorkers, optional
        Processes to measure in, where the system is registered in any process.

    Returns
    -------
    Verdict
    """
    n_seeds = claim.seeds if seeds is None else seeds
    if n_seeds < 3:
        raise ConfigError(f"a claim needs at least three seeds, not {n_seeds}")
    name = f"{card.slug}/{claim.name}"
    values: dict[str, list[float]] = {"system": [], "baseline": [], "control": []}
    start = time.perf_counter()
    common: dict[str, Any] = {
        "claim": name,
        "sentence": claim.sentence,
        "metric": claim.metric,
        "margin": claim.margin,
        "direction": claim.direction,
        "baseline": claim.baseline_name,
        "control_sentence": claim.control.sentence,
        "tried": claim.tried,
        "versions": versions(),
    }
    numbers = range(first_seed, first_seed + n_seeds)
    begun = [workers.measure(card.slug, claim.name, seed) for seed in numbers] if workers else []
    found = (
        begun[place].result() if begun else measure(claim, seed)
        for place, seed in enumerate(numbers)
    )
    for seed, measured in zip(numbers, track(found, name, total=n_seeds), strict=True):
        if isinstance(measured, str):
            for future in begun:
                future.cancel()
            return Verdict(
                answer="not testable",
                reason=f"seed {seed}: {measured}",
                seconds=time.perf_counter() - start,
                **common,
            )
        for part, value in zip(values, measured, strict=True):
            values[part].append(value)
    effect = mean_interval(np.subtract(values["system"], values["baseline"]).tolist())
    control = mean_interval(values["control"])
    answer, reason = judge(claim, effect, control)
    return Verdict(
        answer=answer,
        reason=reason,
        effect=effect,
        control=control,
        per_seed=values,
        seconds=time.perf_counter() - start,
        **common,
    )


def judge(claim: Claim, effect: Estimate, control: Estimate) -> tuple[Answer, str]:
    """Decide between holds, fails and undecided.

    Parameters
    ----------
    claim : Claim
    effect, control : Estimate
        With intervals.

    Returns
    -------
    answer, reason
    """
    if not np.isfinite([effect.value, effect.low, effect.high, control.value, control.low]).all():
        return "undecided", "a value is not finite"
    side = _side(effect, claim.margin, claim.direction)
    words = f"the effect {_show(effect)}"
    bound = {"above": ">", "below": "<", "within": "within ±"}[claim.direction]
    if side == "other":
        return "fails", f"{words} lies on the wrong side of {bound} {claim.margin:g}"
    if side == "across":
        return "undecided", f"{words} straddles the margin {claim.margin:g}"
    broken = _control_breaks(claim, control)
    if broken == "yes":
        return "holds", f"{words} lies {bound} {claim.margin:g}; the control breaks it"
    if broken == "no":
        return "fails", f"{words} is there, but the control {_show(control)} does not break it"
    return "undecided", f"{words} is there, but the control {_show(control)} is not conclusive"


def _side(effect: Estimate, margin: float, direction: str) -> Literal["beyond", "other", "across"]:
    if direction == "above":
        beyond, other = effect.low > margin, effect.high < margin
    elif direction == "below":
        beyond, other = effect.high < margin, effect.low > margin
    else:
        beyond = -margin < effect.low and effect.high < margin
        other = effect.low > margin or effect.high < -margin
    return "beyond" if beyond else "other" if other else "across"


def _control_breaks(claim: Claim, control: Estimate) -> Literal["yes", "no", "unclear"]:
    if claim.control.expect == "chance":
        low = claim.control.chance - claim.control.tolerance
        high = claim.control.chance + claim.control.tolerance
        if low <= control.low and control.high <= high:
            return "yes"
        return "no" if control.high < low or control.low > high else "unclear"
    side = _side(control, claim.margin, claim.direction)
    return {"beyond": "no", "other": "yes", "across": "unclear"}[side]  # type: ignore[return-value]


def _show(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def verify(*names: str, family: str | None = None, seeds: int | None = None) -> list[Verdict]:
    """Run the claims of the named systems (``slug`` or ``slug/claim``), a family, or all.

    Returns
    -------
    list of Verdict
    """
    return [verify_claim(card, claim, seeds=seeds) for card, claim in select_claims(names, family)]


# -- many claims, and the record of their verdicts ------------------------------------------


def select_claims(
    names: Iterable[str] = (), family: str | None = None
) -> list[tuple[SystemCard, Claim]]:
    """Claims of the named systems (``slug`` or ``slug/claim``) or of a family; all by default.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    chosen: list[tuple[SystemCard, Claim]] = []
    wanted = list(names)
    if not wanted:
        cards = registry.family(family)
        return [(card, claim) for card in cards for claim in card.claims]
    if family is not None:
        raise ConfigError("claims are named, and a family too", mend="give one of the two")
    for name in wanted:
        slug, _, claim_name = name.partition("/")
        card = systems.get(slug)
        claims = [c for c in card.claims if claim_name in ("", c.name)]
        if not claims:
            known = ", ".join(c.name for c in card.claims) or "none"
            raise ConfigError(
                f"system {slug!r} has no claim {claim_name!r}"
                if claim_name
                else f"system {slug!r} states no claim",
                mend=f"its claims are: {known}",
            )
        chosen += [(card, claim) for claim in claims]
    return chosen


def sample_claims(
    claims: Sequence[tuple[SystemCard, Claim]],
    record: Mapping[str, Any],
    seconds: float,
    rng: np.random.Generator,
) -> list[tuple[SystemCard, Claim]]:
    """Draw claims at random until their recorded run time fills ``seconds``.

    Claims of a system share what it trains, and the record counts that with the claim that came
    first: whichever claim is drawn first counts as the longest one of its system.
    """

    def cost(card: SystemCard, claim: Claim) -> float:
        return float(record.get(f"{card.slug}/{claim.name}", {}).get("seconds", 60.0))

    longest: dict[str, float] = {}
    for card, claim in claims:
        longest[card.slug] = max(longest.get(card.slug, 0.0), cost(card, claim))
    chosen, left, begun = [], seconds, set()
    for index in rng.permutation(len(claims)):
        card, claim = claims[index]
        needed = cost(card, claim) if card.slug in begun else longest[card.slug]
        if needed <= left:
            chosen.append((card, claim))
            left -= needed
            begun.add(card.slug)
    return chosen


def read_record(path: str | Path) -> dict[str, Any]:
    """Read recorded verdicts, by claim; empty where there is no file yet."""
    path = Path(path)
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"the record of verdicts is no JSON object ({error})",
            where=str(path),
            mend="restore it from version control, or delete it and run `engramma verify`",
        ) from error


def write_record(path: str | Path, verdicts: Iterable[Verdict]) -> None:
    """Merge verdicts into the record on disk."""
    path = Path(path)
    record = read_record(path)
    record.update({v.claim: as_json(v) for v in verdicts})
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(path.name + ".part")
    work.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")
    work.replace(path)


def changed(verdicts: Iterable[Verdict], record: Mapping[str, Any]) -> list[str]:
    """Sentences for verdicts that differ from the record."""
    sentences = []
    for verdict in verdicts:
        before = record.get(verdict.claim)
        if before is None:
            sentences.append(f"{verdict.claim} has no recorded verdict")
        elif before["answer"] != verdict.answer:
            sentences.append(f"{verdict.claim} was {before['answer']} and now {verdict.answer}")
    return sentences


def as_json(verdict: Verdict) -> dict[str, Any]:
    """Verdict as JSON-serialisable numbers, rounded to six digits so that diffs stay small."""
    fields = asdict(verdict)
    fields["seconds"] = round(verdict.seconds, 1)
    for name in ("effect", "control"):
        fields[name].pop("details")
    return dict(tidy(fields))


def tidy(value: Any) -> Any:
    """Turn values into what JSON holds, with six digits; NaN and infinity become null."""
    if isinstance(value, np.ndarray | np.generic):
        return tidy(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: tidy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(v) for v in value]
    return value
