"""The error codes with which an engine refuses: `error.code` of a `Refusal` (messages.py)."""

from enum import StrEnum


class Code(StrEnum):
    """Why an engine refuses. Codes about a request's parameters are OpenAI's, and passed through."""

    # 404. The gateway loads the adapter (again) and repeats the request, once.
    ADAPTER_NOT_LOADED = "adapter_not_loaded"
    # 404, or the error event that ends a stream: the adapter was evicted or aborted. An evicted name is refused for good.
    MODEL_DELETED = "model_deleted"
    # 404: the base of an adapter is not loaded. The engine has just started, and the runner will load it.
    BASE_NOT_LOADED = "base_not_loaded"
    # 400: no engine of this kind can serve the files.
    INVALID_BASE = "invalid_base"
    INVALID_ADAPTER = "invalid_adapter"
    # 503, or the error event that ends a stream: the engine has no valid lease, or the message names another one.
    NO_LEASE = "no_lease"
    # 503: every adapter slot is in use.
    ENGINE_FULL = "engine_full"
    # 503: too many sequences wait.
    ENGINE_OVERLOADED = "engine_overloaded"
    # 503, or the error event that ends a stream.
    ENGINE_STOPPING = "engine_stopping"
    # 500, or the error event that ends a stream: a bug of the engine, described in its log.
    ENGINE_FAILED = "engine_failed"
