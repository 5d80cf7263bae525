"""The authorization policy: one table. Default deny.

A call needs both a user's role that allows the action and a key whose scopes include it
(a key without scopes is unrestricted). Roles are read on each request; a delete reads them
again inside its own transaction (I8).
"""

from dataclasses import dataclass
from enum import StrEnum

from tunewarden.audit import Actor
from tunewarden.errors import Error, Kind


class Role(StrEnum):
    """A user's role in the organization, in OpenAI's words."""

    OWNER = "owner"
    READER = "reader"


class Action(StrEnum):
    """An action; its value is the scope that a restricted key needs for it."""

    READ_MODELS = "api.model.read"
    USE_MODELS = "api.model.request"
    WRITE_MODELS = "api.model.write"
    DELETE = "api.delete"
    READ_DELETIONS = "api.deletions.read"
    READ_FILES = "api.files.read"
    WRITE_FILES = "api.files.write"
    READ_JOBS = "api.fine_tuning.jobs.read"
    WRITE_JOBS = "api.fine_tuning.jobs.write"
    READ_CHECKPOINTS = "api.fine_tuning.checkpoints.read"
    WRITE_CHECKPOINTS = "api.fine_tuning.checkpoints.write"


_READING = frozenset(
    {
        Action.READ_MODELS,
        Action.READ_DELETIONS,
        Action.READ_FILES,
        Action.READ_JOBS,
        Action.READ_CHECKPOINTS,
    }
)

ALLOWED: dict[Role, frozenset[Action]] = {
    Role.OWNER: frozenset(Action),
    Role.READER: _READING | {Action.USE_MODELS},
}

# A scope may include several: OpenAI's read-only keys have `api.all.read`.
IMPLIED: dict[str, frozenset[Action]] = {
    "api.all.read": _READING,
    "api.all": frozenset(Action),
}
SCOPES = frozenset({*(action.value for action in Action), *IMPLIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller: its key, its user's role and its organization."""

    key_id: str
    user_id: str
    organization_id: str
    organization_name: str
    project_id: str
    role: Role
    scopes: frozenset[str]
    request_id: str

    @property
    def actor(self) -> Actor:
        """The caller as the actor of an audit event."""
        return Actor(
            key_id=self.key_id,
            user_id=self.user_id,
            project_id=self.project_id,
            request_id=self.request_id,
        )


def allows(caller: Caller, action: Action) -> bool:
    """Return whether the caller's role and key scopes both allow `action`."""
    if action not in ALLOWED[caller.role]:
        return False
    return not caller.scopes or any(
        scope == action.value or action in IMPLIED.get(scope, ()) for scope in caller.scopes
    )


def authorize(caller: Caller, action: Action) -> None:
    """Check that `caller` may do `action`. Raises Error(FORBIDDEN)."""
    if not allows(caller, action):
        raise refusal(caller, action)


def refusal(caller: Caller, action: Action) -> Error:
    """Return the error of a refused action, with the word "permission", like OpenAI's."""
    needs_owner = Role.READER not in {role for role in Role if action in ALLOWED[role]}
    role = " You must have the Owner role in your organization." if needs_owner else ""
    return Error(
        Kind.FORBIDDEN,
        f"You have insufficient permissions for this operation. Missing scopes: {action.value}.{role}"
        " Check the role of your user and, if you use a restricted API key, its scopes.",
        code="missing_scope",
    )
