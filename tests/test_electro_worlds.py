"""EEG, MEG and intracranial recordings: physics against MNE, ceilings, artefacts, controls."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from engramma.data.ceilings import variance_ceiling
from engramma.decoding.classify import decode
from engramma.decoding.regress import FeatureDecoder
from engramma.decoding.time import decode_over_time
from engramma.errors import ConfigError, DataError
from engramma.worlds.area_courses import SOURCES
from engramma.worlds.artefacts import coloured
from engramma.worlds.continuous import continuous
from engramma.worlds.erp_factors import erp_factors
from engramma.worlds.evoked import evoked
from engramma.worlds.evoked_cohort import evoked_cohort
from engramma.worlds.forward import (
    eye_field,
    heart_field,
    homogeneous_potential,
    lead_field,
)
from engramma.worlds.intracranial import intracranial
from engramma.worlds.sensors import CENTRE, RADIUS, make_sensors

PLACE = np.asarray([0.03, -0.04, 0.07])


@pytest.mark.parametrize("montage", ["biosemi64", "cap63", "neuromag"])
def test_lead_field_is_that_of_a_dipole_in_mne(montage):
    sensors = make_sensors(montage)
    direction = np.asarray([[0.6, 0.0, 0.8]])
    dipole = mne.Dipole([0.0], PLACE[None], [1.0], direction, [100.0])
    sphere = mne.make_sphere_model(CENTRE, RADIUS, verbose="error")
    theirs, _ = mne.make_forward_dipole(dipole, sphere, sensors.info, verbose="error")
    expected = theirs["sol"]["data"][:, 0]
    expected = expected - expected.mean() * (sensors.modality == "eeg")
    field = lead_field(sensors, PLACE[None])[:, 0] @ direction[0]
    np.testing.assert_allclose(field, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    if sensors.modality == "eeg":
        assert abs(field.mean()) < 1e-9 * np.abs(field).max()


def test_radial_dipoles_are_silent_in_meg_and_meg_follows_the_head():
    sensors = make_sensors("ctf275")
    radial = (PLACE - CENTRE) / np.linalg.norm(PLACE - CENTRE)
    field = lead_field(sensors, PLACE[None])[:, 0]
    assert np.abs(field @ radial).max() < 1e-3 * np.abs(field).max()
    moved = sensors.posed(np.asarray([0.0, 0.0, 0.1]), np.asarray([0.0, 0.01, 0.0]))
    assert not np.allclose(lead_field(moved, PLACE[None])[:, 0], field, rtol=0.05)
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(moved.positions, axis=0), axis=1),
        np.linalg.norm(np.diff(sensors.positions, axis=0), axis=1),
    )


def test_potentials_in_a_medium_are_in_closed_form():
    axis = np.asarray([[0.0, 0.0, 0.01], [0.0, 0.0, 0.02]])
    origin, up = np.zeros((1, 3)), np.asarray([[0.0, 0.0, 1.0]])
    dipole = homogeneous_potential(axis, origin, up)[:, 0]
    monopole = homogeneous_potential(axis, origin)[:, 0]
    assert dipole[0] == pytest.approx(1 / (4 * np.pi * 0.33 * 0.01**2))
    assert dipole[0] / dipole[1] == pytest.approx(4) and monopole[0] / monopole[1] == pytest.approx(
        2
    )
    near = homogeneous_potential(axis, np.asarray([[0, 0, 5e-5], [0, 0, -5e-5]]))
    assert (near[0, 0] - near[0, 1]) / 1e-4 == pytest.approx(dipole[0], rel=1e-3)
    with pytest.raises(ConfigError, match="touches"):
        homogeneous_potential(origin, origin)


def test_eyes_and_heart_have_the_right_places_and_sizes():
    cap, helmet = make_sensors("cap32"), make_sensors("ctf151")
    eyes = np.abs(eye_field(cap))
    assert set(np.asarray(cap.names)[np.argsort(eyes)[-2:]]) == {"Fp1", "Fp2"}
    front = helmet.positions[np.argsort(np.abs(eye_field(helmet)))[-10:]]
    assert (front[:, 1] > 0.04).all()
    # The heart stands out in MEG, less so in EEG (Jousmaki and Hari, 1996).
    heart = 1.5e-5 * np.abs(heart_field(helmet)).max()
    assert 1e-13 < heart < 3e-12 and 1.5e-5 * np.abs(heart_field(cap)).max() < 1e-5


def test_noise_is_pink_and_of_unit_variance(rng):
    noise = coloured((400, 512), sfreq=100, exponent=1.0, rng=rng)
    assert noise.var() == pytest.approx(1, abs=0.05)
    power = (np.abs(np.fft.rfft(noise * np.hanning(512))) ** 2).mean(axis=0)
    frequency = np.fft.rfftfreq(512, 0.01)
    inner = (frequency > 1) & (frequency < 40)
    slope = np.polyfit(np.log(frequency[inner]), np.log(power[inner]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize(
    ("montage", "low", "high"), [("cap32", 5e-6, 2e-5), ("neuromag-mag", 1e-13, 1e-12)]
)
def test_true_ceiling_is_what_repeats_say(montage, low, high):
    recording = evoked(
        3, montage=montage, n_stimuli=80, n_repeats=10, sfreq=50, blinks=0, heartbeat=0,
        jitter={"V1": 0.02, "anterior temporal": 0.06}, feedback=0.5, nonlinearity=0.5,
    )  # fmt: skip
    true = recording.coord("true_ceiling")
    estimated = variance_ceiling(recording, 1).reliability
    assert abs(estimated - true).mean() < 0.03 and abs((estimated - true).mean()) < 0.01
    assert np.corrcoef(true.ravel(), estimated.ravel())[0, 1] > 0.9
    time = recording.array["time"].values
    assert (true[:, time <= 0.06] == 0).all() and true.max() > 0.2
    assert low < recording.values.std() < high


@pytest.fixture(scope="module")
def two_kinds():
    """A low-level and a high-level drive, without and with jitter, and the control."""
    rng = np.random.default_rng(0)
    low, high = rng.standard_normal((2, 160, 6))
    drives = {"V1": low, "anterior temporal": high}
    areas = {name: SOURCES[name] for name in drives}
    options = {"n_stimuli": 160, "n_repeats": 3, "sfreq": 50, "snr": 1.0, "drives": drives,
               "areas": areas, "size": 16}  # fmt: skip
    made = {
        "steady": evoked(1, **options),
        "jittered": evoked(1, jitter=0.1, **options),
        "silent": evoked(1, signal=False, **options),
    }
    return low, high, made


def correlation(recording, target, start, stop):
    """Of a linear decoder, on stimuli that it was not fitted to, averaged over repeats."""
    mean = recording.mean_over("stimulus")
    time = mean.array["time"].values
    order = [recording.stimuli.ids.index(s) for s in mean.coord("stimulus")]
    x = mean.values[:, :, (time >= start) & (time < stop)]
    x = x.reshape(len(x), -1) * 1e6
    y = target[order]
    predicted = FeatureDecoder().fit(x[:110], y[:110]).predict(x[110:])
    return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, y[110:].T, strict=True)])


def test_each_area_is_decoded_in_its_window(two_kinds):
    low, high, made = two_kinds
    early, late = (0.06, 0.18), (0.28, 0.5)
    assert correlation(made["steady"], low, *early) > 0.4
    assert correlation(made["steady"], high, *late) > 0.4
    assert abs(correlation(made["steady"], high, *early)) < 0.15
    assert abs(correlation(made["steady"], low, -0.2, 0.05)) < 0.15
    assert abs(correlation(made["silent"], low, *early)) < 0.15
    jittered = correlation(made["jittered"], low, 0.0, 0.8)
    assert jittered < correlation(made["steady"], low, 0.0, 0.8) - 0.1


def test_meg_is_decoded_after_the_latency_and_not_before():
    recording = evoked(2, montage="neuromag-mag", n_stimuli=40, n_repeats=6, sfreq=40, snr=1.5)
    result = decode_over_time(recording, "superordinate", rng=np.random.default_rng(0))
    time = result.time
    assert abs(result.scores[time < 0.1].mean() - result.chance) < 0.05
    assert result.scores[(time > 0.14) & (time < 0.35)].mean() > 1.3 * result.chance


def test_faults_are_where_the_truth_says():
    options = {"n_stimuli": 20, "n_repeats": 3, "sfreq": 50, "size": 16}
    plain = evoked(6, **options)
    faulty = evoked(6, bad_channels=0.2, outliers=0.02, **options)
    flat = np.abs(faulty.values - plain.values).reshape(-1, 51).max(axis=1)
    truth = faulty.attrs["truth"]
    hit = np.union1d(truth["bad_channels"], truth["outliers"])
    assert set(np.flatnonzero(flat > 0)) == set(hit)
    assert len(truth["bad_channels"]) == pytest.approx(0.2 * len(flat), rel=0.2)
    assert flat.max() > 1e-3
    hum = evoked(6, line=20.0, **{**options, "sfreq": 200.0})
    power = (np.abs(np.fft.rfft(hum.values[..., :200])) ** 2).mean(axis=(0, 1))
    assert power[50] > 20 * power[45]


def test_cohort_has_splits_sessions_and_individuals():
    options = {"n_shared": 12, "n_own": 3, "n_test": 4, "train_repeats": 2, "test_repeats": 6}
    options |= {"n_sessions": 2, "sfreq": 50, "n_subjects": 2, "size": 16}
    cohort = evoked_cohort(0, **options)
    a, b = cohort["sub-01"], cohort["sub-02"]
    tests = a.coord("split") == "test"
    assert set(a.select(tests).repeats) == {6} and set(a.select(~tests).repeats) == {2}
    assert set(a.coord("session")) == {"1", "2"}
    assert len(set(a.coord("stimulus")) & set(b.coord("stimulus"))) == 16
    assert a.n_units == 63 and not np.allclose(a.coord("x"), b.coord("x"))
    assert evoked_cohort(0, **options).fingerprint() == cohort.fingerprint()
    assert evoked_cohort(1, **options).fingerprint() != cohort.fingerprint()
    meg = evoked_cohort(0, modality="meg", **options)["sub-01"]
    assert meg.n_units == 151 and 1e-13 < meg.values.std() < 2e-12


def test_continuous_recording_follows_its_features_after_the_lag():
    world = continuous(0, n_segments=80, sfreq=20, snr=1.0, blinks=0.0)
    recording = world.cohort["sub-02"]
    data = recording.values.swapaxes(0, 1).reshape(recording.n_units, -1)
    heard = world.features.swapaxes(0, 1).reshape(12, -1)
    envelope = heard[0]
    explained = []
    for shift in range(-4, 10):  # responses regressed on all features at one lag
        x = np.roll(heard, shift, axis=1)[:, 20:-20]
        y = data[:, 20:-20]
        y = y - y.mean(axis=1, keepdims=True)
        fitted = np.linalg.lstsq(x.T, y.T, rcond=None)[0].T @ x
        explained.append(fitted.var() / y.var())
    assert explained.index(max(explained)) - 4 == pytest.approx(0.15 * 20, abs=1)
    onsets = (world.events["onset"].to_numpy() * 20).astype(int)
    assert heard[1][onsets].min() > heard[1].min() and envelope[onsets].mean() > 0.5
    np.testing.assert_array_equal(recording.coord("onset"), np.arange(80) * 3.0)
    assert (
        continuous(0, n_segments=4, signal=False).cohort["sub-01"].coord("true_ceiling").max() == 0
    )
    given = continuous(1, features=np.random.default_rng(0).standard_normal((5, 130)), duration=2.0)
    assert given.features.shape == (3, 5, 40) and len(given.events) == 0


def test_few_contacts_carry_words():
    world = intracranial(0, n_trials=24, n_words=4)
    recording = world.recording
    carried = recording.coord("carried")
    assert recording.n_units == 24 and (np.sort(carried)[-8:] > 0.05).all()
    assert (np.sort(carried)[:16] < 0.01).all()
    assert all(name.startswith("A") for name in recording.attrs["truth"]["carriers"])
    # Variance while a word lasts, against that before the cue, tells the same contacts.
    time = recording.array["time"].values
    ratio = recording.values[..., (time > 0.5) & (time < 0.9)].var(axis=(0, 2))
    ratio /= recording.values[..., time < 0.1].var(axis=(0, 2))
    assert np.corrcoef(ratio - 1, carried / (1 - carried))[0, 1] > 0.9
    assert world.babble.values.shape == (60, 24, 400)
    rng = np.random.default_rng(0)
    binned = recording.values[..., 60:220].reshape(96, 24, 16, 10).mean(axis=3)

    def accuracy(units):
        flat = binned[:, units].reshape(96, -1)
        return decode(recording_of(flat, recording), rng=rng).balanced_accuracy.value

    assert accuracy(carried > 0.05) > 0.5 > 0.4 > accuracy(carried < 0.01)


def recording_of(values, like):
    from engramma.data.recording import Recording

    return Recording.from_arrays(values, like.coord("stimulus"), run=like.coord("run"))


def test_erp_factors_add_up():
    world = erp_factors(0, n_participants=60)
    gains = world.gains.to_numpy()
    clean = world.clean[:, 0].reshape(60, -1)
    assert np.linalg.matrix_rank(clean, tol=1e-4 * np.linalg.norm(clean)) == 4
    time = world.recording.array["time"].values
    n1 = world.clean[:, 0, 0, np.argmin(np.abs(time - 0.1))]
    assert np.corrcoef(n1, gains[:, 0])[0, 1] < -0.95
    for name in world.labels:
        assert np.corrcoef(world.labels[name], world.gains[name])[0, 1] > 0.5
    assert world.recording.array.shape == (60 * 2 * 20, 3, 256)
    mean = world.recording.mean_over("subject", "stimulus").values
    left = mean - world.clean[:, ::-1].reshape(120, 3, 256)  # affective sorts before neutral
    assert left.var() == pytest.approx(world.recording.values[..., :40].var() / 20, rel=0.5)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (evoked, {"montage": "cap33"}, "cap63"),
        (evoked, {"jiter": 0.1}, "did you mean jitter"),
        (evoked, {"jitter": {"V9": 0.1}}, "no area 'V9'"),
        (evoked, {"jitter": "much"}, "use a number"),
        (evoked, {"blinks": 2.0}, "between 0 and 1"),
        (evoked, {"line": 1.0}, "sfreq"),
        (evoked_cohort, {"modality": "fmri"}, "eeg or meg"),
        (evoked_cohort, {"n_sessions": 9}, "sessions"),
        (intracranial, {"n_contacts": 4}, "8 to 12"),
        (intracranial, {"high_gamma": True}, "sfreq >= 390"),
        (continuous, {"lag": -1.0}, "lag"),
        (erp_factors, {"n_trials": 0}, "n_trials"),
    ],
)
def test_what_cannot_be_recorded_is_said(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make(0, **options)


def test_drives_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="12 stimuli x features"):
        evoked(0, n_stimuli=12, drives={"V1": np.zeros((3, 2))})
    with pytest.raises(ConfigError, match="outside the brain"):
        lead_field(make_sensors("cap32"), np.asarray([[0.0, 0.0, 0.2]]))
    with pytest.raises(DataError, match="one segment"):
        continuous(0, features=np.zeros((2, 5)))
