"""Types of the bodies of administration, for the OpenAPI document. A test decodes real responses with them."""

from typing import Literal

from msgspec import Struct

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
