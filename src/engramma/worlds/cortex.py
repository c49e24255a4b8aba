"""The areas of a virtual brain: where they lie, which network they are of, what they respond to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from engramma.errors import ConfigError

#: The seven networks of Yeo et al. (*J. Neurophysiol.* 106, 2011), and the language network
#: (Fedorenko et al., *J. Neurophysiol.* 104, 2010), which that parcellation does not tell apart.
Network = Literal[
    "Visual",
    "Somatomotor",
    "Dorsal attention",
    "Ventral attention",
    "Limbic",
    "Frontoparietal",
    "Default",
    "Language",
]
#: What areas respond to. Of the image: ``energy`` (oriented contrast), ``contour`` (crossing
#: orientations), ``colour`` (hue). Of what is in it: ``category`` (objects of a class),
#: ``position`` (where, how far and how many), ``binding`` (the colour of the first object, as it
#: goes with what the object is). ``meaning`` is what a description would say; ``silent`` areas
#: respond to nothing.
Kind = Literal[
    "energy", "contour", "colour", "category", "position", "binding", "meaning", "silent"
]
IMAGE_KINDS: tuple[Kind, ...] = ("energy", "contour", "colour")
#: How polar angle runs over an area; see `engramma.worlds.retinotopy.visual_field`.
Map = Literal["hemifield", "quarters inwards", "quarters outwards"]


@dataclass(frozen=True)
class Area:
    """A cortical area.

    Parameters
    ----------
    name : str
    kind : str
        What it responds to; one of `Kind`.
    network : str
    place : (float, float, float)
        Centre in MNI coordinates (mm) in the right hemisphere; mirrored in the left one.
    share : float
        Of all units.
    prefers : tuple of str
        Superordinate classes that units of a ``category`` area are drawn to.
    strength : float
        Signal of its units against that of others.
    field : float
        Size of receptive fields against those of V1, for areas that respond to the image.
    map : str
        How polar angle runs over an area that responds to the image.
    sides : {"LR", "L", "R"}
        Hemispheres that have it.
    """

    name: str
    kind: Kind
    network: Network
    place: tuple[float, float, float]
    share: float
    prefers: tuple[str, ...] = ()
    strength: float = 1.0
    field: float = 1.0
    map: Map = "hemifield"
    sides: Literal["LR", "L", "R"] = "LR"

    def __post_init__(self) -> None:
        for value, allowed in ((self.kind, Kind), (self.network, Network), (self.map, Map)):
            if value not in get_args(allowed):
                raise ConfigError(
                    f"the area {self.name!r} cannot be {value!r}",
                    mend=f"use one of {', '.join(get_args(allowed))}",
                )
        if self.share <= 0 or self.strength < 0 or self.field <= 0 or not self.sides:
            raise ConfigError(
                f"the area {self.name!r} has a share, strength or field out of range",
                mend="use share > 0, strength >= 0, field > 0 and sides 'LR', 'L' or 'R'",
            )
        if (self.kind == "category") != bool(self.prefers):
            raise ConfigError(
                f"the area {self.name!r} is of kind {self.kind!r} and prefers {self.prefers}",
                mend="name the classes that a category area prefers, and none for others",
            )


_CALCARINE = (9.0, -88.0, 3.0)
#: Centres are rounded from the literature: V1 to V3 lie around the calcarine sulcus; localised
#: areas as in Kanwisher (*PNAS* 107, 2010), Dilks et al. (*J. Neurosci.* 33, 2013; OPA), Jain et
#: al. (*Commun. Biol.* 6, 2023; food, here VFA) and Dehaene and Cohen (*Trends Cogn. Sci.* 15,
#: 2011; VWFA).
AREAS: tuple[Area, ...] = (
    Area("V1", "energy", "Visual", _CALCARINE, 0.10),
    Area("V2", "energy", "Visual", _CALCARINE, 0.09, field=1.6, map="quarters inwards"),
    Area("V3", "energy", "Visual", _CALCARINE, 0.08, field=2.3, map="quarters outwards"),
    Area("V4", "colour", "Visual", (28, -74, -12), 0.05, field=2.6),
    Area("LO", "contour", "Visual", (42, -78, -2), 0.05, field=3.0),
    Area("FFA", "category", "Visual", (41, -50, -19), 0.05, ("face",)),
    Area("EBA", "category", "Visual", (48, -71, 4), 0.05, ("body",)),
    Area("LOTC", "category", "Visual", (46, -62, -9), 0.05, ("animal",)),
    Area("PPA", "category", "Visual", (27, -45, -10), 0.05, ("place",)),
    Area("OPA", "category", "Visual", (33, -82, 21), 0.03, ("place",)),
    Area("RSC", "category", "Visual", (16, -57, 13), 0.03, ("place",)),
    Area("VFA", "category", "Visual", (31, -62, -13), 0.04, ("food",)),
    Area("VWFA", "category", "Visual", (44, -56, -14), 0.04, ("word",), sides="L"),
    Area(
        "pMTG", "category", "Dorsal attention", (52, -60, 2), 0.06, ("tool", "vehicle"), sides="L"
    ),
    Area("IPS", "position", "Dorsal attention", (26, -68, 42), 0.03),
    Area("IFG", "meaning", "Language", (50, 20, 14), 0.04, sides="L"),
    Area("STS", "meaning", "Language", (56, -40, 4), 0.04, sides="L"),
    Area("ATL", "meaning", "Language", (53, 8, -20), 0.03, sides="L"),
    Area("PCC", "meaning", "Default", (6, -50, 30), 0.03, strength=0.3),
    Area("mPFC", "meaning", "Default", (5, 54, 8), 0.03, strength=0.3),
    Area("AG", "meaning", "Default", (46, -62, 34), 0.03, strength=0.3),
    Area("M1", "silent", "Somatomotor", (38, -20, 56), 0.03),
    Area("dlPFC", "silent", "Frontoparietal", (42, 30, 30), 0.03),
    Area("insula", "silent", "Ventral attention", (38, 10, -2), 0.02),
)
#: Added when units are asked for that bind an attribute to its object.
BINDING_AREA = Area("PRC", "binding", "Limbic", (28, -10, -32), 0.05)
#: A short list of areas, one a class of objects, for small and quick recordings.
FEW_AREAS: tuple[Area, ...] = (
    Area("early", "energy", "Visual", _CALCARINE, 0.22),
    Area("middle", "contour", "Visual", (42, -78, -2), 0.14, field=2.0),
    Area("face", "category", "Visual", (41, -50, -19), 0.08, ("face",)),
    Area("body", "category", "Visual", (48, -71, 4), 0.07, ("body",)),
    Area("animal", "category", "Visual", (46, -62, -9), 0.07, ("animal",)),
    Area("place", "category", "Visual", (27, -45, -10), 0.08, ("place",)),
    Area("tool", "category", "Visual", (52, -60, 2), 0.07, ("tool",), sides="L"),
    Area("word", "category", "Visual", (44, -56, -14), 0.06, ("word",), sides="L"),
    Area("language", "meaning", "Language", (52, 14, 2), 0.11, sides="L"),
    Area("noise", "silent", "Frontoparietal", (42, 30, 30), 0.10),
)
