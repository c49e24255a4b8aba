r"""CommunityTraces: calcium traces of neurons whose communities change from epoch to epoch.

All animals share the neurons and the communities. Within an epoch the neurons of a community
follow one smooth signal, drawn anew for each animal, and each neuron has noise of its own.
Optionally the signal sets a firing rate, and the indicator turns spikes into fluorescence by an
autoregressive filter (Vogelstein et al. 2010; Pnevmatikakis et al. 2016).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from engramma.data.recording import Cohort, Recording
from engramma.errors import ConfigError
from engramma.registry import world

#: Mean spikes a second of a neuron that a signal drives, and gain of the signal (log rate).
MEAN_RATE, GAIN = 8.0, 1.0


@world("calcium")
def calcium(
    seed: int = 0,
    *,
    n_neurons: int = 24,
    n_animals: int = 5,
    n_times: int = 240,
    n_epochs: int = 3,
    n_communities: int = 3,
    noise: float = 1.0,
    indicator: str = "none",
    rise: float = 0.1,
    decay: float = 0.6,
    smoothness: float = 4.0,
    missing: float = 0.1,
    sfreq: float = 4.0,
    signal: bool = True,
) -> Cohort:
    """Record calcium traces of several animals.

    Parameters
    ----------
    seed : int
    n_neurons, n_animals, n_times : int
    n_epochs : int
        Epochs of equal length, up to a sample; each has its own partition.
    n_communities : int
        Communities of equal size in each epoch.
    noise : float
        Standard deviation of each neuron's noise over that of the signal.
    indicator : {"none", "ar1", "ar2"}
        ``"none"``: traces are the signal and noise. ``"ar1"``: spikes that follow the signal leave
        calcium that decays exponentially. ``"ar2"``: it also rises smoothly.
    rise, decay : float
        Time constants of the indicator, in seconds.
    smoothness : float
        Standard deviation of the Gaussian that smooths the signals, in samples.
    missing : float
        Chance that a neuron is not found in an animal.
    sfreq : float
        Samples a second.
    signal : bool
        False gives each neuron a signal of its own: the control without communities.

    Returns
    -------
    Cohort
        One recording an animal, of one presentation x neurons found x time; units are named alike
        in all animals. ``attrs["truth"]`` holds ``partitions`` (epoch x neuron), ``epoch`` (of
        each sample), ``present`` (animal x neuron) and, with an indicator, ``spikes`` (animal x
        neuron x time).

    Raises
    ------
    ConfigError
        If an option is out of range.
    """
    if indicator not in ("none", "ar1", "ar2"):
        raise ConfigError(f"there is no indicator {indicator!r}", mend="choose none, ar1 or ar2")
    if n_communities < 1 or n_neurons < 2 * n_communities or n_times < 10 * n_epochs:
        raise ConfigError(
            f"{n_neurons} neurons and {n_times} samples are too few for {n_communities} "
            f"communities in {n_epochs} epochs",
            mend="use two neurons a community and ten samples an epoch, or more",
        )
    if not (0 <= missing < 1 and noise >= 0 and 0 < rise < decay and sfreq > 0):
        raise ConfigError(
            "an option of the calcium world is out of range",
            mend="use 0 <= missing < 1, noise >= 0, 0 < rise < decay and sfreq > 0",
        )
    first, *streams = [
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(n_animals + 1)
    ]
    equal = np.arange(n_neurons) % n_communities
    partitions = np.stack([first.permutation(equal) for _ in range(n_epochs)])
    epoch = np.arange(n_times) * n_epochs // n_times
    # Without communities every neuron is one.
    member = partitions if signal else np.tile(np.arange(n_neurons), (n_epochs, 1))
    names = np.asarray([f"N{i:02d}" for i in range(n_neurons)])
    recordings, present, spikes = {}, [], []
    for number, rng in enumerate(streams, start=1):
        sources = rng.standard_normal((member.max() + 1, n_times))
        sources = _standard(gaussian_filter1d(sources, smoothness, axis=1))
        clean = sources[member[epoch].T, np.arange(n_times)]
        if indicator != "none":
            rate = MEAN_RATE * np.exp(GAIN * clean - GAIN**2 / 2)
            spikes.append(rng.poisson(rate / sfreq))
            constants = (decay,) if indicator == "ar1" else (rise, decay)
            clean = _standard(fluorescence(spikes[-1], constants, sfreq))
        traces = clean + noise * rng.standard_normal(clean.shape)
        found = rng.random(n_neurons) >= missing
        if found.sum() < 2:
            found[:] = True
        present.append(found)
        name = f"animal-{number:02d}"
        recordings[name] = Recording.from_arrays(
            traces[None, found].astype(np.float32),
            ["recording"],
            subject=name,
            unit=names[found],
            time=np.arange(n_times) / sfreq,
            unit_coords={"kind": np.full(found.sum(), "neuron")},
            modality="calcium",
            source="generated: communities of neurons",
            sfreq=sfreq,
        )
    truth = {"partitions": partitions, "epoch": epoch, "present": np.stack(present)}
    if spikes:
        truth["spikes"] = np.stack(spikes)
    facts = {"world": "calcium", "seed": seed, "noise": noise, "signal": signal, "truth": truth}
    return Cohort(recordings, attrs=facts)


def fluorescence(spikes: np.ndarray, time_constants: tuple[float, ...], sfreq: float) -> np.ndarray:
    r"""Pass spikes through an indicator.

    With one time constant :math:`c_t = d\, c_{t-1} + s_t`, with two
    :math:`c_t = (d + r)\, c_{t-1} - d r\, c_{t-2} + s_t`, where :math:`d = e^{-1/(\tau_d f)}` and
    :math:`r = e^{-1/(\tau_r f)}`.

    Parameters
    ----------
    spikes : ndarray, shape (..., n_times)
        Spikes a sample.
    time_constants : tuple of float
        Decay, or rise and decay, in seconds.
    sfreq : float
        Samples a second.

    Returns
    -------
    ndarray of float64, shape (..., n_times)
    """
    poles = np.exp(-1 / (np.asarray(time_constants) * sfreq))
    return np.asarray(lfilter([1.0], np.poly(poles), spikes, axis=-1))


def _standard(traces: np.ndarray) -> np.ndarray:
    traces = traces - traces.mean(axis=-1, keepdims=True)
    spread = traces.std(axis=-1, keepdims=True)
    return traces / np.where(spread > 0, spread, 1.0)
