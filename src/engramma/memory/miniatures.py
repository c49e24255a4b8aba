"""Trained miniatures of several kinds and seeds, shipped in one file that a script makes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from engramma.errors import DataError
from engramma.nn.weights import read_weights, save_weights

M = TypeVar("M", bound=nn.Module)


@cache
def _read(path: Path) -> dict[str, Tensor]:
    return read_weights(path)[0]


def load_trained(model: M, path: Path, name: str, script: str) -> M:
    """Give a model the weights that a file holds of it.

    Parameters
    ----------
    model : nn.Module
        As it was before training; what the file does not hold stays as it is.
    path : path
    name : str
        KIND-SEED.
    script : str
        What makes the file, for the error.

    Raises
    ------
    DataError
        If the file holds nothing of that name.
    """
    start = f"{name}/"
    mine = {k[len(start) :]: v for k, v in _read(path).items() if k.startswith(start)}
    if not mine:
        raise DataError(
            f"no model {name} was trained", where=str(path), mend=f"run {script} {name}"
        )
    model.load_state_dict(mine, strict=False)
    return model.eval()


def train_missing(
    train: Callable[[str, Path], None],
    names: Sequence[str],
    path: Path,
    work: str,
    description: str | None,
) -> None:
    """Command line of a training script: train what is named and not there yet, then merge.

    Parameters
    ----------
    train : callable
        ``train(name, folder)`` writes ``NAME.safetensors``, with ``accuracy`` (JSON) beside.
    names : sequence of str
        KIND-SEED of all models, the default.
    path : path
        The file that is shipped.
    work : str
        Default of the folder for single models.
    description : str
        For ``--help``.
    """
    import torch

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", default=list(names))
    parser.add_argument("--work", type=Path, default=Path(work))
    parser.add_argument("--to", type=Path, default=path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(exist_ok=True)
    for name in options.names:
        if not (options.work / f"{name}.safetensors").exists():
            train(name, options.work)
    merge(options.work, options.to)


def merge(folder: Path, target: Path) -> None:
    """Put all models of a folder into one file, with what each has reached."""
    tensors: dict[str, Tensor] = {}
    reached = {}
    for path in sorted(folder.glob("*-*.safetensors")):
        weights, about = read_weights(path)
        tensors |= {f"{path.stem}/{k}": v for k, v in weights.items()}
        reached[path.stem] = json.loads(about["accuracy"])
    save_weights(target, tensors, accuracy=json.dumps(reached))
