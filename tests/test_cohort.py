"""Virtual fMRI brains: anatomy, tuning, the shared code, noise, and everything that is planted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from engramma.data.ceilings import variance_ceiling
from engramma.errors import ConfigError, DataError
from engramma.registry import worlds
from engramma.worlds.anatomy import surface_sites
from engramma.worlds.cohort import cohort, cohort_brains, percent_ceiling
from engramma.worlds.cortex import AREAS, IMAGE_KINDS, Area
from engramma.worlds.haemodynamics import single_trials
from engramma.worlds.scenes import make_scenes
from engramma.worlds.subject_options import SubjectOptions
from engramma.worlds.tuning import shared_code

CODE_AREAS = tuple(a for a in AREAS if a.kind != "silent")


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(420, rng=np.random.default_rng(0), size=32)


@pytest.fixture(scope="module")
def code(scenes):
    return shared_code(scenes.stimuli, AREAS, objects=scenes.objects)


@pytest.fixture(scope="module")
def brains():
    return cohort_brains(seed=4, n_subjects=2, n_units=500)


@pytest.fixture(scope="module")
def clean(code, brains):
    return [brain.noise_free(code)[0] for brain in brains]


# -- where units are and what they see -----------------------------------------------------


def test_areas_lie_where_they_should_and_differ_between_subjects(brains):
    first, second = (b.unit_coords() for b in brains)
    assert len(first["roi"]) != len(second["roi"])
    sites = surface_sites()
    assert len(sites.position) == 2 * 10242  # fsaverage5
    for one in (first, second):
        keys = list(zip(one["hemisphere"], one["vertex"], strict=True))
        assert len(set(keys)) == len(keys)
        assert ((one["x"] > 0) == (one["hemisphere"] == "R")).mean() > 0.97
        for area in AREAS:
            units = one["roi"] == area.name
            place = np.stack([np.abs(one["x"]), one["y"], one["z"]], axis=1)[units]
            if area.map == "hemifield":  # V2 and V3 are rings around their centre
                assert np.linalg.norm(place.mean(axis=0) - area.place) < 16
        assert set(one["hemisphere"][one["roi"] == "VWFA"]) == {"L"}
    v1 = [set(zip(c["hemisphere"], c["vertex"], c["roi"], strict=True)) for c in (first, second)]
    assert v1[0] & v1[1] and v1[0] != v1[1]


def test_receptive_fields_are_contralateral_and_grow(brains):
    unit = brains[0].unit_coords()
    right = unit["hemisphere"] == "R"
    seen = np.isfinite(unit["rf_x"])
    assert (unit["rf_x"][seen & right] < 0.5).all() and (unit["rf_x"][seen & ~right] > 0.5).all()
    size = {a: np.median(unit["rf_size"][unit["roi"] == a]) for a in ("V1", "V2", "V3", "LO")}
    assert size["V1"] < size["V2"] < size["V3"] < size["LO"]
    v1 = unit["roi"] == "V1"
    eccentricity = np.hypot(unit["rf_x"] - 0.5, unit["rf_y"] - 0.5)[v1]
    assert np.corrcoef(eccentricity, unit["y"][v1])[0, 1] > 0.8  # outwards goes forwards
    assert np.corrcoef(unit["rf_y"][v1], unit["z"][v1])[0, 1] > 0.5  # what is below is seen above


def test_nothing_outside_its_receptive_field_moves_a_unit(scenes, brains):
    images = scenes.images[:6]
    noise = np.random.default_rng(1).integers(0, 256, images.shape, dtype=np.uint8)
    areas = [a for a in AREAS if a.kind in IMAGE_KINDS]
    stimuli = scenes.stimuli.select(scenes.stimuli.ids[:6])
    wiring = [w for w in brains[0].wiring if w.patch.area in areas]
    before = shared_code(stimuli, areas)
    centre = (np.arange(32) + 0.5) / 32
    for one in wiring[::3]:
        unit = int(np.argmin(one.facts["rf_reach"]))
        x, y, reach = (one.facts[k][unit] for k in ("rf_x", "rf_y", "rf_reach"))
        inside = np.hypot(centre - x, (centre - y)[:, None]) <= reach + 1 / 32
        assert 0 < inside.mean() < 0.9
        for kept, moves in ((inside, False), (~inside, True)):
            changed = np.where(kept[None, ..., None], images, noise)
            after = shared_code(type(stimuli)(stimuli.table, images=changed), areas)
            same = np.allclose(
                one.respond(before)[:, unit], one.respond(after)[:, unit], rtol=1e-3, atol=1e-5
            )
            assert same != moves


def test_category_areas_prefer_their_class_and_concepts_are_planted(scenes, clean, brains):
    classes = scenes.stimuli.table["superordinate"].to_numpy()
    single = (scenes.stimuli.table["n_objects"] == 1).to_numpy()
    unit = brains[0].unit_coords()
    for area in AREAS:
        if area.kind != "category":
            continue
        for wanted in area.prefers:
            units = (unit["roi"] == area.name) & (unit["preferred"] == wanted)
            response = clean[0][:, units].mean(axis=1)
            means = {c: response[single & (classes == c)].mean() for c in np.unique(classes)}
            assert max(means, key=means.get) == wanted
    assert all("+" in c or c for c in unit["concepts"][np.isin(unit["roi"], ("IFG", "FFA"))])
    silent = np.isin(unit["roi"], ("M1", "dlPFC", "insula"))
    assert not clean[0][:, silent].any() and clean[0][:, ~silent].any(axis=0).all()


def test_subjects_share_a_code_but_no_units(clean, brains):
    train, test = slice(0, 300), slice(300, None)
    roi = [b.of_units("name") for b in brains]
    for area in ("V1", "V3", "LO", "FFA", "PPA", "STS", "PCC"):
        x, y = clean[0][:, roi[0] == area], clean[1][:, roi[1] == area]
        model = RidgeCV(np.logspace(-2, 4, 7)).fit(x[train], y[train])
        explained = 1 - ((y[test] - model.predict(x[test])) ** 2).mean(0) / y[test].var(0)
        n = min(x.shape[1], y.shape[1])
        same = [np.corrcoef(x[test, i], y[test, i])[0, 1] ** 2 for i in range(n)]
        assert explained.mean() > 0.6
        assert explained.mean() > np.mean(same) + 0.15
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(clean[0].T, clean[1].T, strict=False)
                    if a.any() and b.any()]) < 0.6  # fmt: skip


# -- noise and its ceiling -----------------------------------------------------------------


@pytest.mark.parametrize("ceiling", [0.1, 0.3, 0.7])
def test_the_ceiling_is_what_repeats_say(scenes, ceiling):
    noisy = {"correlated": 0.5, "temporal": 0.4, "drift": 0.2}
    few = scenes.stimuli.select(scenes.stimuli.ids[:150])
    for recording in cohort(
        few, seed=2, n_subjects=2, n_units=300, n_repeats=4, ceiling=ceiling, **noisy
    ).values():
        truth = recording.coord("true_ceiling")
        assert abs(truth[truth > 0].mean() - ceiling) < 0.03
        found = variance_ceiling(recording, 1).reliability
        assert abs(found.mean() - truth.mean()) < 0.03
        # Per unit, noise and signal have the variances that were asked for.
        assert np.corrcoef(found, truth)[0, 1] > 0.8
    assert np.allclose(percent_ceiling(np.asarray([0.0, 0.5]), 3), [0, 75])


def test_noise_is_correlated_in_space_and_time():
    recording = cohort(
        n_subjects=1, n_shared=100, n_own=0, size=16, n_units=300, signal=False,
        correlated=0.6, temporal=0.5, drift=0.0, session_drift=0.0, gain=0.0, smoothness=6.0,
    )["sub-01"]  # fmt: skip
    values = recording.values
    assert abs((values**2).mean() - 1) < 0.1
    lagged = [
        np.corrcoef(v[1:].ravel(), v[:-1].ravel())[0, 1]
        for v in (values[recording.coord("run") == r] for r in np.unique(recording.coord("run")))
    ]
    assert abs(np.mean(lagged) - 0.5) < 0.05
    place = np.stack([recording.coord(c) for c in "xyz"], axis=1)
    apart = np.linalg.norm(place[:, None] - place[None], axis=2)
    correlation = np.corrcoef(values.T)
    assert correlation[(apart > 0) & (apart < 5)].mean() > 0.3
    assert abs(correlation[apart > 40].mean()) < 0.03


def test_without_signal_there_is_none():
    null = cohort(n_subjects=1, n_shared=60, n_own=0, size=16, n_units=200, signal=False)["sub-01"]
    assert (null.coord("true_ceiling") == 0).all()
    assert abs(variance_ceiling(null, 1).reliability.mean()) < 0.03
    no_default = cohort(n_subjects=1, n_shared=40, n_own=0, size=16, n_units=200, dmn=False)
    recording = no_default["sub-01"]
    silent = recording.coord("true_ceiling") == 0
    assert silent[recording.coord("network") == "Default"].all()
    assert not silent[recording.coord("network") == "Visual"].any()


# -- cohorts -------------------------------------------------------------------------------


def test_shared_and_own_stimuli_and_the_seed():
    small = {"n_shared": 20, "n_own": 15, "size": 16, "n_units": 150}
    made = worlds.get("cohort")(seed=7, n_subjects=3, **small)
    seen = {s: set(r.coord("stimulus")) for s, r in made.items()}
    shared = set.intersection(*seen.values())
    assert len(shared) == 20 and all(len(s) == 35 for s in seen.values())
    own = [s - shared for s in seen.values()]
    assert not own[0] & own[1] and not own[1] & own[2] and not own[0] & own[2]
    first = made["sub-01"]
    assert first.repeats[sorted(shared)].eq(3).all() and first.repeats[sorted(own[0])].eq(1).all()
    pairs = list(zip(first.coord("stimulus"), first.coord("session"), strict=True))
    assert len(set(pairs)) == len(pairs)  # repeats fall in different sessions
    assert len(made.stimuli) == 20 + 3 * 15
    fewer = cohort(seed=7, n_subjects=2, **small)
    assert [fewer[s].fingerprint() for s in fewer] == [made[s].fingerprint() for s in fewer]
    assert cohort(seed=8, n_subjects=1, **small)["sub-01"].fingerprint() != first.fingerprint()
    # Noise options leave anatomy and tuning alone.
    quiet = cohort(seed=7, n_subjects=1, ceiling=0.6, temporal=0.0, **small)["sub-01"]
    for name in ("vertex", "roi", "concepts", "gain"):
        np.testing.assert_array_equal(quiet.coord(name), first.coord(name))
    brain = cohort_brains(seed=7, n_subjects=1, n_units=150)[0]
    np.testing.assert_array_equal(brain.unit_coords()["vertex"], first.coord("vertex"))


def test_given_stimuli_are_dealt_out(scenes):
    made = cohort(scenes, n_subjects=2, n_shared=10, n_own=5, n_units=100)
    ids = scenes.stimuli.ids
    assert set(made["sub-02"].coord("stimulus")) == {*ids[:10], *ids[15:20]}
    with pytest.raises(ConfigError, match="10 shared and 300 own"):
        cohort(scenes, n_subjects=2, n_shared=10, n_own=300)


def test_sizes_of_responses_drift_between_sessions_at_no_cost_to_the_ceiling(scenes):
    few = scenes.stimuli.select(scenes.stimuli.ids[:120])
    made = cohort(few, n_subjects=1, n_units=300, n_repeats=4, gain_drift=0.4, ceiling=0.5)
    recording = made["sub-01"]
    truth = recording.coord("true_ceiling")
    assert abs(variance_ceiling(recording, 1).reliability.mean() - truth.mean()) < 0.03
    mean = recording.mean_over("stimulus")
    clean = dict(zip(mean.coord("stimulus"), mean.values, strict=True))
    slopes = []
    for session in np.unique(recording.coord("session")):
        rows = recording.coord("session") == session
        x = np.stack([clean[s] for s in recording.coord("stimulus")[rows]])
        y = recording.values[rows]
        slopes.append(((x - x.mean(0)) * (y - y.mean(0))).mean(0) / x.var(0))
    strong = truth > 0.4
    assert np.std(slopes, axis=0)[strong].mean() > 0.2


# -- what is planted -----------------------------------------------------------------------


def test_invisible_directions_cannot_be_decoded(scenes, code):
    target = np.random.default_rng(0).standard_normal((12, 12)) * np.linspace(3, 1, 12)
    target = code.meaning[:, :12] @ target
    explained = {}
    for invisible in (0.0, 0.5):
        brain = cohort_brains(seed=1, n_subjects=1, n_units=400, invisible=invisible)[0]
        x, hidden = brain.noise_free(code, target)
        x = x + 0.5 * np.random.default_rng(1).standard_normal(x.shape)
        model = RidgeCV(np.logspace(0, 6, 13), alpha_per_target=True).fit(x[:300], target[:300])
        error = ((target[300:] - model.predict(x[300:])) ** 2).sum()
        explained[invisible] = 1 - error / ((target[300:] - target[:300].mean(0)) ** 2).sum()
        assert invisible - 0.2 < hidden <= invisible
    assert explained[0.0] > 0.85
    assert abs(explained[0.5] - (1 - hidden) * explained[0.0]) < 0.1


def test_binding_units_follow_the_colour_of_the_first_object(scenes):
    brain = cohort_brains(seed=1, n_subjects=1, n_units=400, binding=0.1)[0]
    units = brain.of_units("name") == "PRC"
    assert abs(units.mean() - 0.1) < 0.03
    code = shared_code(scenes.stimuli, brain.options.brain, objects=scenes.objects)
    response = brain.noise_free(code)[0][:, units]
    objects, table = scenes.objects, scenes.stimuli.table
    first = np.asarray(table["colour"])[:, None] == np.unique(table["colour"])
    # What is there, unbound: the colours of all objects, and their categories.
    unbound = np.concatenate(
        [
            objects.groupby(["scene", c]).size().unstack(fill_value=0).to_numpy(float)
            for c in ("colour", "category")
        ],
        axis=1,
    )
    several = (table["n_objects"] > 1).to_numpy()
    score = {}
    for name, x in (("first", first.astype(float)), ("unbound", unbound)):
        model = Ridge(1.0).fit(x[:300], response[:300])
        test = np.flatnonzero(several)[np.flatnonzero(several) >= 300]
        p, y = model.predict(x[test]), response[test]
        score[name] = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, y.T, strict=True)])
    assert score["first"] > 0.5 and score["first"] > score["unbound"] + 0.1


def test_nonlinear_units_are_predicted_worse_by_a_linear_model(code):
    scores = []
    for nonlinearity in (0.0, 1.0):
        brain = cohort_brains(seed=1, n_subjects=1, n_units=300, nonlinearity=nonlinearity)[0]
        y = brain.noise_free(code)[0][:, brain.of_units("name") == "STS"]
        x = code.meaning
        p = Ridge(1.0).fit(x[:300], y[:300]).predict(x[300:])
        scores.append(1 - ((y[300:] - p) ** 2).mean() / y[300:].var())
    assert scores[0] > 0.98 and scores[1] < 0.85


def test_the_confound_is_in_training_runs_only():
    made = cohort(
        n_subjects=1, n_shared=150, n_own=0, size=16, n_units=150, signal=False, confound=0.3,
        n_repeats=4,
    )["sub-01"]  # fmt: skip
    nuisance, split = made.coord("nuisance"), made.coord("split")
    classes = made.labels("superordinate")
    between = {}
    for part in ("train", "test"):
        rows = split == part
        groups = [nuisance[rows & (classes == c)] for c in np.unique(classes)]
        total = nuisance[rows].var()
        between[part] = 1 - sum(len(g) * g.var() for g in groups) / rows.sum() / total
    assert between["train"] > 0.6 and between["test"] < 0.12
    explained = np.corrcoef(nuisance, made.values.T)[0, 1:] ** 2
    assert abs(explained.mean() - 0.3) < 0.05
    with pytest.raises(ConfigError, match="held-out"):
        cohort(n_subjects=1, n_shared=10, n_own=0, size=16, confound=0.2, held_out_runs=0.0)


def test_imagery_has_its_share_of_the_signal(scenes):
    few = scenes.stimuli.select(scenes.stimuli.ids[:100])
    recording = cohort(
        few, n_subjects=1, n_units=300, n_imagined=100, imagery=0.2, ceiling=0.6, n_repeats=4
    )["sub-01"]
    imagined = recording.coord("task") == "imagery"
    runs = recording.coord("run")
    assert not set(runs[imagined]) & set(runs[~imagined])
    signal = []
    for rows in (imagined, ~imagined):
        part = recording.select(presentations=rows)
        mean = part.mean_over("stimulus").values
        codes = np.unique(part.coord("stimulus"), return_inverse=True)[1]
        noise = ((part.values - mean[codes]) ** 2).sum(axis=0) / (len(codes) - len(mean))
        signal.append((mean.var(axis=0, ddof=1) - noise / 4).mean())
    assert abs(signal[0] / signal[1] - 0.2) < 0.05


# -- volumes and time courses --------------------------------------------------------------


def test_voxels_lie_in_the_grid_and_the_affine_takes_them_to_their_place():
    options = {"n_subjects": 1, "n_shared": 10, "n_own": 0, "size": 16, "n_units": 200}
    recording = cohort(layout="volume", **options)["sub-01"]
    voxels = np.stack([recording.coord(c) for c in "ijk"], axis=1)
    assert len(np.unique(voxels, axis=0)) == recording.n_units
    assert (voxels >= 0).all() and (voxels < recording.attrs["volume_shape"]).all()
    affine = recording.attrs["affine"]
    place = np.stack([recording.coord(c) for c in "xyz"], axis=1)
    assert np.allclose(voxels @ affine[:3, :3].T + affine[:3, 3], place, atol=1e-3)


def test_single_trials_come_back_from_time_courses(scenes):
    few = scenes.stimuli.select(scenes.stimuli.ids[:60])
    options = {"n_subjects": 1, "n_units": 200, "ceiling": 0.5, "gain_drift": 0.0, "seed": 3}
    volumes = cohort(few, time="hrf", **options)["sub-01"]
    assert volumes.attrs["tr"] == 1.6 and "blank" in set(volumes.coord("stimulus"))
    betas = single_trials(volumes)
    assert betas.n_presentations == 180 and sorted(betas.repeats.unique()) == [3]
    brain = cohort_brains(seed=3, n_subjects=1, n_units=200)[0]
    truth = brain.noise_free(shared_code(few, AREAS))[0]
    rows = {s: i for i, s in enumerate(few.ids)}
    shown = truth[[rows[s] for s in betas.coord("stimulus")]]
    ceiling = betas.coord("true_ceiling")
    strong = ceiling > 0.3
    pairs = zip(shown.T[strong], betas.values.T[strong], strict=True)
    correlation = np.asarray([np.corrcoef(a, b)[0, 1] for a, b in pairs])
    # The noise was set so that estimates have their ceiling, whose root is this correlation.
    assert abs(correlation.mean() - np.sqrt(ceiling[strong]).mean()) < 0.05
    assert abs(variance_ceiling(betas, 1).reliability.mean() - ceiling.mean()) < 0.05
    with pytest.raises(DataError, match="no events"):
        single_trials(betas)


def test_bad_options_are_named(scenes):
    for options, message in (
        ({"nonsense": 1}, "'nonsense'"),
        ({"ceiling": 1.0}, "shares of variance"),
        ({"correlated": 0.8, "drift": 0.3}, "shares of variance"),
        ({"n_sessions": 1, "runs_per_session": 1}, "3 repeats do not fit into 1 runs"),
        ({"layout": "flat"}, "'flat'"),
        ({"n_units": 40_000}, "do not fit on the cortex"),
        ({"time": "hrf", "interval": 1.0}, "every 1 s"),
        ({"n_subjects": 0}, "at least one subject"),
    ):
        with pytest.raises(ConfigError, match=message):
            cohort(scenes, **{"n_subjects": 1, **options})
    with pytest.raises(ConfigError, match="'smell'"):
        Area("OB", "smell", "Limbic", (0, 0, 0), 0.1)
    with pytest.raises(DataError, match="'relation'"):
        table = scenes.stimuli.table.drop(columns="relation")
        cohort(type(scenes.stimuli)(table, images=scenes.images), n_subjects=1)
    assert SubjectOptions(binding=0.2).brain[-1].name == "PRC"
