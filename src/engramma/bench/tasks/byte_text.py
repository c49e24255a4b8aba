"""Byte-level language modelling of local text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from engramma.bench.score_sequence import TokenTask, score_layer
from engramma.contracts import Task
from engramma.errors import DataError
from engramma.registry import add_task
from engramma.worlds.streams import TokenStream

STEPS = 600
CONTEXT, BATCH = 128, 16
#: Tokens of test sequences; the last `CONTEXT` of each are scored.
TESTED = (128, 256, 512)


def prepare(
    seed: int, *, text: str | None = None, steps: int = STEPS, equal: str = "width"
) -> TokenTask:
    """Train on the first nine tenths of a text, test on the last.

    Parameters
    ----------
    seed : int
    text : path, optional
        Any text file. By default the language reference that comes with Python.
    steps : int
    equal : {"width", "parameters", "state"}
    """
    data = read_bytes(text)
    cut = len(data) * 9 // 10
    frequency = np.bincount(data[:cut], minlength=256) + 1.0
    frequency /= frequency.sum()

    def saved(model: nn.Module, batches: Sequence[TokenStream]) -> float:
        return bits_saved(model, batches, frequency)

    rng = np.random.default_rng([seed, 1])
    # All lengths are scored on the same last bytes, which differ in how much stands before them.
    end = rng.integers(cut + max(TESTED) + 1, len(data), size=32)
    return TokenTask(
        train=lambda rng: excerpts(data[:cut], rng.integers(CONTEXT + 1, cut, size=BATCH), CONTEXT),
        tests={n: [excerpts(data, end, n, scored=CONTEXT // 2)] for n in TESTED},
        steps=steps,
        seed=seed,
        equal=equal,
        measure=saved,
    )


def read_bytes(path: str | None) -> np.ndarray:
    """Read a text as numbers from 0 to 255.

    Raises
    ------
    DataError
        If it cannot be read, or is too short to split.
    """
    if path is None:
        from pydoc_data.topics import topics

        data = "\n".join(topics[name] for name in sorted(topics)).encode()
    else:
        try:
            data = Path(path).expanduser().read_bytes()
        except OSError as error:
            raise DataError(
                f"the text cannot be read ({error.strerror})",
                where=str(path),
                mend="check the path",
            ) from error
    needed = 20 * max(TESTED)
    if len(data) < needed:
        raise DataError(
            f"the text has {len(data)} bytes, and at least {needed} are needed",
            where=str(path),
            mend="choose a longer one",
        )
    return np.frombuffer(data, dtype=np.uint8).astype(np.int64)


def excerpts(
    data: np.ndarray, end: np.ndarray, length: int, scored: int | None = None
) -> TokenStream:
    """Stretches of text up to each ``end``, whose last ``scored`` bytes are to be predicted."""
    index = end[:, None] + np.arange(-length - 1, 0)
    text = data[index]
    tokens, targets = text[:, :-1], text[:, 1:].copy()
    if scored is not None:
        targets[:, : length - scored] = -100
    distance = np.where(targets >= 0, 1, -1)
    return TokenStream(tokens, targets, distance, 256, (0, 256))


@torch.no_grad()
def bits_saved(model: nn.Module, batches: Sequence[TokenStream], frequency: np.ndarray) -> float:
    """Bits a byte that the model saves over knowing how frequent each byte is in training."""
    saved = []
    for batch in batches:
        logits, _ = model(torch.as_tensor(batch.tokens))
        targets = torch.as_tensor(batch.targets)
        asked = targets >= 0
        nats = F.cross_entropy(logits[asked], targets[asked])
        prior = -np.log2(frequency[batch.targets[batch.targets >= 0]]).mean()
        saved.append(float(prior) - float(nats) / np.log(2))
    return float(np.mean(saved))


add_task(
    Task(
        name="bytes",
        contract="SequenceLayer",
        description="What is the next byte of a text? (-o text=FILE; by default Python's language "
        "reference)",
        prepare=prepare,
        score=score_layer,
        metric="bits a byte saved over byte frequencies",
        chance=0.0,
        axis="tokens of context",
    )
)
