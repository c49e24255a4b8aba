"""Arithmetic as text, in formats that describe where a digit stands more or less well.

After Shen, Bubeck, Eldan, Lee, Li & Zhang 2023 (arXiv:2311.14737).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from engramma.errors import ConfigError, DataError

Operation = Literal["+", "*"]
END = "\n"
#: Phrases around a sum; the last ones are for tests only.
TEMPLATES = (
    "Ann: what is {a}+{b}? Bob: {c}",
    "A has {a}, B has {b}, both have {c}",
    "add {a} and {b}, you get {c}",
    "he paid {a} and then {b}, that is {c}",
)
UNSEEN_TEMPLATES = ("Cy: tell me {a}+{b}. Di: {c}", "put {b} on top of {a}, it makes {c}")


@dataclass(frozen=True)
class Format:
    """How a problem and its answer are written.

    ``12*34=408`` in the plain format; padded to 2 and 2 digits, with the answer's last digit first,
    ``12*34=8040``.

    Parameters
    ----------
    operation : {"+", "*"}
    digits : (int, int)
        Largest number of digits of the two numbers.
    padded : bool
        Whether numbers are filled up with zeros to these lengths, and the answer to the longest
        that is possible.
    reversed_answer, reversed_numbers : bool
        Whether the last digit comes first.
    space : float
        Probability of a space after each character of the question and of a scratchpad.
    scratchpad : bool
        Additions only: the answer is worked out digit by digit. Each step restates the digits that
        are left, the carry, and the sum so far: ``58+67=5+6,1,5;+,1,25;=125``.

    Raises
    ------
    ConfigError
        If there is no such format.
    """

    operation: Operation = "*"
    digits: tuple[int, int] = (1, 4)
    padded: bool = False
    reversed_answer: bool = False
    reversed_numbers: bool = False
    space: float = 0.0
    scratchpad: bool = False

    def __post_init__(self) -> None:
        if self.operation not in ("+", "*") or min(self.digits) < 1 or max(self.digits) > 9:
            raise ConfigError(
                f"there is no format of {self.operation!r} with {self.digits} digits",
                mend="use + or *, and 1 to 9 digits",
            )
        if not 0 <= self.space < 1 or (self.scratchpad and self.operation == "*"):
            raise ConfigError(
                "spaces come with a probability from 0 to below 1, and only sums have a scratchpad",
                where="Format",
            )

    @property
    def answer_digits(self) -> int:
        """Digits of the largest answer."""
        return sum(self.digits) if self.operation == "*" else max(self.digits) + 1

    def to_json(self) -> str:
        """Describe the format as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Format:
        """Read a description.

        Raises
        ------
        DataError
            If it is none.
        """
        try:
            fields = json.loads(text)
            return cls(**{**fields, "digits": tuple(fields["digits"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"this describes no format ({error!r})", mend="write it with Format.to_json"
            ) from error

    def result(self, a: int, b: int) -> int:
        """Sum or product."""
        return a + b if self.operation == "+" else a * b

    def question(self, a: int, b: int, rng: np.random.Generator | None = None) -> str:
        """Text up to and with the sign "="; spaces are put in if ``rng`` is given.

        Raises
        ------
        DataError
            If a number is negative or longer than the format allows.
        """
        numbers = []
        for number, digits in zip((a, b), self.digits, strict=True):
            if number < 0 or number >= 10**digits:
                raise DataError(
                    f"{number} is no number of at most {digits} digits",
                    where=f"{a}{self.operation}{b}",
                    mend="use a format with more digits; negative numbers have no format",
                )
            numbers.append(self._written(number, digits, self.reversed_numbers))
        return self._spaced(f"{numbers[0]}{self.operation}{numbers[1]}=", rng)

    def answer(self, a: int, b: int, rng: np.random.Generator | None = None) -> str:
        """Text after the question: the scratchpad, if there is one, and the answer."""
        found = self._written(self.result(a, b), self.answer_digits, self.reversed_answer)
        if not self.scratchpad:
            return found
        return self._spaced(scratchpad(a, b) + "=", rng) + found

    def read(self, text: str) -> tuple[int, int, int]:
        """Read numbers and answer from a line of text, right or wrong.

        Raises
        ------
        DataError
            If it is no text of this format.
        """
        parts = text.replace(" ", "").split("=")
        numbers = parts[0].split(self.operation)
        if len(parts) != 2 + self.scratchpad or len(numbers) != 2:
            raise self._malformed(text)
        flags = [self.reversed_numbers] * 2 + [self.reversed_answer]
        sizes = [*self.digits, self.answer_digits]
        a, b, c = (
            self._number(part, size, backwards)
            for part, size, backwards in zip([*numbers, parts[-1]], sizes, flags, strict=True)
        )
        return a, b, c

    def _number(self, text: str, digits: int, backwards: bool) -> int:
        plain = text[::-1] if backwards else text
        fits = len(text) == digits if self.padded else len(text) <= digits
        leading = len(plain) > 1 and plain.startswith("0") and not self.padded
        if not re.fullmatch("[0-9]+", text) or not fits or leading:
            raise self._malformed(text)
        return int(plain)

    def _malformed(self, text: str) -> DataError:
        return DataError(
            "this is no arithmetic in this format", where=repr(text), mend=self.to_json()
        )

    def _written(self, number: int, digits: int, backwards: bool) -> str:
        text = str(number).zfill(digits) if self.padded else str(number)
        return text[::-1] if backwards else text

    def _spaced(self, text: str, rng: np.random.Generator | None) -> str:
        if rng is None or not self.space:
            return text
        gaps = rng.random(len(text)) < self.space
        return "".join(c + " " if gap else c for c, gap in zip(text, gaps, strict=True))


def scratchpad(a: int, b: int) -> str:
    """Work a sum out: after each digit what is left of both, the carry, and the sum so far."""
    left, right, carry, partial, steps = str(a), str(b), 0, "", []
    while left or right:
        total = int(left[-1:] or 0) + int(right[-1:] or 0) + carry
        left, right, carry, partial = left[:-1], right[:-1], total // 10, str(total % 10) + partial
        steps.append(f"{left}+{right},{carry},{partial};")
    return "".join(steps)


def draw_pairs(
    n: int,
    digits: tuple[int, int],
    *,
    rng: np.random.Generator,
    test: bool | None = None,
    exactly: bool = False,
) -> np.ndarray:
    """Draw pairs of numbers: first how many digits each has, then the number, both uniformly.

    Parameters
    ----------
    n : int
    digits : (int, int)
        Largest numbers of digits.
    rng : numpy.random.Generator
    test : bool, optional
        Only pairs that are kept for tests, or only others; all by default. See `for_test`.
    exactly : bool
        Whether all numbers have the largest number of digits.

    Returns
    -------
    ndarray of int64, shape (n, 2)
    """
    found = np.empty((0, 2), dtype=np.int64)
    while len(found) < n:
        columns = []
        for most in digits:
            size = np.full(2 * n, most) if exactly else rng.integers(1, most + 1, 2 * n)
            lowest = np.where(size == 1, 0, 10 ** (size - 1))
            columns.append(rng.integers(lowest, 10**size))
        pairs = np.stack(columns, axis=1)
        kept = np.ones(len(pairs), bool) if test is None else for_test(pairs) == test
        found = np.concatenate([found, pairs[kept]])
    return found[:n]


def for_test(pairs: np.ndarray) -> np.ndarray:
    """Whether pairs (n, 2) are kept for tests: a tenth of all, by a hash of the numbers."""
    mixed = pairs[:, 0].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= pairs[:, 1].astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray((mixed >> np.uint64(32)) % np.uint64(10) == 0)
