"""Stories of thousands of sentences, coherent because a simulated world is told.

`stories` lets people go about, take, give, hide, find, break, mend, buy and eat things, meet and
talk (`engramma.worlds.story_world`), scene by scene, and writes what happens in varied wordings
(`engramma.worlds.story_telling`). The events are the truth: state, questions and answers follow
from them (`engramma.worlds.story_questions`).

What a story tells is drawn anew for every seed. What is true of people without being told (job,
town, instrument) hangs on their names and ``knowledge_seed`` alone, so that a language model can
have learned it elsewhere, from `knowledge_sentences`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.story_author import Author, Story
from engramma.worlds.story_words import (
    COLOURS,
    KNOWLEDGE,
    KNOWLEDGE_SENTENCES,
    NAMES,
    PLACES,
    THINGS,
)
from engramma.worlds.story_world import StoryWorld


def knowledge(seed: int = 0) -> pd.DataFrame:
    """Draw what is true of all people that stories may be about, and is never told.

    Parameters
    ----------
    seed : int

    Returns
    -------
    DataFrame
        By name: ``job``, ``town``, ``instrument``; each value is about as frequent as any other,
        and attributes are independent of each other.
    """
    rng = np.random.default_rng([seed, 4711])
    columns = {}
    for attribute, values in KNOWLEDGE.items():
        repeated = np.resize(np.array(values), len(NAMES))
        columns[attribute] = rng.permutation(repeated)
    return pd.DataFrame(columns, index=pd.Index(NAMES, name="person"))


def knowledge_sentences(seed: int = 0) -> pd.DataFrame:
    """Plain sentences that tell the `knowledge`, every fact in each of its wordings.

    Returns
    -------
    DataFrame
        ``text``, ``person``, ``attribute``, ``value``, ``wording``.
    """
    rows = [
        {"text": wording.format(p=person, v=value), "person": person, "attribute": attribute,
         "value": value, "wording": number}
        for person, row in knowledge(seed).iterrows()
        for attribute, value in row.items()
        for number, wording in enumerate(KNOWLEDGE_SENTENCES[str(attribute)])
    ]  # fmt: skip
    return pd.DataFrame(rows)


@world("stories")
def stories(
    seed: int = 0,
    *,
    n_sentences: int = 1000,
    n_people: int = 6,
    n_things: int = 16,
    n_places: int = 8,
    contradiction_rate: float = 0.1,
    update_rate: float = 0.3,
    look_alike_rate: float = 0.2,
    distractor_rate: float = 0.08,
    recap_rate: float = 0.06,
    knowledge_seed: int = 0,
) -> Story:
    """Tell a story.

    Parameters
    ----------
    seed : int
        Of cast and events.
    n_sentences : int
    n_people, n_things, n_places : int
        Drawn from the words of `engramma.worlds.story_words`.
    contradiction_rate : float
        Share of what people say of where things are that is false. What is narrated is true.
    update_rate : float
        How often somebody who tells a fact (a favourite colour ...) changes one told before,
        rather than telling another.
    look_alike_rate : float
        How often an event is chosen, where possible, to differ in one argument only from an
        earlier one. At 0 some happen by chance; ``events["look_alike"]`` has them all.
    distractor_rate : float
        Share of sentences that name people, things or places and change nothing.
    recap_rate : float
        Share of sentences that say again where something is, or who has it.
    knowledge_seed : int

    Raises
    ------
    ConfigError
        If the cast is too small or too large, a rate is none, or the story outlasts the calendar.
    """
    casts = {
        "n_people": (n_people, 2, len(NAMES)),
        "n_things": (n_things, 1, len(COLOURS) * len(THINGS)),
        "n_places": (n_places, 2, len(PLACES)),
    }
    for name, (value, low, high) in casts.items():
        if not low <= value <= high:
            raise ConfigError(f"it lies between {low} and {high}, not at {value}", where=name)
    rates = {
        "contradiction_rate": contradiction_rate, "update_rate": update_rate,
        "look_alike_rate": look_alike_rate, "distractor_rate": distractor_rate,
        "recap_rate": recap_rate,
    }  # fmt: skip
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ConfigError(f"a rate lies between 0 and 1, not at {rate}", where=name)
    if n_sentences < 1:
        raise ConfigError(f"a story has sentences, not {n_sentences}", where="n_sentences")
    if distractor_rate + recap_rate > 0.9:
        raise ConfigError(
            "distractors and recaps leave no room for events", where="distractor_rate, recap_rate",
            mend="let them sum to 0.9 at most",
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    every = [f"{colour} {kind}" for colour in COLOURS for kind in THINGS]
    cast = StoryWorld(
        people=[NAMES[i] for i in rng.permutation(len(NAMES))[:n_people]],
        things=[every[i] for i in rng.permutation(len(every))[:n_things]],
        places=[PLACES[0], *(PLACES[1 + i] for i in rng.permutation(len(PLACES) - 1))][:n_places],
        rng=rng,
        contradiction_rate=contradiction_rate,
        update_rate=update_rate,
    )
    return Author(cast, rng, look_alike_rate, distractor_rate, recap_rate).write(
        n_sentences, knowledge(knowledge_seed)
    )
