"""What objects sound like: one recipe a category, with variation from sound to sound.

Recipes imitate how the sound comes about: bodies that are struck ring in their modes, air that
rushes is noise, throats are pulses through a vocal tract. A category that has no recipe of its own
gets one of its superordinate class, with parameters that follow from its name, so that it sounds
alike every time and unlike any other. All sounds are as loud as one another (in root mean square),
so that level says nothing of category.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np

from engramma.errors import ConfigError
from engramma.worlds.formants import RATE
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE
from engramma.worlds.sound_parts import SoundCanvas

#: Root mean square of every sound.
LEVEL = 0.05

Recipe = Callable[[SoundCanvas], None]
_RECIPES: dict[str, Recipe] = {}


def _sound(name: str) -> Callable[[Recipe], Recipe]:
    def register(recipe: Recipe) -> Recipe:
        _RECIPES[name] = recipe
        return recipe

    return register


def make_sound(
    category: str,
    *,
    rng: np.random.Generator,
    seconds: float = 1.0,
    pitch: float = 1.0,
    decibels: float = 0.0,
) -> np.ndarray:
    """Make the sound of an object.

    Parameters
    ----------
    category : str
        One of `engramma.worlds.objects.CATEGORIES`.
    rng : numpy.random.Generator
        Each sound of a category is another.
    seconds : float
    pitch : float
        All its frequencies are multiplied by it.
    decibels : float
        Louder (or softer) than sounds usually are.

    Returns
    -------
    ndarray of float32, shape (samples,)
        At 16 kHz.

    Raises
    ------
    ConfigError
        If there is no such category, or the sound is shorter than 50 ms.
    """
    if category not in CATEGORIES:
        raise ConfigError(
            f"nothing is known of how {category!r} sounds", mend=f"use {', '.join(CATEGORIES)}"
        )
    if seconds < 0.05:
        raise ConfigError(f"a sound of {seconds:g} s is too short", mend="make it 0.05 s or longer")
    canvas = SoundCanvas(round(seconds * RATE), pitch, rng)
    recipe = _RECIPES.get(category)
    if recipe is None:
        _of_class(canvas, category)
    else:
        recipe(canvas)
    return equalised(canvas.wave, decibels)


def equalised(wave: np.ndarray, decibels: float = 0.0) -> np.ndarray:
    """Bring a sound to the common root mean square, and ``decibels`` above it."""
    level = np.sqrt(np.mean(wave**2))
    return (wave * (LEVEL * 10 ** (decibels / 20) / max(float(level), 1e-9))).astype(np.float32)


# -- faces and bodies --------------------------------------------------------------------------


@_sound("man")
def _ho_ho(s: SoundCanvas) -> None:
    pitch = s.vary(115)
    for onset in s.times(0.26):
        s.noise(onset, 0.05, 400, 2000, gain=0.1, shape="swell")
        s.voice(onset + 0.04, 0.17, pitch, "OW", fall=0.3)


@_sound("woman")
def _singing(s: SoundCanvas) -> None:
    s.voice(0.01, s.seconds, s.vary(330), "AA", tract=1.17, vibrato=0.03, shape="flat", breath=0.05)


@_sound("child")
def _giggle(s: SoundCanvas) -> None:
    pitch = s.vary(420)
    for onset in s.times(0.13):
        s.voice(onset, 0.1, s.vary(pitch, 0.05), "IY", tract=1.32, fall=0.3, breath=0.3)


@_sound("clown")
def _squeeze_horn(s: SoundCanvas) -> None:
    pitch = s.vary(280)
    reed = [1, 0.9, 0.8, 0.9, 0.7, 0.6, 0.4, 0.3]
    for onset in s.times(0.5, 0.04):
        s.tone(onset, 0.16, pitch, harmonics=reed)
        s.tone(onset + 0.2, 0.2, pitch * 0.72, pitch * 0.66, harmonics=reed, shape="burst")


@_sound("dancer")
def _tap_shoes(s: SoundCanvas) -> None:
    for number, onset in enumerate(s.times(0.14, 0.03)):
        s.strike(onset, [s.vary(2300), 3900, 5600], 0.012, gain=1.0 if number % 3 == 0 else 0.5)


@_sound("runner")
def _running(s: SoundCanvas) -> None:
    for number, onset in enumerate(s.times(0.3, 0.03)):
        s.strike(onset, [s.vary(85), 170], 0.03, click=0.1)
        s.noise(onset + 0.01, 0.07, 300, 1500, gain=0.25, shape="burst")
        s.noise(onset + 0.1, 0.15, 900, 2600, gain=0.08 + 0.06 * (number % 2), shape="swell")


@_sound("hand")
def _clapping(s: SoundCanvas) -> None:
    for onset in s.times(0.24):
        s.noise(onset, 0.06, s.vary(900), s.vary(2600), shape="burst")


@_sound("foot")
def _heavy_steps(s: SoundCanvas) -> None:
    for onset in s.times(0.5, 0.05):
        s.strike(onset, [s.vary(60), 110, 190], 0.06, click=0.05)
        s.strike(onset + 0.1, [s.vary(120), 260], 0.03, gain=0.4, click=0.1)


# -- animals -----------------------------------------------------------------------------------


@_sound("fish")
def _bubbles(s: SoundCanvas) -> None:
    for onset in s.times(0.07, 0.6):
        # A rising bubble rings ever higher (Minnaert 1933).
        pitch = s.vary(700, 0.35)
        s.tone(onset, 0.05, pitch, 1.6 * pitch, shape="burst")


@_sound("cat")
def _meow(s: SoundCanvas) -> None:
    pitch = s.vary(560)
    length = min(s.vary(0.7), s.seconds - 0.02)
    s.voice(0.01, 0.3 * length, pitch * 0.9, "IY", tract=1.5, fall=-0.3)
    s.voice(0.2 * length, 0.8 * length, pitch * 1.1, "AW", tract=1.5, fall=0.5)


@_sound("dog")
def _bark(s: SoundCanvas) -> None:
    pitch = s.vary(240, 0.15)
    for onset in s.times(0.42):
        s.voice(onset, 0.15, pitch * 1.3, "AO", tract=1.15, fall=0.9, breath=0.5, shape="burst")
        s.noise(onset, 0.09, 500, 1600, gain=0.12, shape="burst")


@_sound("bird")
def _song(s: SoundCanvas) -> None:
    for onset in s.times(0.13):
        start = s.vary(3600, 0.12)
        s.tone(onset, 0.09, start, s.vary(start, 0.3), shape="swell", vibrato=0.06, speed=30)


# -- food --------------------------------------------------------------------------------------


@_sound("apple")
def _bite(s: SoundCanvas) -> None:
    for onset in s.times(0.55):
        for crack in onset + np.sort(s.rng.uniform(0, 0.2, 25)):
            s.noise(crack, 0.008, 1200, 5500, gain=s.vary(0.6, 0.5), shape="burst")


@_sound("ice cream")
def _van_chimes(s: SoundCanvas) -> None:
    scale = s.vary(1050, 0.04) * 2 ** (np.asarray([0, 4, 7, 4, 9, 7]) / 12)
    for number, onset in enumerate(s.times(0.2, 0.02)):
        note = float(scale[number % len(scale)])
        s.strike(onset, [note, 2.76 * note, 5.4 * note], 0.18, click=0.05)


@_sound("pizza")
def _sizzle(s: SoundCanvas) -> None:
    s.noise(0.0, s.seconds, 3500, 7500)
    for onset in s.times(0.06, 0.7):
        s.noise(onset, 0.01, 1500, 5000, gain=s.vary(2.0, 0.4), shape="burst")


@_sound("cake")
def _candles_blown_out(s: SoundCanvas) -> None:
    for onset in s.times(0.6, 0.05):
        s.noise(onset, 0.45, 250, 900, shape="swell")
        s.noise(onset, 0.45, 900, 2200, gain=0.3, shape="swell")


# -- places ------------------------------------------------------------------------------------


@_sound("house")
def _knocks(s: SoundCanvas) -> None:
    for onset in s.times(0.2, 0.04):
        s.strike(onset, [s.vary(210, 0.05), 390, 560, 810], 0.035)


@_sound("castle")
def _fanfare(s: SoundCanvas) -> None:
    base = s.vary(230, 0.06)
    brass = [0.7, 1, 0.9, 0.8, 0.6, 0.5, 0.35, 0.25, 0.15]
    for number, onset in enumerate(s.times(0.22, 0.02)):
        s.tone(onset, 0.2, base * (1, 1, 1.5, 2)[number % 4], harmonics=brass, shape="flat")


@_sound("church")
def _bell(s: SoundCanvas) -> None:
    # Hum, prime, tierce, quint and nominal of a church bell.
    prime = s.vary(420)
    for onset in s.times(0.9, 0.03):
        s.strike(onset, [prime * r for r in (0.5, 1, 1.2, 1.5, 2, 2.5, 3, 4)], 0.8, click=0.1)


@_sound("bridge")
def _wind_in_cables(s: SoundCanvas) -> None:
    low = s.vary(140)
    for pitch in (low, 1.5 * low, 2.02 * low):
        s.tone(0.0, s.seconds, pitch, vibrato=0.02, speed=s.vary(1.2), gain=0.5)
    s.noise(0.0, s.seconds, 250, 600, gain=0.6, shape="swell")


# -- tools -------------------------------------------------------------------------------------


@_sound("hammer")
def _blows_on_iron(s: SoundCanvas) -> None:
    base = s.vary(1150)
    for onset in s.times(0.38, 0.05):
        s.strike(onset, [base, 1.78 * base, 2.9 * base, 4.1 * base], 0.1, click=0.6)


@_sound("scissors")
def _snips(s: SoundCanvas) -> None:
    for onset in s.times(0.27):
        s.noise(onset, 0.1, 4500, 7500, gain=0.5, shape="grow")
        s.strike(onset + 0.1, [s.vary(4700), 6800], 0.012, gain=0.8)


@_sound("key")
def _jingle(s: SoundCanvas) -> None:
    for onset in s.times(0.05, 0.6):
        base = s.vary(3300, 0.2)
        s.strike(onset, [base, 1.37 * base, 1.9 * base], 0.05, gain=s.vary(0.6, 0.5), click=0.02)


@_sound("saw")
def _sawing(s: SoundCanvas) -> None:
    for number, onset in enumerate(s.times(0.26, 0.04)):
        low = 1300 if number % 2 else 1700
        s.noise(onset, 0.22, low, 2.2 * low, shape="swell")
        s.tone(onset, 0.22, 90, 140, harmonics=[1, 1, 1, 1, 1, 1, 1, 1], gain=0.5, shape="swell")


# -- vehicles ----------------------------------------------------------------------------------


@_sound("car")
def _engine(s: SoundCanvas) -> None:
    pitch = s.vary(48)
    rumble = [1, 0.9, 0.7, 0.8, 0.5, 0.4, 0.35, 0.3, 0.2, 0.2, 0.1, 0.1]
    s.tone(0.0, s.seconds, pitch, s.vary(2.0 * pitch), harmonics=rumble, vibrato=0.01, speed=11)
    s.noise(0.0, s.seconds, 100, 700, gain=0.25)


@_sound("boat")
def _waves_and_horn(s: SoundCanvas) -> None:
    for onset in s.times(0.45):
        s.noise(onset, 0.45, 300, 1100, gain=0.5, shape="swell")
    s.tone(0.0, s.seconds, s.vary(155), harmonics=[1, 0.6, 0.3, 0.1], gain=0.7, shape="swell")


@_sound("bicycle")
def _bicycle_bell(s: SoundCanvas) -> None:
    base = s.vary(2450, 0.06)
    for start in s.times(0.6, 0.04):
        for onset in (start, start + 0.07, start + 0.14):
            s.strike(onset, [base, 1.03 * base, 2.4 * base], 0.16, click=0.1)


@_sound("aeroplane")
def _jet(s: SoundCanvas) -> None:
    s.noise(0.0, s.seconds, 150, 5000)
    whine = s.vary(2500)
    s.tone(0.0, s.seconds, whine, 0.9 * whine, harmonics=[1, 0.4], gain=0.6)


# -- writing -----------------------------------------------------------------------------------


@_sound("word")
def _chalk(s: SoundCanvas) -> None:
    for onset in s.times(0.16, 0.25):
        s.noise(onset, s.vary(0.1, 0.2), s.vary(2300), 3600, shape="burst")
        s.strike(onset, [s.vary(1500), 2700], 0.006, gain=0.8)


@_sound("number")
def _dialling(s: SoundCanvas) -> None:
    # The pairs of tones of push-button telephones (ITU-T Q.23).
    for onset in s.times(0.2, 0.02):
        for pitch in (s.rng.choice((697, 770, 852, 941)), s.rng.choice((1209, 1336, 1477))):
            s.tone(onset, 0.12, float(pitch))


@_sound("letter")
def _typewriter(s: SoundCanvas) -> None:
    for onset in s.times(0.11, 0.3):
        s.strike(onset, [s.vary(780, 0.05), 1900, 3100], 0.015, click=1.0)
    s.strike(s.seconds * 0.85, [3100, 6300], 0.12, gain=0.4, click=0.0)


@_sound("arrow")
def _shot_and_thud(s: SoundCanvas) -> None:
    for onset in s.times(0.6, 0.05):
        s.noise(onset, 0.3, s.vary(1800), 3300, gain=0.5, shape="grow")
        s.strike(onset + 0.3, [s.vary(150), 235, 400], 0.06, gain=2.0, click=0.3)


# -- any other ---------------------------------------------------------------------------------


def _of_class(s: SoundCanvas, category: str) -> None:
    """Imitate something unknown by what is typical of its superordinate class."""
    own = np.random.default_rng(crc32(category.encode()))
    superordinate = SUPERORDINATE[category]
    period, pitch = float(own.uniform(0.12, 0.5)), s.vary(float(2 ** own.uniform(7.5, 10.5)), 0.05)
    ratios = [1.0, *np.sort(own.uniform(1.2, 5.0, 4))]
    if superordinate in ("face", "animal"):
        vowel = str(own.choice(["IY", "AA", "UW", "AE", "OW"]))
        fall, tract = float(own.uniform(-0.8, 0.8)), float(own.uniform(0.8, 1.5))
        for onset in s.times(period):
            s.voice(onset, 0.8 * period, pitch, vowel, fall=fall, tract=tract)
    elif superordinate == "vehicle":
        harmonics = own.uniform(0.1, 1.0, 10)
        s.tone(0.0, s.seconds, pitch / 6, harmonics=list(harmonics), vibrato=0.01)
        s.noise(0.0, s.seconds, pitch, 4 * pitch, gain=float(own.uniform(0.2, 0.8)))
    else:
        decay = float(own.uniform(0.01, 0.2))
        for onset in s.times(period):
            s.strike(onset, [pitch * r for r in ratios], decay)
            s.noise(onset, 0.5 * period, 2 * pitch, 4 * pitch, gain=0.3, shape="burst")
