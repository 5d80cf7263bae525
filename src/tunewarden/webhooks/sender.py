"""Sends what is in the outbox: in the runner, some deliveries at once, each on a thread of its own.

At least once: an attempt is recorded after it was made, so one that a crash cut off is made again, with the same
`webhook-id`. An organization whose receivers do not answer cannot keep others waiting: few of the threads are its.
"""

import itertools
import logging
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tunewarden import audit
from tunewarden.clock import Clock, to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.ids import random_bytes
from tunewarden.metrics import families, recording
from tunewarden.webhooks import endpoint_rows, events, outbox, signing, urls
from tunewarden.webhooks.attempts import GONE, Attempts
from tunewarden.webhooks.details import Details, Sealer
from tunewarden.webhooks.endpoint_rows import DisabledBecause, Endpoint
from tunewarden.webhooks.failures import Failure, Interrupted
from tunewarden.webhooks.outbox import Attempted, Delivery

AT_ONCE_MAX = 32
PER_ORGANIZATION_MAX = 8
PER_ENDPOINT_MAX = 4
# Endpoints that are looked at in one turn.
WAITING_MAX = 500
POLL_SECONDS = 0.25
STOP_SECONDS = 0.5
# Between attempts, and then the last of them again until the delivery is too old; each plus or minus JITTER of it.
DELAYS_SECONDS = (5, 30, 120, 600, 1800, 7200, 14_400, 28_800)
JITTER = 0.25
# After so many failures in a row an endpoint as a whole waits, so that a backlog does not hammer it.
FAILURES_ALLOWED = 3
PAUSES_SECONDS = DELAYS_SECONDS[:5]
# At most so long a receiver that is busy is left alone when it asks for that (Retry-After).
RETRY_AFTER_SECONDS_MAX = DELAYS_SECONDS[-1]
# An endpoint is disabled if nothing succeeded for so long, in so many attempts.
DISABLED_AFTER_MICROS = outbox.WAITING_MICROS
DISABLED_AFTER_ATTEMPTS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Made:
    """A delivery whose attempt is over."""

    delivery: Delivery
    attempt: Attempted


class Sender:
    """Sends deliveries of all organizations."""

    def __init__(
        self, database: Database, clock: Clock, sealer: Sealer, attempts: Attempts
    ) -> None:
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._attempts = attempts
        self._made: queue.SimpleQueue[_Made] = queue.SimpleQueue()
        self._unrecorded: list[_Made] = []
        self._in_flight: dict[int, Delivery] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._is_new = threading.Event()
        # More than WAITING_MAX are looked at in parts, after this number.
        self._last_n = 0
        # When each endpoint had its last turn.
        self._turns: dict[int, int] = {}
        self._turn = itertools.count(1)

    def turn(self) -> None:
        """Record the attempts that are over, and begin others. Raises Error(UNAVAILABLE, STORAGE_FULL)."""
        self._is_new.clear()
        self._record()
        due = self._due()
        if due:
            # Below the floor of free space nothing is sent: what becomes of it might not be recorded.
            self._database.check_room()
        for delivery, endpoint in due:
            self._begin(delivery, endpoint)

    def wait(self) -> None:
        """Wait until an attempt is over, or for a moment."""
        self._is_new.wait(POLL_SECONDS)

    def stop(self) -> None:
        """End what is in flight, which is sent again at the next start, and record what is over."""
        self._attempts.stop()
        until = self._clock.monotonic() + STOP_SECONDS
        for thread in list(self._threads.values()):
            thread.join(max(0.0, until - self._clock.monotonic()))
        self._record()

    def _due(self) -> list[tuple[Delivery, Endpoint]]:
        """Return what may be sent now, within the bounds on what is in flight; endpoints take turns."""
        flying = list(self._in_flight.values())
        of_endpoint = Counter(one.endpoint_n for one in flying)
        of_organization = Counter(one.organization_id for one in flying)
        left = AT_ONCE_MAX - len(flying)
        found: list[tuple[Delivery, Endpoint]] = []
        with self._database.read() as tx:
            for endpoint in self._waiting(tx):
                # One whose last attempts failed is asked once at a time.
                most = 1 if endpoint.failures >= FAILURES_ALLOWED else PER_ENDPOINT_MAX
                busy = of_endpoint[endpoint.n]
                of_all = PER_ORGANIZATION_MAX - of_organization[endpoint.organization_id]
                room = min(most - busy, of_all, left - len(found))
                if room <= 0:
                    continue
                due = outbox.due(tx, endpoint.n, limit=room + busy)
                new = [one for one in due if one.n not in self._in_flight][:room]
                of_organization[endpoint.organization_id] += len(new)
                found += [(one, endpoint) for one in new]
                if new:
                    self._turns[endpoint.n] = next(self._turn)
        return found

    def _waiting(self, tx: Tx) -> list[Endpoint]:
        """Return endpoints that something may be sent to, first those whose last turn is longest ago."""
        found = endpoint_rows.that_wait(tx, self._last_n, limit=WAITING_MAX)
        self._last_n = found[-1].n if len(found) == WAITING_MAX else 0
        found.sort(key=lambda one: self._turns.get(one.n, 0))
        return found

    def _begin(self, delivery: Delivery, endpoint: Endpoint) -> None:
        details = self._sealer.open_if_possible(endpoint.id, endpoint.sealed)
        if details is None:
            with self._database.write() as tx:
                _disable(tx, endpoint, DisabledBecause.UNREADABLE)
            return
        self._in_flight[delivery.n] = delivery
        work = partial(self._send, delivery, details)
        thread = threading.Thread(target=work, daemon=True)
        self._threads[delivery.n] = thread
        thread.start()

    def _send(self, delivery: Delivery, details: Details) -> None:
        try:
            attempt = made(self._attempts, self._clock, delivery, details)
        except Interrupted:
            return  # It is pending still.
        except Exception:
            logger.exception("an attempt to send a webhook ended with a bug")
            attempt = Attempted(to_micros(self._clock.now()), None, Failure.SERVER.value, 0)
        self._made.put(_Made(delivery, attempt))
        self._is_new.set()

    def _record(self) -> None:
        """Record attempts. A power cut may undo it: then they are made again."""
        while not self._made.empty():
            self._unrecorded.append(self._made.get())
        if not self._unrecorded:
            return
        with self._database.write(survives=False, below_floor=True) as tx:
            outcomes = [_record(tx, one) for one in self._unrecorded]
        for one, outcome in zip(self._unrecorded, outcomes, strict=True):
            recording.count(families.WEBHOOKS, outcome)
            del self._in_flight[one.delivery.n], self._threads[one.delivery.n]
        self._unrecorded = []


def made(attempts: Attempts, clock: Clock, delivery: Delivery, details: Details) -> Attempted:
    """Make one attempt. Raises Interrupted."""
    at = to_micros(clock.now())
    begun = clock.monotonic()
    body = events.body(delivery)
    headers = signing.headers(
        details.secrets(at), delivery.event_id, body, at_seconds=at // 1_000_000
    )
    answer = attempts.send(urls.parse(details.url), headers, body)
    milliseconds = int((clock.monotonic() - begun) * 1000)
    failure = None if answer.failure is None else answer.failure.value
    return Attempted(at, answer.status, failure, milliseconds, answer.retry_after_seconds)


def _record(tx: Tx, one: _Made) -> str:
    """Record one attempt; return its outcome, as the metric has it."""
    delivery, attempt = one.delivery, one.attempt
    endpoint = endpoint_rows.by_n(tx, delivery.endpoint_n)
    if endpoint is None:
        return "dropped"  # it was deleted
    if attempt.error is None:
        endpoint_rows.succeeded(tx, endpoint.n)
        outbox.attempted(tx, delivery, attempt, retry_at=None)
        return "delivered"
    asked = min(attempt.retry_after_seconds or 0, RETRY_AFTER_SECONDS_MAX) * 1_000_000
    delay = max(_delay(DELAYS_SECONDS, delivery.attempts), asked)
    outbox.attempted(tx, delivery, attempt, retry_at=tx.now_micros + delay)
    # What asks to be left alone is asked for nothing else either.
    pause = endpoint.failures + 1 - FAILURES_ALLOWED
    wait = max(_delay(PAUSES_SECONDS, pause) if pause >= 0 else 0, asked)
    endpoint_rows.failed(tx, endpoint.n, retry_at=tx.now_micros + wait if wait else 0)
    _disable_if_hopeless(tx, endpoint, attempt)
    return "retried"


def _disable_if_hopeless(tx: Tx, endpoint: Endpoint, attempt: Attempted) -> None:
    since = endpoint.failing_since
    if attempt.status == GONE:
        _disable(tx, endpoint, DisabledBecause.GONE)
    elif (
        since is not None
        and tx.now_micros - since >= DISABLED_AFTER_MICROS
        and endpoint.failures + 1 >= DISABLED_AFTER_ATTEMPTS
    ):
        _disable(tx, endpoint, DisabledBecause.FAILING)


def _disable(tx: Tx, endpoint: Endpoint, because: DisabledBecause) -> None:
    if endpoint_rows.disable(tx, endpoint.n, because):
        audit.record(
            tx,
            audit.EventType.WEBHOOK_DISABLED,
            organization_id=endpoint.organization_id,
            actor=audit.SERVER,
            resource_id=endpoint.id,
            because=because.value,
        )


def _delay(delays_seconds: Sequence[int], number: int) -> int:
    """Return a delay in microseconds, with jitter, so that what failed together does not come back together."""
    seconds = delays_seconds[min(number, len(delays_seconds) - 1)]
    share = int.from_bytes(random_bytes(4), "big") / 2**32
    return int(seconds * (1 - JITTER + 2 * JITTER * share) * 1_000_000)
