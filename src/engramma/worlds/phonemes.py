"""The sounds of English speech: what the vocal tract does for each.

Symbols are those of the ARPABET. Formants of vowels are the means of 33 men (Peterson and Barney,
J. Acoust. Soc. Am. 24, 1952, table II); those of consonants, and the durations, follow Klatt
(J. Acoust. Soc. Am. 67, 1980, tables II and III; 59, 1976, table I) and are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Frequencies of the first three formants, in Hz.
Formants = tuple[float, float, float]


@dataclass(frozen=True)
class Frication:
    """Noise made at a narrow place: a spectral peak, and how strong it is.

    Parameters
    ----------
    peak, width : float
        Centre and bandwidth in Hz, for a vocal tract of 17.5 cm.
    level : float
        dB relative to a vowel.
    """

    peak: float
    width: float
    level: float


@dataclass(frozen=True)
class Phoneme:
    """How a phoneme is made.

    Parameters
    ----------
    symbol : str
    kind : str
        ``"vowel"``, ``"glide"``, ``"nasal"``, ``"fricative"``, ``"stop"``, ``"affricate"`` or
        ``"breath"`` (/h/, which takes the formants of what follows).
    targets : sequence of Formants
        One, or two for diphthongs, in order.
    duration : float
        Milliseconds, in a stressed syllable.
    voiced : bool
    frication : Frication, optional
        Of fricatives, and of the bursts of stops and affricates.
    """

    symbol: str
    kind: str
    targets: Sequence[Formants]
    duration: float
    voiced: bool = True
    frication: Frication | None = None

    @property
    def vowel(self) -> bool:
        """Whether it makes a syllable."""
        return self.kind == "vowel"


def _vowel(symbol: str, duration: float, *targets: Formants) -> Phoneme:
    return Phoneme(symbol, "vowel", targets, duration)


def _voiced(symbol: str, kind: str, duration: float, target: Formants) -> Phoneme:
    return Phoneme(symbol, kind, (target,), duration)


def _noisy(
    symbol: str,
    kind: str,
    duration: float,
    voiced: bool,
    target: Formants,
    peak: float,
    width: float,
    level: float,
) -> Phoneme:
    return Phoneme(symbol, kind, (target,), duration, voiced, Frication(peak, width, level))


_IY, _IH, _UH = (270, 2290, 3010), (390, 1990, 2550), (440, 1020, 2240)
_AA, _AO, _UW = (730, 1090, 2440), (570, 840, 2410), (300, 870, 2240)

PHONEMES: dict[str, Phoneme] = {
    p.symbol: p
    for p in (
        _vowel("IY", 155, _IY),
        _vowel("IH", 135, _IH),
        _vowel("EH", 150, (530, 1840, 2480)),
        _vowel("AE", 200, (660, 1720, 2410)),
        _vowel("AA", 210, _AA),
        _vowel("AO", 210, _AO),
        _vowel("UH", 150, _UH),
        _vowel("UW", 180, _UW),
        _vowel("AH", 140, (640, 1190, 2390)),
        _vowel("ER", 180, (490, 1350, 1690)),
        _vowel("AX", 90, (500, 1400, 2450)),
        _vowel("EY", 190, (480, 1950, 2550), (330, 2250, 2900)),
        _vowel("AY", 230, (700, 1200, 2450), (380, 2050, 2600)),
        _vowel("OY", 250, (540, 860, 2400), (370, 1950, 2550)),
        _vowel("AW", 240, (700, 1300, 2450), (420, 950, 2300)),
        _vowel("OW", 210, (530, 1050, 2350), (380, 800, 2250)),
        _voiced("W", "glide", 80, (290, 610, 2150)),
        _voiced("Y", "glide", 80, (260, 2070, 3020)),
        _voiced("R", "glide", 80, (310, 1060, 1380)),
        _voiced("L", "glide", 80, (310, 1050, 2880)),
        _voiced("M", "nasal", 75, (400, 1050, 2130)),
        _voiced("N", "nasal", 70, (400, 1500, 2470)),
        _voiced("NG", "nasal", 95, (400, 2100, 2800)),
        _noisy("F", "fricative", 110, False, (340, 1100, 2080), 7000, 5000, -20),
        _noisy("V", "fricative", 70, True, (220, 1100, 2080), 7000, 5000, -24),
        _noisy("TH", "fricative", 105, False, (320, 1290, 2540), 6000, 5000, -22),
        _noisy("DH", "fricative", 55, True, (270, 1290, 2540), 6000, 5000, -26),
        _noisy("S", "fricative", 125, False, (320, 1390, 2530), 5600, 1600, -6),
        _noisy("Z", "fricative", 85, True, (240, 1390, 2530), 5600, 1600, -10),
        _noisy("SH", "fricative", 125, False, (300, 1840, 2750), 3000, 1100, -5),
        _noisy("ZH", "fricative", 80, True, (300, 1840, 2750), 3000, 1100, -10),
        _noisy("P", "stop", 110, False, (400, 1000, 2150), 900, 2000, -16),
        _noisy("B", "stop", 85, True, (200, 1000, 2150), 900, 2000, -16),
        _noisy("T", "stop", 105, False, (400, 1750, 2600), 4600, 2500, -7),
        _noisy("D", "stop", 75, True, (200, 1750, 2600), 4600, 2500, -10),
        _noisy("K", "stop", 110, False, (300, 1990, 2500), 2000, 900, -8),
        _noisy("G", "stop", 80, True, (200, 1990, 2500), 2000, 900, -10),
        _noisy("CH", "affricate", 135, False, (350, 1800, 2820), 3000, 1200, -5),
        _noisy("JH", "affricate", 100, True, (260, 1800, 2820), 3000, 1200, -9),
        Phoneme("HH", "breath", (), 70, voiced=False),
    )
}
