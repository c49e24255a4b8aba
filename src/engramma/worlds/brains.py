"""The brain of a virtual subject: where its units are and what they respond to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.worlds.anatomy import Sites, place_areas, surface_sites
from engramma.worlds.nuisances import hide_directions
from engramma.worlds.subject_options import SubjectOptions
from engramma.worlds.tuning import SharedCode, Wiring, wire
from engramma.worlds.volumes import volume_sites

_SITES = {"surface": surface_sites, "volume": volume_sites}


@dataclass(frozen=True, eq=False)
class Brain:
    """The brain of one subject: where its units are and what they respond to.

    Parameters
    ----------
    name : str
    options : SubjectOptions
    sites : Sites
    wiring : list of Wiring
        Of each area in each hemisphere.
    """

    name: str
    options: SubjectOptions
    sites: Sites
    wiring: list[Wiring]

    @property
    def site(self) -> np.ndarray:
        """Row of `sites` of each unit."""
        return np.concatenate([w.patch.sites for w in self.wiring])

    @property
    def position(self) -> np.ndarray:
        """Place of each unit (mm), n_units x 3."""
        return self.sites.position[self.site]

    def of_units(self, field: str) -> np.ndarray:
        """Value of a field of `Area` for each unit."""
        values = [np.full(len(w.patch), getattr(w.patch.area, field)) for w in self.wiring]
        return np.concatenate(values)

    def respond(self, code: SharedCode) -> np.ndarray:
        """Return the drive of units: responses as they come from the shared code.

        No statistics of the stimuli enter, so that the response to one does not depend on others.
        """
        return np.concatenate([w.respond(code) for w in self.wiring], axis=1)

    def noise_free(
        self, code: SharedCode, target: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Noise-free responses with mean 0 and variance 1 over stimuli; 0 in silent units.

        Parameters
        ----------
        code : SharedCode
        target : ndarray, shape (n_stimuli, n_dimensions), optional
            What ``options.invisible`` hides directions of; by default the meaning of scenes.

        Returns
        -------
        responses : ndarray, shape (n_stimuli, n_units), float32
        hidden : float
            Share of the variance of the target that was hidden.
        """
        o = self.options
        if not o.signal:
            return np.zeros((len(code), len(self.site)), dtype=np.float32), 0.0
        responses = _standard(self.respond(code))
        if o.nonlinearity:
            squared = _standard(np.maximum(responses, 0) ** 2)
            responses = _standard((1 - o.nonlinearity) * responses + o.nonlinearity * squared)
        wanted = code.meaning if target is None else target
        responses, hidden = hide_directions(responses, wanted, o.invisible)
        return _standard(responses), hidden

    def unit_coords(self) -> dict[str, np.ndarray]:
        """Ground truth about each unit; see `make_subject`."""
        index = self.sites.index[self.site]
        coords = {
            "roi": self.of_units("name"),
            "network": self.of_units("network"),
            "hemisphere": self.sites.hemisphere[self.site],
        }
        coords |= dict(zip("xyz", self.position.T, strict=True))
        if self.sites.affine is None:
            coords["vertex"] = index
        else:
            coords |= dict(zip("ijk", index.T, strict=True))
        for name in self.wiring[0].facts:
            values = np.concatenate([w.facts[name] for w in self.wiring])
            coords[name] = values.astype(str) if values.dtype == object else values
        return coords


def draw_brain(name: str, options: SubjectOptions, *, rng: np.random.Generator) -> Brain:
    """Draw the anatomy and tuning of one subject."""
    sites = _SITES[options.layout]()
    patches = place_areas(sites, options.brain, options.n_units, rng=rng)
    wiring = [wire(p, idiosyncrasy=options.idiosyncrasy, rng=rng) for p in patches]
    return Brain(name, options, sites, wiring)


def _standard(values: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 of each column; what does not vary becomes 0."""
    values = values - values.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    varies = spread > 1e-6
    return np.asarray(values / np.where(varies, spread, 1.0) * varies, dtype=np.float32)
