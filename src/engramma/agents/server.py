"""A small OpenAI-compatible server of a text model: ``/v1/models`` and ``/v1/chat/completions``.

It is meant for this machine: for trying out an orchestration on a small model, and for programs
that speak the protocol and nothing else. Answers come whole; streaming, tools and several choices
are refused with an error that says so.
"""

from __future__ import annotations

import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from engramma.agents.local import LocalModel
from engramma.agents.model import Completion, TextModel
from engramma.agents.request import Request
from engramma.errors import ConfigError, DataError, EngrammaError

#: Longest request, in bytes.
LARGEST = 16 * 1024 * 1024


def serve(
    source: str | Path | TextModel,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    key: str | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve a model until Ctrl-C.

    Parameters
    ----------
    source : str, path or TextModel
        As in `engramma.agents.local.LocalModel`; or any text model.
    host, port : str, int
        ``127.0.0.1`` is reached from this machine only; port 0 takes a free one.
    key : str, optional
        Asked of callers; give one wherever ``host`` is reached from other machines.
    announce : callable
        Told the address once the server listens.

    Raises
    ------
    ConfigError
        If there is no such model, or the address is taken or not ours.
    """
    model = source if isinstance(source, TextModel) else LocalModel(source)
    server = make_server(model, host, port, key=key)
    announce(
        f"{model.name} answers at {server.url}; Ctrl-C ends it. "
        f"export ENGRAMMA_LLM_BASE_URL={server.url} ENGRAMMA_LLM_MODEL={model.name}"
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


class ModelServer(ThreadingHTTPServer):
    """An HTTP server of one text model; ``serve_forever`` and ``shutdown`` as in the library."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], model: TextModel, key: str | None) -> None:
        self.model, self.key = model, key
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """Base URL for clients."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/v1"


def make_server(
    model: TextModel, host: str = "127.0.0.1", port: int = 0, *, key: str | None = None
) -> ModelServer:
    """Return a server that listens but does not answer yet; see `serve`."""
    try:
        return ModelServer((host, port), model, key)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the server cannot listen ({error})",
            where=f"{host}:{port}",
            mend="choose another port; 0 takes a free one",
        ) from error


class _Refusal(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"
    timeout = 60.0  # seconds for a caller to send what it announced

    def do_GET(self) -> None:
        self._respond({"/v1/models": self._models})

    def do_POST(self) -> None:
        self._respond({"/v1/chat/completions": self._chat})

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request of the protocol, as the library asks to."""
        self._send(int(code), _error(message or "this is no request", None))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""

    def _respond(self, routes: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        try:
            self._check_key()
            if path not in routes:
                raise _Refusal(404, f"there is no {self.command} {path or '/'}", "not_found")
            status, body = 200, routes[path]()
        except _Refusal as error:
            status, body = error.status, _error(error, error.code)
        except (DataError, ConfigError) as error:
            status, body = 400, _error(error, None)
        except EngrammaError as error:
            status, body = 500, _error(error, None)
        except Exception as error:  # a caller gets an answer whatever happens
            status, body = 500, _error(f"the model failed ({type(error).__name__}: {error})", None)
        self._send(status, body)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        if status >= 400:
            self.close_connection = True  # part of the request may not have been read
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            self.close_connection = True  # the caller did not wait

    def _check_key(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        key = self.server.key
        if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
            raise _Refusal(401, "the key is wrong", "invalid_api_key")

    def _models(self) -> dict[str, Any]:
        return {"object": "list", "data": [_model_entry(self.server.model.name)]}

    def _chat(self) -> dict[str, Any]:
        call = _parse(self._body())
        model = self.server.model
        if call.model != model.name:
            raise _Refusal(
                404,
                f"there is no model {call.model!r}; this server has {model.name!r}",
                "model_not_found",
            )
        return _completion(model.name, call.request.ask(model), call.request.max_tokens)

    def _body(self) -> bytes:
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError):
            raise _Refusal(411, "the request does not say how long it is") from None
        if not 0 <= length <= LARGEST:
            raise _Refusal(413, f"a request has at most {LARGEST} bytes")
        return self.rfile.read(length)


class _Call(NamedTuple):
    model: str
    request: Request


def _parse(data: bytes) -> _Call:
    """Read the body of a chat completion request."""
    try:
        body = json.loads(data)
    except ValueError as error:
        raise _Refusal(400, f"the request is no JSON ({error})") from None
    if not isinstance(body, dict):
        raise _Refusal(400, "the request is no JSON object")
    for option, plain in (("stream", False), ("n", 1), ("tools", None)):
        if body.get(option) not in (None, plain, []):
            raise _Refusal(400, f"{option} is not supported", "unsupported_parameter")
    stop = body.get("stop") or []
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    request = Request(
        [_message(m) for m in _field(body, "messages", list)],
        temperature=float(_field(body, "temperature", (int, float), 1.0)),
        max_tokens=512 if limit is None else _whole(limit, "max_tokens", 1),
        stop=[stop] if isinstance(stop, str) else _field({"stop": stop}, "stop", list),
        seed=None if body.get("seed") is None else _whole(body["seed"], "seed", 0),
    )
    if not all(isinstance(s, str) for s in request.stop):
        raise _Refusal(400, "stop is a text, or a list of texts")
    return _Call(_field(body, "model", str), request)


def _field(body: Mapping[str, Any], name: str, kind: Any, default: Any = None) -> Any:
    value = body.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, kind):
        raise _Refusal(400, f"{name} is missing or of the wrong type")
    return value


def _whole(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _Refusal(400, f"{name} is a whole number from {least} on")
    return value


def _message(message: Any) -> dict[str, str]:
    """Role and text of a message, whose content may come in parts."""
    if not isinstance(message, dict):
        raise _Refusal(400, "a message is an object with role and content")
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(p, dict) and p.get("type") == "text" for p in content):
            raise _Refusal(400, "only parts of type text are supported", "unsupported_parameter")
        content = "".join(str(p.get("text", "")) for p in content)
    return {"role": message.get("role", ""), "content": content}


def _completion(name: str, answer: Completion, max_tokens: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text},
                "logprobs": None,
                "finish_reason": "length" if answer.completion_tokens >= max_tokens else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
    }


def _model_entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "local"}


def _error(said: object, code: str | None) -> dict[str, Any]:
    kind = "invalid_request_error"
    return {"error": {"message": str(said), "type": kind, "param": None, "code": code}}
