"""Streams of video, audio and narration: what is seen, heard and said belongs together."""

from __future__ import annotations

import numpy as np
import pytest

from engramma.errors import ConfigError
from engramma.worlds.audiovisual import DELAY, audiovisual_stream


@pytest.fixture(scope="module")
def stream():
    return audiovisual_stream(3, minutes=60.0, shortest=6, longest=12, resembling=0.3)


def test_events_follow_each_other_for_an_hour(stream):
    events = stream.events
    assert 3600 <= stream.duration < 3612
    assert (events["onset"].iloc[1:].values == events["offset"].iloc[:-1].values).all()
    seen = events[["category", "colour", "background"]].astype(str).agg(" ".join, axis=1)
    assert (seen.iloc[1:].values != seen.iloc[:-1].values).all()
    alike = events[events["resembles"] >= 0]
    assert 0.2 < len(alike) / len(events) < 0.4
    for _, row in alike.iterrows():
        before = events.iloc[row["resembles"]]
        assert (
            row[["category", "colour", "background"]]
            == before[["category", "colour", "background"]]
        ).all()
        assert row["action"] != before["action"]


def test_pictures_change_most_where_events_do(stream):
    few = stream.between(0.0, float(stream.events["offset"].iloc[4]))
    change = np.abs(np.diff(few.frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    boundary = np.rint(stream.boundaries[:4] * stream.frame_rate).astype(int) - 1
    assert set(np.argsort(change)[-4:]) == set(boundary)


def test_words_are_heard_when_they_are_said(stream):
    clip, event = stream.clip(2), stream.events.iloc[2]
    assert " ".join(clip.words["word"]) == event["narration"]
    assert clip.words["onset"].iloc[0] >= event["onset"] + DELAY
    assert len(clip.audio) == round((event["offset"] - event["onset"]) * stream.audio_rate)
    spoken = slice(
        *(
            round((t - event["onset"]) * stream.audio_rate)
            for t in (clip.words["onset"].iloc[0], clip.words["offset"].iloc[-1])
        )
    )
    rest = np.concatenate([clip.audio[: spoken.start], clip.audio[spoken.stop :]])
    assert np.sqrt((clip.audio[spoken] ** 2).mean()) > 1.3 * np.sqrt((rest**2).mean())


def test_any_stretch_is_the_same_however_it_is_asked_for(stream):
    whole, part = stream.between(0.0, 20.0), stream.between(5.0, 15.0)
    rate = stream.frame_rate
    assert np.array_equal(whole.frames[round(5 * rate) : round(15 * rate)], part.frames)
    assert np.array_equal(whole.audio[5 * 16000 : 15 * 16000], part.audio)
    again = audiovisual_stream(3, minutes=60.0, shortest=6, longest=12, resembling=0.3)
    assert np.array_equal(again.between(5.0, 15.0).audio, part.audio)
    with pytest.raises(ConfigError, match="no stretch"):
        stream.between(10.0, 1e6)
    with pytest.raises(ConfigError, match="these numbers"):
        audiovisual_stream(minutes=-1)
