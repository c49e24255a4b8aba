"""Train the miniature speech encoder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _model_card import write_card
from _scene_corpus import fit

from engramma.features.audio import LogMel
from engramma.features.speech import BOUNDARY, WEIGHTS, Miniature, MiniSpeech, heard
from engramma.nn.seed import seeded
from engramma.nn.weights import load_shipped
from engramma.progress import track
from engramma.worlds import captions, story_words
from engramma.worlds.articulation import PAUSES
from engramma.worlds.phonemes import PHONEMES
from engramma.worlds.pronunciation import words
from engramma.worlds.scenes import make_scenes
from engramma.worlds.speech import make_speakers, speak
from engramma.worlds.spoken_captions import speech_quality, symbols
from engramma.worlds.stories import stories

#: Sentences of a batch; each is heard from two speakers.
BATCH = 16
SHARD = 200


def sentences(n: int, rng: np.random.Generator) -> list[str]:
    """Captions of common compositions, sentences of stories, and words in random order."""
    scenes = make_scenes(
        n // 2,
        rng=rng,
        size=16,
        object_counts=(0.4, 0.45, 0.1, 0.05),
        compositions="common",
        caption=False,
    )
    texts = [captions.captions(d, rng, 1)[0] for d in scenes.descriptions]
    texts += list(stories(seed=int(rng.integers(1 << 20)), n_sentences=n // 5).sentences["text"])[
        : n // 5
    ]
    known = sorted(
        {
            w
            for text in captions.vocabulary() + story_words.vocabulary()
            for w in words(text)
            if w not in PAUSES
        }
    )
    while len(texts) < n:
        texts.append(" ".join(rng.choice(known, rng.integers(3, 11))))
    return [texts[i] for i in rng.permutation(n)]


def shard(folder: Path, number: int) -> list[tuple[str, np.ndarray]]:
    """Sentences and their spectrograms, each twice; what is in the folder is not said again."""
    path = folder / f"speech{number:03d}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([31, number])
        mel = LogMel()
        texts = sentences(SHARD, rng)
        parts = {}
        for row, text in enumerate(texts):
            for take, speaker in enumerate(make_speakers(2, rng=rng)):
                snr = None if rng.random() < 0.2 else float(rng.uniform(0, 30))
                said = speak(text, speaker, rng=rng, snr=snr)
                frames = heard(mel.spectrogram(said.wave, said.rate))
                parts[f"{row:04d}.{take}"] = frames.numpy().astype(np.float16)
        work = path.with_suffix(".part.npz")
        np.savez(work, texts=np.asarray(texts), **parts)
        work.replace(path)
    with np.load(path) as found:
        return [
            (str(text), found[f"{row:04d}.{take}"])
            for row, text in enumerate(found["texts"])
            for take in (0, 1)
        ]


def hide(mel: torch.Tensor, lengths: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Blank a stretch of time and a band of frequencies (Park et al. 2019, "SpecAugment")."""
    for row, length in enumerate(lengths.tolist()):
        for _ in range(2):
            start, n = rng.integers(length), rng.integers(1, 12)
            mel[row, start : start + n] = -1
        band, n = rng.integers(mel.shape[2]), rng.integers(1, 12)
        mel[row, :length, band : band + n] = -1
    return mel


def main() -> None:
    """Make the sentences, train on them, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/miniatures"))
    parser.add_argument("--shards", type=int, default=9, help=f"of {SHARD} sentences")
    parser.add_argument("--steps", type=int, default=1500, help="batches to train on")
    options = parser.parse_args()
    said: list[tuple[str, np.ndarray]] = []
    for number in track(range(options.shards), "speaking"):
        said += shard(options.work / "speech", number)
    pairs = list(zip(said[::2], said[1::2], strict=True))
    # Batches are of sentences of about the same length.
    pairs.sort(key=lambda pair: len(pair[0][1]) + len(pair[1][1]))
    with seeded(0):
        model = MiniSpeech(symbols=[*PHONEMES, BOUNDARY])
    targets = [model.encode(symbols(pair[0][0])) for pair in pairs]

    def batch(rng: np.random.Generator) -> Any:
        first = int(rng.integers(len(pairs) - 4 * BATCH + 1))
        rows = first + rng.permutation(4 * BATCH)[:BATCH]
        frames = [torch.from_numpy(pairs[i][take][1]).float() for take in (0, 1) for i in rows]
        lengths = torch.tensor([len(f) for f in frames])
        mel = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        return hide(mel, lengths, rng), lengths, [targets[i] for i in rows]

    model = fit(
        model,
        batch,
        lambda network, parts: network.loss(*parts),
        steps=options.steps,
        rate=2e-3,
        checkpoint=options.work / "speech.pt",
        description="speech encoder",
        average=0.99,
    )
    path = WEIGHTS / "mini-speech.safetensors"
    model.save(path)
    load_shipped.cache_clear()
    write_card(
        path,
        "mini-speech: speech encoder of the generated voices",
        f"{options.steps} batches of {BATCH} sentences from two speakers each, out of "
        f"{len(pairs)} sentences (captions, stories, random words) with a new speaker each time "
        "and noise at 0 to 30 dB, AdamW, bfloat16; connectionist temporal classification of "
        "phonemes and word boundaries, contrast of utterances, SpecAugment, moving average of the "
        "weights",
        speech_quality(Miniature()),
        "100 captions of compositions that no training sentence names, said by ten speakers that "
        "were never heard",
    )


if __name__ == "__main__":
    main()
