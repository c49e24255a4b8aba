"""A causal language model of transformers on this machine, as a text model."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from engramma.agents.errors import ModelError
from engramma.agents.model import Completion, Message
from engramma.agents.request import check_messages
from engramma.errors import ConfigError, DataError
from engramma.memory.decoder import cache_argument
from engramma.memory.language_model import load_language_model


class LocalModel:
    """A decoder language model with its chat template.

    Calls are worked off one after the other, whatever thread they come from. The same messages,
    settings and seed give the same answer; without a seed, draws differ from call to call.

    Parameters
    ----------
    source : str or path
        ``"smollm2"``, a folder of ``save_pretrained`` or a ``.gguf`` file, as in
        `engramma.memory.language_model.load_language_model`.
    template : str, optional
        Chat template (Jinja) instead of the tokenizer's own.
    name : str, optional
        By default the name of the source.

    Raises
    ------
    ConfigError
        If there is no such model, or it has no tokenizer or no chat template.
    """

    def __init__(
        self, source: str | Path, *, template: str | None = None, name: str | None = None
    ) -> None:
        self.network, self.tokenizer = load_language_model(source)
        if self.tokenizer is None or not (template or self.tokenizer.chat_template):
            lacking = "tokenizer" if self.tokenizer is None else "chat template"
            raise ConfigError(
                f"the model has no {lacking}, and cannot hold a conversation",
                where=str(source),
                mend="take an instruction-tuned model"
                + (", or give template=" if self.tokenizer is not None else ""),
            )
        path = Path(source)
        self.name = name or (path.stem if path.suffix == ".gguf" else path.resolve().name)
        self._template = template
        self._lock = Lock()
        ends = self.network.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = {e for e in (*ends, self.tokenizer.eos_token_id) if e is not None}
        # Only the last position is needed; a long prompt times the vocabulary fills the memory.
        takes = inspect.signature(self.network.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    @property
    def context(self) -> int:
        """Most tokens of messages and answer together."""
        return int(self.network.config.max_position_embeddings)

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Answer the last message; see `engramma.agents.model.TextModel.complete`.

        Raises
        ------
        ConfigError
            If a setting is out of range.
        DataError
            If the chat template refuses the messages, or they are longer than the model's context.
        ModelError
            If the model has nothing to say.
        """
        check_messages(messages)
        if temperature < 0 or max_tokens < 1:
            raise ConfigError(
                f"temperature {temperature} with at most {max_tokens} tokens cannot be carried out",
                mend="temperature is at least 0, max_tokens at least 1",
            )
        start = time.perf_counter()
        prompt = self._tokens(messages)
        room = self.context - prompt.shape[1]
        if room < 1:
            raise DataError(
                f"the messages have {prompt.shape[1]} tokens, and the model reads {self.context}",
                where=f"model {self.name!r}",
                mend="shorten them",
            )
        draws = torch.Generator()
        if seed is None:
            draws.seed()
        else:
            draws.manual_seed(seed)
        with self._lock, torch.inference_mode():
            tokens, text = self._generate(prompt, temperature, min(max_tokens, room), stop, draws)
        if not text.strip():
            raise ModelError(
                "the answer is empty", where=f"model {self.name!r}", mend="ask in other words"
            )
        return Completion(text, prompt.shape[1], tokens, time.perf_counter() - start)

    def _tokens(self, messages: Sequence[Message]) -> Tensor:
        from jinja2 import TemplateError

        try:
            encoded = self.tokenizer.apply_chat_template(
                [dict(m) for m in messages],
                chat_template=self._template,
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
        except TemplateError as error:
            raise DataError(
                f"the chat template refuses the messages ({error})", where=f"model {self.name!r}"
            ) from error
        tokens: Tensor = encoded["input_ids"]
        return tokens

    def _generate(
        self,
        prompt: Tensor,
        temperature: float,
        max_tokens: int,
        stop: Sequence[str],
        draws: torch.Generator,
    ) -> tuple[int, str]:
        """Token by token, until an end token, a stop text, or there are ``max_tokens``."""
        answer: list[int] = []
        argument, cache, step = cache_argument(self.network), None, prompt
        while len(answer) < max_tokens:
            output = self.network(
                input_ids=step, use_cache=True, **{argument: cache}, **self._last_only
            )
            cache = output[argument]
            token = _choose(output.logits[0, -1], temperature, draws)
            if token in self._ends:
                break
            answer.append(token)
            step = torch.tensor([[token]])
            if stop and cut(self._text(answer), stop) is not None:
                break
        text = self._text(answer)
        shortened = cut(text, stop)
        return len(answer), text if shortened is None else shortened

    def _text(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def cut(text: str, stop: Sequence[str]) -> str | None:
    """Text up to the first of the stop texts, or None where none is in it."""
    places = [place for place in (text.find(s) for s in stop if s) if place >= 0]
    return text[: min(places)] if places else None


def _choose(logits: Tensor, temperature: float, draws: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    chances = torch.softmax(logits.double() / temperature, -1)
    return int(torch.multinomial(chances, 1, generator=draws))
