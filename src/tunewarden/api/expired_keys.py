"""A key that is refused because it has expired: that is recorded before the refusal is sent."""

import asyncio
import logging

from tunewarden.db.database import Database
from tunewarden.errors import Error
from tunewarden.identity import expiry
from tunewarden.identity.key_format import Expired

logger = logging.getLogger(__name__)


async def note(database: Database, error: Error) -> None:
    """Record it if an error is the refusal of an expired key, so that no clock that is set back revives the key."""
    if isinstance(error, Expired):
        try:
            await asyncio.to_thread(expiry.note, database, error)
        except Error as failed:  # the key is refused all the same
            logger.warning("that a key has expired could not be noted: %s", failed.message)
