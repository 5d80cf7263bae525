"""What the handlers of one worker share: the operations, and the limits on concurrent requests.

FastAPI's application holds it (`app.state.services`); handlers get it as the dependency `parameters.InContext`.
"""

from dataclasses import dataclass, field

from tunewarden.api import page_rate
from tunewarden.api.deleting import Deleting
from tunewarden.api.downloads import Downloads
from tunewarden.api.json_lines import LongWork
from tunewarden.api.log_bundles import LogBundles
from tunewarden.api.mailer import Mailer
from tunewarden.api.memory_budget import MemoryBudget
from tunewarden.api.operations import Operations
from tunewarden.api.page_rate import PageRate
from tunewarden.api.readiness import Readiness
from tunewarden.api.searching import Searches
from tunewarden.api.upload_bridge import Intake
from tunewarden.api.webhook_threads import WebhookThreads
from tunewarden.config import Config
from tunewarden.engines.engines_seen import EnginesSeen


@dataclass(frozen=True, slots=True)
class Services:
    """Used on the worker's event loop only."""

    operations: Operations
    deleting: Deleting
    downloads: Downloads
    searches: Searches
    import_memory: MemoryBudget
    log_bundles: LogBundles
    readiness: Readiness = field(default_factory=Readiness)
    file_intake: Intake = field(default_factory=Intake)
    part_intake: Intake = field(default_factory=Intake)
    mailer: Mailer = field(default_factory=Mailer)
    webhook_threads: WebhookThreads = field(default_factory=WebhookThreads)
    # Links of invites, and of sign-ins.
    links: PageRate = field(default_factory=PageRate)
    sign_ins: PageRate = field(default_factory=page_rate.of_wrong_keys)
    # Keys that are shown by who is signed in: those are a person's already.
    proofs: PageRate = field(default_factory=PageRate)
    engines_seen: EnginesSeen = field(default_factory=EnginesSeen)
    long_work: LongWork = field(default_factory=LongWork)
    # Each looks once a second, on a thread of the worker's.
    followers: LongWork = field(
        default_factory=lambda: LongWork(32, 8, "pages that follow what goes on")
    )

    @classmethod
    def of(cls, operations: Operations) -> "Services":
        """Return the services of a new worker."""
        return cls(
            operations,
            Deleting(operations.executor),
            Downloads(operations.admissions, operations.files, operations.exports),
            Searches(operations.admissions, operations.files),
            _import_memory(operations.config),
            LogBundles(operations.database, operations.open_log),
        )


def _import_memory(config: Config) -> MemoryBudget:
    """Return the memory budget for imports: the largest import fits, and one organization gets at most half."""
    most = config.adapter_bytes_max
    memory = max(config.import_memory_max, most)
    return MemoryBudget(memory, max(memory // 2, most))
