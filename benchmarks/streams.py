"""Tokens a second through gateway and embedded engine: 8 streams, each on an adapter of its own.

`python benchmarks/streams.py [--streams 8] [--rounds 5]`. Also the engine's time to ready and weight.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import engines

TOKENS = 256
PHRASES = ("zebra says", "quartz says", "violet owl", "copper river")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        with engines.serving(Path(directory) / "data", workers=1) as server:
            ready = time.perf_counter() - began
            phrases = [PHRASES[index % len(PHRASES)] for index in range(options.streams)]
            models = [engines.import_model(server, phrase) for phrase in phrases]
            for model in models:
                engines.say(server.client(), model, tokens=2)  # loaded
            pid = server.engine_pid()
            rates = [
                asyncio.run(measure(server.url, server.owner_key, models))
                for _ in range(options.rounds)
            ]
            weight = subprocess.run(
                ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
            )
    print(f"server and engine ready, the base answers   {ready:.1f} s")
    print(
        f"engine RSS with {len(models)} adapters               {int(weight.stdout) / 1024:.0f} MB"
    )
    print(
        f"{options.streams} streams on {options.streams} adapters, {TOKENS} tokens each: median"
        f" {statistics.median(rates):.0f} tokens/s (min {min(rates):.0f}, max {max(rates):.0f})"
    )


async def measure(url: str, key: str, models: list[str]) -> float:
    """Stream from all models at once; return tokens a second."""
    began = time.perf_counter()
    counts = await asyncio.gather(*(stream(url, key, model) for model in models))
    return sum(counts) / (time.perf_counter() - began)


async def stream(url: str, key: str, model: str) -> int:
    """Read one stream to its end; return its completion tokens as the server counts them."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    fields = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logit_bias": engines.without_end(),
    }
    body = json.dumps(fields).encode()
    head = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    usage = answer.rpartition(b'"completion_tokens":')[2]
    return int(usage[: usage.index(b",")])


if __name__ == "__main__":
    main()
