"""A causal language model whose inner values can be read and changed.

.. code-block:: python

    model = LanguageModel.load("smollm2")
    tokens, last = model.encode(["The capital of France is"])
    logits = model.logits(tokens, at=last)

    # What the heads of layer 3 put out, and the logits without head 5.
    run = model.run(tokens, keep=[Place("heads", 3)], edits=ablate_heads(model, [(3, 5)]), at=last)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError
from engramma.features.surprisal import surprisal_nats
from engramma.memory.decoder import cache_argument
from engramma.memory.language_model import check_tokens, load_language_model
from engramma.probing.hooks import Edit, hooked, started_at
from engramma.probing.places import Anatomy, Place


@dataclass(frozen=True)
class Run:
    """Outcome of one run: logits (see `LanguageModel.run`), and the values that were kept."""

    logits: Tensor
    values: Mapping[Place, Tensor]

    def __getitem__(self, place: Place | tuple[Any, int]) -> Tensor:
        return self.values[Place(*place) if isinstance(place, tuple) else place]


class LanguageModel:
    """A causal language model of the transformers library with named places.

    Sequences of different length are padded on the right: a causal model does not see what comes
    later, so that padding needs no mask and changes nothing.

    Parameters
    ----------
    network : PreTrainedModel
        Put into evaluation mode.
    tokenizer : PreTrainedTokenizer, optional
        None for models of token numbers.
    name : str

    Attributes
    ----------
    anatomy : Anatomy
        Sizes and modules.
    context : int
        Most tokens it takes.
    """

    def __init__(self, network: Any, tokenizer: Any = None, name: str = "") -> None:
        self.network, self.tokenizer = network.eval(), tokenizer
        self.name = name or type(network).__name__
        self.anatomy = Anatomy(network)
        positions = getattr(network.config, "max_position_embeddings", None)
        self.context = int(positions) if positions else 1 << 30

    @classmethod
    def load(cls, source: str | Path) -> LanguageModel:
        """Read a model from this machine; see `load_language_model`."""
        network, tokenizer = load_language_model(source)
        return cls(network, tokenizer, name=Path(source).name)

    # -- text --------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str], *, special: bool = True) -> tuple[Tensor, Tensor]:
        """Turn texts into tokens.

        Parameters
        ----------
        texts : sequence of str
        special : bool
            Whether the tokenizer adds its special tokens, such as one at the beginning.

        Returns
        -------
        tokens : Tensor of int64, shape (text, token)
            Padded on the right with 0.
        last : Tensor of int64, shape (text,)
            Position of the last token of each text.

        Raises
        ------
        ConfigError
            If the model has no tokenizer.
        DataError
            If a text has no token, or more than the model takes.
        """
        rows = [self.token_ids(t, special=special) for t in texts]
        for number, row in enumerate(rows):
            if not 1 <= len(row) <= self.context:
                raise DataError(
                    f"a text has {len(row)} tokens",
                    where=f"text {number}, {texts[number][:40]!r}",
                    mend=f"{self.name} takes 1 to {self.context} tokens",
                )
        return pad(rows)

    def token_ids(self, text: str, *, special: bool = True) -> list[int]:
        """Token numbers of one text."""
        if self.tokenizer is None:
            raise ConfigError(
                f"{self.name} has no tokenizer: it knows token numbers and no text",
                mend="use a model folder with a tokenizer",
            )
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """Return the text of token numbers."""
        if self.tokenizer is None:
            return " ".join(str(int(t)) for t in tokens)
        return str(self.tokenizer.decode([int(t) for t in tokens]))

    # -- running -----------------------------------------------------------------------------

    @torch.no_grad()
    def logits(
        self, tokens: Tensor, *, at: Tensor | int | None = None, edits: Iterable[Edit] = ()
    ) -> Tensor:
        """Logits of the next token; see `run`."""
        return self.run(tokens, at=at, edits=edits).logits

    @torch.no_grad()
    def run(
        self,
        tokens: Tensor,
        *,
        keep: Iterable[Place] = (),
        edits: Iterable[Edit] = (),
        at: Tensor | int | None = None,
        start: tuple[int, Tensor] | None = None,
    ) -> Run:
        """Run the model once, without gradients.

        Parameters
        ----------
        tokens : Tensor of int64, shape (batch, token)
        keep : iterable of Place
            Whose values are returned, after the edits.
        edits : iterable of Edit
        at : Tensor of int64 of shape (batch,) or (batch, k), or int, optional
            Positions whose logits are wanted: all, unless given. Projecting to a large vocabulary
            is a good part of the work.
        start : (int, Tensor), optional
            A layer to begin at, and the residual stream that enters it (batch x token x D).

        Returns
        -------
        Run
            Logits (batch, token, vocabulary); (batch, vocabulary) where ``at`` names one position
            a row.
        """
        check_tokens(self.network, tokens, self.name)
        edits = list(edits)
        with ExitStack() as stack:
            if start is not None:
                stack.enter_context(started_at(self.anatomy, *start))
            values = stack.enter_context(hooked(self.anatomy, edits, keep))
            hidden = self.network.base_model(
                input_ids=tokens, use_cache=False, return_dict=True
            ).last_hidden_state
        return Run(self.head(_pick(hidden, at)), values)

    @contextmanager
    def edited(self, edits: Iterable[Edit]) -> Iterator[None]:
        """Keep edits in force for all runs within the ``with`` block, with gradients too."""
        with hooked(self.anatomy, edits):
            yield

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of normalised hidden states (..., D)."""
        logits = self.anatomy.head(hidden)
        config = self.network.config
        cap = getattr(config, "final_logit_softcapping", None)
        if cap:
            logits = cap * torch.tanh(logits / cap)
        return logits * getattr(config, "logit_scale", 1.0)

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits of a residual stream (..., D) as if no block came after: the logit lens.

        nostalgebraist 2020, "Interpreting GPT: the logit lens".
        """
        return self.head(self.anatomy.norm(residual))

    def surprisal(self, tokens: Tensor, *, edits: Iterable[Edit] = (), rows: int = 16) -> Tensor:
        """Surprisal of each token given those before it, nats, NaN for the first.

        Parameters
        ----------
        tokens : Tensor of int64, shape (batch, token)
        edits : iterable of Edit
        rows : int
            Sequences at a time: logits of a large vocabulary take much memory.

        Returns
        -------
        Tensor, shape (batch, token)
        """
        edits = list(edits)
        parts = [
            surprisal_nats(self.logits(part, edits=edits), part) for part in tokens.split(rows)
        ]
        return torch.nn.functional.pad(torch.cat(parts), (1, 0), value=torch.nan)

    @torch.no_grad()
    def continue_greedily(
        self,
        tokens: Tensor,
        n_new: int,
        *,
        edits: Iterable[Edit] = (),
        stop: Iterable[int] = (),
    ) -> Tensor:
        """Append the likeliest token ``n_new`` times, with keys and values cached.

        Parameters
        ----------
        tokens : Tensor of int64, shape (batch, token)
            All of one length.
        n_new : int
        edits : iterable of Edit
            In force at each step; from the second on they see the new token only.
        stop : iterable of int
            Tokens after which a row goes on with -1.

        Returns
        -------
        Tensor of int64, shape (batch, at most n_new)
            The new tokens; -1 after a row's end.
        """
        check_tokens(self.network, tokens, self.name)
        ends = torch.tensor(list(stop), dtype=torch.long)
        ended = torch.zeros(len(tokens), dtype=torch.bool)
        found: list[Tensor] = []
        argument, past, step = cache_argument(self.network), None, tokens
        with hooked(self.anatomy, list(edits)):
            for _ in range(n_new):
                output = self.network(
                    input_ids=step, use_cache=True, logits_to_keep=1, **{argument: past}
                )
                past = output[argument]
                new = output.logits[:, -1].argmax(dim=-1)
                found.append(torch.where(ended, -1, new))
                ended = ended | torch.isin(new, ends)
                if bool(ended.all()):
                    break
                step = new[:, None]
        return torch.stack(found, dim=1)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token lists as one tensor, padded on the right with 0, and each one's last position."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return tokens, torch.tensor([len(row) - 1 for row in rows])


def _pick(hidden: Tensor, at: Tensor | int | None) -> Tensor:
    if at is None:
        return hidden
    if isinstance(at, int):
        return hidden[:, at]
    index = at[:, None] if at.ndim == 1 else at
    picked = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
    return picked[:, 0] if at.ndim == 1 else picked
