"""How fast scenes, videos and virtual brains are made, on one thread and on two processes."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np

from _measure import arguments, table, timed, write_json
from engramma.worlds.cohort import cohort
from engramma.worlds.scenes import make_scenes
from engramma.worlds.videos import make_videos


def scenes(seed: int, n: int) -> int:
    return len(make_scenes(n, rng=np.random.default_rng(seed)))


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    n = 512 if options.small else 4096
    scenes(0, 64)  # categories are measured once
    rows = []
    seconds, _ = timed(lambda: scenes(1, n), repeats=3)
    rows.append(("scenes of one to four objects, 64 x 64, one process", n / seconds))
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(scenes, (0, 0), (64, 64)))
        seconds, _ = timed(lambda: list(pool.map(scenes, (1, 2), (n, n))), repeats=3)
    rows.append(("the same, two processes", 2 * n / seconds))
    few = n // 64
    seconds, _ = timed(lambda: make_videos(few, rng=np.random.default_rng(0)), repeats=3)
    rows.append(("frames of videos with depth and masks", 16 * few / seconds))
    stimuli = make_scenes(n // 8, rng=np.random.default_rng(0))
    seconds, _ = timed(lambda: cohort(stimuli, n_subjects=2))
    rows.append(("presentations to subjects of 1000 units", 2 * 3 * (n // 8) / seconds))
    table("Worlds", ["made", "a second"], rows)
    write_json(options.json, {"a second": dict(rows)})


if __name__ == "__main__":
    main()
