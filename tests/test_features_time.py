"""Sound and time: log-mel spectrograms, lags, haemodynamics and resampling to volumes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.linalg import toeplitz
from scipy.signal import spectrogram

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.features import extract
from engramma.features.audio import (
    LogMel,
    hertz_to_mel,
    mel_filters,
    mel_to_hertz,
    read_audio,
    resample,
)
from engramma.features.temporal import canonical_hrf, convolve_hrf, fir, lagged, lanczos, trim

# -- sound ---------------------------------------------------------------------------------


def tone(frequency, rate=16000, seconds=0.5):
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def test_mel_filters_are_those_of_transformers():
    utils = pytest.importorskip("transformers.audio_utils")
    expected = utils.mel_filter_bank(201, 80, 0, 8000, 16000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(mel_filters(80, 400, 16000, 0, 8000), expected, atol=1e-7)
    hertz = np.array([0.0, 440, 1000, 3000])
    np.testing.assert_allclose(hertz_to_mel(hertz), utils.hertz_to_mel(hertz, "slaney"))
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(hertz)), hertz, atol=1e-9)


def test_spectrogram_is_that_of_transformers(rng):
    utils = pytest.importorskip("transformers.audio_utils")
    wave = rng.standard_normal(8000).astype(np.float32)
    expected = utils.spectrogram(
        wave,
        utils.window_function(400, "hann"),
        frame_length=400,
        hop_length=160,
        power=2.0,
        mel_filters=utils.mel_filter_bank(201, 80, 0, 8000, 16000, "slaney", "slaney"),
        log_mel="log10",
    )
    np.testing.assert_allclose(LogMel().spectrogram(wave, 16000), expected.T, atol=1e-3)


@pytest.mark.parametrize("frequency", [250, 1000, 3100, 6500])
def test_a_tone_falls_into_its_band(frequency):
    """Into the band whose centre is nearest in mel, where scipy's spectrogram has it too."""
    model = LogMel()
    centres = np.linspace(0, hertz_to_mel(8000), 82)[1:-1]
    mean = model.spectrogram(tone(frequency), 16000).mean(dim=0)
    assert abs(int(mean.argmax()) - np.abs(centres - hertz_to_mel(frequency)).argmin()) <= 1
    hertz, _, power = spectrogram(tone(frequency), 16000, window="hann", nperseg=400)
    peak = hertz[power.mean(axis=1).argmax()]
    assert mel_filters(80, 400, 16000, 0, 8000)[int(peak / 40), int(mean.argmax())] > 0


def test_too_many_bands_are_refused():
    with pytest.raises(ConfigError, match="too many"):
        LogMel(n_bands=300)


def test_resampling_keeps_a_tone_and_removes_aliases():
    half = resample(tone(1000, 44100), 44100, 16000)
    assert len(half) == 8000
    np.testing.assert_allclose(half[200:-200], tone(1000)[200:-200], atol=5e-3)
    assert np.abs(resample(tone(15000, 44100), 44100, 16000)[200:-200]).max() < 0.01


def test_sound_from_files_and_from_memory_agree(tmp_path):
    waves = [tone(500), tone(2000, seconds=0.3)]
    for i, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{i}.wav", np.stack([wave, wave], 1), 16000, subtype="FLOAT")
    table = pd.DataFrame({"audio": ["0.wav", "1.wav"]}, index=["a", "b"])
    files = extract(StimulusSet(table, root=tmp_path), "log-mel", cache=False)["log-mel"]
    held = StimulusSet(pd.DataFrame(index=["a", "b"]), audio=waves, attrs={"sampling_rate": 16000})
    memory = extract(held, "log-mel", cache=False)["log-mel"]
    assert files.values.shape == (2, 80)
    np.testing.assert_allclose(files.values, memory.values, atol=1e-5)
    alone = LogMel().spectrogram(waves[1], 16000).mean(dim=0)
    np.testing.assert_allclose(memory.values[1], alone, atol=1e-5)  # padding is left out
    course = extract(held, "log-mel", pool="grid4", cache=False)["log-mel"]
    assert course.n_features == 320


def test_sound_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"a.wav \(stimulus 's'\)"):
        read_audio(tmp_path / "a.wav", "s")
    soundfile.write(tmp_path / "b.wav", np.zeros(0), 16000)
    with pytest.raises(DataError, match="empty"):
        read_audio(tmp_path / "b.wav")
    with pytest.raises(DataError, match="sampling rate"):
        extract(StimulusSet(pd.DataFrame(index=["a"]), audio=[tone(9)]), "log-mel", cache=False)


def test_a_click_shorter_than_the_window():
    assert LogMel().spectrogram(np.ones(10, np.float32), 16000).shape == (2, 80)


# -- time ----------------------------------------------------------------------------------


def test_lags_are_a_toeplitz_matrix(rng):
    x = rng.standard_normal(9)
    expected = toeplitz(x, np.zeros(4))
    np.testing.assert_allclose(lagged(x, [0, 1, 2, 3]), expected, rtol=1e-6)
    both = lagged(np.stack([x, -x], 1), [2, -1])
    np.testing.assert_allclose(both[2:, 0], x[:-2], rtol=1e-6)
    np.testing.assert_allclose(both[:-1, 3], -x[1:], rtol=1e-6)
    assert (both[:2, :2] == 0).all() and (both[-1, 2:] == 0).all()
    assert (lagged(x, [20, -20]) == 0).all()


def test_fir_delays_are_in_seconds(rng):
    x = rng.standard_normal((20, 2))
    np.testing.assert_array_equal(fir(x, [2, 4], 2.0), lagged(x, [1, 2]))
    with pytest.raises(DataError, match="multiple"):
        fir(x, [3], 2.0)


def test_haemodynamic_response_is_that_of_nilearn():
    from nilearn.glm.first_level import spm_hrf

    expected = spm_hrf(1.0, oversampling=10)
    # nilearn spreads its 320 samples over 0 ... 32 s, both ends included, and starts at 0.1 s.
    ours = canonical_hrf(0.1)
    there = np.interp(np.linspace(0, 32, 320) - 0.1, np.arange(320) * 0.1, ours, left=0)
    np.testing.assert_allclose(there / there.sum(), expected, atol=2e-3 * expected.max())
    assert ours.sum() == pytest.approx(1)
    assert ours.argmax() * 0.1 == pytest.approx(5, abs=0.1)
    assert ours.argmin() * 0.1 == pytest.approx(15.8, abs=0.3)


def test_convolution_of_impulse_and_step():
    impulse = np.zeros((100, 1))
    impulse[3] = 1
    out = convolve_hrf(impulse, 0.5)
    np.testing.assert_allclose(out[3:67, 0], canonical_hrf(0.5), atol=1e-6)
    np.testing.assert_allclose(out[:3], 0, atol=1e-7)
    step = convolve_hrf(np.ones((100, 1)), 0.5)
    np.testing.assert_allclose(step[70:], 1, atol=1e-5)
    with pytest.raises(DataError, match="misses"):
        canonical_hrf(31.0)


def test_lanczos_of_regular_samples_at_their_own_times_is_the_identity(rng):
    x = rng.standard_normal((30, 3)).astype(np.float32)
    times = np.arange(30) * 2.0
    np.testing.assert_allclose(lanczos(x, times, times), x, atol=1e-6)


def test_lanczos_is_its_formula_and_order_does_not_matter(rng):
    times, new = np.sort(rng.uniform(0, 60, 80)), np.arange(5, 55, 2.0)
    x = rng.standard_normal((80, 2)).astype(np.float32)
    d = 0.5 * (new[:, None] - times)
    kernel = np.where(np.abs(d) < 3, np.sinc(d) * np.sinc(d / 3), 0)
    np.testing.assert_allclose(lanczos(x, times, new), kernel @ x, atol=1e-5)
    shuffled = rng.permutation(80)
    np.testing.assert_allclose(lanczos(x[shuffled], times[shuffled], new), kernel @ x, atol=1e-5)


def test_lanczos_removes_what_the_volumes_cannot_carry():
    times, new = np.arange(0, 100, 0.1), np.arange(10, 90, 2.0)
    slow, fast = np.sin(2 * np.pi * 0.05 * times), np.sin(2 * np.pi * 0.6 * times)
    out = lanczos(np.stack([slow, fast], 1), times, new) / 20  # 20 samples a volume
    np.testing.assert_allclose(out[:, 0], np.sin(2 * np.pi * 0.05 * new), atol=0.03)
    assert np.abs(out[:, 1]).max() < 0.03


def test_bad_times_are_refused(rng):
    with pytest.raises(DataError, match="one time a row"):
        lanczos(np.ones((4, 1)), np.arange(3), np.arange(5))
    with pytest.raises(DataError, match="evenly"):
        lanczos(np.ones((3, 1)), np.arange(3), np.array([0, 1, 5]))
    with pytest.raises(DataError, match="NaN"):
        lagged(np.array([np.nan]), [0])


def test_trim():
    np.testing.assert_array_equal(trim(np.arange(10), 2, 3), np.arange(2, 7))
    with pytest.raises(DataError, match="nothing"):
        trim(np.arange(4), 2, 2)
