"""Path patching, interchange of heads, and attention that is led elsewhere.

All of it asks what becomes of a model's answer to a clean prompt when some of its values are those
of a corrupted one (`engramma.probing.paired_prompts`). Changes of the last token are made on copies
of it (`engramma.probing.prompt_ends`). In path patching the outputs of all heads are given, so that
no token sees another, and one token a sender is all that has to be run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError
from engramma.probing.ablation import Head, heads_by_layer
from engramma.probing.head_edits import even_attention
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel, Run
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.places import Place
from engramma.probing.prompt_ends import PromptEnds
from engramma.progress import track


@dataclass(frozen=True, order=True)
class Receiver:
    """The query, key or value of a head, which a path leads to.

    Where several heads share keys and values, these change for all of them.
    """

    kind: Literal["query", "key", "value"]
    layer: int
    head: int


@dataclass(frozen=True)
class Outcome:
    """Answers under each of several changes.

    Parameters
    ----------
    difference : Tensor, shape (change, prompt)
        Logit differences; see `PairedPrompts.difference`.
    right : Tensor of bool, shape (change, prompt)
    """

    difference: Tensor
    right: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Share of right answers under each change."""
        return self.right.float().mean(dim=1)


class Patching:
    """A model's values for clean and corrupted prompts, to be mixed.

    Parameters
    ----------
    model : LanguageModel
    prompts : PairedPrompts
    freeze_mlps : bool
        Whether feed-forward networks keep their clean outputs along a path; else they are
        recomputed, and a path may lead through them.
    together : int
        Most copies of a token that are run at a time.

    Attributes
    ----------
    clean, corrupted : Tensor, shape (prompt,)
        Logit differences without any change.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: PairedPrompts,
        *,
        freeze_mlps: bool = False,
        together: int = 32,
    ) -> None:
        self.model, self.prompts, self.freeze_mlps = model, prompts, freeze_mlps
        self.together = max(1, min(together, model.context))
        layers = range(model.anatomy.n_layers)
        heads = [Place("heads", x) for x in layers]
        streams = [Place("residual", x) for x in layers]
        outputs = [Place("mlp", x) for x in layers] if freeze_mlps else []
        self.ends = PromptEnds(
            model, prompts.clean, prompts.last, keep=[*heads, *streams, *outputs]
        )
        other = model.run(prompts.corrupted, keep=heads, at=prompts.last)
        self._other = other.values
        self.clean = prompts.difference(self.ends.logits)
        self.clean_right = prompts.right(self.ends.logits)
        self.corrupted = prompts.difference(other.logits)

    @property
    def heads(self) -> list[Head]:
        """All heads of the model, by layer."""
        anatomy = self.model.anatomy
        return [(x, h) for x in range(anatomy.n_layers) for h in range(anatomy.n_heads)]

    def score(self, difference: Tensor) -> Tensor:
        """Share of the way from the clean to the corrupted logit difference.

        (LD - LD_clean) / (LD_corrupted - LD_clean), means over prompts.

        Parameters
        ----------
        difference : Tensor, shape (..., prompt)

        Raises
        ------
        DataError
            If clean and corrupted prompts give the same logit difference.
        """
        before = self.clean.mean()
        whole = self.corrupted.mean() - before
        if abs(float(whole)) < 1e-6 * (1 + abs(float(before))):
            raise DataError(
                f"the logit difference is {float(before):.4g} for clean and corrupted prompts "
                "alike: shares of that change are undefined",
                where=self.prompts.name,
                mend="use a corruption that changes the answer",
            )
        return (difference.mean(dim=-1) - before) / whole

    # -- changes of the last token -------------------------------------------------------------

    def exchange(
        self,
        sets: Sequence[Iterable[Head]],
        values: Mapping[Place, Tensor] | None = None,
    ) -> Outcome:
        """Change what sets of heads put out at the last token, each set in turn.

        Parameters
        ----------
        sets : sequence of iterables of (layer, head)
        values : mapping of Place to Tensor, optional
            What they put out instead, head x width or prompt x head x width; by default what they
            do for the corrupted prompt (interchange).
        """
        index = torch.arange(len(self.prompts))

        def change(layer: int, chosen: Tensor) -> Edit:
            place = Place("heads", layer)
            if values is None:
                other = self._other[place][index, self.prompts.last]
            else:
                other = values[place].expand(len(self.prompts), -1, -1)
            where = chosen[None, :, :, None]
            return Edit(place, lambda now: torch.where(where, other[:, None], now))

        return self._each(sets, change)

    def overwrite(self, sets: Sequence[Iterable[Head]], targets: Tensor) -> Outcome:
        """Lead the attention of sets of heads to given positions, each set in turn.

        Parameters
        ----------
        sets : sequence of iterables of (layer, head)
        targets : Tensor of int64, shape (prompt, target)
            Positions that share the attention of the last token evenly.
        """
        n_tokens = self.prompts.clean.shape[1]

        def change(layer: int, chosen: Tensor) -> Edit:
            row = even_attention(targets, n_tokens)[:, None, None]
            where = chosen.T[None, :, :, None]

            def led(pattern: Tensor) -> Tensor:
                wanted = torch.nn.functional.pad(row, (0, pattern.shape[-1] - n_tokens))
                return torch.where(where, wanted.to(pattern.dtype), pattern)

            return Edit(Place("pattern", layer), led)

        return self._each(sets, change)

    def _each(
        self, sets: Sequence[Iterable[Head]], change: Callable[[int, Tensor], Edit]
    ) -> Outcome:
        wanted = [sorted(heads) for heads in sets]
        if any(not heads for heads in wanted):
            raise ConfigError("a set holds no head", where="sets", mend="leave it out")
        # Sets that begin in late layers are run together, from there on.
        order = sorted(range(len(wanted)), key=lambda i: wanted[i][0][0])
        shape = (len(wanted), len(self.prompts))
        found = Outcome(torch.empty(shape), torch.empty(shape, dtype=torch.bool))
        parts = torch.tensor(order).split(self.together)
        for part in track(parts, "changing heads", total=len(parts)):
            chosen = self._chosen([wanted[i] for i in part.tolist()])
            first = min(chosen)
            run = self.ends.run(
                len(part),
                edits=[change(layer, which) for layer, which in chosen.items()],
                start=(first, self._stream(first, self.prompts.last, len(part))),
            )
            found.difference[part] = self.prompts.difference(run.logits).T
            found.right[part] = self.prompts.right(run.logits).T
        return found

    def _chosen(self, sets: Sequence[Sequence[Head]]) -> dict[int, Tensor]:
        """Which heads each set has in each layer, layer to (set, head)."""
        anatomy = self.model.anatomy
        chosen: dict[int, Tensor] = {}
        for number, heads in enumerate(sets):
            for layer, index in heads_by_layer(self.model, heads).items():
                blank = torch.zeros(len(sets), anatomy.n_heads, dtype=torch.bool)
                chosen.setdefault(layer, blank)[number, index] = True
        return chosen

    # -- path patching -------------------------------------------------------------------------

    def path_patch(
        self,
        receivers: Literal["residual"] | Sequence[Receiver] = "residual",
        *,
        senders: Iterable[Head] | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Change what receivers get from each sender directly.

        The sender's output at a position is that of the corrupted prompt, all other heads' outputs
        stay clean; what the receivers get then is put into a clean run (Wang et al. 2022,
        appendix B).

        Parameters
        ----------
        receivers : "residual" or sequence of Receiver
            The final residual stream, or queries, keys and values of heads.
        senders : iterable of (layer, head), optional
            All heads by default.
        at : Tensor of int64, shape (prompt,), optional
            Position of sender and receivers; the last by default.

        Returns
        -------
        Tensor, shape (layer, head, prompt)
            Logit differences, see `score`; NaN for heads that are no sender, and the clean one
            for those from which no path leads to a receiver.
        """
        anatomy, prompts = self.model.anatomy, self.prompts
        where = prompts.last if at is None else at
        goals = [] if receivers == "residual" else list(receivers)
        if receivers != "residual" and not goals:
            raise ConfigError("there is no receiver", mend='name some, or "residual"')
        end = max((r.layer for r in goals), default=anatomy.n_layers)
        found = torch.full((anatomy.n_layers, anatomy.n_heads, len(prompts)), torch.nan)
        by_layer = heads_by_layer(self.model, self.heads if senders is None else senders)
        for layer, heads in by_layer.items():
            found[layer, heads] = self.clean
        before = {layer: heads for layer, heads in by_layer.items() if layer < end}
        for layer, heads in track(before.items(), "path patching", total=len(before)):
            for part in heads.split(self.together):
                above = [r for r in goals if r.layer > layer]
                sent = self._send(layer, part, where, above)
                if not goals:
                    difference = prompts.difference(sent.logits).T
                elif torch.equal(where, prompts.last):
                    difference = self._receive_at_end(above, sent, len(part))
                else:
                    difference = self._receive(above, sent, len(part), where)
                found[layer, part] = difference
        return found

    def _send(self, layer: int, heads: Tensor, where: Tensor, goals: Sequence[Receiver]) -> Run:
        """Run one token a sender with all heads' outputs given; attention itself is idle."""
        anatomy, index = self.model.anatomy, torch.arange(len(where))
        n = len(heads)
        edits = []
        for later in range(layer, anatomy.n_layers):
            place = Place("heads", later)
            given = self.ends.values[place][index, where][:, None].repeat(1, n, 1, 1)
            if later == layer:
                other = self._other[place][index, where]
                given[:, torch.arange(n), heads] = other[:, heads]
            edits.append(_given(place, given))
            if self.freeze_mlps:
                place = Place("mlp", later)
                frozen = self.ends.values[place][index, where][:, None]
                edits.append(_given(place, frozen.expand(-1, n, -1)))
        return self.model.run(
            self.prompts.clean[:, :1].expand(-1, n),
            edits=edits,
            keep={Place(r.kind, r.layer) for r in goals},
            start=(layer, self._stream(layer, where, n)),
            at=None if not goals else 0,
        )

    def _receive_at_end(self, goals: Sequence[Receiver], sent: Run, n: int) -> Tensor:
        first = min(r.layer for r in goals)
        edits = [Edit(place, _heads_of(sent[place], heads)) for place, heads in self._places(goals)]
        start = (first, self._stream(first, self.prompts.last, n))
        return self.prompts.difference(self.ends.run(n, edits=edits, start=start).logits).T

    def _receive(self, goals: Sequence[Receiver], sent: Run, n: int, where: Tensor) -> Tensor:
        """Run whole prompts again, one after another for each sender."""
        prompts, batch = self.prompts, len(self.prompts)
        first = min(r.layer for r in goals)
        stream = self.ends.values[Place("residual", first)]
        index = torch.arange(batch)
        differences = []
        for sender in range(n):
            edits = [
                Edit(place, _heads_at(sent[place][:, sender], heads, index, where))
                for place, heads in self._places(goals)
            ]
            run = self.model.run(prompts.clean, edits=edits, start=(first, stream), at=prompts.last)
            differences.append(prompts.difference(run.logits))
        return torch.stack(differences)

    def _places(self, goals: Sequence[Receiver]) -> list[tuple[Place, Tensor]]:
        anatomy = self.model.anatomy
        found: dict[Place, set[int]] = {}
        heads_by_layer(self.model, [(r.layer, r.head) for r in goals])  # refuses unknown ones
        for r in goals:
            shared = anatomy.n_heads // anatomy.n_key_heads
            head = r.head if r.kind == "query" else r.head // shared
            found.setdefault(Place(r.kind, r.layer), set()).add(head)
        return [(place, torch.tensor(sorted(heads))) for place, heads in found.items()]

    def _stream(self, layer: int, where: Tensor, copies: int) -> Tensor:
        stream = self.ends.values[Place("residual", layer)]
        return stream[torch.arange(len(where)), where][:, None].repeat(1, copies, 1)


def _given(place: Place, values: Tensor) -> Edit:
    return Edit(place, lambda _: values)


def _heads_of(sent: Tensor, heads: Tensor) -> Callable[[Tensor], Tensor]:
    def change(values: Tensor) -> Tensor:
        values[:, :, heads] = sent[:, :, heads]
        return values

    return change


def _heads_at(
    sent: Tensor, heads: Tensor, index: Tensor, where: Tensor
) -> Callable[[Tensor], Tensor]:
    def change(values: Tensor) -> Tensor:
        values[index[:, None], where[:, None], heads] = sent[:, heads]
        return values

    return change
