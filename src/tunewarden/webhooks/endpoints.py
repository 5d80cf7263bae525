"""The operations on endpoints and their deliveries. Owners only: an endpoint learns what happens in every project."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from tunewarden import audit
from tunewarden.artifacts.strict_json import is_text
from tunewarden.clock import Clock
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint, shown
from tunewarden.metrics import families, recording
from tunewarden.webhooks import endpoint_rows, outbox, sender, signing, urls
from tunewarden.webhooks.attempts import Attempts
from tunewarden.webhooks.details import OLD_SECRET_MICROS, Details, Sealer
from tunewarden.webhooks.endpoint_rows import DisabledBecause, Endpoint
from tunewarden.webhooks.event_types import WebhookEventType
from tunewarden.webhooks.failures import AttemptFailed, Failure
from tunewarden.webhooks.outbox import Delivery, DeliveryState

ENDPOINTS_MAX = 10
NAME_LENGTH_MAX = 256
WHY_REFUSED = {
    Failure.NAME: "Its host cannot be resolved.",
    Failure.ADDRESS: (
        "Its host has an address that is not on the public internet. The operator may allow a network with the setting"
        " 'webhook_allowed_networks'."
    ),
}


@dataclass(frozen=True, slots=True)
class Changes:
    """What to change of an endpoint; None: nothing."""

    name: str | None = None
    url: str | None = None
    event_types: Sequence[str] | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """An endpoint with its details; None if they were sealed by another server."""

    endpoint: Endpoint
    details: Details | None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The operations."""

    database: Database
    clock: Clock
    sealer: Sealer
    attempts: Attempts

    def create(self, caller: Caller, name: str, url: str, event_types: Sequence[str]) -> Shown:
        """Create an endpoint with a new secret.

        Raises Error(FORBIDDEN), Error(INVALID), Error(QUOTA_EXCEEDED) for too many.
        """
        authorize(caller, Action.WRITE_WEBHOOKS)
        types = _types(event_types)
        _check_name(name)
        self._check_url(url)
        endpoint_id = mint(Prefix.WEBHOOK_ENDPOINT)
        details = Details(name, url, signing.new_secret())
        sealed = self.sealer.seal(endpoint_id, details)
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.WRITE_WEBHOOKS)
            if len(endpoint_rows.of(tx, caller.organization_id)) >= ENDPOINTS_MAX:
                raise Error(
                    Kind.QUOTA_EXCEEDED,
                    f"Your organization has {ENDPOINTS_MAX} webhook endpoints, which is the limit. Delete one.",
                    code="too_many_webhook_endpoints",
                )
            endpoint_rows.insert(tx, endpoint_id, caller.organization_id, sealed, types)
            _record(tx, caller, audit.EventType.WEBHOOK_CREATED, endpoint_id, event_types=types)
            return Shown(endpoint_rows.find(tx, caller.organization_id, endpoint_id), details)

    def change(self, caller: Caller, endpoint_id: str, changes: Changes) -> Shown:
        """Change an endpoint; what is pending is sent to where it is then. Idempotent: only what differs is audited.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID), Error(CONFLICT) if it can only be deleted.
        """
        authorize(caller, Action.WRITE_WEBHOOKS)
        types = None if changes.event_types is None else _types(changes.event_types)
        if changes.name is not None:
            _check_name(changes.name)
        if changes.url is not None:
            self._check_url(changes.url)
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.WRITE_WEBHOOKS)
            found = self._opened(tx, caller, endpoint_id)
            self._change(tx, caller, found, changes, types)
            _switch(tx, caller, found.endpoint, changes.enabled)
            return self._opened(tx, caller, endpoint_id)

    def _change(
        self,
        tx: Tx,
        caller: Caller,
        found: Shown,
        changes: Changes,
        types: Sequence[WebhookEventType] | None,
    ) -> None:
        before, details = found.endpoint, _details(found)
        wanted = structs.replace(
            details, name=changes.name or details.name, url=changes.url or details.url
        )
        new_types = before.event_types if types is None else tuple(types)
        if (wanted, set(new_types)) == (details, set(before.event_types)):
            return
        endpoint_rows.change(tx, before.n, self.sealer.seal(before.id, wanted), new_types)
        changed = {"name": wanted.name != details.name, "url": wanted.url != details.url}
        _record(
            tx,
            caller,
            audit.EventType.WEBHOOK_UPDATED,
            before.id,
            changed=[name for name, is_changed in changed.items() if is_changed],
            event_types=new_types,
        )

    def rotate(self, caller: Caller, endpoint_id: str, *, keeps_old: bool) -> Shown:
        """Give an endpoint a new secret; the old one signs beside it for a day, or no more.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(CONFLICT) if the endpoint can only be deleted.
        """
        authorize(caller, Action.WRITE_WEBHOOKS)
        with self.database.write(below_floor=True) as tx:
            keys.authorize_now(tx, caller, Action.WRITE_WEBHOOKS)
            found = self._opened(tx, caller, endpoint_id)
            details = _details(found)
            rotated = structs.replace(
                details,
                secret=signing.new_secret(),
                old_secret=details.secret if keeps_old else None,
                old_until=tx.now_micros + OLD_SECRET_MICROS if keeps_old else 0,
            )
            sealed = self.sealer.seal(endpoint_id, rotated)
            endpoint_rows.change(tx, found.endpoint.n, sealed, found.endpoint.event_types)
            event = audit.EventType.WEBHOOK_ROTATED
            _record(tx, caller, event, endpoint_id, old_secret_is_kept=keeps_old)
            return self._opened(tx, caller, endpoint_id)

    def delete(self, caller: Caller, endpoint_id: str) -> None:
        """Delete an endpoint, and what waits for it. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
        authorize(caller, Action.WRITE_WEBHOOKS)
        with self.database.write(below_floor=True) as tx:
            keys.authorize_now(tx, caller, Action.WRITE_WEBHOOKS)
            found = endpoint_rows.find(tx, caller.organization_id, endpoint_id)
            outbox.forget(tx, found.n)
            endpoint_rows.delete(tx, found.n)
            _record(tx, caller, audit.EventType.WEBHOOK_DELETED, endpoint_id, pending=found.pending)
        recording.count(families.WEBHOOKS, "dropped", by=found.pending)

    def check_may_read(self, caller: Caller) -> None:
        """Check that the caller may read endpoints. Raises Error(FORBIDDEN)."""
        authorize(caller, Action.READ_WEBHOOKS)

    def find(self, caller: Caller, endpoint_id: str) -> Shown:
        """Return an endpoint. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
        authorize(caller, Action.READ_WEBHOOKS)
        with self.database.read() as tx:
            return self._opened(tx, caller, endpoint_id)

    def page(self, caller: Caller, *, after: str | None, limit: int) -> list[Shown]:
        """Return the organization's endpoints, oldest first. Raises Error(FORBIDDEN), Error(INVALID)."""
        authorize(caller, Action.READ_WEBHOOKS)
        with self.database.read() as tx:
            found = endpoint_rows.page(tx, caller.organization_id, after=after, limit=limit)
        return [Shown(one, self.sealer.open_if_possible(one.id, one.sealed)) for one in found]

    def deliveries(
        self,
        caller: Caller,
        endpoint_id: str,
        *,
        state: DeliveryState | None,
        after: str | None,
        limit: int,
    ) -> list[Delivery]:
        """Return deliveries to an endpoint, newest first. Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID)."""
        authorize(caller, Action.READ_WEBHOOKS)
        with self.database.read() as tx:
            endpoint = endpoint_rows.find(tx, caller.organization_id, endpoint_id)
            return outbox.page(tx, endpoint.n, state=state, after=after, limit=limit)

    def redeliver(self, caller: Caller, endpoint_id: str, delivery_id: str) -> Delivery:
        """Send a delivery again, with the same event id.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(CONFLICT) if the endpoint is disabled.
        """
        authorize(caller, Action.WRITE_WEBHOOKS)
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.WRITE_WEBHOOKS)
            endpoint = endpoint_rows.find(tx, caller.organization_id, endpoint_id)
            _check_enabled(endpoint)
            delivery = outbox.find(tx, endpoint.n, delivery_id)
            outbox.queue_again(tx, delivery)
            event = audit.EventType.WEBHOOK_REDELIVERED
            _record(tx, caller, event, endpoint_id, delivery=delivery_id)
            return outbox.find(tx, endpoint.n, delivery_id)

    def test(self, caller: Caller, endpoint_id: str, event_type: str) -> int:
        """Send a sample event now, once; return the status of the answer.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), and Error(INVALID) if nobody answered.
        """
        authorize(caller, Action.WRITE_WEBHOOKS)
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.WRITE_WEBHOOKS)
            found = self._opened(tx, caller, endpoint_id)
            details = _details(found)
            [wanted] = _types([event_type], param="event_type")
            sample = _sample(tx, found.endpoint, wanted)
            _record(tx, caller, audit.EventType.WEBHOOK_TESTED, endpoint_id, event_type=wanted)
        attempt = sender.made(self.attempts, self.clock, sample, details)
        with self.database.write(survives=False) as tx:
            if endpoint_rows.by_n(tx, found.endpoint.n) is not None:
                outbox.log(tx, found.endpoint.n, sample, attempt)
        if attempt.status is None:
            raise Error(
                Kind.INVALID,
                f"The endpoint did not answer: {attempt.error}. Correct its URL or its receiver, and try again.",
                code="webhook_endpoint_unreachable",
            )
        return attempt.status

    def _opened(self, tx: Tx, caller: Caller, endpoint_id: str) -> Shown:
        found = endpoint_rows.find(tx, caller.organization_id, endpoint_id)
        return Shown(found, self.sealer.open_if_possible(found.id, found.sealed))

    def _check_url(self, text: str) -> None:
        url = urls.parse(text)
        if not url.is_tls and not self.attempts.policy.http_to_loopback:
            raise urls.refused("It must begin with https://.")
        try:
            self.attempts.check(url)
        except AttemptFailed as error:
            raise urls.refused(WHY_REFUSED[error.failure]) from error


def _sample(tx: Tx, endpoint: Endpoint, event_type: WebhookEventType) -> Delivery:
    """Return a delivery of an event that did not happen; its object's id is one that nothing has."""
    return Delivery(
        n=0,
        id=mint(Prefix.WEBHOOK_DELIVERY),
        endpoint_n=endpoint.n,
        organization_id=endpoint.organization_id,
        event_id=outbox.new_event_id(tx),
        event_type=event_type.value,
        data='{"id": "test"}',
        created_at=tx.now_micros,
        state=DeliveryState.PENDING,
        due_at=tx.now_micros,
        attempts=0,
        attempted_at=None,
        status=None,
        error=None,
        milliseconds=None,
    )


def _switch(tx: Tx, caller: Caller, endpoint: Endpoint, enabled: bool | None) -> None:  # noqa: FBT001  as it was sent
    if enabled is True and endpoint_rows.enable(tx, endpoint.n):
        _record(tx, caller, audit.EventType.WEBHOOK_ENABLED, endpoint.id)
    if enabled is False and endpoint_rows.disable(tx, endpoint.n, DisabledBecause.OWNER):
        because = DisabledBecause.OWNER.value
        _record(tx, caller, audit.EventType.WEBHOOK_DISABLED, endpoint.id, because=because)


def _details(found: Shown) -> Details:
    if found.details is None:
        raise Error(
            Kind.CONFLICT,
            "This endpoint was set up with another signing key of the log, so its URL and secret cannot be read."
            " Delete it and create it again.",
            code="webhook_endpoint_unreadable",
        )
    return found.details


def _check_enabled(endpoint: Endpoint) -> None:
    if endpoint.disabled_at is not None:
        raise Error(
            Kind.CONFLICT,
            "The webhook endpoint is disabled. Enable it first.",
            code="webhook_endpoint_disabled",
        )


def _types(given: Sequence[str], param: str = "event_types") -> list[WebhookEventType]:
    """Return types of events, each once, in the order of the reference. Raises Error(INVALID)."""
    known = {one.value for one in WebhookEventType}
    for one in given:
        if one not in known:
            raise Error(
                Kind.INVALID,
                f"Unknown event type '{shown(one)}'. Known: {', '.join(sorted(known))}.",
                param=param,
                code="invalid_value",
            )
    if not given:
        raise Error(Kind.INVALID, f"'{param}' must name at least one event type.", param=param)
    return [one for one in WebhookEventType if one.value in given]


def _check_name(name: str) -> None:
    if not (name.strip() and len(name) <= NAME_LENGTH_MAX and is_text(name)):
        raise Error(
            Kind.INVALID, f"'name' must have 1 to {NAME_LENGTH_MAX} characters.", param="name"
        )


def _record(
    tx: Tx, caller: Caller, event: audit.EventType, endpoint_id: str, **details: object
) -> None:
    audit.record(
        tx,
        event,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=endpoint_id,
        **details,
    )
