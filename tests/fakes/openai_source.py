"""Stands in for OpenAI as the source of a migration: its shapes, and quirks that no server of ours has.

The shapes are recorded ones: jobs with `"error": {}`, the words of a deleted model, an expired file, a rate limit, a
used-up quota and a parameter that a model does not take. It deletes only where a test says that it may.
"""

import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

KEY = "sk-proj-of-the-source"
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Object | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no 200. `code` and `param` are OpenAI's."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def rate_limited(**headers: str) -> Refusal:
    """The answer of a limit of the organization, with headers whose dashes are underscores here."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    message = (
        "Rate limit reached for gpt-4o-mini in organization org-acme on requests per min (RPM)."
    )
    return Refusal(429, message, "rate_limit_exceeded", headers=named)


USED_UP = Refusal(
    429,
    "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota",
)


class OpenAI:
    """What it has, how it answers, and what it was asked."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.jobs: list[Object] = []
        self.files: dict[str, Object] = {}
        self.contents: dict[str, bytes] = {}
        self.checkpoints: dict[str, list[Object]] = {}
        # A parameter -> the models that refuse it.
        self.unsupported: dict[str, set[str]] = {}
        # What the next requests get instead of their answers; None lets one through.
        self.refusals: deque[Refusal | None] = deque()
        # After how many bytes the next contents are cut that have more.
        self.cuts: deque[int] = deque()
        self.has_ranges = True
        self.page_size = 100
        self.may_delete = False
        self.chat_seconds = 0.0
        # A question -> the choice that answers it, in place of the usual words.
        self.choices: dict[str, Object] = {}
        # Chats are answered when it is set.
        self.is_answering = threading.Event()
        self.is_answering.set()
        self.asked: list[Asked] = []
        self.answered: Counter[tuple[str, str]] = Counter()
        self.bytes_sent = 0
        self.running = 0
        self.running_most = 0
        self.url = ""
        self.guard = threading.Lock()

    def add_file(self, content: bytes, *, purpose: str = "fine-tune", **fields: object) -> str:
        """Add a file whose content it still has; return its id."""
        name = f"file-{hashlib.sha256(content + str(fields).encode()).hexdigest()[:22]}"
        self.files[name] = {
            "object": "file",
            "id": name,
            "purpose": purpose,
            "filename": "chats.jsonl" if purpose == "fine-tune" else "step_metrics.csv",
            "bytes": len(content),
            "created_at": 1_730_000_000,
            "expires_at": None,
            "status": "processed",
            "status_details": None,
            **fields,
        }
        self.contents[name] = content
        return name

    def add_job(self, model: str, base: str, training_file: str, **fields: object) -> str:
        """Add a job that made a model, as OpenAI shows one; return its id."""
        name = f"ftjob-{hashlib.sha256(f'{model}{training_file}'.encode()).hexdigest()[:24]}"
        parameters = {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8}
        self.jobs.append(
            {
                "object": "fine_tuning.job",
                "id": name,
                "model": base,
                "created_at": 1_731_000_000,
                "finished_at": 1_731_003_600,
                "fine_tuned_model": model,
                "organization_id": "org-acme",
                "result_files": [],
                "status": "succeeded",
                "validation_file": None,
                "training_file": training_file,
                "hyperparameters": parameters,
                "trained_tokens": 5768,
                "error": {},
                "user_provided_suffix": None,
                "seed": 42,
                "estimated_finish": None,
                "integrations": [],
                "metadata": None,
                "usage_metrics": None,
                "shared_with_openai": False,
                "method": {"type": "supervised", "supervised": {"hyperparameters": parameters}},
                **fields,
            }
        )
        return name

    def count_of(self, method: str, path: str) -> int:
        """Return how often a path was asked for."""
        return sum(one.method == method and one.path == path for one in self.asked)

    def chats(self) -> list[Object]:
        """Return the questions that were answered or refused, as they came."""
        found = [one.body for one in self.asked if one.path.endswith("/chat/completions")]
        return [body for body in found if body is not None]

    def answer(self, asked: Asked) -> Object | Refusal:
        """Return what a request gets, files' contents aside."""
        path = [unquote(one) for one in asked.path.strip("/").split("/")]
        if asked.method == "POST" and path[-2:] == ["chat", "completions"]:
            return self._chat(asked.body or {}, path)
        if asked.method == "DELETE":
            return self._delete(path)
        found = self._read(path, asked) if asked.method == "GET" else None
        return found or Refusal(404, f"Invalid URL ({asked.method} /v1{asked.path})")

    def _read(self, path: Sequence[str], asked: Asked) -> Object | Refusal | None:
        match path:
            case ["models"]:
                return {"object": "list", "data": [self._model(one) for one in self.models]}
            case ["models", name]:
                return self._model(name) if name in self.models else _no_model(name)
            case ["files"]:
                return self._page(list(self.files.values()), asked)
            case ["files", name]:
                return self.files.get(name) or _no_file(name)
            case ["fine_tuning", "jobs", *rest]:
                is_of_one = len(rest) == 2 and rest[1] == "checkpoints"
                return self._page(
                    self.checkpoints.get(rest[0], []) if is_of_one else self.jobs, asked
                )
        return None

    def _delete(self, path: Sequence[str]) -> Object | Refusal:
        kind, name = path
        if kind == "models":
            if name not in self.models:
                return _no_model(name)
            self.models.remove(name)
            return {"id": name, "object": "model", "deleted": True}
        if name not in self.files:
            return _no_file(name)
        del self.files[name], self.contents[name]
        return {"object": "file", "deleted": True, "id": name}

    def _chat(self, body: Object, path: Sequence[str]) -> Object | Refusal:
        model = path[1] if path[0] == "deployments" else body["model"]
        if model not in self.models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            return Refusal(404, message, "model_not_found")
        for name, models in self.unsupported.items():
            if name in body and model in models:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return Refusal(400, message, "unsupported_parameter", name)
        time.sleep(self.chat_seconds)
        self.is_answering.wait()
        said = f"{model} answers {body['messages'][-1]['content']}"
        with self.guard:
            self.answered[model, json.dumps(body["messages"])] += 1
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said, "refusal": None, "annotations": []},
            "logprobs": {"content": []} if body.get("logprobs") else None,
            "finish_reason": "stop",
        } | self.choices.get(body["messages"][-1]["content"], {})
        return {
            "id": "chatcmpl-Bxyz",
            "object": "chat.completion",
            "created": 1_780_000_000,
            "model": model,
            "choices": [choice],
            "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
            "system_fingerprint": "fp_0123456789",
        }

    def _page(self, objects: Sequence[Object], asked: Asked) -> Object:
        ids = [one["id"] for one in objects]
        start = ids.index(asked.query["after"]) + 1 if "after" in asked.query else 0
        size = min(int(asked.query.get("limit", "20")), self.page_size)
        found = objects[start : start + size]
        more = start + size < len(objects)
        return {"object": "list", "data": list(found), "has_more": more}

    def _model(self, name: str) -> Object:
        owner = "org-acme" if name.startswith("ft:") else "system"
        return {"id": name, "object": "model", "created": 1_731_003_600, "owned_by": owner}


def _no_model(name: str) -> Refusal:
    return Refusal(404, f"The model '{name}' does not exist", "model_not_found", "model")


def _no_file(name: str) -> Refusal:
    return Refusal(404, f"No such File object: {name}", param="id")


@contextmanager
def serving(has: OpenAI) -> Iterator[OpenAI]:
    """Let it answer at its `url` for as long as the block lasts."""

    class Handler(_Handler):
        openai = has

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    has.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield has
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    openai: OpenAI

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Stay silent."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        assert self.openai.may_delete, f"the source was asked to delete {self.path}"
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        size = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = parts.path.removeprefix("/v1").removeprefix("/openai")
        asked = Asked(method, path, dict(parse_qsl(parts.query)), headers, body)
        openai = self.openai
        with openai.guard:
            openai.asked.append(asked)
            openai.running += 1
            openai.running_most = max(openai.running_most, openai.running)
            refusal = openai.refusals.popleft() if openai.refusals else None
        try:
            with _unless_gone():
                self._reply(asked, refusal or self._refused_key(headers))
        finally:
            with openai.guard:
                openai.running -= 1

    def _refused_key(self, headers: dict[str, str]) -> Refusal | None:
        if headers.get("authorization") == f"Bearer {KEY}" or headers.get("api-key") == KEY:
            return None
        return Refusal(401, f"Incorrect API key provided: {KEY[:8]}***.", "invalid_api_key")

    def _reply(self, asked: Asked, refusal: Refusal | None) -> None:
        match asked.path.strip("/").split("/"):
            case ["files", name, "content"] if refusal is None:
                if name not in self.openai.contents:
                    self._refuse(_no_file(name))
                else:
                    self._send_content(self.openai.contents[name], asked.headers.get("range"))
                return
        found = refusal or self.openai.answer(asked)
        if isinstance(found, Refusal):
            self._refuse(found)
        else:
            self._send(200, json.dumps(found).encode(), {"content-type": "application/json"})

    def _refuse(self, refusal: Refusal) -> None:
        kind = (
            "insufficient_quota"
            if refusal.code == "insufficient_quota"
            else "invalid_request_error"
        )
        error = {
            "message": refusal.message,
            "type": kind,
            "param": refusal.param,
            "code": refusal.code,
        }
        self._send(refusal.status, json.dumps({"error": error}).encode(), refusal.headers)

    def _send_content(self, content: bytes, wanted: str | None) -> None:
        headers = {"content-type": "application/octet-stream"}
        status, start = 200, 0
        if wanted is not None and self.openai.has_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        is_cut = bool(self.openai.cuts) and self.openai.cuts[0] < len(content) - start
        cut = self.openai.cuts.popleft() if is_cut else None
        self._send(status, content[start:], headers, cut)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.openai.bytes_sent += len(body[:cut])
        if cut is not None:
            if not self.openai.has_ranges:
                # RST, as a broken connection ends. It may discard what the client has not read yet, so a client that
                # can go on would do so from anywhere; it gets a FIN.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Let a client go that was killed."""
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        return
