"""Train the miniature image-text model, beside a captioner of its embeddings.

Two towers learn contrastively, with hard negatives: beside the captions of the other scenes in the
batch, an image is told from a caption of itself with one mistake (an attribute exchanged, a
relation turned), after Yuksekgonul et al. 2023 ("When and why vision-language models behave like
bags-of-words"). At the same time a captioner writes the caption from the embedding, after Yu et
al. 2022 ("CoCa: contrastive captioners"), so that the embedding holds all that captions say; it
does so from embeddings of captions alone, too (Nukrai et al. 2022, "Text-only training for image
captioning using noise-injected CLIP"), of scenes of all compositions that are never drawn. What
each cell of the image tower's grid shows is learnt from the masks: from captions alone a small
network takes very long to find out which words belong to which pixels. All scenes of a batch are in
a few places, or the place alone would tell most of them apart.

Afterwards training goes on with half of the images as the miniature autoencoder gives them back, so
that drawn and decoded images, which have its blur, are read as sharp ones are: train that one first
(``train_mini_autoencoder.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import arguments, cell_loss, corpus, fit, held_out, kept, told_scenes, turned
from torch import Tensor, nn
from torch.nn import functional

from engramma.features import contrastive
from engramma.features.contrastive import MiniImageText
from engramma.generative import autoencoder
from engramma.generative.captioner import MiniCaptioner
from engramma.nn.blocks import image_batch
from engramma.nn.hooks import capture
from engramma.nn.seed import seeded
from engramma.nn.weights import load_shipped
from engramma.progress import track
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.captions import captions, vocabulary
from engramma.worlds.layouts import COLOURS
from engramma.worlds.miniatures import image_text_quality
from engramma.worlds.objects import CATEGORIES

#: Scenes a batch in colours that have a name and in others, and captions with a mistake.
NAMED, STRAYS, MISTAKEN = 112, 48, 80
#: Places of the scenes of a batch.
PLACES = 3
#: Scenes a batch that the captioner tells, and scenes that are told and not drawn.
TOLD, UNDRAWN = 96, 64
#: Largest angle (tangent) by which embeddings are turned away before they are told.
BLUR = 0.2
#: Share of images that are blurred in the second part of the training.
BLURRED = 0.5


class Taught(nn.Module):
    """The image-text model, and what it is taught with and that is not shipped.

    That is a captioner of its embeddings (``train_mini_captioner.py`` trains better ones
    afterwards), and names of what cells show: of the form stream what things are, of the tokens
    that are put out both that and the colours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.towers = MiniImageText(words=vocabulary())
        self.teller = MiniCaptioner(words=vocabulary(), condition=128)
        settings = self.towers.settings
        self.early = nn.Linear(settings["channels"][-1], len(CATEGORIES) + 1)
        self.late = nn.Linear(settings["width"], len(CATEGORIES) + 1 + len(COLOURS) + 1)

    def loss(self, pictures: Tensor, texts: Tensor, categories: Tensor, colours: Tensor) -> Tensor:
        """Losses of retrieval, captions and cells; rows of texts as `batch` below lays them."""
        with capture(self.towers.image, ["stage2"], detach=False) as form:
            tokens = self.towers.image(pictures)
        images = self.towers.project_tokens(tokens)
        words = self.towers.project_texts(texts)
        n = len(images)
        likeness = self.towers.log_scale.exp().clamp(max=100) * images @ words[: n + MISTAKEN].T
        own = torch.arange(n)
        to_text = functional.cross_entropy(likeness, own)
        to_image = functional.cross_entropy(likeness[:, :n].T, own)
        # The mistaken caption of the same image, once more, and by itself.
        some = own[:MISTAKEN]
        pairs = functional.softplus(likeness[some, some + n] - likeness[some, some]).mean()
        # Strays come last: of what is told, a third is of them.
        shown, undrawn = slice(n - TOLD, n), slice(n + MISTAKEN, None)
        wishes = torch.cat([images[shown], words[undrawn]])
        told = self.teller.loss(turned(wishes, BLUR), torch.cat([texts[shown], texts[undrawn]]))
        early = self.early(form["stage2"].flatten(2).transpose(1, 2))
        late, hues = self.late(tokens[:, 1:]).split([len(CATEGORIES) + 1, len(COLOURS) + 1], dim=2)
        # Where colours are seen, categories are learnt of strays only, whose colours tell nothing.
        cells = (
            cell_loss(early, categories)
            + cell_loss(late[NAMED:], categories[NAMED:])
            + cell_loss(hues, colours)
        )
        return 0.5 * (to_text + to_image) + 0.5 * pairs + 2 * told + cells


def _blurred(path: Path, images: np.ndarray) -> np.ndarray:
    """Return images as the autoencoder gives them back; kept in the file."""
    coder = autoencoder.Miniature()

    def compute() -> Tensor:
        parts = track(np.array_split(images, -(-len(images) // 1024)), "blurring scenes")
        with torch.autocast("cpu", torch.bfloat16):
            return torch.cat([torch.from_numpy(coder.decode(coder.encode(p))) for p in parts])

    return kept(path, compute).numpy()


def main() -> None:
    options = arguments(__doc__, steps=1800)
    afterwards = options.steps * 8 // 9
    named = corpus(options.work / "scenes", options.scenes)
    strays = corpus(options.work / "scenes", options.scenes // 2, strays=True)
    undrawn = told_scenes(20_000)
    with seeded(0):
        model = Taught()

    def batch(rng: np.random.Generator, blurred: Sequence[np.ndarray] = ()) -> Any:
        places = rng.choice(len(BACKGROUNDS), PLACES, replace=False)
        rows = rng.choice(np.flatnonzero(np.isin(named.places, places)), NAMED, replace=False)
        others = rng.choice(np.flatnonzero(np.isin(strays.places, places)), STRAYS, replace=False)
        texts = [
            *named.captions(rows, rng),
            *strays.captions(others, rng),
            *named.wrong_captions(rows[:MISTAKEN], rng),
            *(captions(undrawn[i], rng, 1)[0] for i in rng.integers(len(undrawn), size=UNDRAWN)),
        ]
        pictures = np.concatenate([named.images[rows], strays.images[others]])
        if blurred:
            some = rng.random(len(pictures)) < BLURRED
            pictures[some] = np.concatenate([blurred[0][rows], blurred[1][others]])[some]
        grid = [torch.cat(p) for p in zip(named.grid(rows), strays.grid(others), strict=True)]
        return image_batch(pictures), model.towers.tokenizer.encode(texts), *grid

    model = fit(
        model,
        batch,
        lambda network, parts: network.loss(*parts),
        steps=options.steps,
        rate=1e-3,
        checkpoint=options.work / "image-text.pt",
        description="image-text model",
        average=0.998,
    )
    blurred = [
        _blurred(options.work / f"blurred-{name}.pt", data.images)
        for name, data in (("scenes", named), ("strays", strays))
    ]
    model = fit(
        model,
        # From the same seeds, but not the same draws as before.
        lambda rng: batch(rng.spawn(1)[0], blurred),
        lambda network, parts: network.loss(*parts),
        steps=afterwards,
        rate=6e-4,
        checkpoint=options.work / "image-text-blurred.pt",
        description="image-text model, with blurred images",
        average=0.998,
    )
    path = contrastive.WEIGHTS / "mini-image-text.safetensors"
    model.towers.save(path)
    load_shipped.cache_clear()
    write_card(
        path,
        "mini-clip: image-text contrastive model of the scenes",
        f"{options.steps} batches, and {afterwards} more with half of the images as the "
        f"autoencoder gives them back, of {NAMED} scenes out of {len(named.images)} and {STRAYS} "
        f"out of {len(strays.images)} in colours that have no name and go unsaid (none near one "
        f"held out for its category), all of {PLACES} places, AdamW, bfloat16, moving average of "
        f"the weights; symmetric InfoNCE, {MISTAKEN} captions a batch with a single mistake, the "
        "loss of a captioner that reads the embedding, and the names of what is seen in each cell",
        image_text_quality(contrastive.Miniature(), held_out()),
    )


if __name__ == "__main__":
    main()
