"""Train PMI as published: on stories of the bAbI tasks, or on images of sort-of-CLEVR.

``python scripts/train_pmi.py babi --folder en-valid-10k --tasks 1 2 3`` reads published files
(``qaN_train.txt`` ...); without ``--folder`` stories are generated. ``python scripts/train_pmi.py
sort-of-clevr --train train.npz --test test.npz`` reads files made by
`engramma.worlds.sort_of_clevr.write_sort_of_clevr`; without them 9800 and 200 images are rendered.
Adam at 1e-4, batches of 64, 64 epochs for stories (gradients clipped at 5) and 200 for images. At
the published size that takes a day on one core, and hours on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.memory.questions import StoryReader, Viewer, correct
from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.systems.sequence.pmi import PMI
from engramma.worlds.babi import (
    LAST_SENTENCES,
    LAST_SENTENCES_LONG,
    Vocabulary,
    find_babi,
    make_babi,
    parse_babi,
    read_babi,
)
from engramma.worlds.sort_of_clevr import KINDS, make_sort_of_clevr, read_sort_of_clevr

#: What a model takes, one row a question, and the right answers.
Asked = tuple[tuple[Tensor, ...], Tensor]


def stories(options: argparse.Namespace, split: str, part: int) -> list:
    """Questions of all chosen tasks."""
    found = []
    for task in options.tasks:
        if options.folder:
            found += read_babi(find_babi(options.folder, task)[split])
        else:
            rng = np.random.default_rng([options.seed, part, task])
            found += parse_babi(
                make_babi(task, options.stories if split == "train" else 200, rng=rng)
            )
    return found


def babi(options: argparse.Namespace) -> tuple[nn.Module, Asked, dict[str, Asked]]:
    """Model and data for stories."""
    taught, asked = (stories(options, split, part) for part, split in enumerate(("train", "test")))
    vocabulary = Vocabulary.of(taught + asked)
    long = len(options.tasks) > 1 or options.tasks == [3]
    model = StoryReader(layer(options), vocabulary.n_words, vocabulary.width, vocabulary.n_answers)

    def tensors(questions: list) -> Asked:
        encoded = vocabulary.encode(
            questions, sentences=LAST_SENTENCES_LONG if long else LAST_SENTENCES
        )
        story, question = torch.from_numpy(encoded.story), torch.from_numpy(encoded.question)
        return (story, question), torch.from_numpy(encoded.answer)

    return model, tensors(taught), {"all tasks": tensors(asked)}


def sort_of_clevr(options: argparse.Namespace) -> tuple[nn.Module, Asked, dict[str, Asked]]:
    """Model and data for images."""
    rng = np.random.default_rng(options.seed)
    taught, asked = (
        read_sort_of_clevr(file) if file else make_sort_of_clevr(n, rng=rng)
        for file, n in ((options.train, options.images), (options.test, 200))
    )

    def tensors(data, kinds: tuple[str, ...]) -> Asked:
        patches = torch.from_numpy(data.patches())
        parts = [torch.from_numpy(data.questions[kind]) for kind in kinds]
        answers = [torch.from_numpy(data.answers[kind]) for kind in kinds]
        question = torch.cat(parts, dim=1)
        # One row a question; rows of one image share its memory until a batch is made of them.
        image = torch.arange(len(data)).repeat_interleave(question.shape[1])
        return (Rows(patches, image), question.flatten(0, 1)), torch.cat(answers, 1).flatten()

    model = Viewer(layer(options), taught.patches().shape[-1])
    return model, tensors(taught, KINDS), {kind: tensors(asked, (kind,)) for kind in KINDS}


class Rows:
    """Rows of a tensor, repeated, but only when they are taken."""

    def __init__(self, table: Tensor, index: Tensor) -> None:
        self.table, self.index = table, index

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """Take rows."""
        return self.table[self.index[chosen]]

    def split(self, size: int) -> Iterator[Tensor]:
        """Take all rows, so many at once."""
        return (self.table[index] for index in self.index.split(size))


def layer(options: argparse.Namespace) -> PMI:
    """Build the published layer."""
    return PMI.published(options.size, dim=options.dim, merge=options.merge, norm=options.norm)


def main() -> None:
    """Train, tell the accuracy on what is held out, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("babi", "sort-of-clevr"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 3, 6, 7, 8])
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--stories", type=int, default=2000)
    parser.add_argument("--images", type=int, default=9800)
    parser.add_argument("--size", choices=("small", "medium", "large"), default="small")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--merge", choices=("code", "outer", "frozen"), default="code")
    parser.add_argument("--norm", choices=("pre", "post"), default="pre")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=Path("pmi.safetensors"))
    options = parser.parse_args()
    with seeded(options.seed):
        model, (inputs, answers), tests = (
            babi(options) if options.what == "babi" else sort_of_clevr(options)
        )

        def batches(epoch: int) -> Iterator[Asked]:
            order = np.random.default_rng([options.seed, epoch]).permutation(len(answers))
            for chosen in torch.from_numpy(order).split(64):
                yield tuple(x[chosen] for x in inputs), answers[chosen]

        def tell(epoch: int, loss: float) -> None:
            shares = {name: correct(model, *asked).mean() for name, asked in tests.items()}
            model.train()
            told = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
            print(f"epoch {epoch + 1}: loss {loss:.3f}; {told}", flush=True)

        train(
            model,
            lambda model, batch: F.cross_entropy(model(*batch[0]), batch[1]),
            batches,
            epochs=options.epochs or (64 if options.what == "babi" else 200),
            optimizer=torch.optim.Adam(model.parameters(), lr=options.rate),
            clip=5.0,
            checkpoint=options.to.with_suffix(".checkpoint"),
            after_epoch=tell,
        )
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, options.to)


if __name__ == "__main__":
    main()
