"""Each second a worker writes the usage and the refused requests that it counted, settles tokens, and shows its gauges."""

import asyncio
import logging
from contextlib import suppress

from tunewarden.api.operations import Operations
from tunewarden.audit import refusals
from tunewarden.clock import Throttle
from tunewarden.errors import Error
from tunewarden.gateway.connections import Connections
from tunewarden.metrics import families, recording

FLUSH_SECONDS = 1.0
BEYOND = (
    "usage was not counted of some requests: too many models and keys while it could not be written"
)

logger = logging.getLogger(__name__)


async def flush_each_second(
    operations: Operations, connections: Connections, stopping: asyncio.Event
) -> None:
    """Flush each second until `stopping` is set, and then once more."""
    logged = Throttle(operations.clock)
    while not stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), FLUSH_SECONDS)
        recording.show(families.IN_FLIGHT, operations.gateway.in_flight())
        recording.show(families.CONNECTIONS, len(connections))
        operations.buckets.flush(asyncio.get_running_loop().time())
        await _write(operations, logged)
        # What cannot be written is kept for the next second.
        with suppress(Error):
            await asyncio.to_thread(refusals.flush, operations.database)
    if operations.usage.has_any():
        logger.warning("the last usage could not be written and is lost")


async def _write(operations: Operations, logged: Throttle) -> None:
    usage = operations.usage
    taken = usage.take()
    try:
        # In a thread: the database may be busy for seconds, and the event loop must release guards.
        await asyncio.to_thread(usage.write, taken)
    except Error as error:
        usage.put_back(taken)
        if logged.allows(error.message):
            logger.warning("usage could not be written and is kept: %s", error.message)
        if usage.uncounted and logged.allows(BEYOND):
            logger.warning("%s (%d requests)", BEYOND, usage.uncounted)
            usage.uncounted = 0
    except Exception:
        # Outer boundary: these counts cannot be written; drop them and continue.
        logger.exception("usage could not be written and is lost")
