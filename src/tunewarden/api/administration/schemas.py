"""Types of the bodies of administration, for the OpenAPI document. A test decodes real responses with them."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from tunewarden.api.schemas import Seconds


class OrganizationUser(Struct, forbid_unknown_fields=True):
    """A person in the organization; one that the operator made with a key has no address."""

    id: str
    object: Literal["organization.user"]
    name: str
    email: str | None
    role: Literal["owner", "reader"]
    added_at: Seconds
    is_service_account: Literal[False] = False


class Project(Struct, forbid_unknown_fields=True):
    """A project. Requests with the keys of an archived one are refused."""

    id: str
    object: Literal["organization.project"]
    name: str
    created_at: Seconds
    archived_at: Seconds | None
    status: Literal["active", "archived"]
    is_default: bool


class UserChange(Struct):
    """Another role in the organization."""

    role: Literal["owner", "reader"] | None = None


class NewProject(Struct):
    """A project to create."""

    name: str


class ProjectChange(Struct):
    """Another name."""

    name: str | None = None


class ProjectUser(Struct, forbid_unknown_fields=True):
    """A person in a project."""

    id: str
    object: Literal["organization.project.user"]
    name: str
    email: str | None
    role: Literal["owner", "member", "viewer"]
    added_at: Seconds


class NewProjectUser(Struct):
    """A person of the organization to add to a project: by `user_id` or by `email`."""

    role: Literal["owner", "member", "viewer"]
    user_id: str | None = None
    email: str | None = None


class ProjectUserChange(Struct):
    """Another role in the project."""

    role: Literal["owner", "member", "viewer"] | None = None


class AuditLog(Struct):
    """An event. A member with the name of its type holds the id of what it happened to, and details.

    `actor` is null for the server itself, and for a key that was refused.
    """

    id: str
    object: Literal["organization.audit_log"]
    type: str
    effective_at: Seconds
    actor: dict[str, Any] | None
    request_id: str | None
    project: dict[str, str | None] | UnsetType = UNSET


class AuditRetention(Struct, forbid_unknown_fields=True):
    """For how many days audit events are kept; null: for ever."""

    object: Literal["organization.audit_retention"]
    days: int | None


class NewAuditRetention(Struct):
    """For how many days audit events are to be kept, 90 at least; without it, for ever."""

    days: int | None = None
