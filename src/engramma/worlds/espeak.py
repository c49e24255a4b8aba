"""The real speech synthesiser espeak-ng, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.features.audio import read_audio, resample
from engramma.worlds.formants import RATE

if TYPE_CHECKING:
    from engramma.worlds.speech import Speaker

PROGRAM = "espeak-ng"
#: Silence between words that are said one by one, in seconds.
_GAP = 0.03


def espeak(
    text: str, *, voice: str = "en-us", pitch: int = 50, words_per_minute: int = 160
) -> np.ndarray:
    """Let espeak-ng say a text.

    Parameters
    ----------
    text : str
    voice : str
        As ``espeak-ng --voices`` lists them; a variant may follow (``en-us+f3``).
    pitch : int
        0 .. 99, as espeak-ng counts.
    words_per_minute : int

    Returns
    -------
    ndarray of float32, shape (samples,)
        At 16 kHz.

    Raises
    ------
    ConfigError
        If espeak-ng is not installed.
    DataError
        If it fails, or says nothing.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise ConfigError(
            f"{PROGRAM} is not installed",
            mend="install it (apt install espeak-ng), or use engine='formant'",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        command = [program, "-v", voice, "-p", str(pitch), "-s", str(words_per_minute)]
        done = subprocess.run(
            [*command, "-w", str(path), "--stdin"],
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        if done.returncode or not path.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise DataError(
                f"{PROGRAM} failed ({said[-1] if said else done.returncode})",
                where=f"text {text!r}, voice {voice!r}",
                mend=f"see `{PROGRAM} --voices` for the voices there are",
            )
        return resample(*read_audio(path), RATE)


def speak_words(
    tokens: Sequence[str], speaker: Speaker, pauses: Mapping[str, float], margin: float
) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Say words one by one, so that it is known when each begins and ends.

    Parameters
    ----------
    tokens : sequence of str
        Words, and the signs that ``pauses`` holds.
    speaker : Speaker
        The nearest of espeak-ng's voices is taken.
    pauses : mapping of str to float
        Seconds of silence that signs stand for.
    margin : float
        Seconds of silence at both ends.

    Returns
    -------
    wave : ndarray of float32, shape (samples,)
    words : list of (str, float, float)
        Each word with its onset and offset in seconds.
    """
    variant = "f3" if speaker.tract > 1.08 else "m3"
    lowest = 110 if variant == "f3" else 60
    pitch = int(np.clip(99 * np.log2(speaker.pitch / lowest) / 2, 0, 99))
    parts = [np.zeros(round(margin * RATE), np.float32)]
    spoken = []
    length = len(parts[0])
    for token in tokens:
        if token in pauses:
            part = np.zeros(round(pauses[token] * RATE), np.float32)
        else:
            part = _trimmed(
                espeak(
                    token,
                    voice=f"en-us+{variant}",
                    pitch=pitch,
                    words_per_minute=round(160 * speaker.rate),
                )
            )
            spoken.append((token, length / RATE, (length + len(part)) / RATE))
            part = np.pad(part, (0, round(_GAP * RATE)))
        parts.append(part)
        length += len(part)
    parts.append(np.zeros(round(margin * RATE), np.float32))
    return np.concatenate(parts), spoken


def _trimmed(wave: np.ndarray) -> np.ndarray:
    """Cut silence at both ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    if not len(loud):
        return wave
    return wave[loud[0] : loud[-1] + 1]
