"""Vector views: tuning, ceilings and probabilities, and the voxels where a claim must not hold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, RidgeCV

from engramma.errors import ConfigError
from engramma.registry import worlds
from engramma.worlds.bound_scenes import COLOURS, SHAPES, bound_scenes
from engramma.worlds.concept_voxels import archetype_voxels, concept_pixels, concept_voxels
from engramma.worlds.layouts import COLOURS as RGB
from engramma.worlds.leaky_language import leaky_language, leaky_sum, localizer_texts


def _columns_r(a, b):
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return (a * b).sum(axis=0) / np.where(scale > 0, scale, 1)


def _encode(x, y, train: int) -> np.ndarray:
    """Correlation of each column of ``y`` with a ridge prediction on rows after ``train``."""
    fit = RidgeCV(np.logspace(-1, 4, 11)).fit(x[:train], y[:train])
    return _columns_r(fit.predict(x[train:]).reshape(len(y) - train, -1), y[train:])


def _by_roi(values, roi) -> dict[str, float]:
    return {str(name): float(values[roi == name].mean()) for name in np.unique(roi)}


@pytest.fixture(scope="module")
def concepts():
    return concept_voxels(1)


def _rows(view, name):
    return view.features[name].rows(view.recording.coord("stimulus"))


def test_concept_weights_are_regained_from_what_was_shown(concepts):
    recording, wanted = concepts.recording, concepts.truth["wanted"]["sub-01"]
    ids = concepts.stimuli.ids
    shown = concepts.truth["shown"][[ids.index(s) for s in recording.coord("stimulus")]]
    fit = LinearRegression().fit(shown, recording.values)
    roi = recording.coord("roi")
    tuned = np.isin(roi, ["single", "pair"])
    assert (wanted[roi == "single"] > 0).sum(axis=1).tolist() == [1] * 48
    assert (wanted[roi == "pair"] > 0).sum(axis=1).tolist() == [2] * 48
    for found, planted in zip(fit.coef_[tuned], wanted[tuned], strict=True):
        n = (planted > 0).sum()
        assert set(np.argsort(-found)[:n]) == set(np.flatnonzero(planted))
    assert not wanted[~tuned].any()
    explained = 1 - (recording.values - fit.predict(shown)).var(axis=0) / recording.values.var(
        axis=0
    )
    by = _by_roi(explained, roi)
    assert by["single"] == pytest.approx(0.3 / 1.3 + 40 / 1500, abs=0.03)  # and what is overfit
    assert by["style"] == pytest.approx(40 / 1500, abs=0.02) == pytest.approx(by["noise"], abs=0.02)


def test_concepts_of_a_wanted_pair_never_occur_together(concepts):
    groups, shown = concepts.truth["groups"], concepts.truth["shown"] > 0
    together = shown.T.astype(float) @ shown
    pairs = concepts.truth["wanted"]["sub-01"][concepts.recording.coord("roi") == "pair"] > 0
    for pair in pairs:
        a, b = np.flatnonzero(pair)
        assert groups[a] != groups[b] and together[a, b] == 0
    assert set(shown.sum(axis=1)) == {1, 2, 3}
    within = concept_voxels(1, n_images=50, pairs="within").truth
    for pair in within["wanted"]["sub-01"][48:96] > 0:
        assert len(set(groups[pair])) == 1
    mixed = concept_voxels(1, n_images=300, one_group=False).truth["shown"] > 0
    assert ((mixed.T.astype(float) @ mixed)[:5, 5:] > 0).any()


def test_captions_name_what_is_shown(concepts):
    names = np.asarray(concepts.truth["concepts"])
    for caption, sizes in zip(
        concepts.stimuli.table["caption"][:50], concepts.truth["shown"], strict=False
    ):
        said = {n for n in names if n in caption.rstrip(".").replace(",", "").split()}
        assert said == set(names[sizes > 0])
    assert concepts.stimuli.table["caption"].str.match(r"^A photo of an? ").all()


def test_images_and_texts_lie_apart_by_the_gap(concepts):
    image, text = (concepts.features[n].values for n in ("image", "caption"))
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, rtol=1e-5)
    assert np.linalg.norm(image, axis=1).std() > 0.05  # banks must not come normalised
    gap = concepts.truth["gap"]
    assert np.linalg.norm(gap) == pytest.approx(0.6)
    apart = image.mean(axis=0) - text.mean(axis=0)
    assert apart @ gap / np.linalg.norm(apart) / 0.6 > 0.9
    # Each image is nearest to a caption of its own concepts once the gap is taken off.
    likeness = (image - gap) @ text.T
    best = concepts.truth["shown"][likeness.argmax(axis=1)] > 0
    shown = concepts.truth["shown"] > 0
    assert (best & shown).any(axis=1).mean() > 0.95


def test_text_helps_where_concepts_are_wanted_and_nowhere_else(concepts):
    r = _by_roi(_encode(_rows(concepts, "caption"), concepts.recording.values, 1000),
                concepts.recording.coord("roi"))  # fmt: skip
    assert min(r["single"], r["pair"]) > 0.35 and max(abs(r["style"]), abs(r["noise"])) < 0.06
    r = _by_roi(_encode(_rows(concepts, "style"), concepts.recording.values, 1000),
                concepts.recording.coord("roi"))  # fmt: skip
    assert r["style"] > 0.4 and abs(r["single"]) < 0.06
    silent = concept_voxels(1, n_images=200, signal=False).recording
    assert not silent.coord("true_ceiling").any()
    np.testing.assert_allclose(silent.values.std(), 1, atol=0.02)


def test_pixels_are_a_nonlinear_mixture_of_meaning_and_nuisance():
    view = concept_pixels(2, n_images=1200, snr=0.3)
    order = [view.stimuli.ids.index(s) for s in view.recording.coord("stimulus")]
    roi = view.recording.coord("roi")
    clean = view.truth["clean"]
    assert _columns_r(clean[order], view.recording.values).mean() == pytest.approx(
        np.sqrt(0.3 / 1.3), abs=0.02
    )
    pixels = view.features["pixels"].values
    text = view.features["text"].values
    r = _by_roi(_encode(text, clean, 800), roi)
    assert r["semantic"] > 0.8 and abs(r["nuisance"]) < 0.05
    # Linear mixing leaves meaning nearer to the surface than non-linear mixing does.
    straight = concept_pixels(2, n_images=1200, nonlinearity=0.05)
    bent = _by_roi(_encode(pixels, clean, 800), roi)["semantic"]
    plain = _by_roi(_encode(straight.features["pixels"].values, straight.truth["clean"], 800), roi)
    assert plain["semantic"] > bent + 0.15 and bent > 0.2


def test_voxels_of_all_subjects_are_variations_of_the_same_archetypes():
    view = archetype_voxels(3, n_subjects=3, snr=4.0)
    archetypes = view.truth["archetypes"]
    image = view.features["image"].values
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, rtol=1e-5)
    energy = np.linalg.svd(image, compute_uv=False) ** 2
    assert energy[:10].sum() / energy.sum() > 0.95
    for subject, recording in view.cohort.items():
        kind = view.truth["archetype"][subject]
        assert len(recording.stimuli.ids) >= recording.n_presentations == 300
        x = view.features["image"].rows(recording.coord("stimulus"))
        told = kind >= 0
        fit = RidgeCV(np.logspace(-3, 2, 6)).fit(x, recording.values).coef_
        likeness = fit @ archetypes.T / np.linalg.norm(fit, axis=1, keepdims=True)
        assert (likeness.argmax(axis=1) == kind)[told].mean() > 0.95
        assert likeness[~told].max(axis=1).mean() < 0.7 < likeness[told].max(axis=1).mean()
    seen = [set(r.coord("stimulus")) for r in view.cohort.values()]
    assert len(set.intersection(*seen)) == 100


@pytest.fixture(scope="module")
def scenes():
    return bound_scenes(1, n_scenes=1200)


def test_binding_needs_the_product_of_image_and_text(scenes):
    y, roi = scenes.recording.values, scenes.recording.coord("roi")
    visual, textual, binding = (_rows(scenes, n) for n in ("visual", "textual", "binding"))
    both = _by_roi(_encode(np.hstack([visual, textual]), y, 900), roi)
    ceiling = 1 / np.sqrt(1 + 1.2**2)
    for name in ("visual", "textual"):
        assert both[name] == pytest.approx(ceiling, abs=0.05)
    # The named object's colour is one of four: side by side, a quarter of its variance at most.
    assert both["binding"] == pytest.approx(ceiling / 2, abs=0.06)
    oracle = _by_roi(_encode(binding, y, 900), roi)
    assert oracle["binding"] == pytest.approx(ceiling, abs=0.05) and abs(oracle["textual"]) < 0.08
    assert abs(both["noise"]) < 0.05
    shuffled = np.random.default_rng(0).permutation(len(textual))
    alone = _by_roi(_encode(textual[shuffled], y, 900), roi)
    assert max(abs(r) for r in alone.values()) < 0.1
    # Of six shapes an image rules out two: a tenth of the variance of the name, and no more.
    image = _by_roi(_encode(visual, y, 900), roi)
    assert image["textual"] < np.sqrt(0.1) * ceiling + 0.05


def test_bound_scenes_show_what_the_table_says(scenes):
    images = scenes.stimuli.images
    assert images.shape == (1200, 64, 64, 3)
    table, kind = scenes.stimuli.table, scenes.truth["shape"]
    assert all(len(set(k)) == 4 for k in kind)
    for i in range(60):
        slot = int(table["slot"].iloc[i])
        assert SHAPES[kind[i, slot]] == table["named"].iloc[i]
        assert table["named"].iloc[i] in table["caption"].iloc[i]
        assert not any(c in table["caption"].iloc[i] for c in COLOURS)
        top, left = 32 * (slot // 2), 32 * (slot % 2)
        tile = images[i, top : top + 32, left : left + 32].reshape(-1, 3) / 255
        vivid = tile[np.ptp(tile, axis=1).argmax()]
        nearest = min(COLOURS, key=lambda c: np.linalg.norm(vivid - RGB[c]))
        assert nearest == table["colour"].iloc[i]


@pytest.fixture(scope="module")
def language():
    return leaky_language(1)


def test_surprisal_is_the_negative_log_probability_of_the_generator(language):
    vocabulary, words = language.truth["vocabulary"], language.truth["words"]
    # Probabilities of all continuations add up to one.
    every = np.arange(400)
    for before in (-1, 7):
        p = vocabulary.probability(every, np.full(400, before), np.full(400, 3))
        assert p.sum() == pytest.approx(1) and p.min() > 0
    # Calibration: mean surprisal is the entropy, E[-log p], of the same rows.
    spoken = words[words["code"] >= 0]
    named = words.groupby("sentence")["code"].transform("min") < 0
    later = spoken[(spoken["position"] - named[spoken.index] > 0)]
    topics = language.stimuli.table["topic"].str[5:].astype(int).to_numpy()
    entropy = []
    for row in later.iloc[:600].itertuples():
        before = words["code"].iloc[row.Index - 1]
        p = vocabulary.probability(every, np.full(400, before), np.full(400, topics[row.sentence]))
        entropy.append(-(p * np.log2(p)).sum())
    assert later["surprisal"].iloc[:600].mean() == pytest.approx(np.mean(entropy), abs=0.25)
    counts = np.sort(np.bincount(spoken["code"], minlength=400))[::-1]
    slope = np.polyfit(np.log(np.arange(1, 61)), np.log(counts[:60] + 1), 1)[0]
    assert -1.3 < slope < -0.4  # Zipf, bent by topics and successors


def test_reading_times_are_linear_in_surprisal_and_length(language):
    words = language.truth["words"]
    x = np.column_stack([words["surprisal"], words["word"].str.len()])
    fit = LinearRegression().fit(x, words["reading_time"])
    error = 60 / np.sqrt(len(words)) / x.std(axis=0)
    assert (np.abs(fit.coef_ - [12.0, 8.0]) < 4 * error).all()
    assert np.std(words["reading_time"] - fit.predict(x)) == pytest.approx(60, rel=0.05)


def test_leaky_sums_follow_the_recursion_and_explain_their_voxels(language):
    vectors = np.random.default_rng(0).standard_normal((9, 5))
    state = np.zeros(5)
    for v in vectors:
        state = state * np.exp(-1 / 4.0) + v
    np.testing.assert_allclose(leaky_sum(vectors, 4.0), state)
    y, roi = language.recording.values, language.recording.coord("roi")
    r = {n: _by_roi(_encode(_rows(language, n), y, 400), roi)
         for n in ("leaky", "last", "mean", "length", "knowledge")}  # fmt: skip
    for tau in ("leaky 1", "leaky 4", "leaky 16"):
        assert r["leaky"][tau] > 0.35  # ceiling 0.71
    assert r["last"]["leaky 1"] > r["last"]["leaky 16"] + 0.1
    assert r["mean"]["leaky 16"] > r["mean"]["leaky 1"] + 0.1
    assert r["length"]["length"] == pytest.approx(np.sqrt(0.5), abs=0.07)
    assert r["length"]["leaky 1"] < 0.15
    assert r["knowledge"]["knowledge"] == pytest.approx(np.sqrt(0.5), abs=0.1)
    assert all(abs(row["noise"]) < 0.08 for row in r.values())


def test_facts_are_stated_outside_the_sentences_only(language):
    facts, statements = language.truth["facts"], language.truth["statements"]
    assert facts.shape == (24, 3) and len(statements) == 72
    for row in statements.itertuples():
        assert facts.loc[row.entity, row.attribute] == row.answer
        assert row.entity in row.question and row.answer in row.sentence
    values = set(facts.to_numpy().ravel())
    spoken = set(language.truth["words"]["word"])
    assert not values & spoken
    names = language.stimuli.table["entity"]
    assert 0.35 < (names != "").mean() < 0.65
    assert all(
        c.startswith(e) for c, e in zip(language.stimuli.table["caption"], names, strict=True)
    )


def test_localizer_lists_hold_no_words(language):
    vocabulary = language.truth["vocabulary"]
    real, fake = localizer_texts(vocabulary, 20, rng=np.random.default_rng(0))
    assert all(len(t.split()) == 12 for t in [*real, *fake]) and len(real) == len(fake) == 20
    assert {w for t in real for w in t.split()} <= set(vocabulary.words)
    assert not {w for t in fake for w in t.split()} & set(vocabulary.words)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("concept-voxels", {"n_images": 60, "n_voxels": 20, "n_repeats": 2}),
        ("concept-pixels", {"n_images": 60, "n_voxels": 5}),
        ("archetype-voxels", {"n_own": 20, "n_shared": 10, "n_voxels": 20}),
        ("bound-scenes", {"n_scenes": 40, "size": 16}),
        ("leaky-language", {"n_passages": 4}),
    ],
)
def test_views_are_registered_and_follow_the_seed(name, options):
    a, b, c = (worlds.get(name)(seed=s, **options) for s in (1, 1, 2))
    assert a.cohort.fingerprint() == b.cohort.fingerprint() != c.cohort.fingerprint()
    for key, features in a.features.items():
        np.testing.assert_array_equal(features.values, b.features[key].values)
        assert features.stimuli == tuple(a.stimuli.ids)


def test_errors_say_what_to_mend():
    with pytest.raises(ConfigError, match="2 to 8 groups"):
        concept_voxels(n_groups=9)
    with pytest.raises(ConfigError, match="across or within"):
        concept_voxels(pairs="both")
    with pytest.raises(ConfigError, match="snr >= 0"):
        concept_voxels(snr=-1.0)
    with pytest.raises(ConfigError, match="nonlinearity > 0"):
        concept_pixels(nonlinearity=0.0)
    with pytest.raises(ConfigError, match="n_subspace <= n_dimensions"):
        archetype_voxels(n_subspace=40)
    with pytest.raises(ConfigError, match="even size"):
        bound_scenes(size=33)
    with pytest.raises(ConfigError, match="five words a topic"):
        leaky_language(n_words=20)
    with pytest.raises(ConfigError, match="350 at most"):
        leaky_language(n_tokens=1000)
