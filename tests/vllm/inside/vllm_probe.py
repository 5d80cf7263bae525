"""A middleware for vLLM that tells what its workers hold: the test's own look, beside the plugin's word.

It runs inside of vLLM, with this directory on its path. Functions reach the workers by
VLLM_ALLOW_INSECURE_SERIALIZATION.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
PATH = "/probe"


class Probe:
    """GET /probe."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        found = await scope["app"].state.engine_client.collective_rpc(held_by)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})


def held_by(worker: Any) -> dict[str, Any]:
    """Return the registered adapters, the adapter in each slot, and the sum of absolute weights in each slot."""
    manager = worker.model_runner.lora_manager._adapter_manager
    sums = [0.0] * len(manager.lora_index_to_id)
    for layer in manager.modules.values():
        for side in (layer.lora_a_stacked, layer.lora_b_stacked):
            for stack in side if isinstance(side, list | tuple) else [side]:
                for slot in range(len(sums)):
                    sums[slot] += float(stack[slot].abs().sum())
    registered = sorted(manager.list_adapters())
    return {"registered": registered, "slots": manager.lora_index_to_id, "sums": sums}
