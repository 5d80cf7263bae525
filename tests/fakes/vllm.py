"""As much of vLLM as the plugin uses: its API server's application, its scheduler's client, its workers.

A request to it is {"model", "stream"}; what it generates is what a test puts into its `outputs`.
"""

import asyncio
import json
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tunewarden_vllm.middleware import Middleware
from tunewarden_vllm.refusals import Refused
from tunewarden_vllm.surface import Message, Receive, Scope, Send

BASE = "base"
SHAPES = {"model.layers.0.self_attn.q_proj": (8, 8)}
KEY = "key-of-the-engine"


@dataclass(eq=False)
class Lora:
    """vLLM's LoRARequest."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""


@dataclass(eq=False)
class Sequence:
    """A request of the scheduler, and its state in the API server."""

    request_id: str
    lora_request: Lora | None
    outputs: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)


def modules(version: str = "0.32.0", **envs: Any) -> dict[str, ModuleType]:
    """The modules of vLLM that the plugin imports."""
    vllm, settings, request = ModuleType("vllm"), ModuleType("envs"), ModuleType("request")
    vllm.__version__ = version  # type: ignore[attr-defined]  # a module made here
    names = ("ALLOW_RUNTIME_LORA_UPDATING", "SERVER_DEV_MODE", "ENABLE_RESPONSES_API_STORE")
    defaults = {f"VLLM_{name}": False for name in names}
    vars(settings).update(defaults | {"VLLM_API_KEY": KEY} | envs)
    request.LoRARequest = Lora  # type: ignore[attr-defined]  # a module made here
    return {"vllm": vllm, "vllm.envs": settings, "vllm.lora.request": request}


def flags(**changed: Any) -> Namespace:
    """The flags of `vllm serve`."""
    usual: dict[str, Any] = {"uds": None, "host": "127.0.0.1", "api_key": None}
    usual |= {"lora_modules": None}
    usual |= {"ssl_certfile": None, "ssl_keyfile": None, "ssl_ca_certs": None, "ssl_cert_reqs": 0}
    return Namespace(**(usual | {"grpc_port": 0, "api_server_count": 1} | changed))


def config(*, slots: int = 2, **parallel: Any) -> Namespace:
    """vLLM's configuration."""
    degrees = ("tensor", "pipeline", "data", "prefill_context", "decode_context")
    usual: dict[str, Any] = {f"{one}_parallel_size": 1 for one in degrees}
    usual["worker_extension_cls"] = "tunewarden_vllm.worker.WorkerExtension"
    model = Namespace(max_model_len=64, get_vocab_size=lambda: 100, enable_sleep_mode=False)
    return Namespace(
        parallel_config=Namespace(**(usual | parallel)),
        lora_config=Namespace(max_lora_rank=16, max_cpu_loras=slots, max_loras=slots),
        model_config=model,
        kv_transfer_config=None,
    )


class FakeVllm:
    """One vLLM; it is its own engine client, scheduler's client, output processor and table of models."""

    def __init__(
        self, *, slots: int = 2, args: Namespace | None = None, residue: float = 0
    ) -> None:
        self.request_states: dict[str, Sequence] = {}
        self.lora_requests: dict[str, Lora] = {}
        self.base_model_paths = [Namespace(name=BASE)]
        self.engine_core = self.output_processor = self.lora_id_counter = self
        self.paths: list[str] = []  # of each load
        self.files: dict[int, bytes] = {}  # what the workers hold, by number
        self.residue = residue  # after the next eviction
        self.added: list[str] = []
        self.fails: Exception | None = None  # the next load
        self.loading = asyncio.Event()  # loads wait for it
        self.loading.set()
        self.adding = asyncio.Event()  # what adds a sequence to the scheduler waits for it
        self.adding.set()
        self.between: Callable[[], Awaitable[object]] | None = None  # look-up of a name and its use
        self.shapes = SHAPES
        self._number = 0
        self._changed = asyncio.Event()
        config_of = config(slots=slots)
        self.state = Namespace(
            args=args or flags(),
            vllm_config=config_of,
            engine_client=self,
            openai_serving_models=self,
        )
        self.middleware = Middleware(self.application)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until this holds; it is looked at after each load and eviction, and with each sequence."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def inc(self, num: int) -> int:
        self._number += num
        return self._number

    async def add_lora(self, lora: Lora) -> bool:
        self.paths.append(lora.lora_path)
        self._changed.set()
        directory = Path(lora.lora_path)
        assert json.loads((directory / "adapter_config.json").read_bytes())["r"]
        await self.loading.wait()
        failure, self.fails = self.fails, None
        if failure is not None:
            raise failure
        self.files[lora.lora_int_id] = (directory / "adapter_model.safetensors").read_bytes()
        return True

    async def add_request_async(self, request: Sequence) -> None:
        self._changed.set()
        await self.adding.wait()
        self.added.append(request.request_id)
        self._changed.set()

    def abort_requests(self, request_ids: list[str], internal: bool) -> list[str]:
        for one in request_ids:
            if (state := self.request_states.pop(one, None)) is not None:
                state.outputs.put_nowait(None)
        return request_ids

    async def abort(self, request_ids: list[str], internal: bool = False) -> None:
        assert set(request_ids) <= set(self.added), "an abort must not overtake what it aborts"
        self.abort_requests(request_ids, internal)

    async def collective_rpc(
        self, method: str, *, args: tuple[Any, ...] = ()
    ) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        match method:
            case "tunewarden_facts":
                return [{"shapes": self.shapes, "slots": 2}]
            case "tunewarden_own":
                return [{}]
            case _:
                assert method == "tunewarden_evict"
                residue, self.residue = self.residue, 0.0
                was_loaded = self.files.pop(args[0], None) is not None
                self._changed.set()
                return [{"was_loaded": was_loaded, "residue": residue}]

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if not scope["path"].endswith("/completions"):
            await answer_json(send, 404, {"detail": "Not Found"})
            return
        asked = json.loads((await receive())["body"])
        lora = self.lora_requests.get(asked["model"])
        if lora is None and asked["model"] != BASE:
            problem = {"message": f"The model `{asked['model']}` does not exist.", "param": "model"}
            await answer_json(
                send, 404, {"error": problem | {"type": "NotFoundError", "code": 404}}
            )
            return
        if self.between is not None:
            await self.between()
        await self._generate(asked, lora, send)

    async def _generate(self, asked: dict[str, Any], lora: Lora | None, send: Send) -> None:
        sequence = Sequence(f"r{self.inc(1)}", lora)
        self.request_states[sequence.request_id] = sequence
        try:
            await self.engine_core.add_request_async(sequence)
        except Refused as error:  # as any error
            await answer_json(send, 500, {"error": {"message": str(error), "code": 500}})
            return
        try:
            await self.answer(sequence, send, is_stream=bool(asked.get("stream")))
        finally:
            self.request_states.pop(sequence.request_id, None)

    async def answer(self, sequence: Sequence, send: Send, *, is_stream: bool) -> None:
        said: list[str] = []
        if is_stream:
            await send(head(200, b"text/event-stream; charset=utf-8"))
        while (text := await sequence.outputs.get()) not in {None, "END"}:
            if is_stream:
                await send(body(f"data: {text}\n\n".encode(), more=True))
            else:
                said.append(str(text))
        if is_stream:
            await send(body(b"data: abort\n\n" if text is None else b"data: [DONE]\n\n"))
        else:
            await answer_json(
                send, 200, {"text": said, "finish": "abort" if text is None else "stop"}
            )


def head(status: int, kind: bytes) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]}


def body(piece: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}


async def answer_json(send: Send, status: int, said: object) -> None:
    await send(head(status, b"application/json"))
    await send(body(json.dumps(said).encode()))
