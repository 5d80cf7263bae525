"""The authorization policy: two tables. Default deny.

A call needs both a role that allows the action and a key whose scopes include it (a key without
scopes is unrestricted). A user has a role in the organization, and one in each of its projects; what
either allows is allowed. Roles are read on each request; what changes something reads them again
inside its own transaction (I8).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.audit import Actor
from tunewarden.errors import Error, Kind
from tunewarden.ids import shown


class Role(StrEnum):
    """A user's role in the organization, in OpenAI's words."""

    OWNER = "owner"
    READER = "reader"


class ProjectRole(StrEnum):
    """A user's role in a project, in OpenAI's words."""

    OWNER = "owner"
    MEMBER = "member"
    VIEWER = "viewer"


class ServiceAccountRole(StrEnum):
    """A service account's role in its project, in OpenAI's words. It has none in the organization."""

    OWNER = "owner"
    MEMBER = "member"
    NONE = "none"


class GrantedRole(StrEnum):
    """A role in a project that an invite can give: OpenAI's schema has no other."""

    OWNER = "owner"
    MEMBER = "member"


class Action(StrEnum):
    """An action; its value is the scope that a restricted key needs for it."""

    READ_MODELS = "api.model.read"
    USE_MODELS = "api.model.request"
    WRITE_MODELS = "api.model.write"
    DELETE = "api.delete"
    EXPORT = "api.model.export"
    HOLD = "api.holds.write"
    WRITE_ALIASES = "api.aliases.write"
    READ_HOLDS = "api.holds.read"
    READ_DELETIONS = "api.deletions.read"
    READ_WEBHOOKS = "api.webhooks.read"
    WRITE_WEBHOOKS = "api.webhooks.write"
    READ_RETENTION = "api.retention.read"
    # What serves, and the settings.
    READ_SYSTEM = "api.system.read"
    WRITE_RETENTION = "api.retention.write"
    READ_FILES = "api.files.read"
    WRITE_FILES = "api.files.write"
    # In the files of all projects: for Owners.
    SEARCH_FILES = "api.files.search"
    READ_JOBS = "api.fine_tuning.jobs.read"
    WRITE_JOBS = "api.fine_tuning.jobs.write"
    READ_CHECKPOINTS = "api.fine_tuning.checkpoints.read"
    WRITE_CHECKPOINTS = "api.fine_tuning.checkpoints.write"


_READING = frozenset(
    {
        Action.READ_MODELS,
        Action.READ_DELETIONS,
        Action.READ_HOLDS,
        Action.READ_FILES,
        Action.READ_JOBS,
        Action.READ_CHECKPOINTS,
    }
)

_USING = _READING | {Action.USE_MODELS}
_MAKING = _USING | {Action.WRITE_MODELS, Action.WRITE_FILES, Action.WRITE_JOBS}
# In every project of the organization.
OF_ROLE: dict[Role, frozenset[Action]] = {
    Role.OWNER: frozenset(Action),
    Role.READER: frozenset(),
}
# In that project. A project's owner administers it, which is no action of an API key.
OF_PROJECT_ROLE: dict[ProjectRole | None, frozenset[Action]] = {
    ProjectRole.OWNER: _MAKING,
    ProjectRole.MEMBER: _MAKING,
    ProjectRole.VIEWER: _USING,
    None: frozenset(),
}
ALLOWED = {
    (role, project_role): OF_ROLE[role] | OF_PROJECT_ROLE[project_role]
    for role in OF_ROLE
    for project_role in OF_PROJECT_ROLE
}

# A scope may include several: OpenAI's read-only keys have `api.all.read`.
IMPLIED: dict[str, frozenset[Action]] = {
    "api.all.read": _READING | {Action.READ_WEBHOOKS, Action.READ_RETENTION, Action.READ_SYSTEM},
    "api.all": frozenset(Action),
}
SCOPES = frozenset({*(action.value for action in Action), *IMPLIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller: its key, its user's roles and its organization.

    `project_role` is None if the user is not in the key's project. The key expires at `expires_at`, in microseconds.
    """

    key_id: str
    user_id: str
    organization_id: str
    organization_name: str
    project_id: str
    role: Role
    project_role: ProjectRole | None
    scopes: frozenset[str]
    request_id: str
    is_service_account: bool = False
    expires_at: int | None = None

    @property
    def actor(self) -> Actor:
        """The caller as the actor of an audit event."""
        return Actor(
            key_id=self.key_id,
            user_id=self.user_id,
            project_id=self.project_id,
            request_id=self.request_id,
        )


def checked_scopes(scopes: Iterable[str], *, param: str = "scopes") -> tuple[str, ...]:
    """Return scopes in order, each once. Raises Error(INVALID), which lists those that are known."""
    chosen = tuple(sorted(set(scopes)))
    for scope in chosen:
        if scope not in SCOPES:
            raise Error(
                Kind.INVALID,
                f"Unknown scope '{shown(scope)}'. Known: {', '.join(sorted(SCOPES))}.",
                param=param,
                code="invalid_value",
            )
    return chosen


def allows(caller: Caller, action: Action) -> bool:
    """Return whether the caller's role and key scopes both allow `action`."""
    if action not in ALLOWED[caller.role, caller.project_role]:
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
    least = least_role(action)
    if action in ALLOWED[caller.role, caller.project_role]:
        role = " Check the scopes of this restricted API key."
    elif isinstance(least, Role) and caller.is_service_account:
        role = (
            " It needs the Owner role in your organization, which a service account never has. Use the API key of a"
            " user who is an Owner."
        )
    elif isinstance(least, Role):
        role = (
            " You must have the Owner role in your organization. Check the role of your user and, if you use a"
            " restricted API key, its scopes."
        )
    else:
        role = (
            f" You need at least the {least.value} role in this project, or the Owner role in your organization."
            " Check the role of your user and, if you use a restricted API key, its scopes."
        )
    return Error(
        Kind.FORBIDDEN,
        f"You have insufficient permissions for this operation. Missing scopes: {action.value}.{role}",
        code="missing_scope",
    )


def least_role(action: Action) -> Role | ProjectRole:
    """Return the least role that allows an action."""
    for role in (ProjectRole.VIEWER, ProjectRole.MEMBER):
        if action in OF_PROJECT_ROLE[role]:
            return role
    return Role.OWNER
