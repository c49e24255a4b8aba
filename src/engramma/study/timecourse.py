"""Responses over time: when there is a response, and when the stimulus can be read out of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from engramma.data.ceilings import variance_ceiling
from engramma.data.recording import Recording
from engramma.data.splits import run_ids
from engramma.decoding.clusters import Span, permutation_spans
from engramma.decoding.time import TimeDecoding, decode_over_time
from engramma.encoding.ridge import RidgeCV
from engramma.encoding.scores import correlation_within
from engramma.errors import DataError
from engramma.progress import track
from engramma.study.context import N_FOLDS, Context
from engramma.study.encoding import encoding_splits
from engramma.study.result import Figure, Notice, Section
from engramma.study.summary import plural, show_p

CLASSIFIER = "lda"
#: Permutations of the time-resolved encoding, each of which is a whole cross-validation.
ENCODING_PERMUTATIONS = 200
#: Permutations fitted at once; bounds memory.
AT_ONCE = 20
ALPHAS = tuple(float(a) for a in np.logspace(-1, 4, 8))


# -- evoked responses ----------------------------------------------------------------------


def evoked_section(context: Context) -> Section:
    """Average response, and when and where it differs from zero."""
    figures, numbers_, arrays = [], {}, {}
    sentences = []
    for subject, recording in context.recordings.items():
        time = recording.coord("time").astype(float)
        mean = recording.values.mean(axis=0)
        clusters = significant_clusters(recording, context.rng(f"evoked {subject}"))
        strength = mean.std(axis=0)
        after = time > 0
        peak = int(np.flatnonzero(after)[strength[after].argmax()]) if after.any() else 0
        unit = int(np.abs(mean[:, peak]).argmax())
        channel = str(recording.coord("unit")[unit])
        found = [c for c in clusters if c["p"] < 0.05]
        sentences.append(
            f"The average response peaks {time[peak] * 1000:.0f} ms after onset, most at "
            f"{channel} ({_amplitude(recording, mean[unit, peak])}); "
            + (
                f"it differs from zero in {plural(len(found), 'cluster')} of channel and time, the "
                f"first from {min(c['start'] for c in found) * 1000:.0f} ms "
                f"({show_p(min(c['p'] for c in found))}, corrected over channels and times)."
                if found
                else "it differs from zero nowhere after correction over channels and times."
            )
        )
        numbers_[subject] = {
            "peak_time": float(time[peak]),
            "peak_channel": channel,
            "peak_amplitude": float(mean[unit, peak]),
            "clusters": clusters,
        }
        arrays[f"{subject}-evoked"] = mean
        arrays[f"{subject}-time"] = time
        if subject == next(iter(context.recordings)):
            figures = _evoked_figures(recording, mean, time, peak, unit, found, sentences[0])
    return Section(
        name="evoked",
        title="Evoked responses",
        summary=sentences[0],
        numbers={"subjects": numbers_},
        figures=figures,
        methods=[
            "Evoked responses were tested against zero with a cluster permutation test over time "
            "within each channel (sign flips of single trials, largest cluster over all channels, "
            "1000 permutations).",
        ],
        citations=["maris2007", "mne"],
        arrays=arrays,
    )


def significant_clusters(recording: Recording, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Clusters of times within a channel at which the mean response is not zero.

    The largest cluster over all channels of each permutation corrects for both.
    """
    from mne.stats import combine_adjacency, permutation_cluster_1samp_test
    from scipy.sparse import csr_array
    from scipy.stats import t as student

    values = np.swapaxes(recording.values, 1, 2).astype(np.float64)
    time = recording.coord("time").astype(float)
    alone = csr_array((recording.n_units, recording.n_units))
    _, clusters, p_values, _ = permutation_cluster_1samp_test(
        values,
        threshold=float(student.ppf(0.999, len(values) - 1)),
        n_permutations=1000,
        adjacency=combine_adjacency(len(time), alone),
        out_type="indices",
        rng=rng,
        verbose="ERROR",
    )
    names = recording.coord("unit")
    found = [
        {
            "channel": str(names[units[0]]),
            "start": float(time[times.min()]),
            "stop": float(time[times.max()]),
            "p": float(p),
        }
        for (times, units), p in zip(clusters, p_values, strict=True)
    ]
    return sorted(found, key=lambda c: (c["p"], c["start"]))


def _amplitude(recording: Recording, value: float) -> str:
    if recording.attrs.get("modality") in ("eeg", "ieeg") and abs(value) < 0.01:
        return f"{value * 1e6:.1f} µV"
    return f"{value:.3g}"


def _evoked_figures(
    recording: Recording,
    mean: np.ndarray,
    time: np.ndarray,
    peak: int,
    unit: int,
    found: list[dict[str, Any]],
    sentence: str,
) -> list[Figure]:
    names = recording.coord("unit").astype(str)
    micro = recording.attrs.get("modality") in ("eeg", "ieeg") and np.abs(mean).max() < 0.01
    scale = 1e6 if micro else 1.0
    chosen = [unit, *(int(i) for i in np.argsort(-mean.std(axis=1)) if i != unit)][:4]
    error = recording.values.std(axis=0, ddof=1) / np.sqrt(recording.n_presentations)
    label = "amplitude (µV)" if micro else "response"
    spans = {
        names[u]: [(c["start"], c["stop"], c["p"]) for c in found if c["channel"] == names[u]]
        for u in chosen
    }
    figures = [
        Figure(
            "lines",
            "Average response at the strongest channels",
            f"Bands are 95 % intervals over trials, bars mark significant times. {sentence}",
            {
                "x": time,
                "series": {names[u]: mean[u] * scale for u in chosen},
                "low": {names[u]: (mean[u] - 1.96 * error[u]) * scale for u in chosen},
                "high": {names[u]: (mean[u] + 1.96 * error[u]) * scale for u in chosen},
                "xlabel": "time from onset (s)",
                "ylabel": label,
                "spans": spans,
                "onset": 0.0,
            },
        )
    ]
    coords = recording.array.coords
    if all(c in coords for c in "xyz"):
        instants = np.unique(np.clip(np.linspace(peak // 2, len(time) - 1, 5).astype(int), 0, None))
        instants = np.unique(np.append(instants, peak))
        figures.append(
            Figure(
                "topomaps",
                "The average response over the scalp",
                f"Amplitude at each sensor at chosen times; the response is strongest at "
                f"{time[peak] * 1000:.0f} ms.",
                {
                    "values": mean[:, instants].T * scale,
                    "times": time[instants],
                    **{c: np.asarray(coords[c].values, dtype=float) for c in "xyz"},
                    "names": names.tolist(),
                    "label": label,
                },
            )
        )
    return figures


# -- decoding ------------------------------------------------------------------------------


def decoding_section(context: Context) -> Section:
    """Decode single trials at each time, with correction over time.

    Raises
    ------
    DataError
        If nothing sorts the presentations into classes.
    """
    column = _column(context)
    results = {
        subject: decode_over_time(
            recording,
            None if column == "stimulus" else column,
            context.splits(recording, column),
            classifier=CLASSIFIER,
            rng=context.rng(f"decoding {column} {subject}"),
            n_permutations=context.options.n_permutations,
        )
        for subject, recording in context.recordings.items()
    }
    first = next(iter(results.values()))
    mean = np.mean([r.scores for r in results.values()], axis=0)
    spans = _group_spans(results, mean)
    summary = _decoding_sentence(column, first, mean, spans)
    metric = {"auc": "area under the curve", "accuracy": "balanced accuracy"}[first.metric]
    null = _mean_null(results)
    return Section(
        name="decoding",
        title="Decoding over time",
        summary=summary,
        numbers={
            "label": column,
            "classes": list(first.classes),
            "metric": first.metric,
            "chance": first.chance,
            "peak": float(mean.max()),
            "peak_time": float(first.time[mean.argmax()]),
            "spans": [s.__dict__ for s in spans],
            "decodable": any(s.p_value < 0.05 for s in spans),
            "subjects": {s: {"scores": r.scores} for s, r in results.items()},
        },
        figures=[
            Figure(
                "lines",
                f"When {column} can be decoded from single trials",
                f"The band is the 95 % range under permuted labels. {summary}",
                {
                    "x": first.time,
                    "series": {column: mean},
                    "low": {column: np.quantile(null, 0.025, axis=0)},
                    "high": {column: np.quantile(null, 0.975, axis=0)},
                    "xlabel": "time from onset (s)",
                    "ylabel": metric,
                    "chance": first.chance,
                    "spans": [(s.start, s.stop, s.p_value) for s in spans if s.p_value < 0.05],
                    "onset": 0.0,
                },
            )
        ],
        methods=[
            f"{column.capitalize()} was decoded at each time point from all channels with linear "
            "discriminant analysis (covariance shrunk after Ledoit and Wolf, channels standardised "
            f"in the training part), {context.split_sentence(context.first, column)}; "
            f"performance is the {metric}. Times were tested together with a cluster permutation "
            f"test ({context.options.n_permutations} permutations of the labels).",
        ],
        citations=["ledoit2004", "maris2007", "phipson2010"],
        arrays={f"{s}-scores": r.scores for s, r in results.items()} | {"time": first.time},
        notices=[Notice("decoding", n) for r in results.values() for n in r.notes],
    )


def _column(context: Context) -> str:
    if not context.label_columns:
        raise DataError(
            "there is nothing to decode",
            where="all presentations are of one kind",
            mend="name events of at least two kinds with --option events=...",
        )
    return context.label_columns[0]


def _group_spans(results: dict[str, TimeDecoding], mean: np.ndarray) -> tuple[Span, ...]:
    """Spans of the mean over subjects, against the mean of their permutations."""
    first = next(iter(results.values()))
    if len(results) == 1:
        return first.spans
    null = _mean_null(results)
    return permutation_spans(mean, null, first.time)


def _mean_null(results: dict[str, TimeDecoding]) -> np.ndarray:
    return np.mean([r.null for r in results.values() if r.null is not None], axis=0)


def _decoding_sentence(
    column: str, result: TimeDecoding, mean: np.ndarray, spans: tuple[Span, ...]
) -> str:
    name = {"auc": "AUC", "accuracy": "balanced accuracy"}[result.metric]
    peak = f"{name} {mean.max():.2f} at {result.time[mean.argmax()] * 1000:.0f} ms"
    found = [s for s in spans if s.p_value < 0.05]
    if not found:
        best = min((s.p_value for s in spans), default=1.0)
        return (
            f"Single-trial {column} is not decodable here: even the best time point ({peak}, "
            f"chance {result.chance:.2f}) does not stand out once all times are considered "
            f"({show_p(best)}, corrected)."
        )
    where = " and ".join(
        f"{s.start * 1000:.0f} to {s.stop * 1000:.0f} ms ({show_p(s.p_value)})" for s in found
    )
    return (
        f"Single-trial {column} is decodable from {where}, corrected over time; the maximum is "
        f"{peak} (chance {result.chance:.2f})."
    )


# -- encoding ------------------------------------------------------------------------------


def encoding_section(context: Context) -> Section:
    """Predict single trials at each channel and time from the features of the stimuli.

    Raises
    ------
    DataError
        If the stimuli have no features.
    """
    spaces = context.feature_spaces
    if not spaces:
        raise DataError("the stimuli have no features", mend="add images, captions or a category")
    curves, nulls, arrays = [], [], {}
    for subject, recording in context.recordings.items():
        rows = recording if context.encodes_conditions else recording.mean_over("stimulus")
        splits, inner = encoding_splits(context, rows, context.encodes_conditions)
        features = np.concatenate([f.rows(rows.coord("stimulus")) for f in spaces.values()], axis=1)
        values = rows.values.reshape(rows.n_presentations, -1)
        scores = encode(features, values, splits, inner)
        arrays[f"{subject}-scores"] = scores.reshape(rows.values.shape[1:])
        curves.append(arrays[f"{subject}-scores"].mean(axis=0))
        rng = context.rng(f"encoding {subject}")
        null = []
        for _ in track(range(0, ENCODING_PERMUTATIONS, AT_ONCE), "permuting stimuli"):
            # Permuted responses pass as further units, which costs far less than further fits.
            orders = [_within_blocks(rows, context, rng) for _ in range(AT_ONCE)]
            stacked = np.concatenate([values[order] for order in orders], axis=1)
            result = encode(features, stacked, splits, inner)
            null.append(result.reshape(AT_ONCE, *rows.values.shape[1:]).mean(axis=1))
        nulls.append(np.concatenate(null))
    time = context.first.coord("time").astype(float)
    mean, null = np.mean(curves, axis=0), np.mean(nulls, axis=0)
    spans = permutation_spans(mean, null, time)
    found = [s for s in spans if s.p_value < 0.05]
    peak = f"r = {mean.max():.3f} at {time[mean.argmax()] * 1000:.0f} ms"
    summary = (
        "The features predict single trials of held-out data from "
        + " and ".join(f"{s.start * 1000:.0f} to {s.stop * 1000:.0f} ms" for s in found)
        + f" (mean over channels up to {peak})."
        if found
        else "The features do not predict single trials of held-out data at any time (mean over "
        f"channels at most {peak}, not significant once all times are considered)."
    )
    figures = [
        Figure(
            "lines",
            "When the stimulus predicts the response",
            f"The band is the 95 % range under permuted stimuli. {summary}",
            {
                "x": time,
                "series": {"mean over channels": mean},
                "low": {"mean over channels": np.quantile(null, 0.025, axis=0)},
                "high": {"mean over channels": np.quantile(null, 0.975, axis=0)},
                "xlabel": "time from onset (s)",
                "ylabel": "correlation of prediction and response",
                "chance": 0.0,
                "spans": [(s.start, s.stop, s.p_value) for s in found],
                "onset": 0.0,
            },
        )
    ]
    return Section(
        name="encoding",
        title="Encoding over time",
        summary=summary,
        numbers={
            "features": {n: f.n_features for n, f in spaces.items()},
            "peak": float(mean.max()),
            "peak_time": float(time[mean.argmax()]),
            "spans": [s.__dict__ for s in spans],
            "ceiling": _ceiling_numbers(context),
        },
        figures=figures,
        methods=[
            f"Single trials were predicted at each channel and time by ridge regression from "
            f"{', '.join(spaces)} (penalty by inner cross-validation for each channel and time), "
            f"{_encoding_split(context)}; the score is the correlation within "
            "test sets, averaged over channels, and was tested with a cluster permutation "
            f"test over time ({ENCODING_PERMUTATIONS} permutations of the stimuli).",
        ],
        citations=["naselaris2011", "maris2007"],
        arrays=arrays,
    )


def encode(
    features: np.ndarray, values: np.ndarray, splits: list[Any], inner: list[Any]
) -> np.ndarray:
    """Cross-validated correlation of prediction and response of each unit."""
    predicted = np.empty_like(values)
    for split, folds in zip(splits, inner, strict=True):
        train, test = split.train, split.test
        model = RidgeCV(alphas=ALPHAS, cv=folds, standardize=True)
        model.fit(features[train], values[train])
        predicted[test] = model.predict(features[test])
    return correlation_within(values, predicted, [split.test for split in splits])


def _within_blocks(rows: Recording, context: Context, rng: np.random.Generator) -> np.ndarray:
    """Order of rows in which single trials stay in their run, and mean responses go anywhere."""
    if not context.encodes_conditions:
        return rng.permutation(rows.n_presentations)
    order = np.arange(rows.n_presentations)
    runs = run_ids(rows)
    for run in np.unique(runs):
        members = np.flatnonzero(runs == run)
        order[members] = rng.permutation(members)
    return order


def _encoding_split(context: Context) -> str:
    if context.encodes_conditions:
        return context.split_sentence(context.first, "stimulus")
    return f"{N_FOLDS}-fold cross-validation over stimuli, repeats averaged"


def _ceiling_numbers(context: Context) -> dict[str, Any]:
    try:
        ceiling = variance_ceiling(context.first, n_averaged=1)
    except DataError:
        return {}
    return {"single_trial_max": float(ceiling.correlation.max())}


# -- temporal generalisation ---------------------------------------------------------------


def generalisation_section(context: Context) -> Section:
    """Train at one time, test at another."""
    column = _column(context)
    matrices = []
    for subject, recording in context.recordings.items():
        result = decode_over_time(
            recording,
            None if column == "stimulus" else column,
            context.splits(recording, column),
            classifier=CLASSIFIER,
            generalise=True,
            rng=context.rng(f"generalisation {subject}"),
        )
        matrices.append(result.scores)
    mean = np.mean(matrices, axis=0)
    off = mean[~np.eye(len(mean), dtype=bool)]
    diagonal = np.diag(mean)
    summary = (
        f"Classifiers score {diagonal.mean():.2f} on average at the time they were trained and "
        f"{off.mean():.2f} at other times (chance {result.chance:.2f})."
    )
    return Section(
        name="generalisation",
        title="Temporal generalisation",
        summary=summary,
        numbers={
            "diagonal_mean": float(diagonal.mean()),
            "off_diagonal_mean": float(off.mean()),
            "maximum": float(mean.max()),
            "chance": result.chance,
        },
        figures=[
            Figure(
                "time_matrix",
                "Trained at one time, tested at another",
                f"A square block means a code that stays, a diagonal one that changes. {summary} "
                "The diagonal is tested in the section on decoding; other cells are not.",
                {
                    "matrix": mean,
                    "times": result.time,
                    "chance": result.chance,
                    "label": {"auc": "AUC", "accuracy": "balanced accuracy"}[result.metric],
                },
            )
        ],
        methods=["Temporal generalisation: each classifier was also tested at all other times."],
        citations=["king2014"],
        arrays={"matrix": mean},
    )
