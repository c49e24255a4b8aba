"""Which model lies in a folder or file, and whether it may be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engramma.errors import ConfigError
from engramma.features.huggingface import HuggingFaceModel
from engramma.features.model import FeatureModel
from engramma.features.video import VideoLayers

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


def load_local(path: Path, medium: str | None = None) -> FeatureModel:
    """Make a feature model of a Hugging Face folder or a GGUF file.

    Raises
    ------
    ConfigError
        If there are no safe weights, or the model does not take ``medium``.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        return HuggingFaceModel(path.parent, gguf=path.name, medium=medium or "caption")
    require_weights(path)
    if read_json(path / "config.json").get("model_type") == "videomae" and medium in (
        None,
        "video",
    ):
        from engramma.features.video_folder import VideoFolder

        return VideoLayers(lambda: VideoFolder(path))
    offered = _media(path)
    if not offered:
        raise ConfigError(
            "there is neither a tokenizer nor a preprocessor beside the model",
            where=str(path),
            mend="call save_pretrained of the tokenizer or processor on the same folder",
        )
    if medium is not None and medium not in offered:
        raise ConfigError(
            f"this model takes {' or '.join(offered)}, not {medium}",
            where=str(path),
            mend="name another medium or model",
        )
    return HuggingFaceModel(path, medium=medium or offered[0])


def require_weights(path: Path) -> None:
    """Refuse what is no folder of a model, or holds no weights that are safe to read.

    Raises
    ------
    ConfigError
        With what is there instead.
    """
    if not path.is_dir() or not (path / "config.json").exists():
        raise ConfigError(
            "this is neither a Hugging Face folder nor a GGUF file",
            where=str(path),
            mend="point to a folder with config.json and model.safetensors, or to a .gguf file",
        )
    if not list(path.glob("*.safetensors")):
        pickled = [p.name for p in path.iterdir() if p.suffix in PICKLED]
        raise ConfigError(
            f"the weights are pickled ({pickled[0]}), and unpickling can run any code"
            if pickled
            else "the folder holds no weights",
            where=str(path),
            mend="convert them: load the model where you trust it and call "
            "save_pretrained(folder, safe_serialization=True)",
        )


def _media(path: Path) -> list[str]:
    """Media that the files beside a model speak of."""
    config = read_json(path / "config.json")
    settings = read_json(path / "preprocessor_config.json")
    processor = read_json(path / "processor_config.json")
    settings = (
        settings | processor.get("image_processor", {}) | processor.get("feature_extractor", {})
    )
    found = []
    if "image_processor_type" in settings or "image_mean" in settings or "vision_config" in config:
        found.append("image")
    if (path / "tokenizer.json").exists() or (path / "vocab.txt").exists():
        found.append("caption")
    if "sampling_rate" in settings:
        # A speech recogniser's tokenizer writes transcripts; it does not read captions.
        found = ["audio", *[m for m in found if m != "caption" or "text_config" in config]]
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a configuration; an empty one where there is no file."""
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(
            f"a model's configuration is not JSON ({error})",
            where=str(path),
            mend="save the model again",
        ) from error
    return content
