"""Every setting, declared and read once. A flag beats `TUNEWARDEN_*`, which beats `DIR/tunewarden.toml`.

Flags, names in the environment, checks and docs/reference/configuration.md follow from what is declared here. An
unknown name in the file or the environment is an error: a typing mistake must not become a default. This is the
only module that reads the environment (ruff TID251).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tunewarden import settings
from tunewarden.data_layout import DataDirectory
from tunewarden.errors import Error, Kind
from tunewarden.settings import (
    BYTES,
    SECONDS,
    Setting,
    Source,
    host_and_port,
    networks,
    setting,
)
from tunewarden.webhook_settings import WebhookSettings

SETTINGS_FILE = "tunewarden.toml"
# OpenTelemetry's own name of `otel_endpoint`.
OTEL_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
SMTP_PASSWORD_VARIABLE = "TUNEWARDEN_SMTP_PASSWORD"  # noqa: S105  its name: a secret is no setting
# For commands that call a server: (address, key). The first address that is set is used.
CLIENT_VARIABLES = (
    ("TUNEWARDEN_URL", "TUNEWARDEN_API_KEY"),
    ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
)
# The same, for commands that administer an organization.
ADMIN_VARIABLES = (
    ("TUNEWARDEN_URL", "TUNEWARDEN_ADMIN_KEY"),
    ("OPENAI_BASE_URL", "OPENAI_ADMIN_KEY"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(WebhookSettings, DataDirectory):
    """The settings of one server. Times are seconds, sizes bytes."""

    data: Path = setting(
        "the data directory",
        default=Path("tunewarden-data"),
        has_flag=True,
    )
    host: str = setting(
        "address to listen on; put a TLS proxy in front before you open it",
        default="127.0.0.1",
        has_flag=True,
    )
    port: int = setting(
        "port to listen on; 0 takes a free one",
        default=8800,
        limits=(0, 65_535),
        has_flag=True,
    )
    workers: int = setting(
        "gateway processes",
        default=1,
        limits=(1, 256),
        has_flag=True,
    )
    metrics_address: str = setting(
        "where `GET /metrics` answers Prometheus, as `HOST:PORT`; port 0 takes a free one, `none` is nowhere. It needs "
        "no key, so leave it on loopback, or on a network of your monitoring only",
        default="none",
        check=host_and_port,
    )
    log_format: str = setting(
        "how the log on standard error is written: `text`, or `json`, one object a line",
        default="text",
        choices=("text", "json"),
    )
    otel_endpoint: str = setting(
        "where spans of inference requests go, by OTLP over HTTP: a collector's address such as "
        "`http://127.0.0.1:4318`; `none` is nowhere. Needs the extra `[otel]`. Without it, "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` counts",
        default="none",
    )
    access_log: bool = setting(
        "whether each request is logged when it has ended: without body, key, query, or anything that "
        "a client named",
        default=False,
    )
    scratch: Path = setting(  # I16
        "directory for plaintext weights on their way to an engine; must be a tmpfs",
        default=Path("/dev/shm"),  # noqa: S108  tmpfs on every Linux; checked at start
    )
    scratch_may_be_a_disk: bool = setting(
        "accept a scratch directory on a disk, if no tmpfs exists: plaintext weights then touch that "
        "disk for a moment and are unlinked, not overwritten, and I16 does not hold",
        default=False,
    )
    swap_may_hold_plain_weights: bool = setting(  # I16
        "accept that memory, and so plaintext weights, training data and keys, may be swapped to a disk, "
        "where a deletion does not reach them; receipts say so. Without it, a server on a machine that "
        "swaps refuses imports, files and jobs, and does not start if it holds any "
        "(docs/decisions/0018)",
        default=False,
    )
    body_bytes_max: int = setting(
        "the largest body of an inference request",
        default=32 * 1024 * 1024,
        unit=BYTES,
        limits=(1024, 2**31),
    )
    adapter_bytes_max: int = setting(
        "the largest weights of an import; held in memory while they are checked",
        default=2 * 1024 * 1024 * 1024,
        unit=BYTES,
        limits=(1024, 2**40),
    )
    import_memory_max: int = setting(
        "memory for concurrent imports in each worker, by their announced lengths; "
        "one organization may hold half, or one import of `adapter_bytes_max`. Beyond that: 429 or 503 "
        "with `retry-after`, unread",
        default=4 * 1024 * 1024 * 1024,
        unit=BYTES,
        limits=(1024, 2**42),
    )
    file_bytes_max: int = setting(
        "the largest file of `files.create`; it is sealed while it comes, never held in memory. OpenAI "
        "takes 512 MB",
        default=1024 * 1024 * 1024,
        unit=BYTES,
        limits=(1024, 2**40),
    )
    upload_bytes_max: int = setting(
        "the largest file of `uploads`, in all its parts, which may have 64 MiB each",
        default=8 * 1024 * 1024 * 1024,
        unit=BYTES,
        limits=(1024, 2**43),
    )
    project_bytes_max: int = setting(
        "sealed bytes that a project may have stored, unfinished uploads and saved states of jobs "
        "included; more is refused with 429 `storage_quota_exceeded`",
        default=1024**4,
        unit=BYTES,
        limits=(1024, 2**60),
    )
    project_files_max: int = setting(
        "files that a project may have; more is refused with 429 `files_quota_exceeded`",
        default=1_000_000,
        limits=(1, 2**31 - 1),
    )
    project_models_max: int = setting(
        "the same for models, their checkpoints included: 429 `models_quota_exceeded`",
        default=1_000_000,
        limits=(1, 2**31 - 1),
    )
    organization_bytes_max: int = setting(
        "the same for all projects of an organization",
        default=4 * 1024**4,
        unit=BYTES,
        limits=(1024, 2**60),
    )
    requests_per_minute: int = setting(
        "requests a minute that each project may send to each base, its fine-tunes included; an "
        "administrator may set a lower limit for a project; 0: no limit",
        default=0,
        limits=(0, 2**31 - 1),
    )
    tokens_per_minute: int = setting(
        "the same for tokens, of prompts and of responses",
        default=0,
        limits=(0, 2**31 - 1),
    )
    organization_requests_per_minute: int = setting(
        "requests a minute that each organization may send, all its projects, keys and models together; only the "
        "operator sets it; 0: no limit",
        default=0,
        limits=(0, 2**31 - 1),
    )
    organization_tokens_per_minute: int = setting(
        "the same for tokens, of prompts and of responses",
        default=0,
        limits=(0, 2**31 - 1),
    )
    disk_floor_bytes: int = setting(
        "the least free space on the data directory's file system: below it uploads, imports, jobs and "
        "new keys are refused (507), and only deletions, revocations and what frees room write. 0: a "
        "twentieth of the file system, at most 1 GiB",
        default=0,
        unit=BYTES,
        limits=(0, 2**50),
    )
    connections_max: int = setting(
        "connections of clients that each worker accepts, or as many as the limit on open files "
        "(`ulimit -n`) allows: each needs two; one more is answered 503 and closed",
        default=16_384,
        limits=(1, 2**20),
    )
    connections_per_address_max: int = setting(
        "connections of one client address (of one /64 in IPv6) that each worker accepts; one more is "
        'answered 503 and closed. See "Clients and proxies"',
        default=1024,
        limits=(1, 2**20),
    )
    trusted_proxies: str = setting(
        "addresses and networks, separated by commas, for which that bound does not hold; `none` for "
        "none",
        default="127.0.0.0/8, ::1",
        check=networks,
    )
    requests_per_engine_max: int = setting(
        "requests in flight from each worker to one engine; beyond it 503 with `retry-after`",
        default=1024,
        limits=(1, 2**20),
    )
    requests_per_model_max: int = setting(
        "requests in flight on one model in each worker; beyond it 429 with `retry-after`",
        default=512,
        limits=(1, 2**20),
    )
    client_seconds: float = setting(
        "how long a client may take to send a request's head, and between two pieces of its body, "
        "before it is answered 408, and how long it may read nothing of an answer before its "
        "connection is closed; a body may come at less than 500 bytes/s for four times as long",
        default=30.0,
        unit=SECONDS,
        limits=(1, 3600),
    )
    engine_seconds: float = setting(
        "timeout for an engine that sends nothing during a response; the SDK waits as long",
        default=600.0,
        unit=SECONDS,
        limits=(1, 86_400),
    )
    drain_delay_seconds: float = setting(
        "on SIGTERM or Ctrl-C, how long the server goes on as before but for `/readyz`, which is 503 "
        "at once, so that a load balancer stops sending; behind one (Kubernetes too) set it to what "
        "the balancer takes to notice, usually 5 to 10",
        default=0.0,
        unit=SECONDS,
        limits=(0, 600),
    )
    drain_seconds: float = setting(
        "how long running answers then have to end, while new connections are refused; what is left "
        "ends with the error `server_shutting_down`. The platform must wait for longer than both "
        "together before it kills: 5 seconds more, and at least 20 where fine-tuning jobs run, which "
        "save their state in that time. A second signal ends at once",
        default=10.0,
        unit=SECONDS,
        limits=(0, 86_400),
    )
    rank_max: int = setting(
        "the highest LoRA rank that is accepted",
        default=64,
        limits=(1, 1024),
    )
    engine_lease_seconds: float = setting(
        "how long a vLLM that the server does not reach may use fine-tuned models; a deletion waits for it about "
        "as long, so above 6 it is first answered 503 (docs/decisions/0030)",
        default=5.0,
        unit=SECONDS,
        limits=(1, 600),
    )
    engine_threads: int = setting(
        "threads of the embedded engine; 0 leaves the choice to it",
        default=0,
        limits=(0, 1024),
    )
    engine_dtype: str = setting(
        "what bases of the embedded engine compute in. `bfloat16` halves their memory and is up to "
        "twice as fast on processors that have it, but an answer may then depend on what runs beside "
        "it (docs/decisions/0010). `auto`: bfloat16 where base and processor are made for it",
        default="float32",
        choices=("float32", "bfloat16", "auto"),
    )
    training_jobs_max: int = setting(
        "fine-tuning jobs that run at once; the others wait, fairly between projects. With 0 all wait",
        default=1,
        limits=(0, 64),
    )
    training_threads: int = setting(
        "threads of each trainer; 0 shares the processors but one between the jobs that may run. "
        "Trainers are niced: serving comes first",
        default=0,
        limits=(0, 1024),
    )
    training_rank: int = setting(
        "rank of a new LoRA, at most `rank_max`; a job that continues from a model keeps that model's",
        default=16,
        limits=(1, 1024),
    )
    trainer_state_seconds: float = setting(
        "how much of a job may be lost when its trainer is killed: its state is sealed and kept at "
        "least so often, and at the end of each epoch",
        default=300.0,
        unit=SECONDS,
        limits=(1, 86_400),
    )


# Every setting by its name, in the order of the reference: those that Config inherits come last.
_INHERITED = {of.name for of in fields(WebhookSettings)}
_DECLARED = sorted(fields(Config), key=lambda one: one.name in _INHERITED)
SETTINGS = {declared.name: Setting.of(declared) for declared in _DECLARED}


def load(**flags: Any) -> Config:
    """Return the configuration. Flags that are None are ignored. Raises Error(INVALID)."""
    return Config(**{name: value for name, (value, _) in _found(flags).items()})


def sources(**flags: Any) -> dict[str, Source]:
    """Return the source of each setting. Raises Error(INVALID)."""
    found = _found(flags)
    return {name: found[name][1] if name in found else Source.DEFAULT for name in SETTINGS}


def client_settings(
    variables: Iterable[tuple[str, str]] = CLIENT_VARIABLES,
) -> tuple[str, str] | None:
    """Return the server's address and key from the environment; None if it names no server.

    `variables` are CLIENT_VARIABLES or ADMIN_VARIABLES.

    A key is sent only to the address of its own pair: an OpenAI key is never sent to `TUNEWARDEN_URL`. Raises
    Error(UNAUTHENTICATED) for an address without a key.
    """
    for address, key in variables:
        url = os.environ.get(address)
        if url:
            if not os.environ.get(key):
                raise Error(Kind.UNAUTHENTICATED, f"Set {key} beside {address}.")
            return url, os.environ[key]
    return None


def smtp_password() -> str | None:
    """Return the mail server's password in the environment, or None."""
    return os.environ.get(SMTP_PASSWORD_VARIABLE)


def of_this_machine(data: Path | None) -> Config:
    """Return the settings of a data directory, for a command that works on nothing else.

    Raises Error(FORBIDDEN) where the environment names a server and nothing names a directory: the usual one may be
    another installation's. Also raises what `load` raises.
    """
    if data is None and os.environ.get("TUNEWARDEN_URL") and not os.environ.get("TUNEWARDEN_DATA"):
        said = "This command works on the server's machine only: give the data directory with --data, not a URL."
        raise Error(Kind.FORBIDDEN, said)
    return load(data=data)


def child_environment() -> dict[str, str]:
    """Return the environment of child processes: hubs offline, no telemetry, no plugins of other packages."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYDANTIC_DISABLE_PLUGINS": "__all__",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **offline}


def _found(flags: dict[str, Any]) -> dict[str, tuple[Any, Source]]:
    """Return each setting that is not a default, with its source."""
    given = {name: value for name, value in flags.items() if value is not None}
    of_commands = {name for names in (*CLIENT_VARIABLES, *ADMIN_VARIABLES) for name in names}
    of_servers = {name: one for name, one in os.environ.items() if name not in of_commands}
    of_servers.pop(SMTP_PASSWORD_VARIABLE, None)
    environment = settings.from_environment(of_servers, SETTINGS)
    if not environment.get("data"):
        environment.pop("data", None)
    data = given.get("data") or environment.get("data") or SETTINGS["data"].default
    in_file = settings.from_file(Path(data) / SETTINGS_FILE, SETTINGS)
    in_file.pop("data", None)  # the file's own location
    if os.environ.get(OTEL_VARIABLE):
        environment.setdefault("otel_endpoint", os.environ[OTEL_VARIABLE])
    found = {
        name: (value, source)
        for source, named in (
            (Source.FILE, in_file),
            (Source.ENVIRONMENT, environment),
            (Source.FLAG, given),
        )
        for name, value in named.items()
    }
    return {name: (SETTINGS[name].read(value), source) for name, (value, source) in found.items()}
