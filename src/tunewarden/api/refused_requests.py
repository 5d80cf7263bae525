"""Records requests that are refused for want of permission in the audit log, before they are answered.

What an operation refuses and records itself is not recorded again; nor is inference, which changes nothing.
"""

import logging
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from tunewarden.audit import Actor, EventType, refusals
from tunewarden.audit.resource_ids import recordable
from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys, keys
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.key_format import Presented
from tunewarden.identity.policy import Caller

logger = logging.getLogger(__name__)


async def record(database: Database, scope: Scope, error: Error) -> None:
    """Record that a caller's request was refused, if it was for want of permission."""
    caller = scope.get("state", {}).get("caller")
    if error.kind is not Kind.FORBIDDEN or error.is_recorded:
        return
    if not isinstance(caller, Caller | Administrator):
        return
    named = [recordable(str(value)) for value in scope.get("path_params", {}).values()]
    route = getattr(scope.get("route"), "path", "")
    operation = f"{scope['method']} {route}"
    await run_in_threadpool(
        _refuse,
        database,
        error,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=next(filter(None, reversed(named)), ""),
        operation=operation,
    )


@dataclass(frozen=True, slots=True)
class Tried:
    """A request with a key that was refused, or without one: `presented` is None if it has not the form of one.

    `operation` is its method and the text of its route: nothing that a client wrote.
    """

    presented: Presented | None
    request_id: str
    operation: str


async def record_wrong_key(
    database: Database, error: Error, tried: Tried, *, even_unknown: bool
) -> None:
    """Record that a key was refused, in its organization, if there is such a key; else, if that is wanted, the operator's.

    Whose key it is shows only its secret, also of one that was revoked or has expired. Without it the event names the
    key that was tried, and counts to no key, so that who knows only its id hides no refusal of its holder.
    """
    if error.kind in {Kind.UNAUTHENTICATED, Kind.FORBIDDEN}:
        await run_in_threadpool(_refuse_key, database, error, tried, even_unknown)


async def record_stranger(
    database: Database, error: Error, tried: Tried, organization_id: str
) -> None:
    """Record in an organization that somebody without a key was refused, whom an identity provider sent."""
    await run_in_threadpool(
        _refuse,
        database,
        error,
        organization_id=organization_id,
        actor=Actor(key_id=None, user_id=None, project_id=None, request_id=tried.request_id),
        resource_id="",
        operation=tried.operation,
    )


def _refuse_key(database: Database, error: Error, tried: Tried, even_unknown: bool) -> None:  # noqa: FBT001  positional, by run_in_threadpool
    presented, known = tried.presented, None
    if presented is not None:
        owner_of = admin_keys.tried if presented.is_admin else keys.tried
        known = owner_of(database, presented, tried.request_id)
    if known is None and not even_unknown:
        return
    nobody = Actor(key_id=None, user_id=None, project_id=None, request_id=tried.request_id)
    organization_id, actor = known or ("", nobody)
    _refuse(
        database,
        error,
        organization_id=organization_id,
        actor=actor,
        resource_id=presented.id if presented is not None and known is not None else "",
        operation=tried.operation,
    )


def _refuse(
    database: Database,
    error: Error,
    *,
    organization_id: str,
    actor: Actor,
    resource_id: str,
    operation: str,
) -> None:
    try:
        refusals.refuse(
            database,
            EventType.REQUEST_REFUSED,
            error,
            organization_id=organization_id,
            actor=actor,
            resource_id=resource_id,
            operation=operation,
            code=error.code,
        )
    except Error as failure:
        # The request is refused all the same.
        logger.warning("a refused request could not be recorded: %s", failure.message)
