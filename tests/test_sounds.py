"""Speech, sounds of objects, sequences of sounds, and the miniature speech encoder."""

import re
import shutil
from dataclasses import replace
from itertools import groupby, pairwise, product

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz

from engramma.errors import ConfigError, DataError
from engramma.features.audio import LogMel, resample
from engramma.features.extraction import extract
from engramma.features.speech import WEIGHTS, Miniature, SpeechLayers, edit_distance
from engramma.features.word_decoding import WordDecoder
from engramma.worlds import captions, story_words
from engramma.worlds.espeak import PROGRAM, espeak
from engramma.worlds.event_audio import EVENT, PITCHES, PLAIN, ask, make_event_audio
from engramma.worlds.formants import RATE, Tracks, synthesise
from engramma.worlds.objects import CATEGORIES
from engramma.worlds.phonemes import PHONEMES
from engramma.worlds.pronunciation import pronounce, words
from engramma.worlds.sounds import LEVEL, make_sound
from engramma.worlds.speech import Speaker, make_speakers, speak
from engramma.worlds.spoken_captions import lexicon, make_spoken_captions, speech_quality

SENTENCE = "a small red hammer to the left of a large yellow castle"


def sustained(vowel: str, pitch: float, tract: float = 1.0, jitter: float = 0.0) -> np.ndarray:
    """A vowel of one second whose vocal tract does not move."""
    still = np.ones(200)
    formants = np.tile([*PHONEMES[vowel].targets[0], 3500.0], (200, 1))
    tracks = Tracks(
        pitch * still, formants, still, 0 * still, 0 * still, 4000 * still, 2000 * still, 0 * still
    )
    rng = np.random.default_rng(0)
    return synthesise(tracks, rng=rng, tract=tract, breathiness=0.0, jitter=jitter)


def formants_by_prediction(wave: np.ndarray, order: int = 12) -> np.ndarray:
    """Formants by linear prediction at 10 kHz, the usual way of measuring them."""
    wave = resample(wave, RATE, 10000)
    wave = np.append(wave[0], wave[1:] - 0.97 * wave[:-1])[3000:5000] * np.hamming(2000)
    correlation = np.correlate(wave, wave, "full")[len(wave) - 1 :][: order + 1]
    correlation[0] *= 1 + 1e-6
    predictor = solve_toeplitz(correlation[:-1], correlation[1:])
    roots = np.roots(np.r_[1, -predictor])
    roots = roots[np.imag(roots) > 0.01]
    frequency, bandwidth = (
        np.angle(roots) * 10000 / 2 / np.pi,
        -np.log(np.abs(roots)) * 10000 / np.pi,
    )
    return np.sort(frequency[bandwidth < 500])


def pitch_by_autocorrelation(wave: np.ndarray) -> float:
    """Pitch of a steady voice in Hz, between 70 and 500 Hz."""
    wave = wave - wave.mean()
    power = np.abs(np.fft.rfft(wave, 2 * len(wave))) ** 2
    correlation = np.fft.irfft(power)[: len(wave)] / np.arange(len(wave), 0, -1)
    lags = np.arange(RATE // 500, RATE // 70)
    before, here, after = (correlation[lags + k] for k in (-1, 0, 1))
    # Multiples of the period fit nearly as well: the shortest good peak is the period.
    peak = np.flatnonzero((here > before) & (here >= after) & (here > 0.85 * here.max()))[0]
    a, b, c = before[peak], here[peak], after[peak]
    return float(RATE / (lags[peak] + (a - c) / (a - 2 * b + c) / 2))


def test_vowels_have_the_formants_of_the_table() -> None:
    for vowel in ("IY", "EH", "AE", "AA", "AO", "UH", "AH", "ER"):
        found = formants_by_prediction(sustained(vowel, 100))
        for target in PHONEMES[vowel].targets[0]:
            error = np.abs(found / target - 1).min()
            assert error < 0.08, (vowel, target, found)


def test_a_shorter_vocal_tract_raises_all_formants() -> None:
    target = np.asarray(PHONEMES["EH"].targets[0])
    found = formants_by_prediction(sustained("EH", 100, tract=1.2))
    for frequency in 1.2 * target:
        assert np.abs(found / frequency - 1).min() < 0.08


@pytest.mark.parametrize("pitch", [90, 140, 220, 330])
def test_pitch_is_the_speakers(pitch: float) -> None:
    assert pitch_by_autocorrelation(sustained("AA", pitch)) == pytest.approx(pitch, rel=0.01)
    # In running speech too, where the melody is flat.
    speaker = Speaker(pitch=pitch, melody=0.0, jitter=0.0)
    said = speak("saw", speaker, rng=np.random.default_rng(1))
    vowel = next(p for p in said.phonemes if p.label == "AO")
    part = said.wave[round(vowel.onset * RATE) + 800 : round(vowel.offset * RATE) - 800]
    assert pitch_by_autocorrelation(part) == pytest.approx(pitch, rel=0.02)
    assert np.median(said.pitch[said.pitch > 0]) == pytest.approx(pitch)


def test_words_are_where_the_truth_says() -> None:
    said = speak(SENTENCE + ", there", rng=np.random.default_rng(2))
    assert [w.label for w in said.words] == [*words(SENTENCE), "there"]
    energy = np.sqrt(np.convolve(said.wave**2, np.full(160, 1 / 160), "same"))
    heard = np.flatnonzero(energy > 0.02 * energy.max()) / RATE
    assert heard[0] == pytest.approx(said.words[0].onset, abs=0.02)
    assert heard[-1] == pytest.approx(said.words[-1].offset, abs=0.02)
    # The comma is a silence between the words beside it.
    before, after = said.words[-2].offset, said.words[-1].onset
    pause = energy[round((before + 0.03) * RATE) : round((after - 0.01) * RATE)]
    assert after - before == pytest.approx(0.18, abs=0.01) and pause.max() < 0.02 * energy.max()
    # Hissing sounds have their energy above 3 kHz, vowels below, between the onsets told.
    for phoneme in said.phonemes:
        part = said.wave[round(phoneme.onset * RATE) : round(phoneme.offset * RATE)]
        power = np.abs(np.fft.rfft(part)) ** 2
        high = power[len(power) * 3 // 8 :].sum() / power.sum()
        if phoneme.label == "S":
            assert high > 0.7, phoneme
        if PHONEMES[phoneme.label].vowel:
            assert high < 0.1, phoneme


def test_same_seed_same_wave_and_speakers_differ() -> None:
    man, woman = Speaker(), Speaker(pitch=210, tract=1.17)
    first = speak(SENTENCE, man, rng=np.random.default_rng(3), snr=10)
    again = speak(SENTENCE, man, rng=np.random.default_rng(3), snr=10)
    other = speak(SENTENCE, woman, rng=np.random.default_rng(3), snr=10)
    np.testing.assert_array_equal(first.wave, again.wave)
    assert first.wave.dtype == np.float32 and not np.allclose(first.wave, other.wave)
    quick = speak(SENTENCE, replace(man, rate=1.5), rng=np.random.default_rng(3))
    assert quick.duration < 0.75 * first.duration
    assert len({s.pitch for s in make_speakers(5, rng=np.random.default_rng(0))}) == 5


def test_noise_has_the_level_asked_for() -> None:
    clean = speak(SENTENCE, rng=np.random.default_rng(4))
    noisy = speak(SENTENCE, rng=np.random.default_rng(4), snr=6)
    noise = noisy.wave - clean.wave
    assert 10 * np.log10(np.mean(clean.wave**2) / np.mean(noise**2)) == pytest.approx(6, abs=0.1)


def test_every_word_can_be_said() -> None:
    known = {w for text in captions.vocabulary() + story_words.vocabulary() for w in words(text)}
    for word in known - {",", ".", "?"}:
        assert any(PHONEMES[p].vowel for p in pronounce(word)), word
    # As the Carnegie Mellon dictionary has them (words that have no entry of their own here).
    for word, said in {
        "bridge": "B R IH JH", "street": "S T R IY T", "knight": "N AY T", "photo": "F OW T OW",
        "hiding": "HH AY D IH NG", "dropped": "D R AA P T", "wrench": "R EH N CH", "time": "T AY M",
        "thinking": "TH IH NG K IH NG", "stations": "S T EY SH AX N Z",
    }.items():  # fmt: skip
        assert " ".join(pronounce(word)) == said
    assert words("week 42: it rains!") == ["week", "forty", "two", ".", "it", "rains", "."]


def test_bad_speech_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="no word to say"):
        speak(" ... ", rng=rng)
    with pytest.raises(DataError, match="number 1000 cannot be spoken"):
        speak("1000 cats", rng=rng)
    with pytest.raises(ConfigError, match="pitch=20"):
        Speaker(pitch=20)
    with pytest.raises(ConfigError, match="no speech engine 'festival'"):
        speak("cat", rng=rng, engine="festival")


def test_espeak_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"espeak-ng is not installed.*apt install"):
        speak("cat", rng=np.random.default_rng(0), engine="espeak")


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="espeak-ng is not installed")
def test_espeak() -> None:
    wave = espeak("a red apple")
    assert wave.dtype == np.float32 and 0.5 < len(wave) / RATE < 3
    high = Speaker(pitch=220, tract=1.2)
    said = speak("a red apple, there", high, rng=np.random.default_rng(0), engine="espeak")
    assert [w.label for w in said.words] == ["a", "red", "apple", "there"]
    for word in said.words:
        part = said.wave[round(word.onset * RATE) : round(word.offset * RATE)]
        assert np.sqrt(np.mean(part**2)) > 0.02
    silent = said.wave[: round(said.words[0].onset * RATE)]
    assert np.abs(silent).max() == 0
    with pytest.raises(DataError, match="voices"):
        espeak("cat", voice="zzz")


# -- sounds of objects -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sounds() -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(5)
    label = np.repeat(np.arange(len(CATEGORIES)), 6)
    return [make_sound(CATEGORIES[k], rng=rng, decibels=rng.uniform(-6, 6)) for k in label], label


def nearest_centroid(features: np.ndarray, label: np.ndarray) -> float:
    train = np.arange(len(label)) % 2 == 0
    centres = np.stack([features[train & (label == k)].mean(axis=0) for k in np.unique(label)])
    distance = ((features[~train][:, None] - centres) ** 2).sum(axis=-1)
    return float((distance.argmin(axis=1) == label[~train]).mean())


def test_spectrum_tells_category_and_level_does_not(
    sounds: tuple[list[np.ndarray], np.ndarray],
) -> None:
    waves, label = sounds
    mel = LogMel()
    spectrum = np.stack([mel.spectrogram(w, RATE).numpy().mean(axis=0) for w in waves])
    spectrum -= spectrum.mean(axis=1, keepdims=True)
    assert nearest_centroid(spectrum, label) > 0.8
    level = np.asarray([[np.log10(np.mean(w**2))] for w in waves])
    # 96 sounds at a chance of 1 in 32: six or more are right in less than 1 of 10 such sets.
    assert nearest_centroid(level, label) < 0.1
    quiet = make_sound("dog", rng=np.random.default_rng(0), decibels=-6)
    assert np.sqrt(np.mean(quiet**2)) == pytest.approx(LEVEL / 2, rel=0.01)


def test_sounds_vary_and_repeat_by_seed() -> None:
    one, same, other = (make_sound("cat", rng=np.random.default_rng(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    with pytest.raises(ConfigError, match="'unicorn' sounds"):
        make_sound("unicorn", rng=np.random.default_rng(0))


def test_unknown_categories_sound_like_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    from engramma.worlds import sounds as module

    for superordinate in ("animal", "vehicle", "tool"):
        names = [f"{superordinate} {k}" for k in range(4)]
        monkeypatch.setattr(module, "CATEGORIES", (*CATEGORIES, *names))
        for name in names:
            monkeypatch.setitem(module.SUPERORDINATE, name, superordinate)
        mel, rng = LogMel(), np.random.default_rng(6)
        label = np.repeat(np.arange(4), 6)
        features = np.stack(
            [
                mel.spectrogram(make_sound(names[k], rng=rng), RATE).numpy().mean(axis=0)
                for k in label
            ]
        )
        # Of 12 sounds at a chance of 1 in 4, eight are right less than once in 300 times.
        assert nearest_centroid(features, label) > 0.6


# -- sequences of sounds -----------------------------------------------------------------------


def test_events_are_where_the_truth_says() -> None:
    audio = make_event_audio(7, n=30, kinds=(*PLAIN, "dog", "hammer"))
    for wave, events in zip(audio.waves, audio.events, strict=True):
        silent = np.ones(len(wave), bool)
        for event in events:
            first, last = round(event.onset * RATE), round(event.offset * RATE)
            silent[first - 32 : last + 32] = False
            level = 20 * np.log10(np.sqrt(np.mean(wave[first:last] ** 2)) / LEVEL)
            assert level == pytest.approx({"soft": -6, "loud": 6}[event.loudness], abs=0.5)
        assert np.sqrt(np.mean(wave[silent] ** 2)) == pytest.approx(LEVEL / 10**1.5, rel=0.1)
        gaps = [b.onset - a.offset for a, b in pairwise(events)]
        assert all(gap >= 0.1 for gap in gaps)


def test_tones_have_the_pitch_told() -> None:
    audio = make_event_audio(8, n=20, kinds=("tone",), snr=40)
    for wave, events in zip(audio.waves, audio.events, strict=True):
        for event in events:
            part = wave[round(event.onset * RATE) :][: round(EVENT * RATE)]
            power = np.abs(np.fft.rfft(part * np.hanning(len(part))))
            assert power.argmax() / EVENT == pytest.approx(600 * PITCHES[event.pitch], rel=0.02)


def test_questions_have_the_answers_of_the_events() -> None:
    audio = make_event_audio(9, n=200)
    asked = ask(audio, rng=np.random.default_rng(0))
    kinds = {q.attribute for q in asked}
    assert kinds == {"count", "order", "pitch", "loudness"}
    for question in asked:
        events = audio.events[question.clip]
        place = 0 if re.search(r"heard first|is the first", question.text) else -1
        event = events[place]
        right = {
            "count": ["one", "two", "three", "four", "five"][len(events) - 1],
            "order": event.kind,
            "pitch": {"low": "lower", "high": "higher"}[event.pitch],
            "loudness": {"soft": "softer", "loud": "louder"}[event.loudness],
        }[question.attribute]
        assert question.answer == right and right in question.options
    # Knowing the question alone does not help.
    pitch = [q.answer == "higher" for q in asked if q.attribute == "pitch"]
    assert 0.35 < np.mean(pitch) < 0.65
    with pytest.raises(ConfigError, match="5 sounds do not fit into 1 s"):
        make_event_audio(seconds=1.0)
    with pytest.raises(ConfigError, match="no sound called 'unicorn'"):
        make_event_audio(kinds=("unicorn",))
    with pytest.raises(ConfigError, match="about 'colour'"):
        ask(audio, rng=np.random.default_rng(0), attributes=("colour",))


# -- the miniature speech encoder --------------------------------------------------------------


def test_edit_distance() -> None:
    assert edit_distance("kitten", "sitting") == 3  # Levenshtein's own example
    assert edit_distance("", "abc") == 3 and edit_distance("abc", "abc") == 0


def test_word_decoder_finds_the_best_of_all_paths() -> None:
    said = {"one": "ab", "two": "b", "three": "aa", "four": "bab"}
    decode = WordDecoder(said, "ab|", "|")
    rng = np.random.default_rng(0)
    paths = np.asarray(list(product(range(4), repeat=6)))
    collapsed = ["".join(" ab|"[k] for k, _ in groupby(path) if k) for path in paths]
    by_sound = {sound: word for word, sound in said.items()}
    told = [[by_sound.get(part) for part in text.split("|")] for text in collapsed]
    allowed = np.asarray([None not in words for words in told])
    for _ in range(30):
        scores = 2 * rng.standard_normal((6, 4))
        total = np.where(allowed, scores[np.arange(6), paths].sum(axis=1), -np.inf)
        assert decode(scores) == told[total.argmax()]
    with pytest.raises(ConfigError, match="'one' has the unknown symbol 'c'"):
        WordDecoder({"one": "abc"}, "ab|", "|")


def test_spoken_captions_are_a_world() -> None:
    spoken = make_spoken_captions(0, n=6, n_speakers=3)
    assert list(spoken.stimuli.table["caption"]) == [u.text for u in spoken.utterances]
    assert spoken.stimuli.table["speaker"].nunique() == 3
    again = make_spoken_captions(0, n=6, n_speakers=3)
    np.testing.assert_array_equal(spoken.utterances[5].wave, again.utterances[5].wave)


def test_shipped_speech_encoder_is_as_good_as_its_card() -> None:
    card = (WEIGHTS / "mini-speech.md").read_text()
    stated = {
        name.replace(" ", "_"): float(value)
        for name, value in re.findall(r"^\| ([a-z ]+) \| ([\d.]+) \|$", card, re.MULTILINE)
    }
    found = speech_quality(Miniature(), n=20)
    assert set(found) == set(stated)
    for name, value in found.items():
        assert value > stated[name] - 0.06, name
    assert (WEIGHTS / "mini-speech.safetensors").stat().st_size < 6e6


def test_speech_layers_are_features() -> None:
    spoken = make_spoken_captions(1, n=5)
    model = Miniature()
    sounds = [(u.wave, u.rate) for u in spoken.utterances]
    features = extract(spoken.stimuli, SpeechLayers(), ["conv", "block4", "embedding"], cache=False)
    width, dim = model.network.settings["width"], model.network.settings["dim"]
    shapes = {name.split("/")[1]: f.values.shape for name, f in features.items()}
    assert shapes == {"conv": (5, width), "block4": (5, width), "embedding": (5, dim)}
    embedded = features["mini-speech/embedding"].values
    np.testing.assert_allclose(embedded, model.embed(sounds), atol=1e-3)
    # Padding does not change what is heard.
    alone, together = model.tokens(sounds[:1])[0], model.tokens(sounds)[0]
    np.testing.assert_allclose(alone, together, atol=1e-3)
    texts = model.transcribe(sounds, lexicon())
    assert len(texts) == 5
    with pytest.raises(ConfigError, match="lexicon is empty"):
        model.transcribe(sounds, {})
