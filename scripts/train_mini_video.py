"""Train the miniature video encoder: what objects do, what they are, and how the camera moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, fit

from engramma.features.video import WEIGHTS, MiniVideo, Miniature, clip_batch
from engramma.nn.weights import load_shipped
from engramma.progress import track
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.layouts import COLOURS
from engramma.worlds.objects import CATEGORIES
from engramma.worlds.videos import ACTIONS, CAMERAS, make_videos, video_quality

BATCH, FRAMES, SHARD = 32, 8, 512
#: Shards of videos to train on; there are fewer of them than the optimiser takes batches, so that
#: frames are mirrored as well, and what moves left then moves right.
SHARDS = 12
NAMES = {
    "action": list(ACTIONS),
    "category": list(CATEGORIES),
    "colour": list(COLOURS),
    "background": list(BACKGROUNDS),
    "camera": list(CAMERAS),
}
