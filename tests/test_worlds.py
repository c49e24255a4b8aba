"""Rendered scenes and virtual subjects: what is promised about them is measured."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_score

from engramma.data.ceilings import split_half_ceiling, variance_ceiling
from engramma.errors import ConfigError, DataError
from engramma.registry import worlds
from engramma.worlds.evoked import SOURCES, evoked
from engramma.worlds.layouts import COLOURS
from engramma.worlds.objects import CATEGORIES, SUPERORDINATES
from engramma.worlds.retinotopy import FREQUENCIES, ORIENTATIONS, contrast
from engramma.worlds.scenes import make_scenes
from engramma.worlds.scenes_cohort import scenes
from engramma.worlds.subjects import SubjectOptions, make_subject


@pytest.fixture(scope="module")
def many():
    return make_scenes(800, rng=np.random.default_rng(3), object_counts=(1,))


@pytest.fixture(scope="module")
def subject():
    return scenes(seed=1, n_subjects=1, n_stimuli=150, n_repeats=6)["sub-01"]


def test_scenes_follow_the_seed_and_have_what_is_promised():
    a, b, c = (make_scenes(24, rng=np.random.default_rng(s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(a.stimuli.images, b.stimuli.images)
    assert a.stimuli.table.equals(b.stimuli.table)
    assert not np.array_equal(a.stimuli.images, c.stimuli.images)
    assert a.stimuli.images.shape == (24, 64, 64, 3)
    assert len(SUPERORDINATES) == 8 and len(CATEGORIES) >= 24
    assert make_scenes(3, rng=np.random.default_rng(0), size=96).masks.shape == (3, 96, 96)


def test_masks_and_captions_agree_with_the_table():
    scenes_ = make_scenes(200, rng=np.random.default_rng(2))
    table = scenes_.stimuli.table
    rows, columns = np.mgrid[:64, :64] / 64
    for i, (_, row) in enumerate(table.iterrows()):
        assert row["colour"] in row["caption"]
        assert scenes_.masks[i].max() <= row["n_objects"]
        if row["relation"] and {1, 2} <= set(np.unique(scenes_.masks[i])):
            first, second = scenes_.masks[i] == 1, scenes_.masks[i] == 2
            across = columns[first].mean() - columns[second].mean()
            down = rows[first].mean() - rows[second].mean()
            nearer = scenes_.depth[i][first].mean() < scenes_.depth[i][second].mean()
            assert {
                "left of": across < 0,
                "right of": across > 0,
                "above": down < 0,
                "below": down > 0,
                "in front of": nearer,
                "behind": not nearer,
            }[row["relation"]]
    single = (table["second"] == "").to_numpy()
    centre = np.asarray([columns[m == 1].mean() for m in scenes_.masks[single]])
    assert np.corrcoef(centre, table["x"][single].astype(float))[0, 1] > 0.97


def test_objects_have_the_colour_that_the_table_says(many):
    table, images = many.stimuli.table, many.stimuli.images / 255
    for name in ("red", "green", "blue"):
        rows = np.flatnonzero(table["colour"] == name)
        mean = np.mean([images[r][many.masks[r] == 1].mean(axis=0) for r in rows], axis=0)
        assert mean.argmax() == np.argmax(COLOURS[name])


def test_category_is_not_given_away_by_colour_size_or_place(many):
    table = many.stimuli.table
    area = (many.masks == 1).mean(axis=(1, 2))
    hue = np.asarray([im[m == 1].mean(0) for im, m in zip(many.stimuli.images, many.masks)])  # noqa: B905
    hue = hue / hue.sum(axis=1, keepdims=True)  # chromaticity
    cheap = np.column_stack([hue[:, :2], np.sqrt(area), table[["x", "y"]].to_numpy(float)])
    lda = LinearDiscriminantAnalysis()
    assert cross_val_score(lda, cheap, table["superordinate"], cv=5).mean() < 0.125 + 0.09
    # The shape does give it away, even to a linear classifier of the upright, centred mask.
    patches = []
    for mask, x, y in zip(many.masks == 1, table["x"], table["y"], strict=True):
        patch = np.pad(mask, 32)[int(y * 64) + 12 :][:40, int(x * 64) + 12 :][:, :40]
        patches.append(patch.reshape(10, 4, 10, 4).mean(axis=(1, 3)).ravel())
    shape = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    assert cross_val_score(shape, np.asarray(patches), table["superordinate"], cv=5).mean() > 0.5


def test_bad_options_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="'unicorn'"):
        make_scenes(4, rng=rng, categories=["unicorn"])
    with pytest.raises(ConfigError, match="'nonsense'"):
        scenes(nonsense=1)
    with pytest.raises(ConfigError, match="shares of variance"):
        SubjectOptions(ceiling=1.2)
    stimuli = make_scenes(4, rng=rng).stimuli
    with pytest.raises(DataError, match="'category'"):
        table = stimuli.table.drop(columns="category")
        make_subject(type(stimuli)(table, images=stimuli.images), "a", SubjectOptions(), rng)


def test_orientation_energy_prefers_its_own_grating():
    x = (np.arange(64) + 0.5) / 64
    across = np.deg2rad(ORIENTATIONS + 90)[:, None, None]
    gratings = np.sin(2 * np.pi * 6 * (np.cos(across) * x - np.sin(across) * x[:, None]))
    energy = contrast(gratings)[:, FREQUENCIES == 6, :, 8:24, 8:24][:, 0]
    assert (energy.mean(axis=(2, 3)).argmax(axis=1) == np.arange(len(ORIENTATIONS))).all()
    bars = np.sin(2 * np.pi * FREQUENCIES[:, None, None] * x) * np.ones((64, 1))
    tuning = contrast(bars)[:, :, ORIENTATIONS == 90, 8:24, 8:24].mean(axis=(2, 3, 4))
    assert (tuning.argmax(axis=0) == np.arange(len(FREQUENCIES))).all()
    vertical_bar = gratings[ORIENTATIONS == 90]  # contours at 90 degrees run up and down
    assert np.ptp(vertical_bar, axis=1).max() < 1e-9
    # Energy depends neither on place within the grating nor on phase, and grey gives none.
    own = np.stack([e[i] for i, e in enumerate(energy)])
    assert own.std() < 0.03 * own.mean()
    assert np.allclose(contrast(-gratings), contrast(gratings), rtol=1e-3, atol=1e-4)
    assert np.abs(contrast(np.full((1, 64, 64), 0.5))).max() < 1e-5


def test_the_analytic_ceiling_agrees_with_repeats(subject):
    """Against a split-half correlation written here and the library's two estimators."""
    truth = subject.coord("true_ceiling")
    values, stimulus, run = subject.values, subject.coord("stimulus"), subject.coord("run")
    order = [np.flatnonzero(run == r)[np.argsort(stimulus[run == r])] for r in np.unique(run)]
    runs = np.stack([values[o] for o in order]).astype(float)
    z = (runs - runs.mean(1, keepdims=True)) / runs.std(1, keepdims=True)
    pairs = [(z[a] * z[b]).mean(0) for a in range(6) for b in range(a)]
    assert abs(np.mean(pairs, axis=0).mean() - truth.mean()) < 0.03
    assert np.corrcoef(np.mean(pairs, axis=0), truth)[0, 1] > 0.85
    assert abs(variance_ceiling(subject, 1).reliability.mean() - truth.mean()) < 0.03
    halves = split_half_ceiling(subject, rng=np.random.default_rng(0), n_averaged=1)
    assert abs(halves.reliability.mean() - truth.mean()) < 0.03
    assert (truth[subject.coord("roi") == "noise"] == 0).all()


def test_areas_do_what_they_are_said_to(subject):
    mean = subject.mean_over("stimulus")
    roi, table = mean.coord("roi"), subject.stimuli.table.loc[mean.coord("stimulus")]
    for area in ("face", "body", "animal", "place", "tool", "word"):
        response = mean.values[:, roi == area].mean(axis=1)
        by_class = {
            c: response[(table["superordinate"] == c).to_numpy()].mean() for c in SUPERORDINATES
        }
        assert max(by_class, key=by_class.__getitem__) == area
    faces = mean.values[:, roi == "face"].mean(axis=1)
    classes = table["superordinate"].to_numpy()
    assert faces[classes == "animal"].mean() > faces[classes == "vehicle"].mean()  # graded


def test_noise_is_shared_by_neighbours(subject):
    values = subject.values
    stimulus = subject.coord("stimulus")
    codes = np.unique(stimulus, return_inverse=True)[1]
    residual = values - subject.mean_over("stimulus").values[codes]
    noise = np.flatnonzero(subject.coord("roi") == "noise")
    place = np.stack([subject.coord(c)[noise] for c in "ijk"], axis=1)
    apart = np.linalg.norm(place[:, None] - place[None], axis=2)
    correlation = np.corrcoef(residual[:, noise].T)
    assert correlation[apart == 1].mean() > correlation[apart > 3].mean() + 0.1


def test_cohort_is_as_asked_and_individual():
    cohort = worlds.get("scenes")(seed=2, n_subjects=3, n_stimuli=30, n_units=200)
    assert list(cohort) == ["sub-01", "sub-02", "sub-03"]
    a, b = cohort["sub-01"], cohort["sub-02"]
    assert a.stimuli is b.stimuli and a.n_units != b.n_units
    assert a.fingerprint() != b.fingerprint()
    fewer = scenes(seed=2, n_subjects=1, n_stimuli=30, n_units=200)
    assert fewer["sub-01"].fingerprint() == a.fingerprint()
    voxels = np.stack([a.coord(c) for c in "ijk"], axis=1)
    assert len(np.unique(voxels, axis=0)) == a.n_units
    assert (voxels >= 0).all() and (voxels < a.attrs["volume_shape"]).all()
    assert sorted(a.repeats.unique()) == [3] and len(np.unique(a.coord("run"))) == 3


def test_null_cohort_has_no_signal():
    null = scenes(seed=3, n_subjects=1, signal=False)["sub-01"]
    assert (null.coord("true_ceiling") == 0).all()
    assert abs(variance_ceiling(null, 1).reliability.mean()) < 0.03


def test_evoked_follows_its_latencies_and_is_silent_before():
    options = {"n_stimuli": 48, "n_repeats": 4, "blinks": 0.0, "snr": 1.0}
    full = evoked(4, **options)
    null = evoked(4, signal=False, **options)
    # Same seed, same noise: up to one common scale the difference is what stimuli add.
    time = full.array["time"].values
    first = min(s.latency for s in SOURCES.values())
    ratio = full.values[:, :, time < 0].std() / null.values[:, :, time < 0].std()
    added = full.values - null.values * ratio
    scale = added.std()
    assert np.abs(added[:, :, time <= first]).max() < 1e-3 * scale
    assert added[:, :, time > 0.12].std() > 0.5 * scale
    assert full.coord("kind")[0] == "eeg" and np.linalg.norm(full.coord("z")) > 0


def test_blinks_are_frontal():
    recording = evoked(5, n_stimuli=20, n_repeats=4, blinks=0.3)
    rows = np.asarray(recording.attrs["truth"]["blinks"])
    others = np.setdiff1d(np.arange(recording.n_presentations), rows)
    largest = np.abs(recording.values).max(axis=2)
    units = list(recording.array["unit"].values)
    front, back = units.index("Fp1"), units.index("O1")
    excess = largest[rows].mean(axis=0) - largest[others].mean(axis=0)
    assert excess[front] > 10 * abs(excess[back])
