"""Whether the vLLM that starts is one that the plugin was tested on, and is closed to others. It refuses to start else."""

import json
import ssl
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from tunewarden import mounts, swap
from tunewarden_vllm.config import SCRATCH, SWAP_MAY, Settings
from tunewarden_vllm.surface import EngineClient, ServingModels
from tunewarden_vllm.versions import NotSupported

EXTENSION = "tunewarden_vllm.worker.WorkerExtension"
# vLLM's settings that must be 1: nothing else was tested.
DEGREES = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "prefill_context_parallel_size",
    "decode_context_parallel_size",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What state and loads need to know of a started vLLM. `shapes`: (out, in) by layer."""

    context: int
    vocabulary: int
    rank_max: int
    slots: int
    shapes: dict[str, tuple[int, int]]


def check_flags(args: Namespace, envs: Any, vllm_config: Any) -> None:
    """Check flags and environment of vLLM. Raises NotSupported."""
    for problem in (*_open(args, envs), *_closed(args, envs), *_untested(args, vllm_config)):
        raise NotSupported(problem)


def check_machine(settings: Settings) -> None:
    """Check that plain weights reach no disk. Raises NotSupported (I16)."""
    kind = mounts.file_system_of(settings.scratch).kind
    if kind not in mounts.IN_MEMORY:
        raise NotSupported(
            f"{settings.scratch} is on {kind or 'an unknown file system'}, not in memory. Set {SCRATCH} to a tmpfs."
        )
    places = swap.places()
    if places and not settings.swap_may_hold_plain_weights:
        raise NotSupported(
            f"this machine swaps to {', '.join(places)}, so plain weights could reach a disk. Turn swap off, forbid it for"
            f" vLLM (cgroup memory.swap.max = 0), or accept it with {SWAP_MAY}=true."
        )


def check_surface(engine: EngineClient, models: ServingModels) -> None:
    """Check that the parts of vLLM's API server that the plugin uses are there. Raises NotSupported."""
    try:
        assert callable(engine.engine_core.add_request_async)
        assert isinstance(engine.output_processor.request_states, dict)
        assert callable(engine.output_processor.abort_requests)
        assert callable(engine.add_lora)
        assert callable(engine.abort)
        assert isinstance(models.lora_requests, dict)
        assert callable(models.lora_id_counter.inc)
        assert all(isinstance(one.name, str) for one in models.base_model_paths)
    except (AttributeError, AssertionError) as error:
        raise NotSupported(f"its API server has not what is needed: {error}") from error


def facts_of(workers: Sequence[dict[str, Any]], vllm_config: Any) -> Facts:
    """Check what the workers found; return the facts of this vLLM. Raises NotSupported."""
    for found in workers:
        if "problem" in found:
            raise NotSupported(found["problem"])
    lora, model = vllm_config.lora_config, vllm_config.model_config
    shapes = {name: (int(out), int(into)) for name, (out, into) in workers[0]["shapes"].items()}
    if not shapes:
        raise NotSupported("its base has no layers whose adapters could be told apart")
    return Facts(
        context=int(model.max_model_len),
        vocabulary=int(model.get_vocab_size()),
        rank_max=int(lora.max_lora_rank),
        slots=int(lora.max_cpu_loras or lora.max_loras),
        shapes=shapes,
    )


def keys_of(args: Namespace, envs: Any) -> tuple[bytes, ...]:
    """Return the API keys that vLLM requires."""
    return tuple(key.encode() for key in (args.api_key or [envs.VLLM_API_KEY]) if key)


def _open(args: Namespace, envs: Any) -> Iterator[str]:
    """Yield how others than Tunewarden could reach it."""
    if args.uds:
        return
    if _requires_certificates(args):
        return
    if not _is_loopback(args.host):
        yield (
            "it would listen beyond this machine without asking for certificates. Give --host 127.0.0.1, or --ssl-certfile,"
            " --ssl-keyfile, --ssl-ca-certs and --ssl-cert-reqs 2 with what `tunewarden certificates issue` wrote."
        )
    if not keys_of(args, envs):
        yield "every user of this machine could reach it. Set VLLM_API_KEY, or give --uds PATH in a directory of your own."


def _closed(args: Namespace, envs: Any) -> Iterator[str]:
    """Yield which other ways to load adapters, or to reach the engine, are open."""
    if envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING:
        yield "VLLM_ALLOW_RUNTIME_LORA_UPDATING is set. Unset it: only Tunewarden may load adapters."
    if envs.VLLM_SERVER_DEV_MODE:
        yield "VLLM_SERVER_DEV_MODE is set, which lets clients call its workers. Unset it."
    if envs.VLLM_ENABLE_RESPONSES_API_STORE:
        yield "VLLM_ENABLE_RESPONSES_API_STORE is set, which keeps what deleted models said. Unset it."
    if args.lora_modules:
        yield "--lora-modules is given. Import these adapters into Tunewarden, which loads and deletes them."
    if getattr(args, "grpc_port", 0):
        yield "--grpc-port is given: adapters are served over HTTP only."


def _untested(args: Namespace, vllm_config: Any) -> Iterator[str]:
    """Yield what the plugin was not tested with."""
    parallel = vllm_config.parallel_config
    if vllm_config.lora_config is None:
        yield "it serves no adapters. Give --enable-lora."
    if parallel.worker_extension_cls != EXTENSION:
        yield f"its workers cannot evict. Give --worker-extension-cls {EXTENSION}."
    for degree in DEGREES:
        found = getattr(parallel, degree, None)
        if found != 1:
            yield f"{degree} is {json.dumps(found)}: the plugin was tested with 1 only. Run more replicas instead."
    if getattr(args, "api_server_count", 1) not in {None, 1}:
        yield "--api-server-count is more than 1: the plugin was tested with 1 only."
    if vllm_config.kv_transfer_config is not None:
        yield "a KV transfer is configured, which was not tested: it copies what adapters have computed to other places."
    if vllm_config.model_config.enable_sleep_mode:
        yield "--enable-sleep-mode is given, which was not tested: it keeps copies of adapters."


def _requires_certificates(args: Namespace) -> bool:
    """Return whether only clients with a certificate of the operator's authority can send requests."""
    has_files = args.ssl_certfile and args.ssl_keyfile and args.ssl_ca_certs
    return bool(has_files) and args.ssl_cert_reqs == ssl.CERT_REQUIRED


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "0.0.0.0").is_loopback  # noqa: S104  vLLM's own default
    except ValueError:
        return False
