"""The caption language: a small grammar of attributes and relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Where each background places things.
PLACES: Mapping[str, str] = {
    "room": "in a room",
    "kitchen": "in a kitchen",
    "field": "in a field",
    "beach": "on a beach",
    "forest": "in a forest",
    "street": "on a street",
}
#: Wordings of each relation of the first object to the second.
RELATIONS: Mapping[str, Sequence[str]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "higher than"),
    "below": ("below", "lower than"),
}
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_NAMES: Mapping[str, Sequence[str]] = {
    "man": ("man's face", "face of a man"),
    "woman": ("woman's face", "face of a woman"),
    "word": ("sign with a word", "written word"),
    "number": ("sign with a number", "written number"),
    "scissors": ("pair of scissors",),
    "boat": ("boat", "sailing boat"),
}


def captions(scene: Mapping[str, Any], rng: np.random.Generator, n_captions: int = 3) -> list[str]:
    """Write differently worded captions of one scene.

    .. code-block:: text

        caption  -> [Place ","] thing [relation thing] | thing [relation thing] place
                  | "there is" thing place ["and" thing]
        thing    -> article [size] colour name

    Parameters
    ----------
    scene : mapping
        One row of the table of scenes.
    rng : numpy.random.Generator
    n_captions : int
    """
    place = PLACES[scene["background"]]
    chosen = []
    for kind in rng.permutation(max(n_captions, 3))[:n_captions] % 3:
        first = _thing(scene["category"], scene["colour"], scene["size"], rng)
        if not scene["second"]:
            text = (f"{first} {place}", f"{place}, {first}", f"there is {first} {place}")[kind]
        else:
            second = _thing(scene["second"], scene["second_colour"], "", rng)
            relation = scene["relation"]
            if rng.random() < 0.5:
                first, second, relation = second, first, _OPPOSITE[relation]
            link = str(rng.choice(RELATIONS[relation]))
            text = (
                f"{first} {link} {second} {place}",
                f"{place}, {first} {link} {second}",
                f"there is {first} {place} and it is {link} {second}",
            )[kind]
        chosen.append(text)
    return chosen


def _thing(category: str, colour: str, size: str, rng: np.random.Generator) -> str:
    name = str(rng.choice(_NAMES.get(category, (category,))))
    words = [w for w in (size if rng.random() < 0.7 else "", colour, name) if w]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])
