"""The work: what is asked, and on how many connections at once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

PATH = "/v1/chat/completions"
# What peers that know models by name call the only one.
MODEL = "ft:tiny-base:my-org:support:a1b2c3d4"
MESSAGES = [
    {"role": "system", "content": "You answer questions about our product. " * 12},
    {"role": "user", "content": "How do I reset my password? It does not work any more."},
]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`field` of a sample is what is compared; `what` says it in words."""

    name: str
    connections: int
    is_stream: bool
    field: str
    what: str


_ALL = (
    Scenario("json64", 64, is_stream=False, field="rate", what="JSON chat, 64 connections"),
    Scenario("json1", 1, is_stream=False, field="p50", what="JSON chat, 1 connection"),
    Scenario("sse16", 16, is_stream=True, field="rate", what="SSE, 64 chunks, 16 streams"),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}


def request(model: str, key: str, headers: Sequence[str], *, stream: bool) -> bytes:
    """A chat as openai-python sends it, whole."""
    fields: dict[str, object] = {"model": model, "messages": MESSAGES, "temperature": 0.2}
    if stream:
        fields["stream"] = True
    body = json.dumps(fields, separators=(",", ":")).encode()
    lines = [f"POST {PATH} HTTP/1.1", "host: 127.0.0.1", *headers]
    lines += [f"authorization: Bearer {key}", f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body
