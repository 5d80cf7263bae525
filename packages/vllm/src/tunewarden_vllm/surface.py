"""What the plugin uses of vLLM, as types: vLLM is not installed where this package is checked.

`start_checks` verifies at start that the running vLLM has all of it.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

# ASGI.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class LoraRequest(Protocol):
    """`vllm.lora.request.LoRARequest`."""

    lora_name: str
    lora_int_id: int


class CoreRequest(Protocol):
    """`vllm.v1.engine.EngineCoreRequest`: one sequence on its way to the scheduler."""

    request_id: str
    lora_request: LoraRequest | None


class RequestState(Protocol):
    """What the API server knows of a sequence that runs or waits."""

    lora_request: LoraRequest | None


class OutputProcessor(Protocol):
    """`AsyncLLM.output_processor`."""

    request_states: dict[str, RequestState]

    def abort_requests(self, request_ids: Sequence[str], internal: bool) -> list[str]:  # noqa: FBT001  vLLM's
        """End sequences on the side of the API server."""


class CoreClient(Protocol):
    """`AsyncLLM.engine_core`: the connection to the scheduler's process."""

    add_request_async: Callable[[CoreRequest], Awaitable[None]]


class EngineClient(Protocol):
    """`vllm.v1.engine.async_llm.AsyncLLM`."""

    engine_core: CoreClient
    output_processor: OutputProcessor

    async def add_lora(self, lora_request: LoraRequest) -> bool:
        """Load an adapter from its path on every worker."""

    async def abort(self, request_id: Sequence[str], internal: bool = False) -> None:  # noqa: FBT001, FBT002  vLLM's signature
        """End sequences here and in the scheduler."""

    async def collective_rpc(self, method: str, *, args: tuple[object, ...] = ()) -> list[Any]:
        """Call a method of every worker, between two steps; return its results."""


class Counter(Protocol):
    """`vllm.utils.counter.AtomicCounter`."""

    def inc(self, num: int) -> int:
        """Count up; return the new value."""


class ServedName(Protocol):
    """`BaseModelPath`: one of the names of the base."""

    name: str


class ServingModels(Protocol):
    """`OpenAIServingModels`: the names that requests may use."""

    base_model_paths: list[ServedName]
    lora_requests: dict[str, LoraRequest]
    lora_id_counter: Counter


class LoraLayer(Protocol):
    """A layer with its adapters' slots: one stack of matrices a slice, or one for all; slots first."""

    lora_a_stacked: "Tensor | Sequence[Tensor]"
    lora_b_stacked: "Tensor | Sequence[Tensor]"


class LoraWeights(Protocol):
    """One layer's part of an adapter in host memory: lists where vLLM packs several layers into one."""

    lora_a: "Tensor | list[Tensor | None]"
    lora_b: "Tensor | list[Tensor | None]"


class LoraModel(Protocol):
    """An adapter in host memory."""

    loras: dict[str, LoraWeights]


class LoraTable(Protocol):
    """`vllm.lora.model_manager.LoRAModelManager`. `lora_index_to_id` has the id in each slot, None if it is free."""

    modules: dict[str, LoraLayer]
    packed_modules: dict[str, list[str]]
    lora_index_to_id: list[int | None]
    _last_mapping: object

    def get_adapter(self, adapter_id: int) -> LoraModel | None:
        """Return a registered adapter."""

    def list_adapters(self) -> dict[int, LoraModel]:
        """Return all registered adapters."""

    def remove_adapter(self, adapter_id: int) -> bool:
        """Forget an adapter; nothing is overwritten."""
