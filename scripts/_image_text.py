"""What the miniature image-text model is taught with: see ``train_mini_image_text.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from _objects import LOOK, Inventory, Things, look_loss
from _scene_corpus import cell_loss, turned
from torch import Tensor, nn
from torch.nn import functional

from engramma.features.contrastive import MiniImageText, ObjectPool
from engramma.generative.captioner import MiniCaptioner
from engramma.nn.hooks import capture
from engramma.worlds.captions import vocabulary
from engramma.worlds.layouts import COLOURS, MOST_OBJECTS, RELATIONS
from engramma.worlds.objects import CATEGORIES

#: Scenes a batch in colours that have a name and in others, and captions with a mistake.
NAMED, STRAYS, MISTAKEN = 112, 48, 80
#: Scenes a batch that the captioner tells, and scenes that are told and not drawn.
TOLD, UNDRAWN = 96, 64
#: Largest angle (tangent) by which embeddings are turned away before they are told.
BLUR = 0.2
#: Transformer blocks of the text tower that is shipped.
TEXT_DEPTH = 4


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
        """Losses of retrieval, captions and cells; rows of texts as `Lessons.texts` lays them."""
        with capture(self.towers.image, ["stage2"], detach=False) as form:
            tokens = self.towers.image(pictures)
        images = self.towers.project_tokens(tokens)
        words = self.towers.project_texts(texts)
        told = told_loss(self.teller, images, words, texts)
        early = self.early(form["stage2"].flatten(2).transpose(1, 2))
        late, hues = self.late(tokens[:, 1:]).split([len(CATEGORIES) + 1, len(COLOURS) + 1], dim=2)
        # Where colours are seen, categories are learnt of strays only, whose colours tell nothing.
        cells = (
            cell_loss(early, categories)
            + cell_loss(late[NAMED:], categories[NAMED:])
            + cell_loss(hues, colours)
        )
        return retrieval_loss(self.towers.log_scale, images, words) + 2 * told + cells


class Pooled(nn.Module):
    """The shipped model, of a tower that is trained, and what its embedding is taught with."""

    def __init__(self, taught: Taught) -> None:
        super().__init__()
        settings = taught.towers.settings | {"objects": MOST_OBJECTS, "text_depth": TEXT_DEPTH}
        self.towers = MiniImageText(**settings)
        self.towers.image.load_state_dict(taught.towers.image.state_dict())
        # As it will be read from the file, since the rest is fitted to it.
        self.towers.image.half().float().requires_grad_(False)
        self.teller = taught.teller
        self.inventory = Inventory(settings["dim"])

    def loss(self, tokens: Tensor, texts: Tensor, there: Things) -> Tensor:
        """Losses of retrieval, captions, inventory and looks; rows of texts as for `Taught`."""
        with looking(self.towers.pool) as looks:
            images = self.towers.project_tokens(tokens)
        words = self.towers.project_texts(texts)
        told = told_loss(self.teller, images, words, texts)
        both = torch.cat([images, words[: len(images)]])
        return (
            retrieval_loss(self.towers.log_scale, images, words)
            + 2 * told
            + 2 * self.inventory.loss(turned(both, BLUR), there + there)
            + LOOK * looks(there.looks)
        )


class Worded(nn.Module):
    """The shipped model, whose image embedding is trained, and what its text tower is taught with.

    The inventory stays as it is, so that texts come to lie where images say the same.
    """

    def __init__(self, pooled: Pooled) -> None:
        super().__init__()
        settings = pooled.towers.settings | {"mentions": MOST_OBJECTS}
        self.towers = MiniImageText(**settings)
        self.towers.load_state_dict(pooled.towers.state_dict(), strict=False)
        self.towers.pool.half().float()  # as it will be read from the file
        for fixed in (self.towers.image, self.towers.pool, pooled.inventory):
            fixed.requires_grad_(False)
        self.inventory = pooled.inventory
        self.roles = nn.Linear(settings["width"], 2 * len(RELATIONS))

    def loss(
        self, images: Tensor, texts: Tensor, there: Things, words_of_each: Tensor, roles: Tensor
    ) -> Tensor:
        """Losses of retrieval, inventory, looks and roles, of images and their captions.

        Captions with a mistake follow, and those of scenes that are not drawn. Objects are of all
        captions without a mistake; the words that tell of each, of all.
        """
        with (
            looking(self.towers.text_pool) as looks,
            capture(self.towers.text, ["norm"], detach=False) as read,
        ):
            words = self.towers.project_texts(texts)
        told = self.roles(read["norm"][:, 1:]).float()
        n = len(images)
        right = torch.cat([words[:n], words[n + MISTAKEN :]])
        return (
            retrieval_loss(self.towers.log_scale, images, words)
            + 2 * self.inventory.loss(turned(right, BLUR), there)
            + LOOK * looks(words_of_each)
            + functional.cross_entropy(told.flatten(0, 1), roles.flatten(), ignore_index=-1)
        )


@contextmanager
def looking(pool: ObjectPool) -> Iterator[Callable[[Tensor], Tensor]]:
    """Return the loss of where the queries look while this runs, given where they should.

    From the second block on, whose queries know of each other.
    """
    blocks = [f"blocks.{i}" for i in range(1, len(pool.blocks))]
    names = [f"{block}.{part}" for block in blocks for part in ("query", "key_value")]
    with capture(pool, names, detach=False) as found:

        def loss(wanted: Tensor) -> Tensor:
            losses = [
                look_loss(
                    found[f"{block}.query"],
                    found[f"{block}.key_value"].chunk(2, dim=2)[0],
                    pool.blocks[0].heads,
                    wanted[:, None],
                )
                for block in blocks
            ]
            return torch.stack(losses).sum()

        yield loss


def retrieval_loss(log_scale: Tensor, images: Tensor, words: Tensor) -> Tensor:
    """Loss of finding captions and images; those with a mistake follow the right ones."""
    n = len(images)
    likeness = log_scale.exp().clamp(max=100) * images @ words[: n + MISTAKEN].T
    own = torch.arange(n)
    to_text = functional.cross_entropy(likeness, own)
    to_image = functional.cross_entropy(likeness[:, :n].T, own)
    # The mistaken caption of the same image, once more, and by itself.
    some = own[:MISTAKEN]
    pairs = functional.softplus(likeness[some, some + n] - likeness[some, some]).mean()
    return 0.5 * (to_text + to_image) + 0.5 * pairs


def told_loss(teller: MiniCaptioner, images: Tensor, words: Tensor, texts: Tensor) -> Tensor:
    """Loss of captions of some images and of scenes that are not drawn."""
    n = len(images)
    # Strays come last: of what is told, a third is of them.
    shown, undrawn = slice(n - TOLD, n), slice(n + MISTAKEN, None)
    wishes = torch.cat([images[shown], words[undrawn]])
    return teller.loss(turned(wishes, BLUR), torch.cat([texts[shown], texts[undrawn]]))
