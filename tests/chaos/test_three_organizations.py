"""One organization sends the worst bodies there are, another deletes models, a third one's streams go on. I14."""

import contextlib
import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from tests.support import engines, servers
from tests.support.servers import Server

IS_TORTURE = "TUNEWARDEN_TORTURE" in os.environ
DELETES = 200 if IS_TORTURE else 4
STREAMS = 4
USERS = 4  # of each model that is deleted, so that every worker serves it
STREAM_TOKENS = 200
SLOW_UPLOADS = 20
MEBIBYTE = 1024 * 1024
FAKES = Path(__file__).parents[1] / "fakes"

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


def _json(**fields: object) -> bytes:
    return json.dumps({"model": engines.BASE, **fields}).encode()


def _chat(text: str, **more: object) -> bytes:
    return _json(messages=[{"role": "user", "content": text}], **more)


def worst_bodies() -> dict[str, tuple[str, bytes]]:
    """Return the bodies, by what is bad about them, with their paths."""
    begin = b'{"model":"%b","a":"\\u0041","x":[' % engines.BASE.encode()
    spelled = {str(token).zfill(width): 0.001 for token in range(300) for width in range(3, 10)}
    return {
        "escaped": (CHAT, begin + b"[]," * (10 * MEBIBYTE) + b"[]]}"),
        "many fields": (CHAT, begin + b"1]" + b',"b":1' * (MEBIBYTE // 2) + b"}"),
        "deep": (CHAT, begin + b"[" * MEBIBYTE + b"]" * MEBIBYTE + b"]}"),
        "long prompt": (CHAT, _chat("a b c d " * (10 * MEBIBYTE // 8))),
        "long word": (COMPLETION, _json(prompt="ab" * (2 * MEBIBYTE))),
        "many messages": (CHAT, _json(messages=[{"role": "user", "content": "x"}] * 100_000)),
        "biases": (CHAT, _chat("hi", logit_bias=spelled, n=16, max_tokens=100)),
        "choices": (COMPLETION, _json(prompt=["hi"] * 16, n=16, max_tokens=200, temperature=2)),
    }


class Organizations:
    """The three, and what became of what they asked for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.attacker = server.make_key("owner", organization="attacker")
        self.deleter = server.make_key("owner", organization="deleter")
        self.streams: Counter[str] = Counter()
        self.attacks: Counter[str] = Counter()
        self.deletes: Counter[str] = Counter()
        self.stop = threading.Event()

    def stream(self) -> None:
        """Read streams, one after the other; count how each ended."""
        body = _chat(
            "Hello",
            stream=True,
            temperature=0,
            max_tokens=STREAM_TOKENS,
            logit_bias=engines.without_end(),
        )
        while not self.stop.is_set():
            self.streams[self._end_of_stream(body)] += 1

    def _end_of_stream(self, body: bytes) -> str:
        try:
            status, said = self._ask(CHAT, body, self.server.owner_key)
        except (OSError, http.client.HTTPException) as error:
            return f"broken: {type(error).__name__}"
        if status != 200:
            return f"broken: {status} {json.loads(said)['error']['code']}"
        return "whole" if said.endswith(b"data: [DONE]\n\n") else "broken: unfinished"

    def attack(self, path: str, body: bytes) -> None:
        while not self.stop.is_set():
            try:
                self.attacks[str(self._ask(path, body, self.attacker)[0])] += 1
            except (OSError, http.client.HTTPException) as error:
                self.attacks[type(error).__name__] += 1

    def upload_slowly(self) -> None:
        """Keep uploads open, each fed with a few bytes now and then."""
        head = (
            f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.attacker}\r\n"
            "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 100000000\r\n\r\n"
            '--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        )
        with contextlib.ExitStack() as uploads:
            open_ones = [uploads.enter_context(self.server.connect()) for _ in range(SLOW_UPLOADS)]
            for one in open_ones:
                one.sendall(head.encode())
            while not self.stop.wait(0.5):
                for one in open_ones:
                    with contextlib.suppress(OSError):
                        one.sendall(b"x" * 300)

    def delete(self, model: str) -> None:
        """Delete a model while it loads or answers; count what that was answered."""
        using = self.begin_to_use(model)
        time.sleep(0.1 if self.deletes.total() % 2 else 1.0)
        try:
            path = f"/v1/models/{quote(model)}"
            self.deletes[str(self._ask(path, b"", self.deleter, method="DELETE")[0])] += 1
        except (OSError, http.client.HTTPException) as error:
            self.deletes[type(error).__name__] += 1
        for one in using:
            one.join()

    def begin_to_use(self, model: str) -> list[threading.Thread]:
        """Begin streams of a model."""
        using = [threading.Thread(target=self._use, args=(model,)) for _ in range(USERS)]
        for one in using:
            one.start()
        return using

    def _use(self, model: str) -> None:
        body = {"model": model, "stream": True, "logit_bias": engines.without_end()}
        asked = json.dumps({**body, "messages": [{"role": "user", "content": "hi"}]}).encode()
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._ask(CHAT, asked, self.deleter)

    def _ask(self, path: str, body: bytes, key: str, *, method: str = "POST") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self.server.address, timeout=120)
        try:
            connection.request(method, path, body, {"authorization": f"Bearer {key}"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def fight(
    server: Server, bodies: dict[str, tuple[str, bytes]], deletes: int
) -> tuple[Organizations, list[int]]:
    """Let all three go on until everything is deleted; return them and the processes that died."""
    everybody = Organizations(server)
    models = [
        engines.import_model(server, "zebra says", key=everybody.deleter) for _ in range(deletes)
    ]
    before = server.processes()
    work: list[Callable[[], None]] = [everybody.stream] * STREAMS
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    # A worker whose loop is held accepts nothing: what it holds when it is, it began to serve before.
    for model in models[:2]:
        threads += everybody.begin_to_use(model)
    time.sleep(2.0)
    attacks = [threading.Thread(target=everybody.attack, args=attack) for attack in bodies.values()]
    attacks.append(threading.Thread(target=everybody.upload_slowly))
    for thread in attacks:
        thread.start()
    time.sleep(1.0)
    for model in models:
        everybody.delete(model)
    everybody.stop.set()
    for thread in [*threads, *attacks]:
        thread.join(180)
    return everybody, [pid for pid in before if not servers.is_alive(pid)]


def test_whatever_one_organization_sends_another_ones_streams_are_whole(tmp_path: Path) -> None:
    with engines.serving(tmp_path / "data", workers=2) as server:
        everybody, dead = fight(server, worst_bodies(), DELETES)
    print(
        f"attacks {dict(everybody.attacks)}, deletes {dict(everybody.deletes)},"
        f" streams {dict(everybody.streams)}"
    )
    assert set(everybody.deletes) == {"200"}
    assert set(everybody.streams) == {"whole"}
    assert everybody.attacks.total() >= 8
    assert dead == []


def test_control_bodies_that_hold_the_loop_break_them(tmp_path: Path) -> None:
    worst = worst_bodies()
    settings = {"fence_alive_seconds": 0}
    prefix = ("env", f"PYTHONPATH={FAKES / 'decoding'}")
    with engines.serving(tmp_path / "data", workers=2, settings=settings, prefix=prefix) as server:
        everybody, dead = fight(server, {"escaped": worst["escaped"]}, 4)
    print(f"streams {dict(everybody.streams)}, {len(dead)} processes were killed")
    assert dead
    assert any(end.startswith("broken") for end in everybody.streams)
