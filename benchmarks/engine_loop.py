"""How long one request holds the embedded engine's event loop, for the worst requests that are known.

`python -m benchmarks.engine_loop`, on the demo's base. Two figures a request: the longest time between two turns of the
loop, which a busy machine lengthens, and the most processor time of the loop's thread within one turn.
"""

import asyncio
import http.client
import json
import socket
import tempfile
import time
from pathlib import Path

import tunewarden_demo
import uvicorn
import uvloop

from tunewarden.clock import SystemClock
from tunewarden.embedded_engine.engine import Engine, Settings
from tunewarden.embedded_engine.http import HttpApi
from tunewarden.engine_protocol import paths

MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "demo", "messages": MESSAGES}
TEXT = {"model": "demo"}
# So that no sequence ends by itself.
ENDLESS = {"logit_bias": {"2": -100}}
NAMED = {**CHAT, **ENDLESS, "n": 128, "logprobs": True, "top_logprobs": 20, "max_tokens": 200}


# Schemas that would hold or crash an engine that compiled them itself: of 100 KiB, a chain of references, patterns that
# are compared with one another, numbers that are divided.
CHAIN = {f"r{at}": {"$ref": f"#/$defs/r{at + 1}"} for at in range(3000)}
SCHEMAS: dict[str, object] = {
    "a schema": {"type": "object", "properties": {"a": {"type": "string"}}},
    "an enum of 8,000": {"enum": [str(at * at) for at in range(8000)]},
    "3,000 properties": {"type": "object", "properties": {f"p{at}": {} for at in range(3000)}},
    "3,000 references": {"$ref": "#/$defs/r0", "$defs": {**CHAIN, "r3000": {}}},
    "300 patterns of names": {
        "type": "object",
        "patternProperties": {f"^a{at}.*b{at}$": {} for at in range(300)},
    },
    "a large divisor": {"type": "integer", "multipleOf": 982_451_653},
}


def constrained() -> dict[str, tuple[str, object]]:
    """Return path and body of a chat with each schema."""
    return {
        name: (
            paths.CHAT_COMPLETIONS,
            {**CHAT, "max_tokens": 50, "structured_outputs": {"json": schema}},
        )
        for name, schema in SCHEMAS.items()
    }


def requests(context: int) -> dict[str, tuple[str, object]]:
    """Return path and body of each."""
    ids = [300 + at % 500 for at in range(context - 20)]
    prompts = {**TEXT, "prompt": [ids] * 16, "echo": True, "max_tokens": 2}
    many = {**TEXT, "prompt": [[300]] * 2048, "n": 16, "max_tokens": 1}
    return {
        "one token (for comparison)": (paths.CHAT_COMPLETIONS, {**CHAT, "max_tokens": 1}),
        "128 choices, 20 alternatives": (paths.CHAT_COMPLETIONS, NAMED),
        "the same as a stream": (paths.CHAT_COMPLETIONS, {**NAMED, "stream": True}),
        "16 prompts of tokens, echoed": (paths.COMPLETIONS, prompts),
        "2,048 prompts, 16 choices each": (paths.COMPLETIONS, many),
        "the same as a stream, echoed": (
            paths.COMPLETIONS,
            {**many, "stream": True, "echo": True},
        ),
        # The gateway lets no more arrays and values through.
        "50,000 empty arrays": (paths.COMPLETIONS, {**TEXT, "prompt": [[]] * 50_000}),
        "200,000 numbers": (paths.COMPLETIONS, {**TEXT, "prompt": [1] * 200_000}),
        "400 messages": (
            paths.CHAT_COMPLETIONS,
            {**CHAT, "messages": MESSAGES * 400, "max_tokens": 1},
        ),
        "16 KiB of text": (paths.COMPLETIONS, {**TEXT, "prompt": "é x" * 2000}),
        "stops of 500 letters": (
            paths.CHAT_COMPLETIONS,
            {**CHAT, "n": 128, "max_tokens": 200, "stop": ["a" * 499 + "b"] * 4},
        ),
    }


class Turns:
    """Measures the turns of a loop, by one that comes every half millisecond."""

    def __init__(self) -> None:
        self.longest = self.most_used = 0.0

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            began, used = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.0005)
            self.longest = max(self.longest, time.perf_counter() - began)
            self.most_used = max(self.most_used, time.thread_time() - used)


class Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=300)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def post(path: Path, route: str, fields: object) -> int:
    connection = Connection(path)
    connection.request("POST", route, json.dumps(fields))
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply.status


async def run(path: Path) -> None:
    engine = Engine(Settings())
    await engine.load_base("demo", Path(tunewarden_demo.BASE))
    config = uvicorn.Config(
        HttpApi(engine, SystemClock()), uds=str(path), lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn tells in no other way
        await asyncio.sleep(0.01)
    asked = {**requests(engine.bases["demo"].base.context), **constrained()}
    for name, (route, fields) in asked.items():
        turns = Turns()
        watching = asyncio.ensure_future(turns.watch())
        began = time.perf_counter()
        status = await asyncio.to_thread(post, path, route, fields)
        took = time.perf_counter() - began
        watching.cancel()
        print(
            f"{name:30} {status}  longest turn {turns.longest * 1000:6.1f} ms"
            f"  processor time in a turn {turns.most_used * 1000:6.1f} ms  in all {took:5.1f} s"
        )
    engine.stop()
    server.should_exit = True
    await serving


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.Runner(loop_factory=uvloop.new_event_loop).run(run(Path(directory) / "engine.sock"))


if __name__ == "__main__":
    main()
