"""Facts as (subject, relation, object), asked for in several ways.

Eleven relations with facts that most readers know come with engramma, in the JSON format of the LRE
set (Hernandez et al. 2024, "Linearity of relation decoding in transformer language models"): one
file a relation. Files of that set are read by the same function. For small models there is a
generator of facts between token numbers.

What is looked for with some subjects must be tested with others: `FactPrompts.split` divides
subjects, over all relations at once, and `check_disjoint` refuses what shares one. The same holds
of wordings: `FactPrompts.split_templates`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError, DataWarning, LeakageError
from engramma.probing.model import LanguageModel, pad

#: Where the relations that come with engramma lie.
FOLDER = Path(__file__).parent / "relations"


@dataclass(frozen=True)
class Relation:
    """One relation with its facts.

    Parameters
    ----------
    name : str
    templates : tuple of str
        Texts with ``{}`` for the subject, which the object continues.
    facts : tuple of (str, str)
        Subject and object.
    kind : str
        Such as ``"factual"`` or ``"linguistic"``.
    """

    name: str
    templates: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    kind: str = ""


def read_relation(path: str | Path) -> Relation:
    """Read a relation in the JSON format of the LRE set.

    Zero-shot templates (``prompt_templates_zs``) are used where the file has any, else
    ``prompt_templates``.

    Raises
    ------
    DataError
        If the file is not of that format.
    """
    path = Path(path)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        templates = tuple(table.get("prompt_templates_zs") or table["prompt_templates"])
        facts = tuple((str(s["subject"]), str(s["object"])) for s in table["samples"])
        name = str(table["name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"this is no relation of the LRE format ({type(error).__name__}: {error})",
            where=str(path),
            mend="give JSON with name, prompt_templates and samples of subject and object",
        ) from error
    if not facts or not templates or any(t.count("{}") != 1 for t in templates):
        raise DataError(
            "a relation needs facts, and templates with one {} each",
            where=str(path),
            mend="put {} where the subject stands",
        )
    kind = str((table.get("properties") or {}).get("relation_type", ""))
    return Relation(name, templates, facts, kind)


def relations(names: Iterable[str] | None = None) -> list[Relation]:
    """Relations that come with engramma; all by default.

    Raises
    ------
    ConfigError
        If there is none of a name.
    """
    found = {r.name: r for r in map(read_relation, sorted(FOLDER.glob("*.json")))}
    wanted = list(found) if names is None else list(names)
    for name in wanted:
        if name not in found:
            raise ConfigError(
                f"there is no relation {name!r}", mend=f"use some of {', '.join(found)}"
            )
    return [found[name] for name in wanted]


@dataclass(frozen=True)
class FactPrompts:
    """Prompts, each of which asks for one fact.

    Parameters
    ----------
    tokens : Tensor of int64, shape (prompt, token)
        Padded on the right.
    last : Tensor of int64, shape (prompt,)
        Position of each one's last token.
    answers : Tensor of int64, shape (prompt,)
        First token of the object.
    relation : ndarray of int, shape (prompt,)
        Index into ``names``.
    subject : ndarray, shape (prompt,)
    template : ndarray of int, shape (prompt,)
    names : tuple of str
        Of the relations.
    """

    tokens: Tensor
    last: Tensor
    answers: Tensor
    relation: np.ndarray
    subject: np.ndarray
    template: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def pick(self, rows: np.ndarray) -> FactPrompts:
        """Return some of the prompts, by mask or index."""
        index = torch.as_tensor(np.flatnonzero(rows) if rows.dtype == bool else rows)
        return replace(
            self,
            tokens=self.tokens[index],
            last=self.last[index],
            answers=self.answers[index],
            relation=self.relation[rows],
            subject=self.subject[rows],
            template=self.template[rows],
        )

    def counts(self) -> np.ndarray:
        """Prompts of each relation."""
        return np.bincount(self.relation, minlength=len(self.names))

    def split(self, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Divide subjects into two sets: masks of the prompts of the first and of the second.

        Subjects are drawn relation by relation, so that each has about this share in the first set;
        a subject of several relations is on the same side in all of them.

        Parameters
        ----------
        share : float
            Of each relation's subjects that go to the first set.
        rng : numpy.random.Generator

        Raises
        ------
        ConfigError
            If the share is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise ConfigError(f"a share of {share} leaves one set empty", where="share")
        side: dict[object, bool] = {}
        for index in range(len(self.names)):
            subjects = np.unique(self.subject[self.relation == index])
            new = [s for s in subjects.tolist() if s not in side]
            missing = round(share * len(subjects)) - sum(side.get(s, False) for s in subjects)
            for place, number in enumerate(rng.permutation(len(new))):
                side[new[number]] = place < missing
        first = np.array([side[s] for s in self.subject.tolist()], dtype=bool)
        return first, ~first

    def split_templates(self, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Divide templates: masks of the prompts to find neurons with and to test them with.

        Each relation is tested in the template in which most of its prompts are known, so that what
        knows a wording is not taken for what knows the relation. Where a relation has one template
        (of which `fact_prompts` warns), that one serves for both.

        Parameters
        ----------
        known : ndarray of bool, shape (prompt,)
        """
        shape = len(self.names), int(self.template.max()) + 1
        counts, asked = np.zeros(shape, int), np.zeros(shape, int)
        np.add.at(counts, (self.relation[known], self.template[known]), 1)
        np.add.at(asked, (self.relation, self.template), 1)
        tested = self.template == counts.argmax(axis=1)[self.relation]
        alone = ((asked > 0).sum(axis=1) == 1)[self.relation]
        return ~tested | alone, tested | alone

    def balanced(self, rng: np.random.Generator) -> np.ndarray:
        """Draw as many prompts of each relation at random, and return their indices.

        Average precision depends on the share of positives: only with equal numbers can it be
        compared between relations.

        Raises
        ------
        DataError
            If a relation has no prompt.
        """
        counts = self.counts()
        if counts.min() == 0:
            raise DataError(
                f"{self.names[int(counts.argmin())]!r} has no prompt left",
                where="balanced",
                mend="leave the relation out",
            )
        rows = [
            rng.permutation(np.flatnonzero(self.relation == i))[: counts.min()]
            for i in range(len(counts))
        ]
        return np.sort(np.concatenate(rows))

    def of_relations(self, kept: Sequence[int]) -> FactPrompts:
        """Prompts of some relations, which are numbered anew."""
        new = {old: number for number, old in enumerate(kept)}
        part = self.pick(np.isin(self.relation, list(kept)))
        relation = np.array([new[r] for r in part.relation.tolist()], dtype=int)
        return replace(part, relation=relation, names=tuple(self.names[i] for i in kept))


def check_disjoint(identification: FactPrompts, evaluation: FactPrompts) -> None:
    """Refuse sets of prompts that share a subject.

    Raises
    ------
    LeakageError
        Naming some of the shared subjects.
    """
    shared = sorted({*identification.subject.tolist()} & {*evaluation.subject.tolist()}, key=str)
    if shared:
        raise LeakageError(
            f"{len(shared)} subjects stand in identification and evaluation",
            where=", ".join(map(str, shared[:3])),
            mend="divide subjects with FactPrompts.split",
        )


def fact_prompts(
    model: LanguageModel, chosen: Sequence[Relation], templates: int | None = None
) -> FactPrompts:
    """Ask for each fact of some relations in each way.

    An object of several tokens is known by its first, taken as it follows the prompt.

    Parameters
    ----------
    model : LanguageModel
        With a tokenizer.
    chosen : sequence of Relation
    templates : int, optional
        Use so many of each relation's templates; all by default.

    Warns
    -----
    DataWarning
        If a relation has one template: its neurons may be those of the template.
    """
    rows: list[list[int]] = []
    answers, relation, subject, template = [], [], [], []
    for index, item in enumerate(chosen):
        if len(item.templates[:templates]) == 1:
            warnings.warn(
                f"{item.name!r} has one template: what is found may belong to the template, and "
                "not to the relation",
                DataWarning,
                stacklevel=2,
            )
        for number, text in enumerate(item.templates[:templates]):
            for name, value in item.facts:
                prompt = text.replace("{}", name)
                prompt = prompt[0].upper() + prompt[1:]
                tokens = model.token_ids(prompt)
                rows.append(tokens)
                answers.append(continuation(model, prompt, tokens, value))
                relation.append(index)
                subject.append(name)
                template.append(number)
    padded, last = pad(rows)
    return FactPrompts(
        padded,
        last,
        torch.tensor(answers),
        np.array(relation),
        np.array(subject),
        np.array(template),
        tuple(r.name for r in chosen),
    )


def continuation(model: LanguageModel, prompt: str, tokens: list[int], word: str) -> int:
    """First token of a word that follows a prompt, after a space."""
    whole = model.token_ids(f"{prompt} {word}")
    if whole[: len(tokens)] == tokens and len(whole) > len(tokens):
        return whole[len(tokens)]
    # Tokenizers that add a token at the end, or merge across the border.
    return model.token_ids(f" {word}", special=False)[0]


@dataclass(frozen=True)
class TokenFacts:
    """Facts between token numbers, in a world that is drawn from a seed.

    Each of ``relations`` has its own pool of ``objects``, or all share one; each subject has one
    object in each relation. A prompt is the subject and three words that stand for the relation in
    one of several paraphrases. All words come from one pool, so that no single word tells the
    relation.

    Parameters
    ----------
    seed : int
    relations, subjects, objects, paraphrases, words : int
    shared_objects : bool
        Whether all relations have the same objects.
    """

    seed: int = 0
    relations: int = 8
    subjects: int = 120
    objects: int = 16
    paraphrases: int = 3
    words: int = 24
    shared_objects: bool = False

    @property
    def vocabulary(self) -> int:
        """Number of tokens: subjects, then words, then objects."""
        pools = 1 if self.shared_objects else self.relations
        return self.subjects + self.words + pools * self.objects

    @cached_property
    def prompts(self) -> FactPrompts:
        """All facts in all paraphrases: relations x paraphrases x subjects prompts of 4 tokens.

        Raises
        ------
        ConfigError
            If there are too few words for distinct paraphrases.
        """
        rng = np.random.default_rng([self.seed, 1])
        n_texts = self.relations * self.paraphrases
        texts: list[tuple[int, ...]] = []
        if self.words**3 < 2 * n_texts:
            raise ConfigError(f"{self.words} words are too few for {n_texts} paraphrases")
        while len(texts) < n_texts:
            text = tuple(rng.integers(self.words, size=3).tolist())
            if text not in texts:
                texts.append(text)
        objects = rng.integers(self.objects, size=(self.relations, self.subjects))
        if not self.shared_objects:
            objects += self.objects * np.arange(self.relations)[:, None]
        shape = (self.relations, self.paraphrases, self.subjects)
        relation, template, subject = (x.ravel() for x in np.indices(shape))
        words = np.array(texts).reshape(self.relations, self.paraphrases, 3)[relation, template]
        tokens = np.column_stack([subject, self.subjects + words])
        answers = self.subjects + self.words + objects[relation, subject]
        return FactPrompts(
            torch.as_tensor(tokens),
            torch.full((len(tokens),), 3),
            torch.as_tensor(answers),
            relation,
            subject,
            template,
            tuple(f"relation {i}" for i in range(self.relations)),
        )

    def batch(self, rng: np.random.Generator, size: int = 256) -> tuple[Tensor, Tensor]:
        """Random facts with their objects, and the weights of the loss: the object only."""
        prompts = self.prompts
        rows = torch.as_tensor(rng.integers(len(prompts), size=size))
        tokens = torch.cat([prompts.tokens[rows], prompts.answers[rows, None]], dim=1)
        weights = torch.zeros(tokens.shape)
        weights[:, -1] = 1.0
        return tokens, weights
