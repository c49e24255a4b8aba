"""What Guney et al. claim of their network, in a form that can be run on SSVEPSim.

Sizes are those of the small configuration: 4 subjects, 12 targets, 24 filters, one held-out block a
seed. Baselines get the same number of gradient steps as the system.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.contracts import Claim, Control
from engramma.data.recording import Cohort, Recording
from engramma.decoding.information import information_transfer_rate
from engramma.decoding.ssvep_blocks import GAZE_SHIFT, without_block
from engramma.decoding.ssvep_trials import Window
from engramma.worlds.ssvep import simulate_ssvep

if TYPE_CHECKING:
    from engramma.decoding.ssvep_blocks import TargetDecoder
    from engramma.systems.electro.deep_ssvep import DeepSSVEP

PAPER = "Guney et al. 2022"
N_TARGETS = 12
HELD_OUT = "1/1"


@dataclass
class HeldOutBlock:
    """A simulated cohort, split into one block to test and the others to train."""

    seed: int
    options: dict[str, Any]

    @cached_property
    def split(self) -> tuple[Cohort, Cohort]:
        """Cohorts to train and to test on."""
        return without_block(simulate_ssvep(self.seed, **self.options), HELD_OUT)

    @property
    def train(self) -> Cohort:
        """All blocks but one."""
        return self.split[0]

    @property
    def test(self) -> Cohort:
        """The block left out."""
        return self.split[1]

    def network(self, **options: Any) -> DeepSSVEP:
        """Return the small configuration, not yet trained."""
        from engramma.systems.electro.deep_ssvep import DeepSSVEP

        return DeepSSVEP(seed=self.seed, **options)

    @cached_property
    def stage_one(self) -> DeepSSVEP:
        """Network trained on all subjects' training blocks."""
        return self.network().fit_global(self.train)

    @cached_property
    def two_stage(self) -> float:
        """Accuracy after both stages."""
        return accuracy(self.network().fit(self.train), self.test)


def accuracy(decoder: TargetDecoder, test: Cohort) -> float:
    """Fraction of all tested trials named rightly."""
    correct = [decoder.classify(r) == r.coord("stimulus") for r in test.values()]
    return float(np.concatenate(correct).mean())


def permuted(cohort: Cohort, seed: int) -> Cohort:
    """Permute which stimulus was shown, anew in each block of each subject."""
    rng = np.random.default_rng([seed, 7])
    members = {}
    for name, recording in cohort.items():
        shown = recording.coord("stimulus").copy()
        for run in np.unique(recording.coord("run")):
            of_run = np.flatnonzero(recording.coord("run") == run)
            shown[of_run] = shown[rng.permutation(of_run)]
        array = recording.array.assign_coords(stimulus=("presentation", shown))
        members[name] = Recording(array, recording.stimuli)
    return Cohort(members, attrs=cohort.attrs)


# -- two stages against one ----------------------------------------------------------------


def global_only(task: HeldOutBlock) -> float:
    """One network for all, trained for as many epochs as both stages together."""
    net = task.network()
    return accuracy(task.network(epochs=(sum(net.epochs), 0)).fit(task.train), task.test)


def tuned_to_another(task: HeldOutBlock) -> float:
    """Effect when stage 2 of each subject learns from the blocks of the next subject."""
    names = list(task.train)
    exchanged = {}
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        array = task.train[other].array
        array = array.assign_coords(subject=("presentation", np.full(array.shape[0], name)))
        exchanged[name] = Recording(array, task.train.stimuli)
    net = task.network().fit_global(task.train).fit_subject(Cohort(exchanged))
    return accuracy(net, task.test) - global_only(task)


def subject_only(task: HeldOutBlock) -> float:
    """Both stages with the subject's own trials only, in as many gradient steps as the system."""
    batch_size = task.network().batch_size // len(task.train)
    nets = {
        name: task.network(batch_size=batch_size).fit(recording)
        for name, recording in task.train.items()
    }
    return float(np.mean([accuracy(nets[s], Cohort({s: r})) for s, r in task.test.items()]))


def nothing_shared(task: HeldOutBlock) -> float:
    """Effect when stage 1 learns permuted labels, so that it has nothing to hand on."""
    net = task.network().fit_global(permuted(task.train, task.seed)).fit_subject(task.train)
    return accuracy(net, task.test) - subject_only(task)


# -- transfer rate over time ---------------------------------------------------------------

LENGTHS = (0.2, 0.4, 1.0)


@dataclass
class Lengths(HeldOutBlock):
    """The same held-out block, decoded from signals of several lengths."""

    @cached_property
    def choices(self) -> dict[float, dict[str, np.ndarray]]:
        """Named target of each tested trial, by length and subject."""
        found = {}
        for length in LENGTHS:
            net = self.network(window=Window(length=length)).fit(self.train)
            found[length] = {s: net.classify(r) for s, r in self.test.items()}
        return found

    def rates(self, truth: Cohort) -> dict[float, float]:
        """Bits per minute of each length, averaged over subjects."""
        return {
            length: float(
                np.mean(
                    information_transfer_rate(
                        [(named[s] == r.coord("stimulus")).mean() for s, r in truth.items()],
                        N_TARGETS,
                        length + GAZE_SHIFT,
                    )
                )
            )
            for length, named in self.choices.items()
        }


def inner_rate(task: Lengths) -> float:
    """Rate at 0.4 s, the length that the paper reports."""
    return task.rates(task.test)[0.4]


def outer_rate(task: Lengths) -> float:
    """Return the better of the rates at the shortest and the longest signal."""
    rates = task.rates(task.test)
    return max(rates[0.2], rates[1.0])


def rate_of_permuted(task: Lengths) -> float:
    """Effect when the tested trials' labels are permuted."""
    rates = task.rates(permuted(task.test, task.seed))
    return rates[0.4] - max(rates[0.2], rates[1.0])


# -- against linear decoders ---------------------------------------------------------------

#: One batch an epoch holds the 96 trials of two blocks: as many steps as three batches in 80.
STEPS_OF_FIVE_BLOCKS = (240, 60)
JITTER = 0.01


@dataclass
class Jittered(HeldOutBlock):
    """Two training blocks, with and without jitter of the latency."""

    def effect(self, jitter: float) -> float:
        """System minus baseline at another jitter."""
        other = Jittered(self.seed, {**self.options, "jitter": jitter})
        return few_blocks(other) - trca(other)


def few_blocks(task: Jittered) -> float:
    """Both stages on two blocks."""
    return accuracy(task.network(epochs=STEPS_OF_FIVE_BLOCKS).fit(task.train), task.test)


def trca(task: HeldOutBlock) -> float:
    """Ensemble TRCA with a filter bank."""
    from engramma.systems.electro.ssvep_baselines import EnsembleTRCA

    return accuracy(EnsembleTRCA().fit(task.train), task.test)


def fbcca(task: HeldOutBlock) -> float:
    """Filter-bank CCA, which needs no calibration."""
    from engramma.systems.electro.ssvep_baselines import FilterBankCanonicalCorrelation

    return accuracy(FilterBankCanonicalCorrelation().fit(task.train), task.test)


def trained_on_permuted(task: HeldOutBlock) -> float:
    """Accuracy after both stages on permuted labels."""
    return accuracy(task.network().fit(permuted(task.train, task.seed)), task.test)


CLAIMS = (
    Claim(
        name="two-stage-over-global",
        sentence="Fine-tuning to each subject adds at least 8 points to one network for all",
        source=f"{PAPER}, section II (two-stage training) and results",
        metric="accuracy",
        prepare=lambda seed: HeldOutBlock(seed, {}),
        system=lambda task: task.two_stage,
        baseline=global_only,
        baseline_name="one network for all, trained for the epochs of both stages",
        margin=0.08,
        control=Control(
            "stage 2 of each subject learns from another subject's blocks", tuned_to_another
        ),
    ),
    Claim(
        name="two-stage-over-subject-only",
        sentence="Starting from all subjects adds at least 8 points to training on one's own "
        "trials only",
        source=f"{PAPER}, section II (two-stage training) and results",
        metric="accuracy",
        prepare=lambda seed: HeldOutBlock(seed, {}),
        system=lambda task: task.two_stage,
        baseline=subject_only,
        baseline_name="both stages on the subject's own trials, with as many gradient steps",
        margin=0.08,
        control=Control("stage 1 learns permuted labels", nothing_shared),
        tried="With as many gradient steps (batches of 25) networks of one subject come near the "
        "ceiling, so 8 points are not to be had. On pilot seed 1000 a baseline with batches of "
        "100, and so a third of the steps, gave 0.83. Where data are scarcer the gain is there: "
        "two training blocks 0.60 against 0.17, half the signal (snr=0.1) 0.44 against 0.21.",
    ),
    Claim(
        name="rate-peaks-inside",
        sentence="The transfer rate is higher at 0.4 s than at 0.2 s and at 1.0 s",
        source=f"{PAPER}, results (transfer rate over signal length)",
        metric="information transfer rate (bits/min)",
        prepare=lambda seed: Lengths(seed, {}),
        system=inner_rate,
        baseline=outer_rate,
        baseline_name="the better of 0.2 s and 1.0 s",
        margin=0.0,
        control=Control("labels of the tested trials are permuted", rate_of_permuted),
        tried="Cohorts differ more than the peak is high: one of five is already named without "
        "error at 0.2 s, where the shortest window must win. Not made noisier after this was seen.",
    ),
    Claim(
        name="over-trca-with-jitter",
        sentence="With two training blocks and latency jitter the network beats ensemble TRCA",
        source=f"{PAPER}, results (comparison with TRCA-based methods)",
        metric="accuracy",
        prepare=lambda seed: Jittered(seed, {"n_blocks": 3, "jitter": JITTER}),
        system=few_blocks,
        baseline=trca,
        baseline_name="ensemble TRCA with a filter bank",
        margin=0.0,
        control=Control("responses locked in phase (no jitter)", lambda task: task.effect(0.0)),
        tried="On pilot seeds 1000 and 1001 (TRCA 0.38 and 0.52): the claimed setting gave 0.29 "
        "and 0.29, three times the epochs 0.33 and 0.29, 60 filters 0.19 and 0.33. At twice the "
        "signal (snr=0.4) the network reached 0.46 and 0.46 and TRCA stayed, as jitter limits it; "
        "with 20 ms of jitter as well, 0.13 and 0.15 against 0.23 and 0.29. Two blocks of four "
        "subjects seem too few for a network; the paper has 35.",
    ),
    Claim(
        name="over-fbcca",
        sentence="The network names the target more often than filter-bank CCA at 0.4 s",
        source=f"{PAPER}, results (comparison with CCA-based methods)",
        metric="accuracy",
        prepare=lambda seed: HeldOutBlock(seed, {}),
        system=lambda task: task.two_stage,
        baseline=fbcca,
        baseline_name="filter-bank CCA",
        margin=0.0,
        control=Control(
            "training labels permuted",
            trained_on_permuted,
            expect="chance",
            chance=1 / N_TARGETS,
            tolerance=0.05,
        ),
        tried="The effect stands clear of the margin, but 48 trials a seed are too few to hold "
        "permuted labels within 0.05 of chance (0.075, from 0.021 to 0.129 over five seeds).",
    ),
)
