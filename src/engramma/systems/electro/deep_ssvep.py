r"""A Deep Neural Network for SSVEP-based Brain-Computer Interfaces (Guney, Oblokulov & Ozkan 2022).

**What it does.** A person looks at one of M flickering targets. From 0.2 to 1 s of EEG the network
says at which. It learns its own combination of sub-bands, spatial filters and temporal filters:
first over all people, then once more for each person.

**Input.** The signal is cut from one visual latency after onset (0.14 s in the Benchmark data,
0.13 s in BETA) for T seconds: N = 250 T samples of C channels. Each trial and channel is then
filtered without phase shift (`chebyshev_bank`) into three sub-bands, 8, 16 and 24 to 90 Hz:
:math:`X \in R^{3 \times C \times N}`, in microvolts, not normalised.

**Architecture** (F filters; 120 in the paper).

====  =====================================  ===================  ==================================
step  layer                                  output               learns
====  =====================================  ===================  ==================================
1     :math:`\sum_b w_b X_b`, w starts at 1  1 x C x N            how to combine the sub-bands
2     convolution C x 1; dropout p           F x 1 x N            F spatial filters
3     convolution 1 x 2, stride 2; dropout   F x 1 x N/2          to halve the rate
      p; ReLU
4     convolution 1 x 10, same length;       F x 1 x N/2          F finite impulse responses
      dropout 0.95
5     fully connected, softmax               M                    which target
====  =====================================  ===================  ==================================

Weights start as N(0, 0.01²), biases at 0; step 1 has no bias.

**Training.** Cross-entropy and :math:`\frac{1}{2} 10^{-3} \|w\|^2` over weights (not biases),
with Adam. *Stage 1* learns from the training blocks of all subjects, in batches of 100, with
p = 0.1. *Stage 2* copies that network to each subject and goes on with the subject's own training
blocks, all in one batch, with p = 0.6 (BETA 0.7).

**Evaluation.** Each block is left out in turn, of both stages, and the transfer rate (`itr`, with
0.5 s of gaze shift) is averaged over subjects and blocks.

Learning rate, epochs and numbers of filters are published in `DeepSSVEP.published`; the default is
a small configuration for small cohorts.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.decoding.ssvep import chebyshev_bank, filter_bank
from engramma.decoding.ssvep_blocks import TargetDecoder, block_run
from engramma.decoding.ssvep_trials import OCCIPITAL, Trials, Window, check_length, cut
from engramma.errors import ConfigError
from engramma.registry import system
from engramma.systems.electro.deep_ssvep_claims import CLAIMS

if TYPE_CHECKING:
    import torch
    from torch import nn

BIBTEX = """@article{guney2022deep,
  title = {A Deep Neural Network for {SSVEP}-Based Brain-Computer Interfaces},
  author = {Guney, Osman Berke and Oblokulov, Muhtasham and Ozkan, Huseyin},
  journal = {IEEE Transactions on Biomedical Engineering},
  volume = {69}, number = {2}, pages = {932--944}, year = {2022}}"""


def network(
    n_channels: int,
    n_samples: int,
    n_targets: int,
    *,
    filters: int = 120,
    bands: int = 3,
    dropout: float = 0.1,
    last_dropout: float = 0.95,
) -> nn.Sequential:
    """Build the network of the module's table.

    Takes trial x band x channel x sample and returns logits, trial x target.
    """
    import torch
    from torch import nn

    layers = nn.Sequential()
    layers.add_module("combine_bands", nn.Conv2d(bands, 1, 1, bias=False))
    layers.add_module("channels", nn.Conv2d(1, filters, (n_channels, 1)))
    layers.add_module("dropout_channels", nn.Dropout(dropout))
    layers.add_module("halve", nn.Conv2d(filters, filters, (1, 2), stride=(1, 2)))
    layers.add_module("dropout_halve", nn.Dropout(dropout))
    layers.add_module("relu", nn.ReLU())
    # The odd sample of padding goes to the end, as in MATLAB.
    layers.add_module("pad", nn.ZeroPad2d((4, 5, 0, 0)))
    layers.add_module("impulse_response", nn.Conv2d(filters, filters, (1, 10)))
    layers.add_module("dropout_last", nn.Dropout(last_dropout))
    layers.add_module("flatten", nn.Flatten())
    layers.add_module("targets", nn.Linear(filters * (n_samples // 2), n_targets))
    for name, parameter in layers.named_parameters():
        if name.startswith("combine_bands"):
            nn.init.ones_(parameter)
        elif name.endswith("weight"):
            nn.init.normal_(parameter, std=0.01)
        else:
            nn.init.zeros_(parameter)
    # Convolutions over so few rows are nearly three times faster with channels last in memory.
    return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class DeepSSVEP(TargetDecoder):
    """Deep neural network for steady-state responses, trained in two stages.

    Parameters
    ----------
    window : Window
        Which samples and channels of each trial are decoded.
    filters : int
        Spatial (and temporal) filters.
    learning_rate, weight_decay : float
    batch_size : int
        Of stage 1; stage 2 takes all trials at once.
    epochs : (int, int)
        Of the two stages; 0 for stage 2 leaves every subject with the shared network.
    dropout : (float, float)
        Of the first two dropout layers, in the two stages.
    last_dropout : float
        Of the third dropout layer, in both.
    bands : int
        Sub-bands, the k-th from 8k to 90 Hz.
    seed : int
        Initialisation, shuffling and dropout.
    checkpoint : path, optional
        Folder in which training leaves its state after each epoch, and from which it goes on
        after an interruption. Files are named after data and configuration, so that one folder
        serves many fits.
    """

    def __init__(
        self,
        window: Window | None = None,
        *,
        filters: int = 24,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-3,
        batch_size: int = 100,
        epochs: tuple[int, int] = (80, 60),
        dropout: tuple[float, float] = (0.1, 0.6),
        last_dropout: float = 0.95,
        bands: int = 3,
        seed: int = 0,
        checkpoint: str | Path | None = None,
    ) -> None:
        super().__init__(window)
        check_length(self.window, 10)
        if not all(0 <= p < 1 for p in (*dropout, last_dropout)):
            raise ConfigError(f"dropout lies between 0 and 1, not {(*dropout, last_dropout)}")
        self.filters, self.bands, self.batch_size = filters, bands, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.epochs, self.dropout, self.last_dropout = tuple(epochs), tuple(dropout), last_dropout
        self.seed = seed
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.global_: nn.Sequential | None = None
        self.subjects_: dict[str, nn.Sequential] = {}

    @classmethod
    def published(
        cls,
        dataset: Literal["benchmark", "beta"] = "benchmark",
        *,
        length: float = 0.4,
        channels: tuple[str, ...] | None = OCCIPITAL,
        **options: Any,
    ) -> DeepSSVEP:
        """Return the published configuration.

        Parameters
        ----------
        dataset : {"benchmark", "beta"}
        length : float
            Seconds of signal; 0.2 to 1.0 in the paper.
        channels : tuple of str, optional
            The nine occipital channels, or None for all 64.
        **options
            Anything else that the class takes (``seed``, ``checkpoint``).
        """
        if dataset not in ("benchmark", "beta"):
            raise ConfigError(f"there is no data set {dataset!r}", mend="say benchmark or beta")
        beta = dataset == "beta"
        window = Window(latency=0.13 if beta else 0.14, length=length, channels=channels)
        settings: dict[str, Any] = {
            "filters": 120,
            "learning_rate": 1e-4,
            "epochs": (800 if beta else 1000, 1000),
            "dropout": (0.1, 0.7 if beta else 0.6),
        }
        return cls(window, **{**settings, **options})

    # -- the two stages --------------------------------------------------------------------

    def fit_global(
        self, recording: Recording | Cohort, stimuli: StimulusSet | None = None
    ) -> DeepSSVEP:
        """Stage 1: learn one network from the trials of all subjects."""
        self.seen_, self.subjects_ = set(), {}
        self._learn_global(self._training_trials(recording, stimuli))
        return self

    def fit_subject(self, recording: Recording | Cohort) -> DeepSSVEP:
        """Stage 2: copy the shared network to each subject of ``recording`` and go on.

        Raises
        ------
        ConfigError
            If stage 1 has not been run.
        DataError
            If channels or targets are others than those of stage 1.
        """
        if self.global_ is None:
            raise ConfigError("stage 2 starts from the network of stage 1", mend="fit_global first")
        trials = cut(recording, self.window)
        self._check_channels(trials)
        self._learn_subjects(trials)
        self.seen_ |= set(zip(trials.subject, trials.block, strict=True))
        return self

    def predict(self, recording: Recording | Cohort) -> np.ndarray:
        """Probability of each target, trial x target, in the order of ``targets_``."""
        return self.scores(recording)

    def _learn(self, trials: Trials) -> None:
        self.subjects_ = {}
        self._learn_global(trials)
        if self.epochs[1]:
            self._learn_subjects(trials)

    def _learn_global(self, trials: Trials) -> None:
        from engramma.nn.seed import seeded

        assert self.targets_ is not None
        with seeded(self.seed):
            net = network(
                len(trials.channels),
                self.window.n_samples,
                len(self.targets_),
                filters=self.filters,
                bands=self.bands,
                dropout=self.dropout[0],
                last_dropout=self.last_dropout,
            )
            self._train(net, trials, 0, self.batch_size, "all subjects")
        self.global_ = net

    def _learn_subjects(self, trials: Trials) -> None:
        from engramma.nn.seed import seeded

        for subject in np.unique(trials.subject):
            own = trials.select(trials.subject == subject)
            net = copy.deepcopy(self.global_)
            assert net is not None
            for name in ("dropout_channels", "dropout_halve"):
                net.get_submodule(name).p = self.dropout[1]  # type: ignore[assignment]
            with seeded(self.seed):
                self._train(net, own, 1, len(own), f"subject {subject}")
            self.subjects_[str(subject)] = net

    def _train(
        self, net: nn.Sequential, trials: Trials, stage: int, batch_size: int, name: str
    ) -> None:
        """Minimise cross-entropy and the L2 norm of the weights with Adam."""
        import torch

        from engramma.nn.train import train

        x = self._banded(trials)
        y = torch.from_numpy(self._target_index(trials))

        def batches(epoch: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
            order = np.random.default_rng([self.seed, stage, epoch]).permutation(len(y))
            for start in range(0, len(y), batch_size):
                chosen = torch.from_numpy(order[start : start + batch_size])
                yield x[chosen], y[chosen]

        named = list(net.named_parameters())
        weights: dict[str, Any] = {
            "params": [p for n, p in named if n.endswith("weight")],
            "weight_decay": self.weight_decay,
        }
        biases: dict[str, Any] = {"params": [p for n, p in named if n.endswith("bias")]}
        train(
            net,
            lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
            batches,
            epochs=self.epochs[stage],
            optimizer=torch.optim.Adam([weights, biases], lr=self.learning_rate),
            checkpoint=self._checkpoint(net, trials, stage),
            description=f"stage {stage + 1}, {name}",
        )

    def _score(self, trials: Trials) -> np.ndarray:
        import torch

        assert self.targets_ is not None and self.global_ is not None
        x = self._banded(trials)
        scores = np.empty((len(trials), len(self.targets_)), dtype=np.float32)
        with torch.no_grad():
            for subject in np.unique(trials.subject):
                own = np.flatnonzero(trials.subject == subject)
                # A person who was never seen is served by the network of everyone.
                net = self.subjects_.get(str(subject), self.global_).eval()
                scores[own] = net(x[torch.from_numpy(own)]).softmax(dim=1).numpy()
        return scores

    def _banded(self, trials: Trials) -> torch.Tensor:
        import torch

        low = [8 * (k + 1) for k in range(self.bands)]
        banded = filter_bank(trials.signals, chebyshev_bank(self.window.sfreq, low))
        return torch.from_numpy(banded).to(memory_format=torch.channels_last)

    # -- on disk ---------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """Return every option but the window, as `__init__` takes them."""
        names = ("filters", "learning_rate", "weight_decay", "batch_size", "epochs", "dropout")
        more = ("last_dropout", "bands", "seed")
        return {name: getattr(self, name) for name in names + more}

    def _checkpoint(self, net: nn.Sequential, trials: Trials, stage: int) -> Path | None:
        """File named after all that decides the outcome, so that no other run is taken up."""
        if self.checkpoint is None:
            return None
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(json.dumps([self.settings(), asdict(self.window)]).encode())
        for array in (trials.signals, self._target_index(trials)):
            digest.update(np.ascontiguousarray(array).tobytes())
        for tensor in net.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        return self.checkpoint / f"stage{stage + 1}-{digest.hexdigest()[:16]}.pt"

    def save(self, path: str | Path) -> None:
        """Write all networks and settings into one safetensors file."""
        from engramma.systems.electro.deep_ssvep_file import save_decoder

        save_decoder(self, path)

    @classmethod
    def load(cls, path: str | Path) -> DeepSSVEP:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If the file is something else.
        """
        from engramma.systems.electro.deep_ssvep_file import load_decoder

        return load_decoder(path)


system(
    "deep-ssvep",
    family="electro",
    title="A Deep Neural Network for SSVEP-based Brain-Computer Interfaces",
    contract="Decoder",
    paper="Guney, Oblokulov & Ozkan (2022). IEEE Trans. Biomedical Engineering 69, 932-944.",
    bibtex=BIBTEX,
    claims=CLAIMS,
    tasks=("ssvep",),
    run=block_run(lambda seed: DeepSSVEP(seed=seed)),
)(DeepSSVEP)
