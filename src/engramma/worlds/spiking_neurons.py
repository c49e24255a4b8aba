r"""Point neurons with known, directed, delayed connections.

Time runs in steps of ``dt``. A spike of neuron j at time t reaches neuron i after their delay as a
synaptic current that jumps to the weight of the connection and decays exponentially,

.. math:: s_i(t) = \sum_j w_{ij} \sum_{f} e^{-(t - t_j^f - d_{ij})/\tau_s}, \quad t > t_j^f + d_{ij}

Two kinds of neuron follow it. *Generalised linear* ones (Truccolo et al. 2005; Pillow et al. 2008)
spike by chance, with log odds ("bernoulli") or log expected count ("poisson") of a time step that
add up a baseline, the stimulus and the synaptic current. *Leaky integrate-and-fire* ones (Gerstner
et al., *Neuronal Dynamics*, 2014, ch. 1) integrate all three and noise up to a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.special import erfcx, expit

from engramma.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Connections:
    """Directed connections between neurons.

    Parameters
    ----------
    weights : ndarray of float32, shape (n_neurons, n_neurons)
        Weight of the connection *to* the row *from* the column; 0 where there is none.
    delays : ndarray of float32, shape (n_neurons, n_neurons)
        Seconds; NaN where there is no connection.
    time_constant : float
        Decay of the synaptic current, in seconds.
    """

    weights: np.ndarray
    delays: np.ndarray
    time_constant: float = 0.005

    def steps(self, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Targets, sources, weights and delays in time steps of all connections.

        Raises
        ------
        ConfigError
            If a delay is shorter than a time step.
        """
        to, source = np.nonzero(self.weights)
        lags = np.round(self.delays[to, source] / dt)
        if not (lags >= 1).all():
            raise ConfigError(
                "a connection's delay is shorter than a time step",
                where=f"dt = {dt:g} s",
                mend="lengthen the delays, or take a smaller dt",
            )
        return to, source, self.weights[to, source].astype(np.float64), lags.astype(np.intp)


class _Synapses:
    """Synaptic currents, one time step after the other."""

    def __init__(self, connections: Connections, dt: float) -> None:
        self._to, self._source, self._weights, self._lags = connections.steps(dt)
        self._n = len(connections.weights)
        self._decay = np.exp(-dt / connections.time_constant)
        # Traces of past spikes, in a ring as long as the longest delay.
        self._past = np.zeros((int(self._lags.max(initial=0)) + 1, self._n))
        self._now = 0

    def current(self) -> np.ndarray:
        """Input to each neuron in the present step."""
        rows = (self._now - self._lags) % len(self._past)
        arriving = self._weights * self._past[rows, self._source]
        return np.bincount(self._to, arriving, minlength=self._n)

    def emit(self, spikes: np.ndarray) -> None:
        """Take the spikes of the present step, and go on to the next."""
        before = self._past[self._now - 1]
        self._past[self._now] = self._decay * before + spikes
        self._now = (self._now + 1) % len(self._past)


def simulate_glm(
    drive: np.ndarray,
    connections: Connections,
    *,
    dt: float,
    rng: np.random.Generator,
    refractory: float = 0.003,
    counts: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a network of generalised linear neurons.

    Parameters
    ----------
    drive : ndarray, shape (n_neurons, n_times)
        Baseline and stimulus: log odds of a spike in a time step, or log expected count.
    connections : Connections
    dt : float
        Seconds a step.
    rng : numpy.random.Generator
    refractory : float
        Seconds after a spike in which a neuron cannot spike; 0 for none.
    counts : bool
        Draw Poisson counts, of which a step can hold several, in place of single spikes.

    Returns
    -------
    spikes : ndarray of uint8, shape (n_neurons, n_times)
    expected : ndarray of float32, shape (n_neurons, n_times)
        Expected spikes of each step given all that went before.
    """
    n, n_times = drive.shape
    synapses = _Synapses(connections, dt)
    spikes = np.zeros((n_times, n), dtype=np.uint8)
    expected = np.zeros((n_times, n), dtype=np.float32)
    silent = round(refractory / dt)
    ready = np.zeros(n, dtype=np.intp)  # first step in which a neuron may spike again
    chance = None if counts else rng.random((n_times, n), dtype=np.float32)
    inputs = np.ascontiguousarray(drive.T, dtype=np.float64)
    for t in range(n_times):
        total = inputs[t] + synapses.current()
        mean = (np.exp(total) if counts else expit(total)) * (ready <= t)
        fired = rng.poisson(mean) if chance is None else chance[t] < mean
        spikes[t], expected[t] = fired, mean
        ready[fired > 0] = t + 1 + silent
        synapses.emit(spikes[t])
    return np.ascontiguousarray(spikes.T), np.ascontiguousarray(expected.T)


def simulate_lif(
    drive: np.ndarray,
    connections: Connections,
    *,
    dt: float,
    rng: np.random.Generator,
    membrane: float = 0.02,
    refractory: float = 0.003,
    noise: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Run a network of leaky integrate-and-fire neurons.

    The potential, 0 at rest and reset and 1 at threshold, follows
    :math:`\tau \dot v = -v + I + \sigma \sqrt{2 \tau} \xi`, solved exactly within each step.

    Parameters
    ----------
    drive : ndarray, shape (n_neurons, n_times)
        Input current, in units of the distance from rest to threshold.
    connections : Connections
    dt : float
        Seconds a step.
    rng : numpy.random.Generator
    membrane, refractory : float
        Time constant and absolute refractory period, in seconds.
    noise : float
        Standard deviation that the potential would have without a threshold.

    Returns
    -------
    spikes : ndarray of uint8, shape (n_neurons, n_times)
    potential : ndarray of float32, shape (n_neurons, n_times)
        At the end of each step, after any reset.
    """
    n, n_times = drive.shape
    synapses = _Synapses(connections, dt)
    spikes = np.zeros((n_times, n), dtype=np.uint8)
    potential = np.zeros((n_times, n), dtype=np.float32)
    keep = np.exp(-dt / membrane)
    kicks = rng.standard_normal((n_times, n), dtype=np.float32)
    kicks *= np.float32(noise * np.sqrt(1 - keep**2))
    silent = round(refractory / dt)
    ready = np.zeros(n, dtype=np.intp)
    inputs = np.ascontiguousarray(drive.T, dtype=np.float64)
    v = np.zeros(n)
    for t in range(n_times):
        total = inputs[t] + synapses.current()
        v = np.where(ready <= t, total + (v - total) * keep + kicks[t], 0.0)
        fired = v >= 1.0
        v[fired] = 0.0
        ready[fired] = t + 1 + silent
        spikes[t], potential[t] = fired, v
        synapses.emit(spikes[t])
    return np.ascontiguousarray(spikes.T), np.ascontiguousarray(potential.T)


def lif_rate(
    current: float, *, membrane: float = 0.02, refractory: float = 0.003, noise: float = 0.0
) -> float:
    r"""Give the firing rate of an integrate-and-fire neuron at constant current, in Hz.

    Without noise :math:`1 / (t_r + \tau \ln \frac{I}{I - 1})` above the threshold current of 1;
    with noise the mean first passage time of Siegert (1951),

    .. math:: 1 / \Big(t_r + \tau \sqrt\pi
        \int_{-I/(\sqrt 2 \sigma)}^{(1-I)/(\sqrt 2 \sigma)} e^{u^2} (1 + \mathrm{erf}\, u)\, du\Big)

    Parameters
    ----------
    current : float
    membrane, refractory, noise : float
        As in `simulate_lif`.
    """
    if noise > 0:
        scale = np.sqrt(2) * noise
        # exp(u^2) (1 + erf u) = erfcx(-u)
        integral = quad(lambda u: erfcx(-u), -current / scale, (1 - current) / scale)[0]
        return float(1 / (refractory + membrane * np.sqrt(np.pi) * integral))
    if current <= 1:
        return 0.0
    return float(1 / (refractory + membrane * np.log(current / (current - 1))))
