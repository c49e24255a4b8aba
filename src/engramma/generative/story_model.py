"""Causal language models: how surprising a text is, how it goes on, and what they answer.

`CausalLanguageModel` wraps the miniature of the stories that comes with engramma, SmolLM2, and any
causal language model in a local Hugging Face folder, with the same code. As a feature model
(hidden states and surprisal of captions) the miniature is called ``mini-story``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engramma.errors import ConfigError, DataError
from engramma.features.huggingface import INSTALL, HuggingFaceModel
from engramma.features.language import smollm2
from engramma.features.model import FeatureModel, feature_model
from engramma.features.surprisal import token_surprisal
from engramma.nn.seed import seeded

#: The miniature, in the format of Hugging Face.
MINI_STORY = Path(__file__).parent / "weights" / "mini-story"


def mini_story() -> HuggingFaceModel:
    """Miniature Llama of the stories: 4 blocks of 192 values, one token a word.

    Trained by ``scripts/train_mini_story_lm.py`` on stories of `engramma.worlds.stories`; what
    it reaches stands in the model card beside its weights. Hidden states are those of the last
    token, which has read all others.
    """
    return HuggingFaceModel(MINI_STORY, name="mini-story", n_layers=4, pool="last")


@feature_model(
    "mini-story",
    "caption",
    "hidden states and surprisal of the miniature language model of the stories",
    requires=("transformers",),
    install=INSTALL,
    default=False,
)
def _mini_story() -> FeatureModel:
    return mini_story()


_NAMED = {"mini-story": mini_story, "smollm2": smollm2}


class CausalLanguageModel:
    """A decoder language model with its tokenizer, read from this machine.

    Parameters
    ----------
    source : str or path
        ``"mini-story"``, ``"smollm2"``, or a folder that ``save_pretrained`` wrote.

    Raises
    ------
    ConfigError
        If there is no such folder, or no causal language model in it.
    """

    def __init__(self, source: str | Path = "mini-story") -> None:
        if str(source) in _NAMED:
            self.features = _NAMED[str(source)]()
            return
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise ConfigError(
                f"there is no language model {str(source)!r}",
                mend=f"name a folder of save_pretrained, or one of {', '.join(_NAMED)}",
            )
        self.features = HuggingFaceModel(folder, pool="last")
        if not self.features._causal:
            raise ConfigError(
                f"this is a {', '.join(self.features.config.architectures or ['model'])}, and no "
                "decoder language model",
                where=str(folder),
                mend="name the folder of a model for causal language modelling",
            )

    @property
    def network(self) -> Any:
        """The network, in evaluation mode and float32."""
        return self.features.network

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.features.tokenizer

    @cached_property
    def context(self) -> int:
        """Most tokens that are read at once."""
        return int(getattr(self.network.config, "max_position_embeddings", 2**31))

    def encode(self, text: str, start: bool = True) -> list[int]:
        """Token ids of a text, with the token that starts one where the model has it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        begin = self.tokenizer.bos_token_id
        return [begin, *ids] if start and begin is not None else ids

    # -- how surprising --------------------------------------------------------------------

    @torch.inference_mode()
    def token_bits(self, ids: Sequence[int]) -> np.ndarray:
        """Surprisal of each token given those before it, in bits; 0 for the first.

        A text longer than the context is read in windows that overlap by half, so that each token
        has at least half a context before it.
        """
        tokens = torch.as_tensor([list(ids)])
        n, size = tokens.shape[1], self.context
        bits = np.zeros(n, dtype=np.float32)
        done = 1
        while done < n:
            start = 0 if done == 1 else min(done - size // 2, max(0, n - size))
            window = tokens[:, start : start + size]
            logits = self.network(input_ids=window).logits
            values = token_surprisal(logits, window, torch.ones_like(window))[0].numpy()
            stop = start + window.shape[1]
            bits[done:stop] = values[done - start :]
            done = stop
        return bits

    def perplexity(self, text: str) -> float:
        """Two to the mean surprisal of the tokens of a text.

        Raises
        ------
        DataError
            If there is nothing to predict.
        """
        ids = self.encode(text)
        if len(ids) < 2:
            raise DataError("a text of fewer than two tokens has no perplexity",
                            mend="give a longer text")  # fmt: skip
        return float(2 ** self.token_bits(ids)[1:].mean())

    def surprisal(self, words: Sequence[str]) -> np.ndarray:
        """How unexpected each word of a text is, in bits: the sum over its tokens.

        Parameters
        ----------
        words : sequence of str
            As they stand between spaces, signs attached.

        Returns
        -------
        ndarray of float32, shape (words,)
            The first word counts where the model has a token that starts a text; else it is 0.
        """
        pieces = [self.encode(w if i == 0 else f" {w}", start=False) for i, w in enumerate(words)]
        begin = self.encode("")
        bits = self.token_bits([*begin, *(t for piece in pieces for t in piece)])[len(begin) :]
        word = np.repeat(np.arange(len(words)), [len(piece) for piece in pieces])
        return np.bincount(word, bits, minlength=len(words)).astype(np.float32)

    def hidden_states(self, text: str) -> np.ndarray:
        """States of each token after the embedding and after each block.

        Returns
        -------
        ndarray of float32, shape (layers + 1, tokens, width)

        Raises
        ------
        DataError
            If the text is longer than the context.
        """
        ids = self._fitting(self.encode(text))
        with torch.inference_mode():
            states = self.network(
                input_ids=torch.as_tensor([ids]), output_hidden_states=True
            ).hidden_states
        return torch.cat(list(states)).numpy()

    def _fitting(self, ids: list[int], spare: int = 0) -> list[int]:
        if len(ids) + spare > self.context:
            raise DataError(
                f"the text has {len(ids)} tokens, and the model reads {self.context}"
                + (f", {spare} of which are for what follows" if spare else ""),
                mend="give a shorter text",
            )
        return ids

    # -- how it goes on --------------------------------------------------------------------

    def generate(
        self,
        prompt: str,
        n_tokens: int = 40,
        *,
        temperature: float = 0.0,
        rng: np.random.Generator | None = None,
        stop: str | None = None,
    ) -> str:
        """Continue a text, token by token.

        Parameters
        ----------
        prompt : str
        n_tokens : int
            At most so many; fewer once the text ends.
        temperature : float
            0 takes the most likely token; else ``rng`` is needed.
        rng : numpy.random.Generator, optional
        stop : str, optional
            End before this sign.

        Raises
        ------
        DataError
            If prompt and continuation do not fit into the context.
        """
        if temperature < 0 or (temperature > 0 and rng is None):
            raise ConfigError(
                "sampling needs a temperature of at least 0, and a random generator",
                where="generate", mend="pass rng=numpy.random.default_rng(seed)",
            )  # fmt: skip
        tokens = torch.tensor([self._fitting(self.encode(prompt), n_tokens)])
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
        with torch.inference_mode(), seeded(int(rng.integers(2**31)) if rng is not None else 0):
            found = self.network.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n_tokens,
                pad_token_id=self.tokenizer.pad_token_id, **({"do_sample": False} | sampling),
            )  # fmt: skip
        added = found[0, tokens.shape[1] :]
        text: str = self.tokenizer.decode(added, skip_special_tokens=True).strip()
        return text.partition(stop)[0].strip() if stop else text

    @torch.inference_mode()
    def score(self, prompt: str, choices: Sequence[str]) -> np.ndarray:
        """Log-probability (bits, negative) of each continuation of a prompt, summed over tokens.

        Raises
        ------
        DataError
            If there is no choice, or a choice is empty or does not fit into the context.
        """
        start = self.encode(prompt)
        options = [self.encode(f" {c}", start=False) for c in choices]
        if not options or not all(options):
            raise DataError("there is nothing to choose from", where="choices",
                            mend="give texts that are not empty")  # fmt: skip
        longest = max(map(len, options))
        if longest == 1:  # one reading of the prompt answers for all
            logits = self.network(input_ids=torch.tensor([self._fitting(start, 1)])).logits[0, -1]
            log_p = torch.log_softmax(logits.float(), dim=0) / math.log(2)
            return log_p[[option[0] for option in options]].numpy()
        rows = [self._fitting(start, longest) + option for option in options]
        width = len(start) + longest
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        logits = self.network(input_ids=tokens, attention_mask=mask).logits
        bits = token_surprisal(logits, tokens, mask)[:, len(start) :]
        scores: np.ndarray = -bits.sum(dim=1).numpy()
        return scores

    def answer(self, question: str, context: str, choices: Sequence[str] | None = None) -> str:
        """Answer a question about a text.

        Parameters
        ----------
        question, context : str
        choices : sequence of str, optional
            Say the likeliest of these; by default what is generated up to the full stop.

        Raises
        ------
        DataError
            If the text does not fit into the context.
        """
        prompt = f"{context} Question: {question} Answer:".lstrip()
        if choices is None:
            return self.generate(prompt, n_tokens=16, stop=".")
        ended = [f"{c}." for c in choices]
        return choices[int(self.score(prompt, ended).argmax())]
