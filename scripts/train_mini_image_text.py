"""Train the miniature image-text model: two towers, contrastively, with hard negatives.

Beside the captions of the other scenes in the batch, each image is told from a caption of itself
with one mistake (an attribute exchanged, a relation turned), after Yuksekgonul et al. 2023 ("When
and why vision-language models behave like bags-of-words"): else the embedding would not hold which
colour belongs to which thing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, corpus, fit, held_out
from torch.nn import functional

from engramma.features.contrastive import WEIGHTS, Miniature, MiniImageText
from engramma.nn.blocks import image_batch
from engramma.nn.seed import seeded
from engramma.nn.weights import load_shipped
from engramma.worlds.captions import vocabulary
from engramma.worlds.miniatures import image_text_quality

#: Scenes a batch, and how many of them bring a mistaken caption, too.
BATCH, MISTAKEN = 160, 80


def main() -> None:
    options = arguments(__doc__, steps=1400)
    data = corpus(options.work / "scenes", options.scenes)
    with seeded(0):
        model = MiniImageText(words=vocabulary())

    def batch(rng: np.random.Generator) -> Any:
        rows = rng.choice(len(data.images), BATCH, replace=False)
        texts = data.captions(rows, rng) + data.wrong_captions(rows[:MISTAKEN], rng)
        return image_batch(data.images[rows]), model.tokenizer.encode(texts)

    def loss(network: Any, parts: Any) -> torch.Tensor:
        images, texts = network.project_images(parts[0]), network.project_texts(parts[1])
        likeness = network.log_scale.exp().clamp(max=100) * images @ texts.T
        own = torch.arange(len(images))
        to_text = functional.cross_entropy(likeness, own)
        to_image = functional.cross_entropy(likeness[:, : len(images)].T, own)
        # The mistaken caption of the same image, once more, and by itself.
        some = own[:MISTAKEN]
        mistaken = likeness[some, some + len(images)]
        pairs = functional.softplus(mistaken - likeness[some, some]).mean()
        return 0.5 * (to_text + to_image) + 0.5 * pairs

    model = fit(
        model,
        batch,
        loss,
        steps=options.steps,
        rate=1e-3,
        checkpoint=options.work / "image-text.pt",
        description="image-text model",
    )
    path = WEIGHTS / "mini-image-text.safetensors"
    model.save(path)
    load_shipped.cache_clear()
    write_card(
        path,
        "mini-clip: image-text contrastive model of the scenes",
        f"{options.steps} batches of {BATCH} scenes out of {options.scenes}, AdamW, bfloat16; "
        "symmetric InfoNCE; captions with a single mistake stand beside half of the right ones",
        image_text_quality(Miniature(), held_out()),
    )


if __name__ == "__main__":
    main()
