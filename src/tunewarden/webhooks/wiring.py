"""Assembles what sends webhooks and what manages their endpoints, from the settings."""

from collections.abc import Callable

from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden.webhook_settings import WebhookSettings
from tunewarden.webhooks.addresses import AddressPolicy
from tunewarden.webhooks.attempts import Attempts
from tunewarden.webhooks.details import Sealer
from tunewarden.webhooks.endpoints import Endpoints
from tunewarden.webhooks.sender import Sender

OpenLog = Callable[[], tuple[Log, LogSigner]]


def endpoints(
    database: Database, clock: Clock, config: WebhookSettings, open_log: OpenLog
) -> Endpoints:
    """Return the operations on endpoints."""
    return Endpoints(database, clock, _sealer(open_log), Attempts(AddressPolicy.of(config), clock))


def sender(database: Database, clock: Clock, config: WebhookSettings, open_log: OpenLog) -> Sender:
    """Return the sender. Only for the runner."""
    return Sender(database, clock, _sealer(open_log), Attempts(AddressPolicy.of(config), clock))


def _sealer(open_log: OpenLog) -> Sealer:
    """Return the sealer under the log's signing key, which is loaded when it is first needed."""
    return Sealer(lambda purpose: open_log()[1].derive(purpose))  # noqa: PLW0108  late, as above
