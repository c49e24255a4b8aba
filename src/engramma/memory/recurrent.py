"""The long short-term memory as a sequence layer."""

from __future__ import annotations

from torch import Tensor, nn

from engramma.memory.layer import MemoryLayer, State


class LSTM(MemoryLayer):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), projected back to ``dim``.

    Parameters
    ----------
    dim : int
    hidden : int, optional
        Units; the state is twice as many numbers. ``dim`` by default.
    """

    def __init__(self, dim: int = 64, hidden: int | None = None) -> None:
        super().__init__(dim)
        self.hidden = hidden or dim
        self.cell = nn.LSTM(dim, self.hidden, batch_first=True)
        self.output = nn.Linear(self.hidden, dim, bias=False)

    def initial_state(self, batch: int) -> State:
        """Zeros."""
        zeros = self.output.weight.new_zeros(batch, self.hidden)
        return {"hidden": zeros, "cell": zeros}

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token after the other, in torch's own loop."""
        y, (hidden, cell) = self.cell(x, (state["hidden"][None], state["cell"][None]))
        return self.output(y), {"hidden": hidden[0], "cell": cell[0]}

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token."""
        y, state = self.sequence(x.unsqueeze(1), state)
        return y.squeeze(1), state
