"""Types of the bodies of invites, for the OpenAPI document. A test decodes real responses with them."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from tunewarden.api.schemas import Seconds


class InviteProject(Struct, forbid_unknown_fields=True):
    """A project that who accepts becomes a member of."""

    id: str
    role: Literal["owner", "member"]


class NewInvite(Struct):
    """An address to invite. Without `projects` it is to the default project, with an empty list to none."""

    email: str
    role: Literal["owner", "reader"]
    projects: list[InviteProject] | None = None


class Mail(Struct, forbid_unknown_fields=True):
    """Whether a link was mailed; `reason` is why not."""

    status: Literal["sent", "failed", "not_configured"]
    reason: str | None


class Invite(Struct, forbid_unknown_fields=True):
    """An invite. Only the answer that creates it has `link` and `mail`."""

    id: str
    object: Literal["organization.invite"]
    email: str
    role: Literal["owner", "reader"]
    status: Literal["pending", "accepted", "expired"]
    projects: list[InviteProject]
    created_at: Seconds
    expires_at: Seconds
    accepted_at: Seconds | None
    link: str | UnsetType = UNSET
    mail: Mail | UnsetType = UNSET


class Acceptance(Struct):
    """The name of the new user."""

    name: str


class Accepted(Struct, forbid_unknown_fields=True):
    """The new user, and an API key that is shown only here; without a project there is none."""

    object: Literal["organization.invite.accepted"]
    user_id: str
    organization: str
    project_id: str | None
    api_key: str | None
