"""The gallery: what the generated world looks and sounds like, and what the miniatures make of it.

A page for the eye. Whoever trusts a number that was measured in this world should have seen it: are
the objects recognisable, do captions, depth and motion agree with the pictures, do the miniature
models do what real ones would?
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.progress import track
from engramma.report.html import write_report
from engramma.study.result import Figure, Section, Study, Table
from engramma.versions import versions

if TYPE_CHECKING:
    from engramma.data.recording import Recording

PAGE = "gallery.html"
#: Pixels that one pixel of a scene becomes.
ZOOM = 2


def write_gallery(folder: str | Path, seed: int = 0, parts: Sequence[str] | None = None) -> Path:
    """Draw the gallery and write ``gallery.html``.

    Parameters
    ----------
    folder : path
    seed : int
    parts : sequence of str, optional
        Keys of `PARTS`; all by default.

    Returns
    -------
    Path
        Of the page.
    """
    started = time.perf_counter()
    chosen = list(PARTS) if parts is None else list(parts)
    sections = [PARTS[name](seed) for name in track(chosen, "drawing the gallery")]
    study = Study(
        title="Gallery of the generated world",
        data={"seed": seed, "parts": ", ".join(chosen)},
        sections=sections,
        parameters={"seed": seed},
        versions=versions(),
        seconds=time.perf_counter() - started,
    )
    return write_report(study, Path(folder) / PAGE)


# -- parts ---------------------------------------------------------------------------------


def scenes(seed: int) -> Section:
    """Scenes with their captions, masks and depth, and every category and background."""
    from engramma.worlds.objects import CATEGORIES, SUPERORDINATES
    from engramma.worlds.scene_pairs import alike_in_meaning, alike_in_pixels
    from engramma.worlds.scenes import make_scenes

    rng = np.random.default_rng(seed)
    some = make_scenes(24, rng=rng, object_counts=(0.3, 0.3, 0.2, 0.2))
    each = make_scenes(4 * len(CATEGORIES), rng=rng, object_counts=(1,), caption=False)
    order = np.argsort([CATEGORIES.index(c) for c in each.stimuli.table["category"]], kind="stable")
    anchors = make_scenes(8, rng=rng, object_counts=(1,))
    pairs = [anchors, alike_in_pixels(anchors, rng=rng), alike_in_meaning(anchors, rng=rng)]
    first = some.descriptions[int(np.argmax([len(d.things) for d in some.descriptions]))]
    return Section(
        name="scenes",
        title="Scenes",
        summary=f"{len(CATEGORIES)} categories in {len(SUPERORDINATES)} superordinate classes, one "
        "to four a scene. Category is not given away by colour, size, place or background.",
        figures=[
            _plates("Scenes and captions", "", some.images, some.stimuli.table["caption"]),
            _picture(
                "Masks and depth",
                "Upper rows: which object is in front. Lower rows: distance, near things bright.",
                np.concatenate(
                    [
                        tile(painted(some.masks[:8], 4, "tab10"), 8),
                        tile(painted(10 - some.depth[:8], 9, "magma"), 8),
                    ]
                ),
            ),
            _picture(
                "Every category, four times",
                ", ".join(CATEGORIES),
                tile(each.images[order], 8),
            ),
            _picture(
                "Alike in pixels, alike in meaning",
                "First row: scenes. Second: other things in the same places and colours. Third: "
                "the same kinds of things, all else drawn anew.",
                np.concatenate([tile(p.images, 8) for p in pairs]),
            ),
        ],
        tables=[
            Table(
                "Scene graph of the fullest scene",
                ["subject", "predicate", "object"],
                [list(t) for t in first.triples()],
            )
        ],
    )


def videos(seed: int) -> Section:
    """Frames of videos with their optical flow."""
    from engramma.worlds.videos import make_videos

    some = make_videos(4, rng=np.random.default_rng(seed), frames=9)
    flow = some.flow()
    rows = []
    for video, motion in zip(some.frames, flow, strict=True):
        rows.append(tile(video[:-1], 8))
        rows.append(tile(flow_colours(motion), 8))
    return Section(
        name="videos",
        title="Videos",
        summary="Objects and camera move; the flow of every pixel is known.",
        figures=[
            _picture(
                "Frames and flow",
                "Hue is the direction of motion, saturation its speed. "
                + "; ".join(some.stimuli.table["caption"]),
                np.concatenate(rows),
            )
        ],
    )


def sounds(seed: int) -> Section:
    """Log-mel spectrograms of a spoken caption by two speakers, and of sounds of objects."""
    from engramma.features.audio import LogMel
    from engramma.worlds.sounds import make_sound
    from engramma.worlds.speech import RATE, make_speakers, speak

    rng = np.random.default_rng(seed)
    text = "a small red cat left of a blue car in a kitchen"
    waves = {
        f'"{text}", speaker {i + 1}': speak(text, speaker, rng=rng).wave
        for i, speaker in enumerate(make_speakers(2, rng=rng))
    }
    waves |= {
        f"sound of: {c}": make_sound(c, rng=rng, seconds=2.0)
        for c in ("dog", "car", "hammer", "bird")
    }
    mel = LogMel().spectrogram
    return Section(
        name="sounds",
        title="Speech and sounds",
        summary="Captions are spoken by formant synthesis; each category has its own sound.",
        figures=[
            _picture(
                title,
                "Log-mel spectrogram, low pitches below.",
                spectrogram(mel(wave, RATE).numpy()),
            )
            for title, wave in waves.items()
        ],
    )


def stories(seed: int) -> Section:
    """Show a passage of a story, and questions about it."""
    from engramma.worlds.stories import stories as tell
    from engramma.worlds.story_questions import ask

    story = tell(seed, n_sentences=60)
    questions = ask(story, 12, rng=np.random.default_rng(seed))
    passage = " ".join(story.sentences["text"].iloc[:24])
    return Section(
        name="stories",
        title="Stories",
        summary=passage,
        tables=[
            Table(
                "Questions, whose answers are computed from what happened",
                ["question", "answer", "among"],
                [[q.text, q.answer, ", ".join(q.choices)] for q in questions],
            )
        ],
    )


def solids(seed: int) -> Section:
    """Turntables of the solid objects."""
    from engramma.worlds.solids import make_solids

    some = make_solids(12, rng=np.random.default_rng(seed), n_views=8)
    return Section(
        name="solids",
        title="Solid objects",
        summary="Textured meshes, seen from all sides; shape parameters and depth are known.",
        figures=[
            _picture(
                "Turntables",
                ", ".join(some.stimuli.table["category"]),
                np.concatenate([tile(views, 8) for views in some.images]),
            )
        ],
    )


def rooms(seed: int) -> Section:
    """Show what an agent sees on its way through a house."""
    from engramma.worlds.agent_life import agent_life

    life = agent_life(seed)
    steps = np.linspace(0, len(life.frames) - 1, 16).astype(int)
    views = life.views(steps)
    far = float(np.percentile(views.depth, 99))
    return Section(
        name="rooms",
        title="Rooms",
        summary="An agent lives in a house; it sees, hears, says and remembers.",
        figures=[
            _picture(
                "Views and depth",
                "Above: what the agent sees, first to last. Below: distance, near things bright.",
                np.concatenate(
                    [tile(views.rgb, 8), tile(painted(far - views.depth, far, "magma"), 8)]
                ),
            )
        ],
    )


def brains(seed: int) -> Section:
    """Draw the areas of a virtual brain on fsaverage5, and what it knows of noise."""
    from engramma.worlds.cohort import cohort

    members = cohort(seed=seed, n_subjects=1, n_shared=40, n_own=0, n_units=2000)
    recording = next(iter(members.values()))
    roi = recording.coord("roi").astype(str)
    names = list(dict.fromkeys(roi))
    colours = np.asarray([names.index(r) + 1 for r in roi], dtype=float)
    ceiling = recording.coord("true_ceiling")
    return Section(
        name="brains",
        title="A virtual brain",
        summary=f"{len(roi)} units in {len(names)} areas, each with a place on the cortex, a "
        "tuning and a noise ceiling that are known.",
        figures=[
            _picture("Areas", ", ".join(names), cortical_map(recording, colours, "nipy_spectral")),
            _picture(
                "Noise ceiling",
                "Share of the variance of single presentations that is signal.",
                cortical_map(recording, ceiling, "viridis"),
            ),
        ],
    )


def miniatures(seed: int) -> Section:
    """Show what the image models make of scenes in colours that they were never trained on."""
    from engramma.features import contrastive, depth
    from engramma.generative import autoencoder, captioner, diffusion
    from engramma.worlds.scenes import make_scenes

    rng = np.random.default_rng(seed)
    some = make_scenes(12, rng=rng, compositions="held out")
    clip, vae = contrastive.Miniature(), autoencoder.Miniature()
    model = diffusion.Miniature()
    embeddings = clip.embed_images(some.images)
    texts = list(some.stimuli.table["caption"])
    drawn = [
        vae.decode(model.sample(wish, rng=rng)) for wish in (embeddings, clip.embed_texts(texts))
    ]
    near = vae.decode(
        model.sample(embeddings[::-1], rng=rng, start=vae.encode(some.images), strength=0.6)
    )
    from_tokens = captioner.TokenMiniature().caption_images(some.images)
    from_embeddings = captioner.Miniature().caption(embeddings)
    return Section(
        name="miniatures",
        title="Miniature foundation models",
        summary="Each was trained on other scenes; the pairs of category and colour shown here are "
        "new to them.",
        figures=[
            _picture(
                "Image models",
                "Rows: scenes; decoded from 4 x 8 x 8 numbers; drawn from the image's embedding; "
                "drawn from the caption's embedding; the scene turned towards the embedding of "
                "another; distance as estimated; distance as it is.",
                np.concatenate(
                    [
                        tile(rows, 12)
                        for rows in (
                            some.images,
                            vae.decode(vae.encode(some.images)),
                            *drawn,
                            near,
                            painted(10 - depth.Miniature().depth(some.images), 9, "magma"),
                            painted(10 - some.depth, 9, "magma"),
                        )
                    ]
                ),
            ),
            _plates("Captions written from image tokens", "", some.images, from_tokens),
        ],
        tables=[
            Table(
                "Caption by the world, and by the captioners of image tokens and of embeddings",
                ["world", "from tokens", "from the embedding"],
                [list(row) for row in zip(texts, from_tokens, from_embeddings, strict=True)],
            )
        ],
    )


PARTS: Mapping[str, Callable[[int], Section]] = {
    "scenes": scenes,
    "videos": videos,
    "sounds": sounds,
    "stories": stories,
    "solids": solids,
    "rooms": rooms,
    "brains": brains,
    "miniatures": miniatures,
}


# -- drawing -------------------------------------------------------------------------------


def tile(images: np.ndarray, columns: int, zoom: int = ZOOM) -> np.ndarray:
    """Lay images (n, height, width, 3) side by side, row by row, enlarged."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * columns, height, width, channels), 255, np.uint8)
    sheet[:n] = images
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    return sheet.repeat(zoom, axis=0).repeat(zoom, axis=1)


def painted(values: np.ndarray, largest: float, colours: str) -> np.ndarray:
    """Bring values 0 .. ``largest`` to RGB, uint8, by a colour map of matplotlib."""
    import matplotlib as mpl

    return (mpl.colormaps[colours](values / largest)[..., :3] * 255).astype(np.uint8)


def flow_colours(flow: np.ndarray) -> np.ndarray:
    """Draw optical flow (..., 2): hue is direction, saturation is speed (Baker et al. 2011)."""
    from matplotlib.colors import hsv_to_rgb

    speed = np.hypot(flow[..., 0], flow[..., 1])
    hue = (np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi)) % 1
    saturation = np.clip(speed / max(float(speed.max()), 1e-6), 0, 1)
    rgb = hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], axis=-1))
    return (rgb * 255).astype(np.uint8)


def spectrogram(values: Any) -> np.ndarray:
    """Draw a spectrogram (time, band) with time to the right and high bands above."""
    values = np.asarray(values)
    low, high = np.percentile(values, [2, 99.5])
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return painted(scaled.T[::-1], 1, "viridis").repeat(3, axis=0).repeat(3, axis=1)


def cortical_map(recording: Recording, values: np.ndarray, colours: str) -> np.ndarray:
    """Draw one value a unit on the inflated fsaverage5, both hemispheres from three sides."""
    import io

    import matplotlib.pyplot as plt
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.plotting import plot_surf_stat_map
    from PIL import Image

    surface = fetch_surf_fsaverage("fsaverage5")
    figure, axes = plt.subplots(2, 3, figsize=(12, 7), subplot_kw={"projection": "3d"})
    hemisphere, vertex = recording.coord("hemisphere").astype(str), recording.coord("vertex")
    for row, side in zip(axes, ("left", "right"), strict=True):
        here = np.char.startswith(np.char.lower(hemisphere), side[0])
        texture = np.full(10242, np.nan, dtype=np.float32)
        texture[vertex[here].astype(int) % 10242] = values[here]
        for axis, view in zip(row, ("lateral", "medial", "ventral"), strict=True):
            plot_surf_stat_map(
                surface[f"infl_{side}"],
                texture,
                hemi=side,
                view=view,
                bg_map=surface[f"sulc_{side}"],
                axes=axis,
                cmap=colours,
                colorbar=False,
                vmin=0,
                vmax=float(np.nanmax(values)),
                symmetric_cbar=False,
            )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _picture(title: str, caption: str, image: np.ndarray) -> Figure:
    return Figure("picture", title, caption, {"image": image, "alt": title})


def _plates(title: str, caption: str, images: Any, texts: Any) -> Figure:
    return Figure("image_grid", title, caption, {"images": list(images), "titles": list(texts)})
