"""Generic evaluation, runs, baselines, tasks and leaderboards, checked against other code."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.neighbors import NearestCentroid

from engramma import registry
from engramma.bench import leaderboard, runs
from engramma.bench.evaluate import evaluate
from engramma.bench.material import make, relabelled
from engramma.bench.score_comparison import _jackknife
from engramma.bench.score_decoder import balanced_accuracy
from engramma.bench.score_encoder import resampled
from engramma.bench.tasks import evoked_decoding, scene_decoding, scene_encoding
from engramma.contracts import CONTRACTS, Estimate, Scored, SystemCard, Task
from engramma.data.features import Features
from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.encoding.encoders import CrossValidated
from engramma.errors import ConfigError, DataError
from engramma.systems.baselines.decoders import CentroidDecoder
from engramma.systems.baselines.encoders import BandedRidgeEncoder, MeanEncoder, RidgeEncoder

BASELINES = {
    "mean-encoder": "Encoder",
    "ridge-encoder": "Encoder",
    "banded-ridge-encoder": "Encoder",
    "linear-decoder": "Decoder",
    "ridge-decoder": "Decoder",
    "centroid-decoder": "Decoder",
}


def card(factory, *contract, **options):
    return SystemCard("tried", "test", "Tried", contract, factory, **options)


def conditions(rng, n=6, n_runs=5, units=20, noise=1.0, subject="s", times=0):
    """Few conditions in every run; what a condition adds is returned, too."""
    shape = (units, times) if times else (units,)
    pattern = rng.standard_normal((n, *shape))
    index = np.tile(np.arange(n), n_runs)
    values = pattern[index] + noise * rng.standard_normal((len(index), *shape))
    recording = Recording.from_arrays(
        values.astype(np.float32),
        np.char.add("c", index.astype(str)),
        subject=subject,
        run=np.repeat(np.arange(n_runs), n),
        time=np.arange(times) / 100 if times else None,
    )
    return recording, pattern


def many_stimuli(rng, n=60, repeats=2, units=15, noise=1.0, subject="s", rois=False):
    """Stimuli of three categories whose responses follow category and stimulus."""
    kind = np.arange(n) % 3
    clean = rng.standard_normal((3, units))[kind] + 0.5 * rng.standard_normal((n, units))
    index = np.tile(np.arange(n), repeats)
    values = clean[index] + noise * rng.standard_normal((len(index), units))
    ids = [f"i{i:03d}" for i in range(n)]
    table = pd.DataFrame({"category": np.asarray(["a", "b", "c"])[kind]}, index=ids)
    recording = Recording.from_arrays(
        values.astype(np.float32),
        np.asarray(ids)[index],
        subject=subject,
        run=np.repeat(np.arange(repeats), n),
        unit_coords={"roi": np.asarray(["V1", "V2", "V4"])[np.arange(units) % 3]} if rois else None,
        stimuli=StimulusSet(table),
    )
    return recording, clean


class Oracle:
    """An encoder that was told the responses, and writes down what it is fitted to."""

    seen: tuple = ()

    def __init__(self, clean, ids, log):
        self.clean, self.ids, self.log = clean, list(ids), log

    def __deepcopy__(self, memo):
        return Oracle(self.clean, self.ids, self.log)

    def fit(self, features, recording):
        self.fitted = recording
        return self

    def predict(self, features):
        trained = set(self.fitted.coord("stimulus"))
        self.log.append((trained, set(features.stimuli), set(self.fitted.coord("run"))))
        return self.clean[[self.ids.index(s) for s in features.stimuli]]


# -- encoders ------------------------------------------------------------------------------


def test_intervals_over_stimuli_are_those_of_resampling_by_hand(rng):
    truth = rng.standard_normal((60, 5))
    predicted = truth + rng.standard_normal((60, 5))
    groups, split = np.tile(np.arange(30), 2), np.repeat([0, 1], 30)
    result = CrossValidated(predicted, *[np.empty(0)] * 3, split, ("a", "b"))
    weights = np.asarray([[0.2, 1], [0.2, 0], [0.2, 0], [0.2, 0], [0.2, 0]])
    found = resampled(truth, result, groups, weights, np.random.default_rng(3), 200)

    def by_hand(count):
        sets = [np.repeat(np.arange(60), count[groups] * (split == k)) for k in (0, 1)]
        r = [[stats.pearsonr(truth[i, u], predicted[i, u])[0] for u in range(5)] for i in sets]
        return np.mean(r, axis=0)

    counts = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=200)
    low, high = np.quantile([by_hand(c).mean() for c in counts], [0.025, 0.975])
    plain = by_hand(np.ones(30, dtype=int))
    assert found[0].value == pytest.approx(plain.mean())
    assert (found[0].low, found[0].high) == pytest.approx((low, high))
    assert found[1].value == pytest.approx(plain[0])


def test_an_encoder_that_knows_the_truth_reaches_the_ceiling_on_stimuli_it_never_met(rng):
    recording, clean = many_stimuli(rng, n=200, repeats=4, units=40)
    log: list = []
    ids = recording.stimuli.ids
    result = evaluate(card(lambda: Oracle(clean, ids, log), "Encoder"))(recording, seed=1)
    assert result.metrics["share of ceiling"].value == pytest.approx(1.0, abs=0.03)
    # Var(clean) varies between units, with a mean of four repeats: the ceiling in closed form.
    signal = clean.var(axis=0)
    expected = np.sqrt(signal / (signal + 1 / 4)).mean()
    assert result.metrics["correlation"].value == pytest.approx(expected, abs=0.02)
    assert result.metrics["two-versus-two"].value > 0.99
    assert all(not trained & tested for trained, tested, _ in log) and len(log) == 5
    assert result.arrays["correlation"].shape == result.arrays["ceiling"].shape == (40,)
    assert "share runs" in result.notes[0] and "no stimulus" in result.notes[0]


def test_conditions_are_predicted_in_runs_that_were_held_out(rng):
    recording, pattern = conditions(rng, noise=1.0, n_runs=6, units=60, n=12)
    log: list = []
    ids = recording.stimuli.ids
    clean = pattern[[int(i[1:]) for i in ids]]
    result = evaluate(card(lambda: Oracle(clean, ids, log), "Encoder"))(recording)
    assert [len(fitted_runs) for _, _, fitted_runs in log] == [5] * 6
    assert result.metrics["share of ceiling"].value == pytest.approx(1.0, abs=0.06)
    ridge = evaluate(card(RidgeEncoder, "Encoder"))(recording)
    # The best that can be learnt is the mean of five runs: noise 1/5 in the prediction.
    signal = pattern.var(axis=0)
    expected = np.mean(signal / np.sqrt((signal + 1) * (signal + 0.2)))
    assert ridge.metrics["correlation"].value == pytest.approx(expected, abs=0.05)
    assert ridge.metrics["correlation"].low < expected < ridge.metrics["correlation"].high
    assert "no run" in ridge.notes[0]


def test_an_encoder_that_knows_nothing_scores_nothing(rng):
    recording, _ = many_stimuli(rng)
    metrics = evaluate(card(MeanEncoder, "Encoder"))(recording).metrics
    assert metrics["correlation"].value == metrics["correlation"].high == 0
    assert metrics["two-versus-two"].value == 0.5


@pytest.mark.parametrize("world", ["stimuli", "conditions"])
def test_scores_of_noise_are_neither_above_nor_below_chance(world):
    scores = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        recording, _ = many_stimuli(rng) if world == "stimuli" else conditions(rng, n=3)
        noise = recording.with_values(rng.standard_normal(recording.values.shape))
        metrics = evaluate(card(RidgeEncoder, "Encoder"))(noise, seed=seed).metrics
        share = metrics.get("share of ceiling", Estimate(0.0)).value
        scores.append([metrics["correlation"].value, metrics["two-versus-two"].value - 0.5, share])
    # Correlated over all test sets at once, the first would be about -0.08, fourteen errors off;
    # over units chosen by their ceiling, the share would be about 1 for conditions.
    assert (np.abs(np.mean(scores, axis=0)) < 3.5 * stats.sem(scores)).all()
    assert (stats.sem(scores) < [0.02, 0.04, 0.2]).all()


def test_a_time_axis_is_predicted_too_and_absent_repeats_are_said(rng):
    recording, _ = conditions(rng, times=4)
    result = evaluate(card(RidgeEncoder, "Encoder"))(recording)
    assert result.arrays["correlation"].shape == (20, 4)
    once, _ = many_stimuli(rng, repeats=1)
    result = evaluate(card(RidgeEncoder, "Encoder"))(once)
    assert "share of ceiling" not in result.metrics
    assert any("no noise ceiling" in note for note in result.notes)


def test_a_cohort_is_scored_subject_by_subject(rng):
    one, _ = many_stimuli(rng, subject="a")
    two, _ = many_stimuli(rng, subject="b", units=11)
    run = evaluate(card(RidgeEncoder, "Encoder"))
    both = run(Cohort({"a": one, "b": two}), seed=4)
    alone = run(two, seed=4)
    assert both.metrics["correlation (b)"] == alone.metrics["correlation"]
    pair = [both.metrics[f"correlation ({s})"].value for s in "ab"]
    assert both.metrics["correlation"].value == pytest.approx(np.mean(pair))
    assert np.array_equal(both.arrays["b-correlation"], alone.arrays["correlation"])


# -- decoders ------------------------------------------------------------------------------


def test_nearest_centroids_agree_with_scikit_learn_run_by_run(rng):
    recording, _ = conditions(rng, noise=3.0)
    result = evaluate(card(CentroidDecoder, "Decoder"))(recording)
    x, y, run = recording.values, recording.coord("stimulus"), recording.coord("run")
    expected = np.empty_like(y)
    for r in np.unique(run):
        train, test = run != r, run == r
        centre, scale = x[train].mean(axis=0), x[train].std(axis=0)
        model = NearestCentroid().fit((x[train] - centre) / scale, y[train])
        expected[test] = model.predict((x[test] - centre) / scale)
    assert np.array_equal(result.arrays["predicted"], expected)
    assert result.metrics["accuracy"].value == np.mean(expected == y)
    assert result.metrics["chance"].value == pytest.approx(1 / 6)
    assert np.trace(result.arrays["confusion"]) == np.sum(expected == y)
    low, high = result.metrics["accuracy"].low, result.metrics["accuracy"].high
    assert low < result.metrics["accuracy"].value < high


class Nearest:
    """A decoder of another package: the contract's two methods and nothing else."""

    def fit(self, recording, stimuli):
        self.seen = set(recording.coord("stimulus"))
        self.patterns = recording.mean_over("stimulus")
        return self

    def classify(self, recording):
        a = recording.values.reshape(recording.n_presentations, -1)
        b = self.patterns.values.reshape(self.patterns.n_presentations, -1)
        distance = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        return self.patterns.coord("stimulus")[distance.argmin(axis=1)]


def test_any_object_with_fit_and_classify_is_scored_with_and_without_a_time_axis(rng):
    recording, _ = conditions(rng, times=5)
    metrics = evaluate(card(Nearest, "Decoder"))(recording).metrics
    assert metrics["accuracy"].value > 0.9
    shuffled = recording.with_values(rng.standard_normal(recording.values.shape))
    metrics = evaluate(card(Nearest, "Decoder"))(shuffled).metrics
    assert metrics["accuracy"].low < metrics["chance"].value < metrics["accuracy"].high


def test_classes_are_told_of_stimuli_never_met(rng):
    recording, _ = many_stimuli(rng)
    trained: list = []

    class Spy(Nearest):
        def fit(self, recording, stimuli):
            self.exemplars = set(recording.coord("exemplar"))
            return super().fit(recording, stimuli)

        def classify(self, recording):
            trained.append(self.exemplars & set(recording.coord("exemplar")))
            return super().classify(recording)

    result = evaluate(card(Spy, "Decoder"))(recording)
    assert trained == [set()] * 5
    assert result.metrics["accuracy"].value > 0.8
    assert result.metrics["balanced chance"].value == pytest.approx(1 / 3)
    assert any("classes of 'category'" in note for note in result.notes)


def test_a_decoder_of_features_identifies_stimuli_it_never_met(rng):
    recording, clean = many_stimuli(rng, noise=0.1, units=30)
    ids = tuple(recording.stimuli.ids)

    class Reader:
        """Features are the noise-free responses, which it measures directly."""

        targets = None

        def fit(self, recording, stimuli):
            self.targets = Features(clean, ids, "clean")
            return self

        def features(self, recording):
            return recording.values

    class Given(Reader):
        targets = Features(clean, ids, "clean")

        def retrieve(self, recording, gallery, top):
            order = ((recording.values[:, None] - gallery.values[None]) ** 2).sum(axis=2)
            return np.asarray(gallery.stimuli)[order.argsort(axis=1)[:, :top]]

    metrics = evaluate(card(Given, "Decoder"))(recording).metrics
    assert metrics["identification (top 1)"].value == 1
    assert metrics["identification (two-way)"].value == 1

    class Made(Reader):
        targets = Features(np.eye(len(ids)), ids, "replaced by fit")

    metrics = evaluate(card(Made, "Decoder"))(recording).metrics
    assert metrics["identification (top 1)"].value == 1


def test_a_category_cannot_identify_and_this_is_said(rng):
    recording, _ = many_stimuli(rng)
    result = evaluate(card(CentroidDecoder, "Decoder"))(recording)
    assert not any("identification" in name for name in result.metrics)
    assert any("share all their features" in note for note in result.notes)


@pytest.mark.parametrize(
    ("decoder", "match"),
    [
        (type("Mute", (), {"fit": lambda self, r, s: self}), "nothing that can be scored"),
        (type("Unfit", (), {}), "no method 'fit'"),
        (type("Short", (Nearest,), {"classify": lambda self, r: ["c0"]}), "shape"),
    ],
)
def test_decoders_that_break_the_contract_are_told_so(rng, decoder, match):
    recording, _ = conditions(rng)
    with pytest.raises(ConfigError, match=match):
        evaluate(card(decoder, "Decoder"))(recording)


def test_nothing_to_classify_is_an_error_with_a_way_out(rng):
    recording = Recording.from_arrays(rng.standard_normal((30, 4)), [f"i{i}" for i in range(30)])
    with pytest.raises(DataError, match="nothing to classify"):
        evaluate(card(Nearest, "Decoder"))(recording)
    with pytest.raises(DataError, match="nothing is known of the stimuli"):
        evaluate(card(RidgeEncoder, "Encoder"))(recording)


def test_balanced_accuracy_is_the_mean_recall():
    actual = np.asarray(["a", "a", "a", "b"])
    assert balanced_accuracy(actual, np.asarray(["a", "a", "b", "b"])) == pytest.approx(5 / 6)


# -- comparisons ---------------------------------------------------------------------------


class Euclid:
    """Spearman correlation of Euclidean RDMs, by scipy."""

    def compare(self, a, b):
        return Estimate(float(stats.spearmanr(pdist(a), pdist(b))[0]))


def test_subjects_are_compared_over_the_stimuli_that_all_saw_in_one_order(rng):
    full, _ = many_stimuli(rng, n=30, subject="a")
    members = {"a": full}
    for name in "bcd":
        order = rng.permutation(full.n_presentations)
        noisy = full.values + 0.5 * rng.standard_normal(full.values.shape).astype(np.float32)
        shuffled = full.with_values(noisy).select(presentations=order)
        array = shuffled.array.assign_coords(subject=("presentation", np.full(len(order), name)))
        members[name] = Recording(array, full.stimuli)
    fewer = members["d"].coord("stimulus") != "i007"
    members["d"] = members["d"].select(presentations=fewer)
    result = evaluate(card(Euclid, "Comparison"))(Cohort(members))
    kept = [i for i in full.stimuli.ids if i != "i007"]
    mean = {}
    for name, recording in members.items():
        frame = pd.DataFrame(recording.values).groupby(recording.coord("stimulus")).mean()
        mean[name] = frame.loc[kept].to_numpy()
    expected = stats.spearmanr(pdist(mean["a"]), pdist(mean["d"]))[0]
    matrix = result.arrays["likeness"]
    assert matrix[0, 3] == matrix[3, 0] == pytest.approx(expected)
    assert result.metrics["likeness"].value == pytest.approx(matrix[np.triu_indices(4, 1)].mean())
    assert result.metrics["likeness (a, d)"].value == pytest.approx(expected)
    assert "29 stimuli" in result.notes[0]


def test_regions_are_compared_in_one_subject_else_halves_of_its_repeats(rng):
    regions, _ = many_stimuli(rng, rois=True)
    result = evaluate(card(Euclid, "Comparison"))(regions)
    assert list(result.arrays["names"]) == ["V1", "V2", "V4"]
    assert result.metrics["likeness"].low < result.metrics["likeness"].value
    plain, _ = many_stimuli(rng, repeats=4, noise=0.01)
    result = evaluate(card(Euclid, "Comparison"))(plain)
    assert result.metrics["likeness"].value > 0.99
    noise = plain.with_values(rng.standard_normal(plain.values.shape))
    likeness = evaluate(card(Euclid, "Comparison"))(noise).metrics["likeness"]
    assert likeness.low < 0 < likeness.high
    timed, _ = conditions(rng, n=10, times=3)
    assert evaluate(card(Euclid, "Comparison"))(timed).metrics["likeness"].value > 0.3


def test_the_jackknife_of_a_mean_is_students_interval(rng):
    x = rng.standard_normal(9)
    found = _jackknife(x.mean(), [np.delete(x, i).mean() for i in range(9)])
    low, high = stats.t.interval(0.95, 8, loc=x.mean(), scale=stats.sem(x))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_too_few_stimuli_cannot_be_compared(rng):
    recording, _ = conditions(rng, n=4)
    with pytest.raises(DataError, match="too few"):
        evaluate(card(Euclid, "Comparison"))(recording)


# -- systems -------------------------------------------------------------------------------


def test_other_contracts_say_where_the_system_can_be_seen():
    with pytest.raises(ConfigError, match=r"Memory.*engramma bench recall"):
        evaluate(card(object, "Memory", tasks=("recall",)))


@pytest.mark.parametrize(("slug", "contract"), BASELINES.items())
def test_baselines_are_registered_and_made_without_arguments(slug, contract):
    found = registry.systems.get(slug)
    assert found.baseline and found.family == "baselines" and found.contract == (contract,)
    assert found.tasks and all(t in registry.tasks.all() for t in found.tasks)
    assert isinstance(found.factory(), CONTRACTS[contract])


def test_a_constructor_that_takes_a_seed_is_given_it():
    assert make(BandedRidgeEncoder, 7).seed == 7
    assert isinstance(make(MeanEncoder, 7), MeanEncoder)


# -- runs ----------------------------------------------------------------------------------


@pytest.fixture
def saved(rng, tmp_path):
    recording, _ = conditions(rng)
    path = tmp_path / "data.npz"
    np.savez(
        path,
        responses=recording.values,
        stimulus=recording.coord("stimulus"),
        run=recording.coord("run"),
    )
    return path


def test_a_run_is_saved_and_repeated_digit_for_digit_from_another_folder(
    saved, tmp_path, monkeypatch
):
    monkeypatch.chdir(saved.parent)
    first = runs.run_system("ridge-encoder", saved.name, seed=3, out=tmp_path / "run")
    assert first.seed == 3 and len(first.fingerprint) == 16 and first.versions["numpy"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    old, new = runs.run_again(tmp_path / "run")
    assert old.as_json()["metrics"] == first.as_json()["metrics"] == new.as_json()["metrics"]
    assert not runs.differences(first, new)
    assert np.array_equal(old.arrays["correlation"], new.arrays["correlation"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["notes"] == list(first.notes)


def test_a_run_on_changed_data_is_refused_before_anything_is_fitted(saved, tmp_path, monkeypatch):
    runs.run_system("mean-encoder", saved, out=tmp_path / "run")
    with np.load(saved) as archive:
        arrays = dict(archive)
    arrays["responses"][0, 0] += 1
    np.savez(saved, **arrays)
    monkeypatch.setattr(runs, "_execute", lambda *a: pytest.fail("was run"))
    with pytest.raises(ConfigError, match="changed since"):
        runs.run_again(tmp_path / "run")
    saved.unlink()
    with pytest.raises(DataError, match="cannot be read again"):
        runs.run_again(tmp_path / "run")


def test_a_folder_of_something_else_is_never_replaced(saved, tmp_path, monkeypatch):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    monkeypatch.setattr(runs, "_execute", lambda *a: pytest.fail("was run"))
    with pytest.raises(DataError, match="something else"):
        runs.run_system("mean-encoder", saved, out=folder)
    assert [p.name for p in folder.iterdir()] == ["chapter.txt"]


def test_an_earlier_run_is_replaced_whole_or_stays(saved, tmp_path):
    folder = tmp_path / "run"
    runs.run_system("mean-encoder", saved, out=folder)
    runs.run_system("centroid-decoder", saved, out=folder)
    assert runs.load_run(folder).system == "centroid-decoder"
    result = runs.load_run(folder)
    broken = runs.Run("s", "d", 0, "f", {}, arrays={"x": np.asarray([{}], dtype=object)})
    with pytest.raises(ConfigError, match="Python objects"):
        broken.save(folder)
    assert not runs.differences(runs.load_run(folder), result)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"metrics": 3}', '{"metrics": {"a": {}}}'])
def test_a_damaged_run_is_no_run(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match="no run to repeat"):
        runs.run_again(tmp_path)


def test_differences_name_the_metric_and_the_version_that_changed():
    def run(value, version):
        metrics = {"accuracy": Estimate(value, 0.1), "speed": Estimate(float("nan"))}
        return runs.Run("s", "d", 0, "f", metrics, versions={"numpy": version})

    assert runs.differences(run(0.5, "1"), run(0.5, "2")) == []
    assert runs.differences(run(0.5, "1"), run(0.25, "2")) == [
        "accuracy was 0.5 and now 0.25",
        "numpy was 1 and now 2",
    ]


def test_the_seed_of_a_run_is_the_seed_of_its_world():
    options = {"n_subjects": 1, "n_stimuli": 20, "n_units": 20, "n_repeats": 2, "size": 16}
    first, second = (
        runs.run_system("centroid-decoder", "scenes", seed=s, options={**options, "n_stimuli": 80})
        if s > 5
        else runs.run_system("rsa-rank", "scenes", seed=s, options=options)
        for s in (0, 1)
    )
    assert first.fingerprint != second.fingerprint and first.options["seed"] == 0


# -- tasks and leaderboards ----------------------------------------------------------------


def test_scene_encoding_ranks_encoders_as_the_world_was_made():
    data = scene_encoding.prepare(0)
    trained = set(map(str, data.training.coord("stimulus")))
    assert not trained & set(data.tested)
    score = {f: scene_encoding.score(f(), data) for f in (MeanEncoder, RidgeEncoder)}
    banded = scene_encoding.score(BandedRidgeEncoder(), data)
    # Category-selective and orientation-selective units need the two spaces weighed differently.
    assert score[MeanEncoder] == 0 < 0.2 < score[RidgeEncoder] < banded < 1
    shuffled = data.spaces | {}
    for name, space in data.spaces.items():
        rows = np.random.default_rng(0).permutation(len(space.stimuli))
        shuffled[name] = Features(space.values[rows], space.stimuli, name)
    control = scene_encoding.Scenes(
        shuffled, data.training, data.tested, data.responses, data.ceiling
    )
    assert abs(scene_encoding.score(RidgeEncoder(), control)) < 0.12


@pytest.mark.parametrize("task", [scene_decoding, evoked_decoding])
def test_decoding_tasks_are_above_chance_and_at_chance_without_labels(task, rng):
    data = task.prepare(0)
    classes = np.unique(data.recording.coord("stimulus"))
    assert len(classes) == 8
    assert 2 / 8 < scene_decoding.score(CentroidDecoder(), data) < 0.95
    labels = rng.permutation(data.recording.coord("stimulus"))
    array = data.recording.array.assign_coords(stimulus=("presentation", labels))
    control = scene_decoding.Classes(Recording(array, data.recording.stimuli), data.splits)
    assert abs(scene_decoding.score(CentroidDecoder(), control) - 1 / 8) < 0.1
    for split in data.splits:
        exemplar = data.recording.coord("exemplar")
        assert not set(exemplar[split.train]) & set(exemplar[split.test])


def test_classes_take_the_place_of_stimuli(rng):
    recording, _ = many_stimuli(rng)
    told = relabelled(recording, "category")
    assert set(told.coord("stimulus")) == {"a", "b", "c"} and told.stimuli.ids == ["a", "b", "c"]
    assert np.array_equal(told.coord("exemplar"), recording.coord("stimulus"))
    assert np.array_equal(told.labels("category"), recording.labels("category"))


@pytest.fixture
def contest():
    """Give a task with three contestants, and take it away again."""
    before = dict(registry.systems.all()), dict(registry.tasks.all())

    def decline():
        raise ConfigError("it needs a package", mend="install it")

    for slug, factory in {"low-one": lambda: 1.0, "high-one": lambda: 2.0, "sick": decline}.items():
        registry.system(slug, family="test", title=slug, contract="Memory", tasks=("contest",))(
            factory
        )
    task = Task("contest", "Memory", "?", lambda seed: seed, lambda s, d: s + d / 10, "points", 0.0)
    registry.add_task(task)
    yield
    registry.systems._items, registry.tasks._items = before


def test_a_leaderboard_ranks_and_lists_who_could_not(contest):
    board = leaderboard.bench("contest", seeds=3)
    assert [e.system for e in board.entries] == ["high-one", "low-one", "sick"]
    assert board.entries[0].scores == pytest.approx((2.0, 2.1, 2.2))
    assert board.entries[0].score.value == pytest.approx(2.1)
    assert "install it" in board.entries[2].problem and np.isnan(board.entries[2].score.value)
    only = leaderboard.bench("contest", seeds=1, only=["low-one"])
    assert [e.system for e in only.entries] == ["low-one"] and only.ceiling is None


def test_leaderboards_refuse_strangers_and_suggest_who_was_meant(contest):
    with pytest.raises(ConfigError, match="did you mean high-one"):
        leaderboard.bench("contest", only=["hihg-one"])
    with pytest.raises(ConfigError, match="at least one seed"):
        leaderboard.bench("contest", seeds=0)
    with pytest.raises(ConfigError, match="did you mean contest"):
        leaderboard.bench("contes")


def test_a_leaderboard_keeps_its_scores_and_goes_on_from_them(contest, tmp_path):
    calls = []

    def score(system, data):
        calls.append((system, data))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return Scored(system, {1.0: system, 2.0: data}, {"state": 7})

    def prepare(seed, *, size=1):
        return seed + 10 * size

    registry.tasks._items["contest"] = Task(
        "contest", "Memory", "?", prepare, score, "points", 0.0, axis="size"
    )
    with pytest.raises(KeyboardInterrupt):
        leaderboard.bench("contest", seeds=3, folder=tmp_path, options={"size": 2})
    board = leaderboard.bench("contest", seeds=3, folder=tmp_path, options={"size": 2})
    assert len(calls) == 7  # 3 that were kept, the interrupted one, and the 3 left
    assert board.entries[0].system == "high-one" and board.entries[0].details == {"state": 7}
    assert board.entries[0].curve[2.0].value == 21 and board.entries[0].scores == (2, 2, 2)
    assert leaderboard.as_json(board)["entries"][0]["curve"][1]["size"] == 2
    leaderboard.bench("contest", seeds=3, folder=tmp_path)  # other options: measured anew
    assert len(calls) == 13
    leaderboard.bench("contest", seeds=3, folder=tmp_path, fresh=True)
    assert len(calls) == 19
    with pytest.raises(ConfigError, match="its options are size"):
        leaderboard.bench("contest", options={"length": 2})
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(DataError, match="cannot be used"):
        leaderboard.bench("contest", folder=tmp_path)


def test_a_leaderboard_is_written_as_a_page(contest, tmp_path):
    from engramma.report.leaderboard import write_leaderboard

    registry.tasks._items["contest"] = Task(
        "contest",
        "Memory",
        "Which?",
        lambda seed: seed,
        lambda system, data: Scored(system, {1: system, 8: system / 2}, {"state": 100 * system}),
        "points (mean)",
        0.0,
        axis="length",
    )
    page = write_leaderboard(leaderboard.bench("contest", seeds=2), tmp_path)
    html = page.read_text()
    assert "high-one is first with 2.000" in html and "install it" in html
    assert "Score by length" in html and "Score against state" in html
    saved = json.loads((tmp_path / "leaderboard.json").read_text())
    assert [e["system"] for e in saved["entries"]] == ["high-one", "low-one", "sick"]
