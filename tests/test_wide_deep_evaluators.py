"""Wide and deep evaluators: prompts, parser, exchange of the answers, decisions and agreement."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from engramma.agents.budget import Budgeted
from engramma.agents.caching import Cached
from engramma.agents.endpoint import Endpoint
from engramma.agents.errors import ModelError
from engramma.agents.model import Completion
from engramma.agents.scripted import Scripted
from engramma.agents.server import make_server
from engramma.agents.transcript import Recorded, Replay
from engramma.contracts import Orchestrator
from engramma.errors import ConfigError, DataError
from engramma.systems.probing.llmeval2 import KIND_OF_DATASET, load_llmeval2
from engramma.systems.probing.wide_deep_agreement import agreement
from engramma.systems.probing.wide_deep_evaluators import WideDeep
from engramma.systems.probing.wide_deep_judges import ASPECTS, SimulatedJudge, generate_items
from engramma.systems.probing.wide_deep_prompts import (
    KINDS,
    Item,
    ask_roles,
    ask_scores,
    exchange_names,
    parse_roles,
    parse_scores,
)

ITEM = Item("Why is the sky blue?", "Air scatters blue light most.", "It mirrors the sea.")


def text(messages):
    return messages[-1]["content"]


# -- replies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        (
            "Evaluation evidence: fine.\nScore of Assistant 1: 8\nScore of Assistant 2: 6.5",
            (8, 6.5),
        ),
        ("**Score of Assistant 1:** 9\n**Score of Assistant 2:** 7", (9, 7)),
        ("**Score of Assistant 1**: **9**\n**Score of Assistant 2**: **7**", (9, 7)),
        ("*Score of Assistant 1: 9*\n*Score of Assistant 2: 7*", (9, 7)),
        ("- Score of the Assistant 1: 8/10\n- Score of the Assistant 2: 6 / 10", (8, 6)),
        ("Score of Assistant 2: 3\nScore of Assistant 1: 8 out of 10", (8, 3)),
        ("score of assistant 1 = 8\nSCORE OF ASSISTANT #2: 4.", (8, 4)),
        ("Score for Assistant 1 is 10, and the score for Assistant 2 is 1.", (10, 1)),
        ("Score of Assistant 1: 8.\nScore of Assistant 2: 7.\nThanks.", (8, 7)),
        ("Score of Assistant 1: 8\nScore of Assistant 2: 7\n\nScore of Assistant 1: 8", (8, 7)),
        # what must not be guessed
        ("Score of Assistant 1: 8", None),
        ("Score of Assistant 1: 8\nScore of Assistant 1: 7\nScore of Assistant 2: 7", None),
        ("Score of Assistant 1: 80/100\nScore of Assistant 2: 70/100", None),
        ("Score of Assistant 1: 4/5\nScore of Assistant 2: 3/5", None),
        ("Score of Assistant 1: 0\nScore of Assistant 2: 7", None),
        ("Score of Assistant 1: 11\nScore of Assistant 2: 7", None),
        ("Score of Assistant 1: -3\nScore of Assistant 2: 7", None),
        ("Score of Assistant 1: 7-8\nScore of Assistant 2: 6", None),
        ("Score of Assistant 1: 7 to 8\nScore of Assistant 2: 6", None),
        ("Score of Assistant 1: <number>\nScore of Assistant 2: <number>", None),
        ("Score of Assistant 1: eight\nScore of Assistant 2: six", None),
        ("Score of Assistant 12: 8\nScore of Assistant 2: 6", None),
        ("Both are good.", None),
        ("", None),
    ],
)
def test_scores_are_read_or_refused(reply, scores):
    assert parse_scores(reply) == scores
    turned = parse_scores(exchange_names(reply))
    assert turned == (scores and scores[::-1])


@pytest.mark.parametrize(
    ("reply", "roles"),
    [
        ("$Accuracy&\n$Depth&", ["Accuracy", "Depth"]),
        ("1. **$Accuracy: is it\n  true?&**\n2. $ Tone &", ["Accuracy: is it true?", "Tone"]),
        ("Angles: $Correct code& and $Speed&.", ["Correct code", "Speed"]),
        ("$Accuracy&\n$accuracy&\n$ &", ["Accuracy"]),
        ("Accuracy and tone", []),
    ],
)
def test_roles_are_read(reply, roles):
    assert parse_roles(reply) == roles


def test_names_are_exchanged_at_once_and_back():
    said = "Assistant 1 beats assistant #2; Assistants 1 and 2, Assistant 12 stay. **Assistant 2**"
    turned = exchange_names(said)
    assert turned == (
        "Assistant 2 beats assistant #1; Assistants 1 and 2, Assistant 12 stay. **Assistant 1**"
    )
    assert exchange_names(turned) == said


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_hold_what_is_judged(kind):
    item = Item("THE QUESTION", "ANSWER B", "ANSWER A", kind=kind)
    prompt = text(ask_scores(item, ["Accuracy", "Tone"], ["MINE"], ["THEIRS"]))
    assert ("THE QUESTION" in prompt) is (kind != "multi-turn")
    assert prompt.index("ANSWER B") < prompt.index("ANSWER A") < prompt.index("MINE")
    assert prompt.index("MINE") < prompt.index("THEIRS") < prompt.index("Accuracy; Tone")
    assert "discuss" not in text(ask_scores(item, ["Accuracy"]))
    for limited in (False, True):
        prompt = text(ask_roles(item, limited))
        assert prompt == text(ask_roles(item.exchanged(), limited))
        assert ("two angles" in prompt) is limited


# -- the network ---------------------------------------------------------------------------


def reviewer(messages):
    """Roles, or scores that favour the answer about the sea only where it stands first."""
    prompt = text(messages)
    if "Begin each line with $" in prompt:
        return "$Truth&\n$Style&\n$Length&"
    first = prompt.index(ITEM.first) < prompt.index(ITEM.second)
    one, two = (6, 7) if first else (9, 5)
    return f"Assistant 1 shows it.\nScore of Assistant 1: {one}\nScore of Assistant 2: {two}"


def test_it_is_an_orchestrator():
    assert isinstance(WideDeep(), Orchestrator)


def test_a_comparison_by_hand():
    model = Scripted(reviewer)
    decision = WideDeep(temperature=0.0).run(ITEM, model)
    assert model.calls == decision.cost.calls == 1 + 2 * 3 * 2
    assert decision.roles == ("Truth", "Style", "Length")
    assert decision.scores == (5.5, 8.0)  # (6, 7) as shown; (9, 5) exchanged is (5, 9)
    assert decision.preference == "second"
    assert decision.complete
    assert decision.notes == ()
    second = [j for j in decision.trace if j.layer == 2]
    assert [j.roles for j in second[::2]] == [
        ("Truth", "Style"),
        ("Style", "Truth", "Length"),
        ("Length", "Style"),
    ]
    assert {(j.exchanged, j.scores) for j in decision.trace} == {(False, (6, 7)), (True, (5, 9))}
    assert second[1].evidence.startswith("Assistant 2 shows it.\nScore of Assistant 2: 9")


def test_evidence_comes_from_oneself_and_the_neighbours_with_the_names_of_the_prompt():
    prompts = []

    def judge(messages):
        prompt = text(messages)
        prompts.append(prompt)
        role = prompt.partition("from this angle: ")[2][0]
        order = "shown" if prompt.index(ITEM.first) < prompt.index(ITEM.second) else "turned"
        one, two = (8, 3) if order == "shown" else (3, 8)
        return f"{role}-{order}\nScore of Assistant 1: {one}\nScore of Assistant 2: {two}"

    wide = WideDeep(roles=["A", "B", "C", "D"], depth=3, workers=1, temperature=0.0)
    decision = wide.evaluate(ITEM, Scripted(judge))
    assert decision.scores == (8, 3)
    assert len(prompts) == 2 * 4 * 3
    layer2 = prompts[8:16]
    said = [[line for line in p.splitlines() if line[1:2] == "-"] for p in layer2]
    assert said[0] == ["A-shown", "A-turned", "B-shown", "B-turned"]
    assert said[1] == ["A-turned", "A-shown", "B-turned", "B-shown"]
    assert said[4][:2] == ["C-shown", "C-turned"]
    assert Counter(said[4]) == Counter(f"{r}-{o}" for r in "BCD" for o in ("shown", "turned"))
    for index, prompt in enumerate(layer2):  # whichever order it came from, the truth is the same
        discussion = prompt.partition("already discussed")[2]
        right = "12"[index % 2]
        assert discussion.count(f"Score of Assistant {right}: 8") == len(said[index])
    last = prompts[-2].partition("already discussed")[2]
    assert last.count("[Your own earlier evaluation]") == 4
    assert last.count("[Evaluation by a colleague]") == 2


def test_the_ways_to_add_up():
    def judge(messages):
        prompt = text(messages)
        second_layer = "already discussed" in prompt
        if "angle: A" in prompt:
            one, two = 9, 1
        else:
            one, two = 5, 6
        if second_layer:
            one, two = 4, 4
        if prompt.index(ITEM.first) > prompt.index(ITEM.second):
            one, two = two, one
        return f"Score of Assistant 1: {one}\nScore of Assistant 2: {two}"

    found = {}
    for aggregate in ("mean", "last", "vote"):
        wide = WideDeep(roles=["A", "B", "C"], aggregate=aggregate)
        decision = wide.evaluate(ITEM, Scripted(judge))
        found[aggregate] = decision.preference, decision.scores
    assert found["mean"] == ("first", ((19 + 12) / 6, (13 + 12) / 6))
    assert found["last"] == ("tie", (4, 4))
    assert found["vote"][0] == "second"  # one vote to two, and three halves
    assert found["vote"][1] == pytest.approx((2.5 / 6, 3.5 / 6))


@pytest.mark.parametrize("aggregate", ["mean", "last", "vote"])
def test_exchanging_the_answers_turns_everything_round(aggregate):
    items = generate_items(12, rng=np.random.default_rng(1))
    judge = SimulatedJudge(garbled=0.2)
    wide = WideDeep(depth=3, aggregate=aggregate, tries=2)
    one_order = WideDeep(depth=1, order_swap=False, workers=1)
    turned = {"first": "second", "second": "first", "tie": "tie", None: None}
    unequal = 0
    for item in items:
        a, b = wide.evaluate(item, judge), wide.evaluate(item.exchanged(), judge)
        assert b.preference == turned[a.preference]
        assert b.scores == a.scores[::-1]
        assert a.roles == b.roles
        assert sorted(j.evidence for j in a.trace) == sorted(
            exchange_names(j.evidence) for j in b.trace
        )
        a, b = one_order.evaluate(item, judge), one_order.evaluate(item.exchanged(), judge)
        unequal += b.scores != a.scores[::-1]
    assert unequal == 12


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (3, 1), (3, 2), (5, 4)])
def test_number_of_calls(width, depth):
    roles = [f"role {i}" for i in range(width)]

    def judge(messages):
        if "Begin each line with $" in text(messages):
            return "\n".join(f"${role}&" for role in roles)
        return "Score of Assistant 1: 5\nScore of Assistant 2: 5"

    for options, asked in (({}, 1), ({"roles": roles}, 0)):
        model = Scripted(judge)
        decision = WideDeep(depth=depth, **options).evaluate(ITEM, model)
        assert model.calls == decision.cost.calls == asked + 2 * width * depth
        assert decision.preference == "tie"
    single = WideDeep(depth=depth, roles=roles, order_swap=False)
    assert single.evaluate(ITEM, Scripted(judge)).cost.calls == width * depth


def test_threads_change_nothing():
    items = generate_items(6, rng=np.random.default_rng(2))
    for item in items:
        decisions = [WideDeep(workers=w).evaluate(item, SimulatedJudge()) for w in (1, 6)]
        assert decisions[0] == decisions[1]
    scores = [WideDeep(workers=w).score(items, SimulatedJudge()) for w in (1, 6)]
    assert scores[0].decisions == scores[1].decisions


def test_seeds_draw_anew_for_neurons_layers_and_tries():
    class Seeds(SimulatedJudge):
        def complete(self, messages, **settings):
            seen.append((text(messages), settings["seed"]))
            return super().complete(messages, **settings)

    seen = []
    item = generate_items(1, rng=np.random.default_rng(0))[0]
    WideDeep(roles=["Accuracy"] * 3, workers=1).evaluate(item, Seeds(garbled=0.3))
    assert len(set(seen)) == len(seen) > 12
    other = WideDeep(roles=["Accuracy"] * 3, seed=1)
    assert (
        other.evaluate(item, SimulatedJudge()).scores
        != WideDeep(roles=["Accuracy"] * 3).evaluate(item, SimulatedJudge()).scores
    )


# -- what goes wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("same", " same\n"), ("", "  ")])
def test_equal_answers_are_a_tie_without_a_call(first, second):
    model = Scripted([])
    decision = WideDeep().evaluate(Item("q", first, second), model)
    assert decision.preference == "tie"
    assert decision.complete
    assert model.calls == decision.cost.calls == 0
    assert math.isnan(decision.scores[0])


def test_unreadable_replies_are_asked_for_again_and_then_left_out():
    def judge(messages, calls=Counter()):  # noqa: B006
        prompt = text(messages)
        if "angle: Bad" in prompt:
            calls["bad"] += 1
            return f"I would rather not say, {calls['bad']}."
        return "Score of Assistant 1: 9\nScore of Assistant 2: 2"

    wide = WideDeep(roles=["Good", "Bad", "Other"], tries=4, workers=1, order_swap=False)
    model = Scripted(judge)
    decision = wide.evaluate(ITEM, model)
    assert model.calls == (1 + 4 + 1) + 2  # the bad neuron has no second layer
    assert decision.scores == (9, 2)
    assert decision.complete
    assert decision.notes == ("layer 1, neuron 2: nothing could be read from 4 replies",)
    assert [j.roles for j in decision.trace if j.layer == 2] == [("Good",), ("Other",)]
    stubborn = Scripted(lambda messages: "No.")
    decision = wide.evaluate(ITEM, stubborn)
    assert stubborn.calls == 2 * 3  # the same words twice are enough
    assert decision.preference is None
    assert math.isnan(decision.scores[0])
    assert not decision.complete


def test_roles_that_cannot_be_used():
    def judge(roles):
        return Scripted(
            lambda messages: (
                roles
                if "Begin each line with $" in text(messages)
                else "Score of Assistant 1: 9\nScore of Assistant 2: 2"
            )
        )

    decision = WideDeep(depth=1).evaluate(ITEM, judge("Accuracy, and tone"))
    assert decision.roles == ("Accuracy", "Relevance")
    assert "standard roles" in decision.notes[0]
    many = "\n".join(f"${i}&" for i in range(31))
    decision = WideDeep(depth=1).evaluate(ITEM, judge(many))
    assert (len(decision.roles), decision.notes) == (20, ("20 of 31 roles",))
    assert WideDeep(depth=1, limited=True).evaluate(ITEM, judge(many)).roles == ("0", "1")


def test_a_failing_back_end_leaves_an_incomplete_decision():
    dead = WideDeep().evaluate(ITEM, Scripted([ModelError("no connection")]))
    assert (dead.preference, dead.complete) == (None, False)
    assert "no connection" in dead.notes[0]
    partial = WideDeep(roles=["A", "B"], workers=1).evaluate(
        ITEM, Budgeted(Scripted(reviewer), max_calls=5)
    )
    assert partial.preference == "second"
    assert partial.scores == (5.5, 8.0)
    assert not partial.complete
    assert "budget" in partial.notes[-1]
    assert [j.failed for j in partial.trace] == [False] * 5 + [True] * 3
    with pytest.raises(ConfigError, match="key"):
        WideDeep().evaluate(ITEM, Scripted([ConfigError("the key is refused")]))
    with pytest.raises(ModelError, match=r"no item could be decided.*no connection"):
        WideDeep().run([Item("q", "a", "b", "first")], Scripted([ModelError("no connection")]))


def test_bad_input(monkeypatch):
    for name in ("ENGRAMMA_LLM_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no endpoint is named"):
        WideDeep().evaluate(ITEM)
    with pytest.raises(DataError, match="second is None, and no text"):
        Item("q", "a", None)
    with pytest.raises(DataError, match="no preference 1"):
        Item("q", "a", "b", 1)
    with pytest.raises(ConfigError, match="no kind"):
        Item("q", "a", "b", kind="poem")
    with pytest.raises(DataError, match="item 1 has no human preference"):
        WideDeep().score([Item("q", "a", "b", "tie"), ITEM], Scripted([]))
    for options in ({"depth": 0}, {"aggregate": "median"}, {"roles": []}, {"temperature": -1}):
        with pytest.raises(ConfigError):
            WideDeep(**options)


# -- agreement -----------------------------------------------------------------------------


def test_agreement_is_that_of_scikit_learn(rng):
    classes = np.array(["first", "second", "tie"])
    for _ in range(20):
        human = classes[rng.integers(3, size=80)]
        judged = np.where(rng.random(80) < 0.5, human, classes[rng.integers(2, size=80)])
        found = agreement(human.tolist(), judged.tolist(), n_bootstrap=200)
        assert found["accuracy"].value == pytest.approx(accuracy_score(human, judged))
        assert found["kappa"].value == pytest.approx(cohen_kappa_score(human, judged))
        macro = f1_score(human, judged, average="macro")
        assert found["macro_f1"].value == pytest.approx(macro)
        for estimate in found.values():
            assert estimate.low < estimate.value < estimate.high


def test_intervals_of_kappa_cover_the_truth(rng):
    table = np.array([[0.3, 0.05, 0.05], [0.05, 0.25, 0.05], [0.1, 0.05, 0.1]])
    expected = (table.sum(0) * table.sum(1)).sum()
    truth = (np.trace(table) - expected) / (1 - expected)
    classes, covered = ("first", "second", "tie"), 0
    for _ in range(200):
        codes = rng.choice(9, size=150, p=table.ravel())
        human, judged = ([classes[c] for c in part] for part in np.divmod(codes, 3))
        kappa = agreement(human, judged, rng=rng, n_bootstrap=300)["kappa"]
        covered += kappa.low <= truth <= kappa.high
    assert covered > 180


def test_agreement_that_is_not_defined():
    one = agreement(["tie"] * 3, ["tie"] * 3)
    assert one["accuracy"].value == one["macro_f1"].value == 1
    assert math.isnan(one["kappa"].value)
    with pytest.raises(DataError, match="2 preferences of people and 1"):
        agreement(["tie"] * 2, ["tie"])
    with pytest.raises(DataError, match="no preference 'draw'"):
        agreement(["tie"], ["draw"])


def test_scoring_a_set():
    items = generate_items(60, rng=np.random.default_rng(0))
    exact = SimulatedJudge(noise=0.0, bias=3.0)
    found = WideDeep(depth=1).score(items, exact)
    assert (found.n, found.undecided, found.incomplete) == (60, 0, 0)
    assert found.cost.calls == 60 * 9
    for item, decision in zip(items, found.decisions, strict=True):
        assert item.human in ("tie", decision.preference)
    blind = WideDeep(depth=1, order_swap=False).score(items, SimulatedJudge(0.0, bias=30.0))
    assert {d.preference for d in blind.decisions} == {"first"}
    assert abs(blind.kappa.value) < 0.05


# -- cost, caches and transcripts ----------------------------------------------------------


def test_a_run_can_be_cached_and_replayed(tmp_path):
    items = generate_items(5, rng=np.random.default_rng(3))
    model = Recorded(Cached(SimulatedJudge(garbled=0.1), tmp_path / "cache"), tmp_path / "t.jsonl")
    first, again = (WideDeep().score(items, model) for _ in range(2))
    assert [d.scores for d in again.decisions] == [d.scores for d in first.decisions]
    assert again.cost.cached == again.cost.calls == first.cost.calls > 5 * 17
    assert again.cost.prompt_tokens == 0 < first.cost.prompt_tokens
    replayed = WideDeep().score(items, Replay(tmp_path / "t.jsonl"))
    assert [d.preference for d in replayed.decisions] == [d.preference for d in first.decisions]
    deeper = WideDeep(depth=3).score(items, Replay(tmp_path / "t.jsonl"))
    assert deeper.incomplete == 5
    assert "not asked" in deeper.decisions[0].notes[-1]


def test_judges_behind_an_endpoint_decide_as_they_do_here():
    server = make_server(SimulatedJudge())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        endpoint = Endpoint("simulated-judge", base_url=server.url, retries=0)
        items = generate_items(3, rng=np.random.default_rng(4))
        far, here = (WideDeep().score(items, model) for model in (endpoint, SimulatedJudge()))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [d.scores for d in far.decisions] == [d.scores for d in here.decisions]
    assert far.cost[:4] == here.cost[:4]
    assert far.cost.seconds > 0


# -- the simulated world -------------------------------------------------------------------


def test_people_follow_the_mean_of_the_aspects():
    items = generate_items(4000, rng=np.random.default_rng(0))
    share = Counter(i.human for i in items)["tie"] / 4000
    # the difference of two means of four standard normal numbers has a variance of 1/2
    assert share == pytest.approx(math.erf(0.3 / math.sqrt(0.5) / math.sqrt(2)), abs=0.02)
    for item in items[:50]:
        one, two = (
            np.mean([float(word.strip(".")) for word in answer.split()[2::3]])
            for answer in (item.first, item.second)
        )
        lead = 0 if abs(one - two) < 0.3 else np.sign(one - two)
        assert item.human == {0: "tie", 1: "first", -1: "second"}[lead]


def test_the_simulated_judge_has_the_noise_and_bias_it_is_given():
    item = Item("q", "Accuracy is 1.00. Depth is -9.00.", "Accuracy is 0.00. Depth is 9.00.")
    judge = SimulatedJudge(noise=0.5, bias=1.5)
    messages = ask_scores(item, ["Accuracy"])
    scores = np.array([parse_scores(judge.complete(messages, seed=s).text) for s in range(2000)])
    quality = (scores - 5.5) / 0.6
    assert quality.mean(0) == pytest.approx([2.5, 0.0], abs=0.05)
    assert quality.std(0) == pytest.approx([0.5, 0.5], abs=0.03)
    assert isinstance(judge.complete(messages), Completion)
    item = generate_items(1, rng=np.random.default_rng(0))[0]
    assert parse_roles(judge.complete(ask_roles(item, False)).text) == list(ASPECTS)


# -- LLMEval2 ------------------------------------------------------------------------------


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def row(human, dataset="webgpt", **fields):
    base = {"query": "q", "response1": "a", "response2": "b", "human": human, "dataset": dataset}
    return base | fields


def test_the_published_coding_is_found_by_its_counts(tmp_path):
    rows = [row(2)] * 1050 + [row(0)] * 1021 + [row(1)] * 482
    items = load_llmeval2(write(tmp_path / "all.json", rows))
    assert Counter(i.human for i in items) == {"first": 1050, "second": 1021, "tie": 482}
    assert (items[0].human, items[1050].human, items[-1].human) == ("first", "second", "tie")


def test_other_files_of_the_format(tmp_path):
    rows = [row("response1", name) for name in KIND_OF_DATASET] + [row("tie")]
    items = load_llmeval2(write(tmp_path / "part.json", rows))
    assert len(items) == 16
    assert {i.kind for i in items} == set(KINDS)
    assert items[0] == Item("q", "a", "b", "first", "qa", "webgpt")
    coded = write(tmp_path / "coded.json", [row(1), row(0)])
    assert [i.human for i in load_llmeval2(coded, {1: "first", 0: "tie"})] == ["first", "tie"]
    with pytest.raises(DataError, match=r"preference 1 means.*coded.json, line 1.*coding"):
        load_llmeval2(coded)
    with pytest.raises(DataError, match=r"preference 0 means.*line 2"):
        load_llmeval2(coded, {1: "first", 2: "second"})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no comparison"),
        ("{", "line 1"),
        ('{"query": "q"}', "no response1, response2, human, dataset"),
        ("[1]", "no query"),
        (json.dumps(row("tie", "poems")), "no data set 'poems'"),
        (json.dumps(row(None)), "preference is None"),
        (json.dumps(row("tie", response1=3)), "first is 3"),
    ],
)
def test_damaged_files(tmp_path, content, says):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DataError, match=says):
        load_llmeval2(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_llmeval2(tmp_path / "absent.json")
