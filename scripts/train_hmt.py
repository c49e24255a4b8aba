"""Train the miniatures that the claims of HMT are tried on.

    python scripts/train_hmt.py                  # all kinds and seeds, into the package
    python scripts/train_hmt.py hmt-0 rmt-0      # some of them
    python scripts/train_hmt.py hmt-1000 --work pilots --to pilots/hmt.safetensors

Each model takes a minute or two of one core, and is kept in a work folder, so that a run can be
broken off and several can work side by side. Every kind is trained on the same texts:
first of two segments and without recall, then with it on four and on eight, where an HMT takes
fewer steps than the others. The loss of recall weighs 1 here; the authors have 0.05.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from engramma.memory.miniatures import train_missing
from engramma.memory.stages import fit_stages
from engramma.nn.weights import save_weights
from engramma.systems.sequence.hmt import Batch, stage
from engramma.systems.sequence.hmt_claims import FILE, KINDS, SEEDS, answers, texts, untrained

BATCH = 64
RETRIEVAL_WEIGHT = 1.0
#: Segments, idle ones among them, steps, mode of an HMT, learning rate, its factor each 100 steps.
RECIPE = (
    (2, 0, 100, "rmt", 3e-3, 1.0),
    (4, 0, 300, "hmt", 3e-3, 1.0),
    (8, 1, 300, "hmt", 3e-3, 0.6),
)
#: An HMT is done with eight segments after a hundred steps; the others have all three.
LAST_STEPS_OF_HMT = 100


def batches(segments: int, idle: int, last_only: bool):
    """Make batches of texts of so many segments."""

    def make(rng: np.random.Generator) -> Batch:
        stream = texts(rng, BATCH, segments=segments, idle=idle)
        positives = np.zeros((BATCH, segments), dtype=np.int64)
        positives[:, -1] = stream.segments_back
        tokens, labels = stream.tokens, stream.targets
        if last_only:  # without a memory nothing earlier can matter: two segments save the time
            width = 2 * tokens.shape[1] // segments
            tokens, labels, positives = tokens[:, -width:], labels[:, -width:], positives[:, -2:]
        return Batch(tokens, labels, positives)

    return make


def train(name: str, folder: Path) -> None:
    """Train one model and keep its weights with what it reached."""
    kind, _, seed = name.partition("-")
    model = untrained(kind, int(seed))
    model.retrieval_weight = RETRIEVAL_WEIGHT
    start = time.process_time()
    stages = [
        stage(
            batches(segments, idle, kind == "backbone"),
            LAST_STEPS_OF_HMT if kind == "hmt" and segments == 8 else steps,
            mode=mode,
            learning_rate=rate,
            decay=decay,
        )
        for segments, idle, steps, mode, rate, decay in RECIPE
    ]

    def report(number: int, hundred: int, loss: float) -> None:
        seconds = time.process_time() - start
        print(f"{name} stage {number + 1}.{hundred + 1}: {loss:.3f}, {seconds:.0f} s", flush=True)

    fit_stages(model, stages, seed=int(seed), after=report)
    tensors = {k: v for k, v in model.state_dict().items() if k != "lm.lm_head.weight"}
    # Measured as it will be read: in half precision.
    model.load_state_dict({k: v.half().float() for k, v in tensors.items()}, strict=False)
    stream = texts(np.random.default_rng([int(seed), 77]), 2048)
    right = answers(model, stream)[stream.segments_back >= 3].mean()
    path = folder / f"{name}.safetensors"
    save_weights(path, tensors, accuracy=round(float(right), 4))
    print(f"{name}: {right:.3f}, {time.process_time() - start:.0f} s of one core", flush=True)


def main() -> None:
    """Train what is named and not there yet, then merge."""
    every = [f"{kind}-{seed}" for seed in range(SEEDS) for kind in KINDS]
    train_missing(train, every, FILE, "hmt-work", __doc__)


if __name__ == "__main__":
    main()
