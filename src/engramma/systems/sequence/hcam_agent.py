r"""The agent around hierarchical chunk attention memory (Lampinen et al. 2021, section 3.2).

=================  ===========================================================================
image encoder      pixels: convolution 9 x 9 with stride 9, one position a cell of the room,
                   two of 3 x 3, a linear map; symbols: two linear maps with a ReLU
language encoder   words of what is said, embedded, through an LSTM; its last output
memory             `engramma.systems.sequence.hcam.HCAM` over both, concatenated and mapped to D
policy, value      one hidden layer each
self-supervision   from the memory's output, image (squared error) and words (cross-entropy) of
                   the same step are given back; what is stored is cut off the gradient, so this
                   is what makes it worth storing
learning           V-trace actor-critic (`engramma.memory.actor_critic`)
=================  ===========================================================================

Widths and weights of the losses are choices; the paper's are larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError
from engramma.memory.actor_critic import Heads, Observations, train_agent
from engramma.memory.layer import State
from engramma.nn.seed import seeded
from engramma.systems.sequence.hcam import HCAM
from engramma.worlds.grid_room import CELLS, DIRECTIONS, PIXELS, ROOM, GridRoom


class PixelEncoder(nn.Module):
    """Image to a vector, and a vector back to an image."""

    def __init__(self, dim: int, channels: int = 16) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, channels, PIXELS, stride=PIXELS),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * ROOM**2, dim),
        )
        self.decode = nn.Sequential(
            nn.Linear(dim, channels * ROOM**2),
            nn.ReLU(),
            nn.Unflatten(1, (channels, ROOM, ROOM)),
            nn.ConvTranspose2d(channels, 3, PIXELS, stride=PIXELS),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map n x 99 x 99 x 3 to n x dim."""
        return self.encode(image.permute(0, 3, 1, 2))

    def back(self, x: Tensor) -> Tensor:
        """Map n x dim to n x 99 x 99 x 3."""
        return self.decode(x).permute(0, 2, 3, 1)


class SymbolEncoder(nn.Module):
    """Rows of symbols to a vector, and back."""

    def __init__(self, dim: int, n_symbols: int) -> None:
        super().__init__()
        n = len(CELLS) * n_symbols
        self.encode = nn.Sequential(
            nn.Flatten(), nn.Linear(n, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)
        )
        self.decode = nn.Sequential(
            nn.Linear(dim, 2 * dim),
            nn.ReLU(),
            nn.Linear(2 * dim, n),
            nn.Unflatten(1, (len(CELLS), n_symbols)),
        )

    def forward(self, symbols: Tensor) -> Tensor:
        """Map n x cell x symbol to n x dim."""
        return self.encode(symbols)

    def back(self, x: Tensor) -> Tensor:
        """Map n x dim to n x cell x symbol."""
        return self.decode(x)


class LanguageEncoder(nn.Module):
    """Sentences, each a row of word ids, to a vector; and a vector to the words' logits.

    Parameters
    ----------
    dim : int
    sentences : sequence of str
        All that can be said; words are joined by underscores or spaces.
    """

    table: Tensor
    lengths: Tensor

    def __init__(self, dim: int, sentences: Sequence[str]) -> None:
        super().__init__()
        split = [s.replace("_", " ").split() for s in sentences]
        self.words = sorted({word for sentence in split for word in sentence})
        longest = max(map(len, split))
        # Id 0 fills up what is shorter.
        table = [[1 + self.words.index(w) for w in s] + [0] * (longest - len(s)) for s in split]
        self.register_buffer("table", torch.tensor(table), persistent=False)
        self.register_buffer("lengths", torch.tensor([len(s) for s in split]), persistent=False)
        self.embed = nn.Embedding(len(self.words) + 1, dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.back = nn.Sequential(
            nn.Linear(dim, longest * (len(self.words) + 1)), nn.Unflatten(1, (longest, -1))
        )

    def forward(self, said: Tensor) -> Tensor:
        """Map indices of sentences, n, to n x dim."""
        output, _ = self.lstm(self.embed(self.table))
        return output[torch.arange(len(self.table)), self.lengths - 1][said]

    def loss(self, x: Tensor, said: Tensor) -> Tensor:
        """Cross-entropy of the words of what was said."""
        return F.cross_entropy(self.back(x).flatten(0, 1), self.table[said].flatten())


class HCAMAgent(nn.Module):
    """Agent for worlds that are watched and walked in (`engramma.worlds.grid_room.GridRoom`).

    Parameters
    ----------
    world : GridRoom
        Whose observations and language it should understand.
    dim : int
        Width of the memory and of both encoders.
    capacity : int, optional
        Chunks kept; by default an episode's worth, so that the state never grows.
    seed : int
        Of the initial weights and of `act`.
    **memory
        Options of `HCAM`.

    Examples
    --------
    >>> agent = HCAMAgent(Ballet("2_delay16", vision="symbolic"))
    >>> observation, _ = world.reset()
    >>> action, state = agent.act(observation, None)
    """

    def __init__(
        self,
        world: GridRoom,
        *,
        dim: int = 64,
        capacity: int | None = None,
        seed: int = 0,
        **memory: Any,
    ) -> None:
        super().__init__()
        chunk = memory.get("chunk", 16)
        capacity = -(-world.max_steps // chunk) if capacity is None else capacity
        self.dim, self.vision = dim, world.vision
        self.sight = "image" if world.vision == "pixels" else "symbols"
        with seeded(seed):
            pixels = world.vision == "pixels"
            self.image: PixelEncoder | SymbolEncoder = (
                PixelEncoder(dim) if pixels else SymbolEncoder(dim, world.n_symbols)
            )
            self.language = LanguageEncoder(dim, world.language)
            self.combine = nn.Linear(2 * dim, dim)
            self.memory = HCAM(dim, capacity=capacity, **memory)
            self.policy, self.value = (
                nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, n))
                for n in (len(DIRECTIONS), 1)
            )
        self._generator = torch.Generator().manual_seed(seed)

    # -- one environment ---------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self, observation: dict[str, Any], state: State | None, *, greedy: bool = False
    ) -> tuple[int, State]:
        """Choose an action.

        Parameters
        ----------
        observation : dict
            Of `GridRoom.step`.
        state : State, optional
            None at the start of a life. Between episodes, `HCAM.reset` or None forgets; going on
            with the same state remembers.
        greedy : bool
            Take the likeliest action instead of drawing one.

        Returns
        -------
        action : int
        state : State
        """
        state = self.initial_state(1) if state is None else state
        begins = torch.zeros(1, dtype=torch.bool)
        heads, state = self.play(self.encode([observation]), begins, state)
        if greedy:
            return int(heads.logits.argmax()), state
        chances = heads.logits[0].softmax(-1)
        return int(torch.multinomial(chances, 1, generator=self._generator)), state

    # -- many environments: see engramma.memory.actor_critic.Player -----------------------------

    def initial_state(self, batch: int) -> State:
        """State of the memory before the first step."""
        return self.memory.initial_state(batch)

    def encode(self, observations: Sequence[dict[str, Any]]) -> Observations:
        """Observations of several environments as tensors, batch x ...

        Raises
        ------
        DataError
            If they are of another vision.
        """
        if any(self.sight not in o or "language" not in o for o in observations):
            raise DataError(
                f"observations need {self.sight!r} and 'language', and have "
                f"{sorted(observations[0])}",
                where="HCAMAgent",
                mend=f"use a world with vision={self.vision!r}, as the agent was built for",
            )
        sights = np.stack([o[self.sight] for o in observations])
        said = torch.tensor([int(o["language"]) for o in observations])
        return {self.sight: torch.from_numpy(sights), "language": said}

    def play(self, observations: Observations, begins: Tensor, state: State) -> tuple[Heads, State]:
        """Actor's form: one step; ``begins`` (batch, bool) says whose episode begins."""
        x = self._perceive(observations[self.sight], observations["language"])
        y, state = self.memory.step(x, self.memory.reset(state, begins))
        return Heads(self.policy(y), self.value(y)[..., 0], y.new_zeros(())), state

    def learn(
        self, observations: Observations, begins: Tensor, state: State
    ) -> tuple[Heads, State]:
        """Learner's form: many steps, all at once."""
        sight, said = observations[self.sight], observations["language"]
        batch = begins.shape
        x = self._perceive(sight.flatten(0, 1), said.flatten()).unflatten(0, batch)
        y, state = self.memory(x, state, begins)
        flat = y.flatten(0, 1)
        given_back = F.mse_loss(self.image.back(flat), sight.flatten(0, 1))
        auxiliary = given_back + self.language.loss(flat, said.flatten())
        return Heads(self.policy(y), self.value(y)[..., 0], auxiliary), state

    def _perceive(self, sight: Tensor, said: Tensor) -> Tensor:
        return self.combine(torch.cat([self.image(sight), self.language(said)], -1))

    # -- training --------------------------------------------------------------------------------

    def fit(self, worlds: Sequence[GridRoom], *, updates: int, **options: Any) -> list[float]:
        """Learn by playing several worlds side by side (`train_agent`); returns of all episodes."""
        if not worlds:
            raise ConfigError("an agent needs at least one world to play in")
        return train_agent(self, worlds, updates=updates, **options)
