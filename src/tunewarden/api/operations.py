"""The operations that handlers call, assembled by the composition root."""

from collections.abc import Callable
from dataclasses import dataclass

from tunewarden.artifacts.plain_memory import PlainMemory
from tunewarden.clock import Clock
from tunewarden.config import Config
from tunewarden.db.database import Database
from tunewarden.deletion.bulk.bulk_deletions import BulkDeletions
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.retention.retention_runs import Retention
from tunewarden.engines.adapter_states import AdapterStates
from tunewarden.gateway.routing import Gateway
from tunewarden.registry.aliases import Aliases
from tunewarden.registry.exports import Exports
from tunewarden.registry.files import Files
from tunewarden.registry.holds import Holds
from tunewarden.registry.imports import Imports
from tunewarden.registry.model_changes import ModelChanges
from tunewarden.registry.quota import Quota
from tunewarden.registry.rate_limits import RateLimits
from tunewarden.registry.retention_rules import RetentionRules
from tunewarden.registry.uploads import Uploads
from tunewarden.registry.usage_counter import UsageCounter
from tunewarden.serving.admission import Admissions
from tunewarden.space import Floor
from tunewarden.token_buckets.buckets import Buckets
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden.webhooks.endpoints import Endpoints


@dataclass(frozen=True, slots=True)
class Operations:
    """All operations of the API."""

    config: Config
    clock: Clock
    floor: Floor
    database: Database
    executor: Executor
    bulk_deletions: BulkDeletions
    retention_rules: RetentionRules
    retention: Retention
    memory: PlainMemory
    imports: Imports
    exports: Exports
    files: Files
    holds: Holds
    webhooks: Endpoints
    aliases: Aliases
    model_changes: ModelChanges
    uploads: Uploads
    admissions: Admissions
    gateway: Gateway
    buckets: Buckets
    rate_limits: RateLimits
    quota: Quota
    usage: UsageCounter
    adapter_states: AdapterStates
    open_log: Callable[[], tuple[Log, LogSigner]]
