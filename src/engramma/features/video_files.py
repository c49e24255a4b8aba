"""Videos of stimuli: from memory, or from files through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engramma.data.stimuli import StimulusSet
from engramma.errors import DataError, MissingPackageError
from engramma.features.media import require


def clips(stimuli: StimulusSet) -> Iterator[np.ndarray]:
    """Yield the video of each stimulus as RGB, shape (frames, height, width, 3), uint8.

    Raises
    ------
    DataError
        If a stimulus has no video, or one cannot be decoded.
    MissingPackageError
        If videos lie in files, and PyAV is not installed.
    """
    require(stimuli, "video")
    for row, stimulus in enumerate(stimuli.ids):
        if stimuli.videos is None:
            yield read_video(stimuli.path("video", stimulus), stimulus)
            continue
        clip = np.asarray(stimuli.videos[row])
        if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3 or not len(clip):
            raise DataError(
                f"a video in memory has shape {clip.shape} and type {clip.dtype}",
                where=f"stimulus {stimulus!r}",
                mend="give frames x height x width x 3, uint8, and at least one frame",
            )
        yield clip


def read_video(path: Path, stimulus: str = "") -> np.ndarray:
    """Read all frames of a video file as RGB, shape (frames, height, width, 3), uint8.

    Raises
    ------
    DataError
        If the file is not there, does not decode, or holds no frame.
    MissingPackageError
        If PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingPackageError(
            "videos in files are decoded by PyAV", mend='pip install "engramma[video]"'
        ) from error
    where = f"{path}" + (f" (stimulus {stimulus!r})" if stimulus else "")
    try:
        with av.open(str(path)) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    except (OSError, IndexError, av.error.FFmpegError) as error:
        raise DataError(
            f"a video does not decode ({error})",
            where=where,
            mend="check the file name, or convert it to MP4 or AVI",
        ) from error
    if not frames:
        raise DataError("a video holds no frame", where=where, mend="replace the file")
    return np.stack(frames)
