"""What the doors call: the operations below them, put together by the composition root."""

from collections.abc import Callable
from dataclasses import dataclass

from tunewarden.clock import Clock
from tunewarden.config import Config
from tunewarden.db.database import Database
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.log import Log
from tunewarden.deletion.log_key import LogSigner
from tunewarden.registry.files import Files
from tunewarden.registry.imports import Imports
from tunewarden.registry.uploads import Uploads
from tunewarden.registry.usage import UsageCounter
from tunewarden.serving.admission import Admissions
from tunewarden.serving.gateway import Gateway


@dataclass(frozen=True, slots=True)
class Operations:
    """Everything that a request can make happen."""

    config: Config
    clock: Clock
    database: Database
    executor: Executor
    imports: Imports
    files: Files
    uploads: Uploads
    admissions: Admissions
    gateway: Gateway
    usage: UsageCounter
    open_log: Callable[[], tuple[Log, LogSigner]]
