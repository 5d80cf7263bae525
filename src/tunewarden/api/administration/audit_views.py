"""Events as OpenAI's audit log has them: what it calls the details of a type is named by the type itself."""

import json
from typing import Any

from tunewarden.audit.events import Event, EventType
from tunewarden.identity.audit_access import Shown

# Types that OpenAI has too, so that strict clients read them. All are in docs/reference/audit-events.md.
OPENAI = frozenset(
    f"{what}.{done}"
    for what, all_done in {
        "api_key": ("created", "updated", "deleted"),
        "checkpoint.permission": ("created", "deleted"),
        "login": ("succeeded",),
        "logout": ("succeeded",),
        "invite": ("sent", "accepted", "deleted"),
        "organization": ("updated",),
        "project": ("created", "updated", "archived", "deleted"),
        "rate_limit": ("updated", "deleted"),
        "resource": ("deleted",),
        "role.assignment": ("created", "deleted"),
        "service_account": ("created", "updated", "deleted"),
        "user": ("added", "updated", "deleted"),
    }.items()
    for done in all_done
)
# Details of OpenAI's types by the names that it gives them.
RENAMED = {
    EventType.CHECKPOINT_SHARED.value: {
        "model": "fine_tuned_model_checkpoint",
        "project": "project_id",
    },
    EventType.ROLE_ASSIGNED.value: {"in_project": "resource_id"},
    EventType.ROLE_UNASSIGNED.value: {"in_project": "resource_id"},
}


def shown(found: Shown) -> dict[str, Any]:
    """Return an event as OpenAI's AuditLog, with the request's id, which OpenAI does not have."""
    event = found.event
    return {
        "id": event.id,
        "object": "organization.audit_log",
        "type": event.type,
        "effective_at": event.effective_at // 1_000_000,
        "actor": _actor(found),
        **_project(found),
        "request_id": event.request_id,
        event.type: _payload(event),
    }


def _actor(found: Shown) -> dict[str, Any] | None:
    """Return who acted; None: the server itself, its operator, or who could not be authenticated."""
    event = found.event
    if event.actor_key_id is None:
        if event.actor_user_id is None:
            return None
        user = {"id": event.actor_user_id, "email": found.email}
        return {"type": "session", "session": {"user": user}}
    if found.is_service_account:
        who: dict[str, Any] = {
            "type": "service_account",
            "service_account": {"id": event.actor_user_id},
        }
    else:
        who = {"type": "user", "user": {"id": event.actor_user_id, "email": found.email}}
    return {"type": "api_key", "api_key": {"id": event.actor_key_id, **who}}


def _project(found: Shown) -> dict[str, Any]:
    if found.event.project_id is None:
        return {}
    return {"project": {"id": found.event.project_id, "name": found.project_name}}


def _payload(event: Event) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(event.details)
    names = RENAMED.get(event.type, {})
    details = {names.get(name, name): value for name, value in details.items()}
    identity = {"id": event.resource_id}
    member = _member(event.type)
    return {**identity, member: details} if member and details else {**identity, **details}


def _member(kind: str) -> str | None:
    """Return the member of an event of this type that holds its details; None if the event itself does."""
    if kind not in OPENAI or kind.startswith("role.assignment."):
        return None
    if kind.endswith(".updated"):
        return "changes_requested"
    return "data" if kind.endswith((".created", ".added", ".sent")) else None
