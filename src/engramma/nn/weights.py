"""Weights that come with engramma: written and read as safetensors, in half precision."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from engramma.errors import DataError
from engramma.nn.seed import seeded


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], **about: Any) -> None:
    """Write tensors as safetensors in half precision, whole or not at all.

    ``about`` is kept as text beside them. Half precision is enough for weights that were trained
    with noise larger than its rounding; what is shipped is measured after rounding.
    """
    from safetensors.torch import save_file

    path = Path(path)
    work = path.with_name(path.name + ".part")
    halves = {
        k: (t.half() if t.is_floating_point() else t).detach().cpu().contiguous().clone()
        for k, t in tensors.items()
    }
    save_file(halves, work, metadata={k: str(v) for k, v in about.items()})
    work.chmod(0o644)  # the library writes for the owner alone
    work.replace(path)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_weights` wrote: tensors in float32, and what was said about them.

    Raises
    ------
    DataError
        If there is no such file, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            about = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the weights cannot be read ({error})", where=str(path), mend="install engramma again"
        ) from error
    return {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}, about


class Shipped(nn.Module):
    """A network that is saved with its settings, and built from them again.

    Subclasses take plain settings (numbers, texts, lists) as keywords only, and call
    ``self.remember(locals())`` in ``__init__``.
    """

    settings: dict[str, Any]

    def remember(self, values: Mapping[str, Any]) -> None:
        """Keep the settings that the network was made with."""
        names = [n for n in inspect.signature(type(self).__init__).parameters if n != "self"]
        self.settings = {n: values[n] for n in names}

    def save(self, path: str | Path, **about: Any) -> None:
        """Write settings and weights; ``about`` is kept as text beside them."""
        save_weights(path, self.state_dict(), settings=json.dumps(self.settings), **about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a network that `save` wrote, in evaluation mode.

        Raises
        ------
        DataError
            If there is none, it is damaged, or it is of another kind.
        """
        tensors, about = read_weights(path)
        try:
            with seeded(0):
                model = cls(**json.loads(about["settings"]))
            model.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"these are no weights of a {cls.__name__} ({error})",
                where=str(path),
                mend="install engramma again, or train it with the script that made it",
            ) from error
        return model.eval()


@cache
def load_shipped(kind: type[Shipped], path: Path) -> Any:
    """Read a shipped network once, and share it: callers must not change it."""
    return kind.load(path).requires_grad_(False)


@torch.inference_mode()
def in_batches(function: Any, items: Any, size: int = 128) -> Tensor:
    """Apply a network to many items without gradients, ``size`` at a time."""
    return torch.cat([function(items[i : i + size]) for i in range(0, len(items), size)])
