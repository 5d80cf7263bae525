"""Every metric of the server, declared once: docs/reference/metrics.md and the scrape follow from here.

No label has a value that a client chooses, or that grows with models, files or organizations: bases are the operator's,
routes are templates, statuses and codes are the server's own.

`gen_ai_*` are OpenTelemetry's names, labels and bounds for model servers (semantic conventions for generative AI, status
Development). `gen_ai_request_model` is the base, also where a fine-tune of it was asked.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The type of a metric, in Prometheus's words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `bounds` are the upper bounds of a histogram's buckets, in seconds, without +Inf."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_OPERATION: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_MILLISECONDS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip

DURATION = Family(
    "gen_ai_server_request_duration_seconds",
    Kind.HISTOGRAM,
    "time of an inference request, until its last byte was written. `error_type`: empty, or the code of the error that"
    " ended it (its status, if it has no code; `client_disconnected` if the client left)",
    (*_OPERATION, "error_type"),
    (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
FIRST_TOKEN = Family(
    "gen_ai_server_time_to_first_token_seconds",
    Kind.HISTOGRAM,
    "time until the first event of a stream",
    _OPERATION,
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
OUTPUT_TOKEN = Family(
    "gen_ai_server_time_per_output_token_seconds",
    Kind.HISTOGRAM,
    "time for each further token of a stream: one observation a stream, its mean",
    _OPERATION,
    (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
TOKENS = Family(
    "tunewarden_tokens_total",
    Kind.COUNTER,
    "tokens of finished requests, as engines reported them. `direction`: `input`, `output`",
    ("base", "direction"),
)
REQUESTS = Family(
    "tunewarden_requests_total",
    Kind.COUNTER,
    "requests that ended. `route` is a template, or `other` for what is no route; `status` is that of the answer, 499 if"
    " the client left before it",
    ("method", "route", "status"),
)
REQUEST_DURATION = Family(
    "tunewarden_request_duration_seconds",
    Kind.HISTOGRAM,
    "time of requests other than inference",
    ("method", "route"),
    _MILLISECONDS,
)
RATE_LIMITED = Family(
    "tunewarden_rate_limited_total",
    Kind.COUNTER,
    "inference requests that a rate limit refused, by the limit's `unit`: `requests`, `tokens`",
    ("unit",),
)
IN_FLIGHT = Family(
    "tunewarden_requests_in_flight", Kind.GAUGE, "requests at engines, as of the last second"
)
CONNECTIONS = Family(
    "tunewarden_connections", Kind.GAUGE, "connections of clients, as of the last second"
)
DELETIONS = Family(
    "tunewarden_deletions_total",
    Kind.COUNTER,
    "deletions that reached D8, so that they could be answered. `kind`: `model`, `file`",
    ("kind",),
)
STEP = Family(
    "tunewarden_deletion_step_seconds",
    Kind.HISTOGRAM,
    "time of a deletion's step (`fence` is D4, `erase_blobs` D9); deletions that come at once share steps, which then count once",
    ("step",),
    _MILLISECONDS,
)
DELETION = Family(
    "tunewarden_deletion_seconds",
    Kind.HISTOGRAM,
    "time from a deletion's commit (D3) until it is `answerable` (D8) or `erased` (D9), a restart in between included",
    ("until",),
    (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0),
)
DELETION_BOUND = Family(
    "tunewarden_deletion_bound_seconds",
    Kind.GAUGE,
    "the setting `deletion_seconds`: a DELETE that takes longer is answered 503 and goes on",
)
FENCE_WAIT = Family(
    "tunewarden_fence_wait_seconds",
    Kind.HISTOGRAM,
    "time that one deletion waited for workers to let go of a model or file (D4)",
    (),
    _MILLISECONDS,
)
FENCE_ENDINGS = Family(
    "tunewarden_fence_endings_total",
    Kind.COUNTER,
    "how workers let go of it: `released`, `gone` (had ended), `killed` (kept it for too long)",
    ("ending",),
)
PENDING = Family(
    "tunewarden_deletions_pending",
    Kind.GAUGE,
    "deletions that are committed and not answerable yet (before D8)",
)
OLDEST_PENDING = Family(
    "tunewarden_oldest_pending_seconds", Kind.GAUGE, "age of the oldest of them; 0 if there is none"
)
UNERASED = Family(
    "tunewarden_deletions_unerased",
    Kind.GAUGE,
    "deletions whose blobs are not erased yet (before D9), the pending ones included",
)
OLDEST_UNERASED = Family(
    "tunewarden_oldest_unerased_seconds",
    Kind.GAUGE,
    "time since the oldest of those that were answered; 0 if there is none",
)
CANARY_RUNS = Family(
    "tunewarden_canary_runs_total",
    Kind.COUNTER,
    "runs of the canary. `result`: `passed`, `failed` (something was left of a deleted model), `not_done`",
    ("base", "result"),
)
CANARY_DELETION = Family(
    "tunewarden_canary_deletion_seconds",
    Kind.HISTOGRAM,
    "time from the canary's DELETE until it was `answered`, as a client sees it, and until the blobs were seen `erased`",
    ("until",),
    DELETION.bounds,
)
CANARY_FAILED = Family(
    "tunewarden_canary_failed",
    Kind.GAUGE,
    "1 if the last canary on this base failed, else 0. No series while `canary_seconds` is 0",
    ("base",),
)
CANARY_OVERDUE = Family(
    "tunewarden_canary_overdue_seconds",
    Kind.GAUGE,
    "for how long no canary has passed on this base, beyond two intervals",
    ("base",),
)
JOBS = Family(
    "tunewarden_jobs",
    Kind.GAUGE,
    "fine-tuning jobs that have not ended, by state",
    ("state",),
)
ENGINE_UP = Family(
    "tunewarden_engine_up",
    Kind.GAUGE,
    "1 if the embedded engine has this local base loaded, else 0",
    ("base",),
)
ADAPTERS = Family(
    "tunewarden_adapters",
    Kind.GAUGE,
    "models in a vLLM that adapters are pushed to, by `state`: `ready`, `loading`, `failed` (their last load); 1 as"
    " `unreachable` if it does not answer the scrape",
    ("base", "replica", "state"),
)
WEBHOOKS = Family(
    "tunewarden_webhook_deliveries_total",
    Kind.COUNTER,
    "attempts to send events, by `outcome`: `delivered`, `retried` (failed, to be tried again), and what is not tried any"
    " more: `failed` (not delivered in 3 days), `dropped` (more than 10,000 were pending, or the endpoint was deleted)",
    ("outcome",),
)
WEBHOOKS_PENDING = Family(
    "tunewarden_webhook_deliveries_pending",
    Kind.GAUGE,
    "events that wait to be delivered, those of disabled endpoints included",
)
RESTARTS = Family(
    "tunewarden_process_restarts_total",
    Kind.COUNTER,
    "processes of the server that ended and were started again. `process`: `worker`, `runner`, `engine`, `fork server`",
    ("process",),
)
DISK_FREE = Family(
    "tunewarden_disk_free_bytes", Kind.GAUGE, "free space on the data directory's file system"
)
DISK_FLOOR = Family(
    "tunewarden_disk_floor_bytes",
    Kind.GAUGE,
    "below this only deletions, revocations and what frees room write",
)
DATABASE = Family(
    "tunewarden_database_bytes", Kind.GAUGE, "size of the database, its write-ahead log included"
)
LOG_ENTRIES = Family("tunewarden_log_entries", Kind.GAUGE, "leaves of the deletion log")
BUILD = Family("tunewarden_build_info", Kind.GAUGE, "1", ("version", "python"))

FAMILIES: Final = (
    DURATION, FIRST_TOKEN, OUTPUT_TOKEN, TOKENS, REQUESTS, REQUEST_DURATION, RATE_LIMITED, IN_FLIGHT, CONNECTIONS, DELETIONS, STEP,
    DELETION, DELETION_BOUND, FENCE_WAIT, FENCE_ENDINGS, PENDING, OLDEST_PENDING, UNERASED, OLDEST_UNERASED, CANARY_RUNS,
    CANARY_DELETION, CANARY_FAILED, CANARY_OVERDUE, JOBS, ENGINE_UP, ADAPTERS, WEBHOOKS,
    WEBHOOKS_PENDING, RESTARTS, DISK_FREE, DISK_FLOOR, DATABASE, LOG_ENTRIES, BUILD,
)  # fmt: skip
# Of a process: what its predecessor had in use, its successor does not.
OF_A_PROCESS: Final = frozenset({IN_FLIGHT.name, CONNECTIONS.name})
