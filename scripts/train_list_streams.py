"""Train the small language models of list streams that retrieval-heads and verbatim-memory use.

``python scripts/train_list_streams.py`` trains, for each of three seeds, transformers of one, two
and four layers and an LSTM on streams with repeated lists (`engramma.probing.list_streams`), and a
transformer of two layers whose second lists were always other ones. Each is measured on new
streams and written where engramma looks for its miniatures. A model takes about half a minute on
one core; ``--only`` trains some of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engramma.memory.language_model import PROBING_WEIGHTS, save_miniature, small_language_model
from engramma.probing.list_streams import (
    CONDITIONS,
    N_TOKENS,
    drill_batch,
    list_pairs,
    training_batch,
)
from engramma.probing.recurrent_model import RecurrentModel
from engramma.probing.training import Batch, train_language_model

SEEDS = 3


@dataclass(frozen=True)
class Recipe:
    """How a model is built, and how many steps of what it is trained for."""

    build: Callable[[int], Any]
    rate: float = 5e-3
    drills: int = 350
    far_drills: int = 0
    streams: int = 450
    warm_up: int = 1
    novel: float = 0.3


def transformer(layers: int, heads: int, dim: int) -> Callable[[int], Any]:
    """Return what builds a Llama of this size from a seed."""
    return lambda seed: small_language_model(N_TOKENS, dim, layers, heads, seed=seed)


RECIPES = {
    "two_layers": Recipe(transformer(2, 4, 48)),
    "one_layer": Recipe(transformer(1, 4, 48)),
    "never_repeated": Recipe(transformer(2, 4, 48), novel=1.0),
    "lstm": Recipe(lambda seed: RecurrentModel(vocabulary=N_TOKENS, seed=seed)),
    # Deeper and with narrower heads, it learns nothing at the higher rate, and loses what it has
    # learned where lists come to lie far apart all at once.
    "four_layers": Recipe(
        transformer(4, 8, 64), rate=2e-3, drills=700, far_drills=400, streams=250, warm_up=50
    ),
}


def train(name: str, seed: int) -> Any:
    """Train one model: on drills, for some on drills with longer gaps, then on streams."""
    recipe = RECIPES[name]
    network = recipe.build(seed)
    never = recipe.novel == 1.0

    def learn(batch: Batch, steps: int, seed: int, **options: Any) -> None:
        if steps:
            train_language_model(
                network,
                batch,
                steps=steps,
                rate=recipe.rate,
                seed=seed,
                description=name,
                **options,
            )

    learn(lambda rng: drill_batch(rng, novel=never), recipe.drills, seed, decay=False)
    learn(
        lambda rng: drill_batch(rng, spare=int(rng.integers(2, 22)), novel=never),
        recipe.far_drills,
        seed + 7,
        decay=False,
        warm_up=recipe.warm_up,
    )
    learn(
        lambda rng: training_batch(rng, 16, novel=recipe.novel),
        recipe.streams,
        seed + 1000,
        warm_up=recipe.warm_up,
    )
    return network


@torch.no_grad()
def repeat_surprisal(network: Any, seed: int = 99) -> list[float]:
    """Surprisal of the second list in per cent of the first, for each condition."""
    found = []
    for condition in CONDITIONS:
        pairs = list_pairs(
            np.random.default_rng(seed), 200, nouns=5, gap=8, length=40, condition=condition
        )
        tokens = torch.from_numpy(pairs.tokens)
        logits = network(input_ids=tokens, use_cache=False).logits[:, :-1].log_softmax(-1)
        values = -logits.gather(2, tokens[:, 1:, None])[..., 0]
        first, second = (
            values.gather(1, torch.from_numpy(places) - 1).mean(1)
            for places in (pairs.first, pairs.second)
        )
        found.append(float((100 * second / first).mean()))
    return found


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(SEEDS)))
    options = parser.parse_args()
    PROBING_WEIGHTS.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.only:
            network = train(name, seed)
            path = PROBING_WEIGHTS / f"list_streams_{name}_{seed}.safetensors"
            if isinstance(network, RecurrentModel):
                network.save(path)
            else:
                save_miniature(path, network)
            percent = zip(CONDITIONS, repeat_surprisal(network), strict=True)
            print(name, seed, ", ".join(f"{c} {p:.0f} %" for c, p in percent), flush=True)


if __name__ == "__main__":
    main()
