"""A trained deep-ssvep decoder on disk: one safetensors file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engramma.decoding.ssvep_trials import Window
from engramma.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import nn

    from engramma.systems.electro.deep_ssvep import DeepSSVEP

KEY = "deep-ssvep"


def save_decoder(decoder: DeepSSVEP, path: str | Path) -> None:
    """Write all networks of a decoder, and all it needs to decode, into one file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if decoder.global_ is None or decoder.targets_ is None:
        raise ConfigError("there is no trained network to save", mend="call fit first")
    nets = {"global": decoder.global_}
    nets.update({f"subject {k}": net for k, net in enumerate(decoder.subjects_.values())})
    tensors = {
        f"{owner}/{name}": tensor.contiguous()
        for owner, net in nets.items()
        for name, tensor in net.state_dict().items()
    }
    facts = {
        "settings": decoder.settings(),
        "window": asdict(decoder.window),
        "targets": decoder.targets_.tolist(),
        "channels": decoder.channels_,
        "subjects": list(decoder.subjects_),
        "seen": sorted((str(s), str(b)) for s, b in decoder.seen_),
    }
    path = Path(path)
    work = path.with_name(path.name + ".part")
    try:
        save_file(tensors, work, metadata={KEY: json.dumps(facts)})
        work.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the decoder cannot be written ({error})",
            where=str(path),
            mend="choose a folder that exists and that you may write to",
        ) from error


def load_decoder(path: str | Path) -> DeepSSVEP:
    """Read what `save_decoder` wrote.

    Raises
    ------
    DataError
        If the file is something else.
    """
    from safetensors import SafetensorError, safe_open

    from engramma.systems.electro.deep_ssvep import DeepSSVEP, network

    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"this is no saved deep-ssvep decoder ({error})",
            where=str(path),
            mend="point to a file written by DeepSSVEP.save",
        ) from error
    window = facts["window"]
    window["channels"] = None if window["channels"] is None else tuple(window["channels"])
    decoder = DeepSSVEP(Window(**window), **facts["settings"])
    decoder.targets_ = np.asarray(facts["targets"])
    decoder.channels_ = tuple(facts["channels"])
    decoder.seen_ = {(subject, block) for subject, block in facts["seen"]}

    def rebuild(owner: str) -> nn.Sequential:
        net = network(
            len(decoder.channels_),
            decoder.window.n_samples,
            len(facts["targets"]),
            filters=decoder.filters,
            bands=decoder.bands,
        )
        start = f"{owner}/"
        net.load_state_dict(
            {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        )
        net.eval()
        return net

    decoder.global_ = rebuild("global")
    decoder.subjects_ = {s: rebuild(f"subject {k}") for k, s in enumerate(facts["subjects"])}
    return decoder
