"""On the PYTHONPATH of a control: events are written after the answer, by a task that nobody waits for."""

import threading
from typing import Any

import apsw

import tunewarden.audit
from tunewarden.audit import events
from tunewarden.db.sqlite_transactions import SqliteTx

LATE_SECONDS = 0.1
_record = events.record


def _later(tx: Any, event: events.EventType, **given: Any) -> None:
    path = tx._connection.db_filename("main")

    def write() -> None:
        connection = apsw.Connection(path)
        connection.set_busy_timeout(5_000)
        with connection:
            _record(SqliteTx(connection, tx.now), event, **given)
        connection.close()

    timer = threading.Timer(LATE_SECONDS, write)
    timer.daemon = True
    timer.start()


events.record = tunewarden.audit.record = _later
