"""Clients of a gateway that ask a model until it is deleted, and what was answered."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection

import openai
from tests.support.pushed_models import ASKED
from tests.support.servers import Server
from tests.vllm.running import Stream, events_in

from tunewarden.engine_protocol import paths


class Hammer:
    """`clients` threads that ask `current`, each fourth of them `kept`, which nobody deletes.

    `counts`: `served` and `refused` on the models that are deleted; `late`, served though it began after the answer;
    `others` on the kept one. `failed` says what was answered otherwise.
    """

    def __init__(self, server: Server, clients: int, *, kept: str, current: str) -> None:
        self.current, self.kept = current, kept
        self.deleted: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self._server = server
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,)) for number in range(clients)
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Ask during a block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()

    def has_moved(self, served: int) -> bool:
        """Whether one more was served on the models that are deleted, or something has failed."""
        return self.counts["served"] > served or bool(self.failed)

    def _ask(self, number: int) -> None:
        client = self._server.client(max_retries=0, timeout=300)
        while not self._is_over.is_set():
            model = self.kept if number % 4 == 0 else self.current
            was_deleted = model in self.deleted
            outcome = "served"
            try:
                answer = client.chat.completions.create(model=model, messages=ASKED, max_tokens=8)
                assert answer.model == model
            except openai.NotFoundError:
                outcome = "refused"
            except Exception as error:  # noqa: BLE001  the test reports it
                outcome = f"{error!r}"
            with self._lock:
                if outcome not in {"served", "refused"} or (
                    model == self.kept and outcome != "served"
                ):
                    self.failed.append(f"{model}: {outcome}")
                else:
                    self.counts["others" if model == self.kept else outcome] += 1
                    self.counts["late"] += was_deleted and outcome == "served"


class Streams:
    """Streams on a model that is deleted, and one on another, read by a client that sees when bytes arrive."""

    def __init__(self, server: Server, victim: str, kept: str) -> None:
        self._victims = [_stream(server, victim, 1500) for _ in range(2)]
        self._kept = _stream(server, kept, 300)
        for stream in (*self._victims, self._kept):
            stream.read(2)

    def late_tokens(self) -> int:
        """Call when DELETE was answered. Return how many tokens arrived after that on the model."""
        arrived = [stream.waiting_bytes() for stream in self._victims]
        rest = [stream.rest() for stream in self._victims]
        assert all(len(events_in(raw)) < 1000 for raw in rest), "it would have gone on"
        late = [raw[waiting:] for raw, waiting in zip(rest, arrived, strict=True)]
        return sum(raw.count(b'"choices"') for raw in late)

    def kept_is_whole(self) -> bool:
        """Read the other stream to its end; return whether that is its model's."""
        events = events_in(self._kept.whole())
        reasons = [event["choices"][0]["finish_reason"] for event in events]
        return reasons[-1:] == ["length"]


def _stream(server: Server, model: str, tokens: int) -> Stream:
    connection = HTTPConnection(*server.address, timeout=300)
    asked = {"model": model, "messages": ASKED, "max_tokens": tokens, "stream": True}
    headers = {"authorization": f"Bearer {server.owner_key}", "content-type": "application/json"}
    body = json.dumps(asked | {"ignore_eos": True})
    connection.request("POST", paths.CHAT_COMPLETIONS, body, headers)
    return Stream(connection.sock)
