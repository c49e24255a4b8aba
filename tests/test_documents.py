"""Readers of long texts, and texts of segments with known answers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engramma.errors import ConfigError, DataError
from engramma.memory.documents import (
    Question,
    answer_f1,
    fuse,
    labelled,
    read_books,
    read_pubmedqa,
    read_texts,
    read_wikitext,
)
from engramma.worlds.segment_streams import segment_pairs


def test_books(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "20.txt").write_text("second")
    (tmp_path / "test" / "10.txt").write_text("first")
    assert [(d.name, d.text) for d in read_books(tmp_path, "test")] == [
        ("10", "first"),
        ("20", "second"),
    ]
    with pytest.raises(DataError, match="no books"):
        read_books(tmp_path, "train")
    with pytest.raises(ConfigError, match="split"):
        read_books(tmp_path, "dev")
    (tmp_path / "test" / "10.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_books(tmp_path, "test"))


def test_wikitext(tmp_path):
    path = tmp_path / "wiki.test.tokens"
    path.write_text(
        " \n = Robert <unk> = \n \n An actor . \n = = Career = = \n \n More . \n \n"
        " = B = \n \n Two .\n"
    )
    first, second = read_wikitext(path)
    assert (first.name, second.name) == ("Robert <unk>", "B")
    assert "Career" in first.text and "Two" not in first.text
    path.write_text("nothing\n")
    with pytest.raises(DataError, match="no article"):
        read_wikitext(path)


def test_texts(tmp_path):
    (tmp_path / "a.txt").write_text("plain")
    assert read_texts(tmp_path / "a.txt")[0].text == "plain"
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "id": 7}\n')
    assert [d.name for d in read_texts(tmp_path / "a.jsonl")] == ["a 1", "7"]
    for wrong, match in (('{"t": 1}', "line 1"), ("{", "no JSON"), ("", "empty")):
        (tmp_path / "a.jsonl").write_text(wrong)
        with pytest.raises(DataError, match=match):
            read_texts(tmp_path / "a.jsonl")


def test_pubmedqa_in_both_forms(tmp_path):
    own = {
        str(n): {
            "QUESTION": f"q{n}?",
            "CONTEXTS": [f"c{n}a", f"c{n}b"],
            "LONG_ANSWER": f"a{n}",
            "final_decision": "yes",
        }
        for n in range(5)
    }
    hub = [
        {
            "question": r["QUESTION"],
            "context": {"contexts": r["CONTEXTS"]},
            "long_answer": r["LONG_ANSWER"],
            "final_decision": "yes",
        }
        for r in own.values()
    ]
    (tmp_path / "own.json").write_text(json.dumps(own))
    (tmp_path / "hub.json").write_text(json.dumps(hub))
    (tmp_path / "hub.jsonl").write_text("\n".join(map(json.dumps, hub)))
    questions = read_pubmedqa(tmp_path / "own.json")
    assert (
        questions == read_pubmedqa(tmp_path / "hub.json") == read_pubmedqa(tmp_path / "hub.jsonl")
    )
    assert questions[1] == Question("c1a c1b", "q1?", "a1", "yes")
    fused = fuse(questions, 2)
    assert [q.question for q in fused] == [f"q{n}?" for n in range(5)]  # none is left out
    assert fused[0].prompt == "c0a c0b c1a c1b q0?" and fused[4].context == "c4a c4b"
    with pytest.raises(ConfigError, match="fuse"):
        fuse(questions, 0)
    (tmp_path / "own.json").write_text('{"1": {"QUESTION": "q"}}')
    with pytest.raises(DataError, match="record 0"):
        read_pubmedqa(tmp_path / "own.json")


def test_labels_and_f1():
    def tokenizer(text, add_special_tokens=True):
        ids = [len(word) for word in text.split()]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}

    tokens, labels = labelled(tokenizer, Question("aa bbb", "cccc?", "dd eee"))
    assert tokens.tolist() == [[1, 2, 3, 5, 2, 3]]
    assert labels.tolist() == [[-100, -100, -100, 2, 3, -100]]
    assert answer_f1("The cat sat.", "the cat") == pytest.approx(0.8)
    assert answer_f1("", "") == 1 and answer_f1("no", "yes") == 0


@pytest.mark.parametrize("topics", [1, 2])
def test_segment_pairs(topics):
    s = segment_pairs(np.random.default_rng(0), 50, topics=topics, idle=1)
    tokens = s.tokens.reshape(50, 8, 16)
    backs = set()
    for row in range(50):
        place = int(np.flatnonzero(s.targets[row] >= 0)[0])
        assert place == 7 * 16 + 7  # the answer is the first token of the second half
        assert s.tokens[row, place + 1] == s.targets[row, place]
        source = tokens[row, 7 - s.segments_back[row]]
        question = tokens[row, 7, 8 - 1 - (topics > 1) : 8].tolist()
        found = [
            i
            for i in range(16 - len(question))
            if source[i : i + len(question)].tolist() == question
        ]
        assert len(found) == 1 and source[found[0] + len(question)] == s.targets[row, place]
        # No other segment answers this very question.
        others = np.delete(tokens[row, :7], 7 - s.segments_back[row], 0)
        asked = question if topics > 1 else question[-1:]
        assert not any(o[i : i + len(asked)].tolist() == asked for o in others for i in range(16))
        backs.add(int(s.segments_back[row]))
        at = place - s.distance[row, place]
        assert s.tokens[row, at] == s.targets[row, place]
    assert backs == {2, 3, 4, 5, 6, 7}
    assert s.tokens.max() < s.n_tokens
    with pytest.raises(ConfigError, match="pairs"):
        segment_pairs(np.random.default_rng(0), 2, segments=2, idle=1)
