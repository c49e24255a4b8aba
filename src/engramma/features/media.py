"""What stimuli are made of: images, captions, sounds and videos, read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from engramma.data.stimuli import IN_MEMORY, StimulusSet
from engramma.errors import DataError

#: Media that features can be extracted from.
MEDIA = ("image", "caption", "audio", "video")
#: Transparent pixels are laid over this grey, so that no model sees an edge that is not there.
BACKGROUND = 128


def require(stimuli: StimulusSet, medium: str) -> None:
    """Check that every stimulus has ``medium``.

    Raises
    ------
    DataError
        If one has not.
    """
    if stimuli.has(medium):
        return
    if medium not in stimuli.table:
        raise DataError(
            f"the stimuli have no {medium}",
            where=f"its table has {', '.join(map(str, stimuli.table.columns)) or 'no columns'}",
            mend=f"add a column {medium!r} to the stimulus table",
        )
    empty = stimuli.table.index[stimuli.table[medium].isna()]
    raise DataError(
        f"{len(empty)} stimuli have no {medium}",
        where=f"stimulus {str(empty[0])!r}",
        mend=f"fill in the column {medium!r}, or select the stimuli that have one",
    )


def images(stimuli: StimulusSet) -> Iterator[np.ndarray]:
    """Yield the image of each stimulus as RGB, shape (height, width, 3), uint8.

    Grey and palette images become RGB, 16-bit images lose their lower byte, and transparent
    pixels are laid over mid-grey (128). The orientation that a camera noted is applied.

    Raises
    ------
    DataError
        If a stimulus has no image, or an image cannot be decoded.
    """
    require(stimuli, "image")
    for row, stimulus in enumerate(stimuli.ids):
        if stimuli.images is not None:
            yield _array_to_rgb(np.asarray(stimuli.images[row]), stimulus)
        else:
            yield read_image(stimuli.path("image", stimulus), stimulus)


def read_image(path: Path, stimulus: str = "") -> np.ndarray:
    """Read one image file as RGB, shape (height, width, 3), uint8."""
    where = f"{path}" + (f" (stimulus {stimulus!r})" if stimulus else "")
    try:
        with Image.open(path) as picture:
            return _to_rgb(ImageOps.exif_transpose(picture), where)
    except FileNotFoundError as error:
        raise DataError(
            "an image file is not there",
            where=where,
            mend="correct the file name or the folder that the stimulus table starts from",
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"an image does not decode ({error})",
            where=where,
            mend="replace the file, or leave the stimulus out",
        ) from error


def _to_rgb(picture: Image.Image, where: str) -> np.ndarray:
    """Convert any mode to RGB."""
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise DataError(
            f"an image has pixels of unknown range (mode {picture.mode})",
            where=where,
            mend="save it with 8 or 16 bits a channel",
        )
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        grey = Image.new("RGBA", picture.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
        picture = Image.alpha_composite(grey, picture)
    return np.asarray(picture.convert("RGB"))


def _array_to_rgb(image: np.ndarray, stimulus: str) -> np.ndarray:
    """Convert an image held in memory to RGB."""
    where = f"stimulus {stimulus!r}"
    if image.dtype != np.uint8:
        raise DataError(
            f"images in memory are {image.dtype}, not uint8",
            where=where,
            mend="scale them to 0 ... 255 and convert to uint8",
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        raise DataError(
            f"an image in memory has shape {image.shape}",
            where=where,
            mend="give height x width x 3",
        )
    return image if image.shape[2] == 3 else _to_rgb(Image.fromarray(image), where)


def captions(stimuli: StimulusSet) -> list[str]:
    """Return the caption of each stimulus.

    Raises
    ------
    DataError
        If one is absent or empty.
    """
    require(stimuli, "caption")
    texts = [str(text).strip() for text in stimuli.table["caption"]]
    if "" in texts:
        raise DataError(
            "a caption is empty",
            where=f"stimulus {stimuli.ids[texts.index('')]!r}",
            mend="write one, or leave the stimulus out",
        )
    return texts


def items(stimuli: StimulusSet, medium: str) -> Iterator[Any]:
    """Yield what a model of ``medium`` takes: RGB images or clips, texts, or (samples, rate)."""
    if medium == "image":
        yield from images(stimuli)
    elif medium == "caption":
        yield from captions(stimuli)
    elif medium == "video":
        from engramma.features.video_files import clips

        yield from clips(stimuli)
    else:
        from engramma.features.audio import waveforms

        yield from waveforms(stimuli)


def content_hashes(stimuli: StimulusSet, medium: str) -> list[str]:
    """Hash what each stimulus holds in ``medium``: the bytes of its file, array or text."""
    require(stimuli, medium)
    if medium == "caption":
        return [_hash(text.encode()) for text in captions(stimuli)]
    held = stimuli.in_memory.get(IN_MEMORY[medium])
    if held is not None:
        rate = str(stimuli.attrs.get("sampling_rate", ""))
        return [_hash(*_array_bytes(np.asarray(a)), rate.encode()) for a in held]
    return [_hash_file(stimuli.path(medium, s), s) for s in stimuli.ids]


def _array_bytes(array: np.ndarray) -> tuple[bytes, bytes]:
    return f"{array.dtype.str}{array.shape}".encode(), np.ascontiguousarray(array).tobytes()


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _hash_file(path: Path, stimulus: str) -> str:
    try:
        return _hash(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"a stimulus file cannot be read ({error.strerror})",
            where=f"{path} (stimulus {stimulus!r})",
            mend="correct the file name or the folder that the stimulus table starts from",
        ) from error
