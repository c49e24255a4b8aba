"""The last token of prompts, run again and again behind the rest of them.

Most changes whose effect is asked for touch the last token only. So a prompt is run once, and many
copies of its last token stand side by side behind its keys and values, each with a change of its
own and blind to the others: a change costs one token, and not a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor

from engramma.memory.decoder import cache_argument, from_cache, to_cache
from engramma.memory.language_model import check_tokens
from engramma.probing.hooks import Edit, hooked, started_at
from engramma.probing.model import LanguageModel, Run
from engramma.probing.places import Place


class PromptEnds:
    """The last token of prompts, run again behind the rest of them.

    Parameters
    ----------
    model : LanguageModel
    tokens : Tensor of int64, shape (prompt, token)
        Padded on the right.
    last : Tensor of int64, shape (prompt,)
    keep : iterable of Place
        Values of the whole prompts to be kept in ``values``.
    """

    @torch.no_grad()
    def __init__(
        self, model: LanguageModel, tokens: Tensor, last: Tensor, keep: Iterable[Place] = ()
    ) -> None:
        check_tokens(model.network, tokens, model.name)
        self.model, self.tokens, self.last = model, tokens, last
        self._argument = cache_argument(model.network)
        with hooked(model.anatomy, keep=keep) as values:
            output = model.network.base_model(input_ids=tokens, use_cache=True, return_dict=True)
        self.values: Mapping[Place, Tensor] = values
        self._past = from_cache(output[self._argument])
        self.logits = model.head(output.last_hidden_state[torch.arange(len(tokens)), last])

    @torch.no_grad()
    def run(
        self,
        copies: int,
        *,
        edits: Iterable[Edit] = (),
        keep: Iterable[Place] = (),
        start: tuple[int, Tensor] | None = None,
    ) -> Run:
        """Run copies of the last token.

        Parameters
        ----------
        copies : int
        edits : iterable of Edit
            Values have the copy in the place of the token; patterns are prompt x head x copy x
            (token + copy).
        keep : iterable of Place
        start : (int, Tensor), optional
            A layer to begin at, and what enters it, prompt x copy x D.

        Returns
        -------
        Run
            Logits (prompt, copy, vocabulary).
        """
        anatomy = self.model.anatomy
        with ExitStack() as stack:
            if start is not None:
                stack.enter_context(started_at(anatomy, *start))
            values = stack.enter_context(hooked(anatomy, edits, keep))
            hidden = self.model.network.base_model(
                input_ids=self.tokens.gather(1, self.last[:, None]).expand(-1, copies),
                attention_mask=self._mask(copies),
                position_ids=self.last[:, None].expand(-1, copies),
                use_cache=True,
                return_dict=True,
                **{self._argument: to_cache(self._past)},
            ).last_hidden_state
        return Run(self.model.head(hidden), values)

    def _mask(self, copies: int) -> Tensor:
        """Additive mask: what is before the last token, and the copy itself."""
        batch, length = self.tokens.shape
        before = torch.arange(length) < self.last[:, None]
        seen = torch.cat(
            [
                before[:, None].expand(-1, copies, -1),
                torch.eye(copies, dtype=torch.bool).expand(batch, -1, -1),
            ],
            dim=2,
        )
        mask = torch.zeros(seen.shape, dtype=self.model.network.dtype)
        return mask.masked_fill(~seen, torch.finfo(mask.dtype).min)[:, None]
