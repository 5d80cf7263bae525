"""Speed of the embedded engine over its socket: `python -m benchmarks.engine [engine options]`.

Prints time to ready, memory, load and evict times, and tokens a second at 1, 8 and 32 streams,
each on another adapter of the demo's base, then all on the base.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.support import demo_models
from tests.support.embedded_engine import BASE, EngineProcess, endless, question, running_engine

from tunewarden.engine_protocol import paths

STREAMS = (1, 8, 32)
TOKENS = 128
ROUNDS = 3


async def stream_once(path: Path, model: str) -> int:
    reader, writer = await asyncio.open_unix_connection(str(path))
    asked = question(model, "What is Tunewarden?", stream=True, **endless(TOKENS))
    body = json.dumps({**asked, "stream_options": {"include_usage": True}}).encode()
    head = (
        f"POST {paths.CHAT_COMPLETIONS} HTTP/1.1\r\nhost: e\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    tail = b""
    while b"[DONE]" not in tail:
        part = await reader.read(65536)
        assert part, tail
        tail = tail[-600:] + part
    writer.close()
    usage = tail[tail.rindex(b'"completion_tokens":') :]
    return int(usage.split(b":")[1].split(b",")[0])


async def measure(path: Path, models: list[str]) -> float:
    began = time.monotonic()
    tokens = await asyncio.gather(*(stream_once(path, model) for model in models))
    assert all(count == TOKENS for count in tokens), tokens
    return sum(tokens) / (time.monotonic() - began)


def memory_mib(engine: EngineProcess) -> int:
    status = Path(f"/proc/{engine.process.pid}/status").read_text("utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def main(options: list[str]) -> None:
    adapter = demo_models.demo_dir() / "adapter"
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as directory,
        running_engine(Path(directory), *options) as engine,
    ):
        print(f"ready with the base: {time.monotonic() - began:.1f} s, {memory_mib(engine)} MiB")
        names = [f"m_{number}" for number in range(max(STREAMS))]
        times = []
        for name in names:
            before = time.monotonic()
            assert engine.load(name, adapter)[0] == 200
            times.append(1000 * (time.monotonic() - before))
        print(f"load: median {statistics.median(times):.1f} ms, {memory_mib(engine)} MiB")
        for count in STREAMS:
            for label, models in (("adapters", names[:count]), ("base", [BASE] * count)):
                rates = [asyncio.run(measure(engine.path, models)) for _ in range(ROUNDS)]
                print(f"{count:2} streams, {label:8}: {max(rates):6.0f} tokens/s best of {ROUNDS}")
        times = []
        for name in names:
            before = time.monotonic()
            assert engine.evict(name)[0] == 200
            times.append(1000 * (time.monotonic() - before))
        print(f"evict: median {statistics.median(times):.1f} ms, {memory_mib(engine)} MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
