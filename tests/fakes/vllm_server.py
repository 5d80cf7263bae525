"""A server that a gateway cannot tell from a vLLM with the plugin: `python -m tests.fakes.vllm_server SLOTS HOST:PORT [CERTIFICATES]`.

The plugin is the real one. What it generates is the digest of the weights that a model has in its workers. It prints its
URL. With SLOTS 0 it has no plugin, as a stock vLLM. With a directory that `tunewarden certificates issue` wrote, it asks
its clients for certificates.
"""

import asyncio
import hashlib
import json
import socket
import ssl
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import uvicorn
from tests.fakes import vllm
from tests.fakes.vllm import BASE, FakeVllm, Sequence
from tests.support import bases

from tunewarden_vllm.surface import Message, Receive, Scope, Send

CHUNK_SECONDS = 0.02


class ServedVllm(FakeVllm):
    """Its application answers as OpenAI's API does."""

    def __init__(self, *, slots: int, args: Namespace) -> None:
        super().__init__(slots=slots, args=args)
        hidden = (bases.HIDDEN, bases.HIDDEN)
        layer = "model.layers.0.self_attn"
        self.shapes = {
            f"{layer}.{name}": hidden for name in ("q_proj", "k_proj", "v_proj", "o_proj")
        }

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/v1/models":
            await vllm.answer_json(send, 200, {"object": "list", "data": [{"id": BASE}]})
            return
        await super().application(scope, receive, send)

    async def answer(self, sequence: Sequence, send: Send, *, is_stream: bool) -> None:
        lora = sequence.lora_request
        text = BASE if lora is None else digest_of(self.files[lora.lora_int_id])
        model = BASE if lora is None else lora.lora_name
        if not is_stream:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            found = {"id": "c", "object": "chat.completion", "created": 1, "model": model}
            await vllm.answer_json(send, 200, found | {"choices": [choice]})
            return
        await send(vllm.head(200, b"text/event-stream"))
        while sequence.outputs.empty():  # until it is aborted
            delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
            await send(_event(chunk | {"choices": [delta]}))
            await asyncio.sleep(CHUNK_SECONDS)
        await send(vllm.body(b"data: [DONE]\n\n"))


def digest_of(weights: bytes) -> str:
    """Return what a model with these weights says."""
    return hashlib.sha256(weights).hexdigest()


def _event(chunk: dict[str, Any]) -> Message:
    return vllm.body(b"data: " + json.dumps(chunk).encode() + b"\n\n", more=True)


class _App:
    """The ASGI application that uvicorn runs, with the state that vLLM's has."""

    def __init__(self, fake: ServedVllm, *, has_plugin: bool) -> None:
        self.state = fake.state
        self._application = fake.middleware if has_plugin else fake.application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._application(scope, receive, send)


async def main(slots: int, address: tuple[str, int], certificates: Path | None) -> None:
    """Serve until SIGTERM; on a free port if it is 0."""
    sys.modules.update(vllm.modules())
    tls: dict[str, Any] = {}
    if certificates is not None:
        names = {
            "ssl_certfile": "engine.crt",
            "ssl_keyfile": "engine.key",
            "ssl_ca_certs": "ca.crt",
        }
        tls = {flag: str(certificates / name) for flag, name in names.items()}
        tls["ssl_cert_reqs"] = ssl.CERT_REQUIRED
    app = _App(
        ServedVllm(slots=slots, args=vllm.flags(host=address[0], **tls)), has_plugin=slots > 0
    )
    listener = socket.create_server(address)
    config = uvicorn.Config(app, log_level="warning", lifespan="on", ws="none", **tls)
    scheme = "https" if tls else "http"
    print(f"{scheme}://{address[0]}:{listener.getsockname()[1]}/v1", flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    directory = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    host, _, port = sys.argv[2].partition(":")
    asyncio.run(main(int(sys.argv[1]), (host, int(port)), directory))
