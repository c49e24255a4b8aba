"""Videos: flow against warping, occlusion, the small moving scenes, and the video encoder."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion, map_coordinates

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.features import extract
from engramma.features.media import items
from engramma.features.video import WEIGHTS, Miniature, _neighbours
from engramma.registry import worlds
from engramma.worlds.moving_scenes import moving_scenes
from engramma.worlds.videos import ACTIONS, CAMERAS, DIRECTIONS, Videos, make_videos, video_quality

N = 2 * len(ACTIONS)


@pytest.fixture(scope="module")
def videos() -> Videos:
    return make_videos(N, rng=np.random.default_rng(0), frames=8, grain=0)


def warped(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """What a frame shows at each pixel plus the flow, by linear interpolation."""
    row, column = np.indices(flow.shape[:2])
    at = [row + flow[..., 1], column + flow[..., 0]]
    channels = [map_coordinates(c.astype(float), at, order=1, mode="nearest") for c in frame.T]
    return np.stack(channels, axis=-1)


def test_flow_carries_each_frame_back_from_the_next(videos: Videos) -> None:
    flow, hidden = videos.flow(), videos.occluded()
    better = {}
    for i in range(N):
        name = videos.stimuli.table["action"].iloc[i]
        now, then = videos.frames[i, 0].astype(float), videos.frames[i, 1]
        # Transposed, since channels are taken first.
        error = np.abs(warped(then.transpose(1, 0, 2), flow[i, 0]) - now).mean(axis=-1)
        change = np.abs(then - now).mean(axis=-1)
        seen = ~hidden[i, 0]
        assert error[seen].mean() < 2.5, name
        inside = seen & binary_erosion(videos.masks[i, 0] == 1)
        better.setdefault(name, []).append((error[inside].sum(), change[inside].sum()))
        if hidden[i, 0].sum() > 20:
            assert error[~seen].mean() > 2 * error[seen].mean(), name
    for name in set(better) - {"still"}:
        error, change = np.sum(better[name], axis=0)
        assert error < 0.75 * change, name


def test_nothing_moves_where_all_stands_still() -> None:
    options = {"frames": 4, "actions": ["still"], "still_camera": 1.0, "grain": 0}
    still = make_videos(6, rng=np.random.default_rng(1), **options)
    assert not still.flow().any() and not still.occluded().any()
    assert (still.frames == still.frames[:, :1]).all()
    moves = make_videos(6, rng=np.random.default_rng(1), **{**options, "actions": ["left"]})
    flow, background = moves.flow(), moves.masks[:, :-1] == 0
    assert not flow[background].any()
    assert (flow[~background][:, 0] < 0).all() and np.abs(flow[~background][:, 1]).max() < 1e-4


def test_camera_moves_the_background_by_whole_pixels(videos: Videos) -> None:
    flow = videos.flow()
    for i, camera in enumerate(videos.stimuli.table["camera"]):
        pan = np.zeros(2) if camera == "still" else np.asarray(DIRECTIONS[camera])
        background = videos.masks[i, :-1] == 0
        assert (flow[i][background] == -pan).all()
    assert set(videos.camera) <= set(range(len(CAMERAS)))


def test_flow_agrees_with_tracks(videos: Videos) -> None:
    flow, tracks = videos.flow(), videos.tracks
    step = np.diff(tracks[:, :, 0], axis=1)
    for i, t in np.ndindex(step.shape[:2]):
        column, row = np.floor(tracks[i, t, 0]).astype(int)
        if 0 <= row < 64 and 0 <= column < 64 and videos.masks[i, t, row, column] == 1:
            # Half a pixel beside the centre, turning and growing add a little.
            np.testing.assert_allclose(flow[i, t, row, column], step[i, t], atol=0.45)
    approach = videos.action[:, 0] == list(ACTIONS).index("approach")
    radius = videos.layout.radius[:, 0].reshape(N, 8)
    assert (np.diff(radius[approach], axis=1) > 0).all()
    assert (np.diff(videos.layout.turn[:, 0].reshape(N, 8), axis=1) != 0).any(axis=1).sum() == 2


def test_captions_tell_the_motion_and_labels_are_even(videos: Videos) -> None:
    table = videos.stimuli.table
    assert (table["action"].value_counts() == 2).all()
    for row in table.itertuples():
        assert ACTIONS[row.action] in row.caption and row.colour in row.caption
        assert ("camera" in row.caption) == (row.camera != "still")
        assert (ACTIONS[row.second_action] in row.caption) if row.second else row.n_objects == 1


def test_videos_are_determined_by_the_generator_and_errors_help() -> None:
    one, again = (make_videos(3, rng=np.random.default_rng(2), frames=3, size=32) for _ in "ab")
    np.testing.assert_array_equal(one.frames, again.frames)
    np.testing.assert_array_equal(one.flow(slice(1, 2)), again.flow()[1:2])
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"no action 'swim'.*bounce"):
        make_videos(2, rng=rng, actions=["swim"])
    with pytest.raises(ConfigError, match="frames >= 2"):
        make_videos(2, rng=rng, frames=1)


@pytest.mark.parametrize(("coefficient", "share"), [(0.06, 0.126), (0.15, 0.474)])
def test_content_tells_the_planted_share_of_flow(coefficient: float, share: float) -> None:
    scenes = moving_scenes(0, n=1000, coefficient=coefficient, frames=2)
    flow, content = scenes.truth["flow"].reshape(1000, -1), scenes.truth["content"]
    left = flow - content @ np.linalg.lstsq(content, flow, rcond=None)[0]
    assert 1 - left.var() / flow.var() == pytest.approx(share, abs=0.035)


def test_flow_clips_are_carried_by_their_flow() -> None:
    scenes = worlds.get("moving-scenes")(1, n=40)
    down, across = np.indices((16, 16))
    for clip, flow in zip(scenes.frames, scenes.truth["pixel_flow"], strict=True):
        at = np.stack([down - 2 * flow[..., 1], across - 2 * flow[..., 0]])
        inside = ((at > 1) & (at < 14)).all(axis=0)
        expected = map_coordinates(clip[0], at, order=3)
        assert np.abs(expected - clip[2])[inside].max() < 0.1
    roi = scenes.recording.array["roi"].values
    signal = scenes.recording.array.attrs["truth"]["signal"]
    content = scenes.truth["content"]
    fit = content @ np.linalg.lstsq(content, signal, rcond=None)[0]
    assert np.allclose(fit[:, roi == "static"], signal[:, roi == "static"], atol=1e-4)
    assert not np.allclose(fit[:, roi == "motion"], signal[:, roi == "motion"], atol=0.1)


def test_hidden_ball_goes_straight_but_for_walls() -> None:
    scenes = moving_scenes(0, view="ball", n=50, noise=0.0)
    place, velocity = scenes.truth["place"], scenes.truth["velocity"]
    assert np.abs(place).max() <= 1
    free = ~scenes.truth["bounced"][:, 1:]
    np.testing.assert_allclose(np.diff(place, axis=1)[free], velocity[:, 1:][free], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(velocity, axis=-1), 0.18, rtol=1e-5)
    assert not scenes.frames[:, 7:].any() and scenes.frames[:, :7].any(axis=(2, 3)).all()
    # Neurons follow the hidden ball: place and velocity are read from them, linearly.
    neurons = np.moveaxis(scenes.recording.array.values, 1, 2).reshape(-1, 64)
    state = np.concatenate([place, velocity], axis=-1).reshape(-1, 4)
    left = state - neurons @ np.linalg.lstsq(neurons, state, rcond=None)[0]
    assert (left.var(axis=0) < 0.05 * state.var(axis=0)).all()


def test_digits_drift_and_test_digits_are_new() -> None:
    scenes = moving_scenes(0, view="digits", n_train=60, n_test=40, noise=0.0)
    truth = scenes.truth
    assert not set(truth["image"][truth["train"]]) & set(truth["image"][~truth["train"]])
    for clip, direction in zip(scenes.frames, truth["direction"], strict=True):
        right, down = list(DIRECTIONS.values())[direction]
        for t in range(7):
            np.testing.assert_array_equal(np.roll(clip[t], (down, right), (0, 1)), clip[t + 1])
    with pytest.raises(ConfigError, match=r"no view 'clouds'.*digits"):
        moving_scenes(0, view="clouds")
    with pytest.raises(ConfigError, match=r"no option 'speed'.*n_train"):
        moving_scenes(0, view="digits", speed=2)


def test_shipped_encoder_is_as_good_as_its_card_says() -> None:
    model = Miniature()
    card = dict(re.findall(r"\| (\w+) \| ([\d.]+) \|", (WEIGHTS / "mini-video.md").read_text()))
    held_out = make_videos(
        130,
        rng=np.random.default_rng(3),
        frames=8,
        compositions="held out",
        object_counts=(1.0,),
    )
    quality = video_quality(model, held_out)
    for question, value in quality.items():
        assert value > float(card[question]) - 0.12, question
    # Actions (chance 1/13), cameras (1/9) and, in colours never seen with them, categories (1/32).
    assert quality["action"] > 0.7 and quality["camera"] > 0.5 and quality["category"] > 0.5


def test_places_to_compare_with_are_those_around() -> None:
    near, inside = _neighbours(5, 1)
    for place in range(25):
        row, column = divmod(place, 5)
        around = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        for n, (r, c) in enumerate(around):
            is_inside = 0 <= r < 5 and 0 <= c < 5
            assert inside[place, n] == is_inside
            assert not is_inside or near[place, n] == 5 * r + c


def test_encoder_reads_the_order_of_frames_and_checks_its_input(videos: Videos) -> None:
    model = Miniature()
    few = videos.frames[:3]
    found = model.activations(few)
    assert list(found) == list(model.layers)
    assert found["motion"].shape == found["tubes"].shape == (3, 4 * 64, 128)
    assert found["block1"].shape == (3, 1 + 4 * 64, 128)
    vectors = model.embed_videos(few)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[1:2], model.embed_videos(few[1:2]), atol=1e-5)
    assert np.abs(vectors - model.embed_videos(few[:, ::-1])).max() > 1e-3
    with pytest.raises(ConfigError, match=r"no layer 'block9'.*block1"):
        model.activations(few, ["block9"])
    with pytest.raises(DataError, match="at least 8 frames"):
        model.embed_videos(few[:, :4])


def test_layers_of_the_encoder_are_features_of_videos(videos: Videos) -> None:
    model = Miniature()
    some = videos.stimuli.select(videos.stimuli.ids[3:0:-1])
    found = extract(some, "mini-video", cache=False)
    assert list(found) == [f"mini-video/{n}" for n in (*model.layers, "embedding")]
    clips = videos.frames[3:0:-1]
    inner = model.activations(clips, ["motion"])["motion"].mean(axis=1)
    np.testing.assert_allclose(found["mini-video/motion"].values, inner, atol=1e-5)
    vectors = model.embed_videos(clips)
    np.testing.assert_allclose(found["mini-video/embedding"].values, vectors, atol=1e-5)
    # Larger clips are read as pillow, which resizes with antialiasing, makes them.
    large = make_videos(2, rng=np.random.default_rng(2), frames=9, size=96)
    again = extract(large.stimuli, "mini-video", "embedding", cache=False)["mini-video/embedding"]
    some_frames = large.frames[:, [0, 1, 2, 3, 5, 6, 7, 8]]
    small = [[Image.fromarray(f).resize((64, 64), Image.BILINEAR) for f in c] for c in some_frames]
    wanted = model.embed_videos(np.asarray([[np.asarray(f) for f in c] for c in small]))
    assert (again.values * wanted).sum(axis=1).min() > 0.999
    # Columns of the table, images and videos are part of what stimuli are.
    assert some.fingerprint() != StimulusSet(some.table, images=some.images).fingerprint()


def test_videos_in_files_are_decoded(tmp_path: Path, videos: Videos) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    for name, clip in zip("ab", videos.frames[:2], strict=True):
        with av.open(str(tmp_path / f"{name}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=8)  # lossless
            stream.width, stream.height, stream.pix_fmt = 64, 64, "bgr0"
            for frame in clip:
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    table = pd.DataFrame({"video": ["a.mkv", "b.mkv"]}, index=["a", "b"])
    stimuli = StimulusSet(table, root=tmp_path)
    for read, clip in zip(items(stimuli, "video"), videos.frames, strict=False):
        np.testing.assert_array_equal(read, clip)
    (tmp_path / "b.mkv").write_text("no video")
    with pytest.raises(DataError, match=r"does not decode.*b\.mkv \(stimulus 'b'\)"):
        list(items(stimuli, "video"))
    with pytest.raises(DataError, match="no video"):
        extract(StimulusSet(videos.stimuli.table), "mini-video", cache=False)
    wrong = StimulusSet(table, videos=[videos.frames[0], videos.masks[0]])
    with pytest.raises(DataError, match="give frames x height x width x 3"):
        list(items(wrong, "video"))
