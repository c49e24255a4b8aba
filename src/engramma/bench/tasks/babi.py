"""Questions about short stories, for any sequence layer: a token a sentence, then the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.contracts import Scored, Task
from engramma.registry import add_task
from engramma.worlds.babi import Encoded, Vocabulary, make_babi, parse_babi

#: One fact, two facts, yes or no, counting.
STORIES = (1, 2, 6, 7)
CAST = {"n_sentences": 8, "every": 8, "n_actors": 3, "n_places": 4, "n_objects": 2}
N_TRAIN, N_TEST = 2000, 300
DIM, STEPS, BATCH = 32, 250, 64
#: The most common answer of each kind of question.
CHANCE = 0.43


@dataclass(frozen=True, eq=False)
class Stories:
    """Questions of all kinds to learn from and to be asked, and the seed of the training."""

    vocabulary: Vocabulary
    train: Encoded
    test: Encoded
    seed: int


def prepare(seed: int) -> Stories:
    """Tell new stories."""
    train, test = (
        [
            question
            for task in STORIES
            for question in parse_babi(
                make_babi(task, n, rng=np.random.default_rng([seed, part, task]), **CAST)
            )
        ]
        for part, n in enumerate((N_TRAIN, N_TEST))
    )
    vocabulary = Vocabulary.of(train)
    return Stories(vocabulary, vocabulary.encode(train), vocabulary.encode(test), seed)


def score(system: Any, data: Stories) -> Scored:
    """Fraction correct of a model of two blocks around the layer, trained on the stories."""
    import torch

    from engramma.memory.model import SequenceModel
    from engramma.memory.questions import LastToken, correct, learn
    from engramma.nn.seed import seeded

    vocabulary, seed = data.vocabulary, data.seed
    size, n_answers = vocabulary.width * vocabulary.n_words, vocabulary.n_answers
    with seeded(seed):
        model = LastToken(
            SequenceModel(lambda: system.fresh(dim=DIM), size, n_answers, vectors=True, seed=seed)
        )
    told, answer = words(data.train), torch.from_numpy(data.train.answer)

    def batch(rng: np.random.Generator) -> Any:
        chosen = torch.from_numpy(rng.integers(0, len(answer), BATCH))
        return (one_hot(told[chosen], vocabulary.n_words),), answer[chosen]

    learn(model, batch, steps=STEPS, seed=seed)
    asked = one_hot(words(data.test), vocabulary.n_words)
    right = correct(model, (asked,), torch.from_numpy(data.test.answer))
    curve = dict(
        zip(map(float, STORIES), right.reshape(len(STORIES), -1).mean(axis=1), strict=True)
    )
    return Scored(float(right.mean()), {task: float(share) for task, share in curve.items()})


def words(encoded: Encoded) -> Any:
    """Word numbers of each sentence and then of the question: question x sentence x word."""
    import torch

    return torch.from_numpy(np.concatenate([encoded.story, encoded.question[:, None]], axis=1))


def one_hot(sentences: Any, n_words: int) -> Any:
    """One vector a sentence, with a 1 for the word at each place; nothing where there is none."""
    import torch

    marked = torch.nn.functional.one_hot(sentences, n_words).float()
    marked[..., 0] = 0
    return marked.flatten(-2)


add_task(
    Task(
        name="babi",
        contract="SequenceLayer",
        description="Where is the milk? Questions about stories of eight sentences, read one "
        "after the other.",
        prepare=prepare,
        score=score,
        metric="accuracy (new stories)",
        chance=CHANCE,
        axis="kind of question",
    )
)
