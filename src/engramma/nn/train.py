"""The one training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramma.errors import DataError
from engramma.progress import track


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], torch.Tensor],
    batches: Callable[[int], Iterable[Any]],
    *,
    epochs: int,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    clip: float | None = None,
    checkpoint: str | Path | None = None,
    description: str = "training",
    after_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train ``model`` and return the mean loss of each epoch.

    Parameters
    ----------
    model : nn.Module
        Left in evaluation mode.
    loss : callable
        ``loss(model, batch) -> scalar tensor``.
    batches : callable
        ``batches(epoch)`` yields the batches of one epoch; it owns shuffling and its seed, so
        that an interrupted run resumes on the very batches it would have seen.
    epochs : int
    optimizer, scheduler
        The scheduler is stepped once an epoch.
    clip : float, optional
        Largest gradient norm.
    checkpoint : path, optional
        Written after each epoch; a run that finds one there goes on from it.
    description : str
        Label of the progress bar.
    after_epoch : callable, optional
        ``after_epoch(epoch, mean_loss)``, for logging or validation.

    Raises
    ------
    DataError
        If the loss is not finite.
    """
    history: list[float] = []
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        history = _restore(path, model, optimizer, scheduler)
    model.train()
    for epoch in track(range(len(history), epochs), description, total=epochs - len(history)):
        total, count = 0.0, 0
        for batch in batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            value = loss(model, batch)
            if not torch.isfinite(value):
                raise DataError(
                    f"the training loss became {value.item()}",
                    where=f"{description}, epoch {epoch + 1}, batch {count + 1}",
                    mend="check the input for NaN, or lower the learning rate",
                )
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            total += value.item()
            count += 1
        if scheduler is not None:
            scheduler.step()
        history.append(total / max(count, 1))
        if path is not None:
            _save(path, model, optimizer, scheduler, history)
        if after_epoch is not None:
            after_epoch(epoch, history[-1])
    model.eval()
    return history


def _save(path: Path, model: Any, optimizer: Any, scheduler: Any, history: list[float]) -> None:
    work = path.with_name(path.name + ".part")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": None if scheduler is None else scheduler.state_dict(),
        "history": history,
        "rng": torch.get_rng_state(),
    }
    torch.save(state, work)
    work.replace(path)


def _restore(path: Path, model: Any, optimizer: Any, scheduler: Any) -> list[float]:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if scheduler is not None and state["scheduler"] is not None:
        scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["rng"])
    return list(state["history"])
