"""Pictures of stimuli for the report."""

from __future__ import annotations

import numpy as np
from PIL import Image

from engramma.data.stimuli import StimulusSet
from engramma.features.media import images

#: More pictures than this would hide each other.
MOST_PICTURES = 150
PIXELS = 72


def thumbnails(stimuli: StimulusSet) -> list[np.ndarray] | None:
    """Small pictures of the stimuli; None where there are none, or too many."""
    if not stimuli.has("image") or len(stimuli) > MOST_PICTURES:
        return None
    pictures = []
    for pixels in images(stimuli):
        picture = Image.fromarray(pixels)
        picture.thumbnail((PIXELS, PIXELS))
        pictures.append(np.asarray(picture))
    return pictures
