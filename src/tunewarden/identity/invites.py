"""Invites: an Owner makes a link; who opens it becomes a user. Each operation is one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import (
    addresses,
    admin_keys,
    invite_rows,
    key_rows,
    organizations,
    project_members,
    projects,
    users,
)
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.invite_rows import Grant, Invite, Status
from tunewarden.identity.policy import GrantedRole, ProjectRole, Role

LIFE_SECONDS = 7 * 24 * 3600
KEPT_SECONDS = 30 * 24 * 3600  # once it has expired: lists say so for so long
FORGOTTEN_AT_ONCE = 100  # in one transaction: others wait for it
UNACCEPTED_MAX = 1000  # per organization
PROJECTS_MAX = 100
KEY_NAME = "first key"
# In the default project, for an invite that names no projects.
DEFAULT_GRANTS = {Role.OWNER: GrantedRole.OWNER, Role.READER: GrantedRole.MEMBER}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The new user, and an API key that works in `project_id`: both are None without a project."""

    user_id: str
    name: str
    organization: str
    project_id: str | None
    api_key: str | None


def create(
    database: Database,
    administrator: Administrator,
    *,
    email: str,
    role: Role,
    grants: Sequence[Grant] | None,
) -> tuple[Invite, str]:
    """Invite an address; return the invite and its link's token, which is not stored.

    Without `grants` it is to the default project. Raises Error(UNAUTHENTICATED), Error(INVALID) for what is no address,
    Error(NOT_FOUND) for a project, Error(CONFLICT) for a user's address, one that is invited and an archived project,
    Error(RATE_LIMITED) beyond the limit.
    """
    address = addresses.normalized(email)
    organization = administrator.organization_id
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        _check_is_new(tx, organization, address)
        invite, token = invite_rows.insert(
            tx,
            organization_id=organization,
            email=address,
            role=role,
            grants=_checked(tx, organization, role, grants),
            invited_by=administrator.user_id,
            expires_at=tx.now_micros + LIFE_SECONDS * 1_000_000,
        )
        audit.record(
            tx,
            audit.EventType.INVITE_SENT,
            organization_id=organization,
            actor=administrator.actor,
            resource_id=invite.id,
            role=role.value,
        )
    return invite, token


def page(
    database: Database, administrator: Administrator, *, after: str | None, limit: int
) -> list[tuple[Invite, Status]]:
    """Return up to `limit` invites of the organization, newest first.

    Raises Error(UNAUTHENTICATED), Error(INVALID) for an unknown cursor.
    """
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        rows = invite_rows.LIST.page(
            tx, after=after, limit=limit, organization=administrator.organization_id
        )
        found = map(invite_rows.of_row, rows)
        return [(invite, invite.status(tx.now_micros)) for invite in found]


def retrieve(
    database: Database, administrator: Administrator, invite_id: str
) -> tuple[Invite, Status]:
    """Return one invite. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        invite = invite_rows.find(tx, administrator.organization_id, invite_id)
        return invite, invite.status(tx.now_micros)


def delete(database: Database, administrator: Administrator, invite_id: str) -> None:
    """Withdraw an invite: its link does nothing from then on.

    Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(CONFLICT) for one that was accepted.
    """
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        invite = invite_rows.find(tx, administrator.organization_id, invite_id)
        if invite.accepted_at is not None:
            raise Error(
                Kind.CONFLICT,
                f"The invite '{invite.id}' was accepted. Remove its user instead.",
                param="invite_id",
                code="invite_accepted",
            )
        invite_rows.delete(tx, invite, administrator.actor)


def forget_expired(database: Database, now: int) -> int:
    """Delete the invites, with their addresses, that expired KEPT_SECONDS before `now` (microseconds); return how many."""
    before, count = now - KEPT_SECONDS * 1_000_000, 0
    while True:
        with database.read() as tx:
            if not invite_rows.has_expired(tx, before):
                return count
        with database.write(below_floor=True) as tx:
            count += invite_rows.delete_expired(tx, before, FORGOTTEN_AT_ONCE)


def organization_of(database: Database, token: str) -> str:
    """Return the name of the organization that a link invites to. Raises Error(NOT_FOUND), the same for every reason."""
    with database.read() as tx:
        invite = invite_rows.of_token(tx, token)
        if invite is None:
            raise no_link()
        return organizations.name_of(tx, invite.organization_id)


def accept(database: Database, token: str, name: str, request_id: str) -> Accepted:
    """Make the user of a link, with memberships and one API key; the link does nothing from then on.

    Raises Error(NOT_FOUND) for a link that is unknown, used, withdrawn or expired, Error(INVALID) for the name,
    Error(CONFLICT) if the address became a user's otherwise, or all projects of the invite were archived.
    """
    users.check_name(name)
    with database.write() as tx:
        invite = invite_rows.of_token(tx, token)
        if invite is None:
            raise no_link()
        organization = invite.organization_id
        if users.find_by_address(tx, organization, invite.email) is not None:
            raise _is_user()
        grants = _active(tx, invite)
        # The link stands for who invited, until there is a user.
        inviter = Actor(
            key_id=None, user_id=invite.invited_by, project_id=None, request_id=request_id
        )
        user_id = users.add(
            tx, organization, name=name, email=invite.email, role=invite.role, actor=inviter
        )
        invite_rows.note_accepted(tx, invite, user_id)
        actor = Actor(key_id=None, user_id=user_id, project_id=None, request_id=request_id)
        audit.record(
            tx,
            audit.EventType.INVITE_ACCEPTED,
            organization_id=organization,
            actor=actor,
            resource_id=invite.id,
        )
        for grant in grants:
            project_members.assign(
                tx,
                organization,
                grant.project_id,
                user_id=user_id,
                role=ProjectRole(grant.role),
                actor=inviter,
            )
        project_id, key = _first_key(tx, invite, grants, user_id, actor)
        return Accepted(user_id, name, organizations.name_of(tx, organization), project_id, key)


def no_link() -> Error:
    """Return the one answer for a link that does nothing."""
    return Error(
        Kind.NOT_FOUND,
        "This link is not valid: it was used or withdrawn, or is older than 7 days. Ask who invited you for a new one.",
        code="invalid_invite",
    )


def _active(tx: Tx, invite: Invite) -> tuple[Grant, ...]:
    """Return the grants in projects that were not archived since. Raises Error(CONFLICT) if none of some is left."""
    found = tuple(
        grant
        for grant in invite.grants
        if projects.find(tx, invite.organization_id, grant.project_id).archived_at is None
    )
    if invite.grants and not found:
        raise Error(
            Kind.CONFLICT,
            "Every project that this link invites to was archived. Ask who invited you for a new one.",
            code="project_archived",
        )
    return found


def _first_key(
    tx: Tx, invite: Invite, grants: Sequence[Grant], user_id: str, actor: Actor
) -> tuple[str | None, str | None]:
    """Return the project of the new user's key, and the key. An Owner needs no project to have one."""
    in_projects = [grant.project_id for grant in grants]
    if not in_projects and invite.role is Role.OWNER:
        in_projects = [projects.default_of(tx, invite.organization_id)]
    if not in_projects:
        return None, None
    _, text = key_rows.insert(
        tx,
        organization_id=invite.organization_id,
        project_id=in_projects[0],
        user_id=user_id,
        name=KEY_NAME,
        scopes=(),
        expires_at=None,
        actor=actor,
    )
    return in_projects[0], text


def _check_is_new(tx: Tx, organization_id: str, address: str) -> None:
    if users.find_by_address(tx, organization_id, address) is not None:
        raise _is_user()
    pending = invite_rows.pending_to(tx, organization_id, address)
    if pending is not None:
        raise Error(
            Kind.CONFLICT,
            f"This address has a pending invite, '{pending}'. Delete it first to send another one.",
            param="email",
            code="already_invited",
        )
    if invite_rows.count_unaccepted(tx, organization_id) >= UNACCEPTED_MAX:
        raise Error(
            Kind.RATE_LIMITED,
            f"Too many invites that nobody accepted (limit {UNACCEPTED_MAX}). Delete some, expired ones too.",
            code="too_many_invites",
        )


def _checked(
    tx: Tx, organization_id: str, role: Role, grants: Sequence[Grant] | None
) -> tuple[Grant, ...]:
    if grants is None:
        return (Grant(projects.default_of(tx, organization_id), DEFAULT_GRANTS[role]),)
    if len(grants) > PROJECTS_MAX or len({one.project_id for one in grants}) < len(grants):
        raise Error(
            Kind.INVALID,
            f"Invalid value for 'projects': name at most {PROJECTS_MAX} projects, each once.",
            param="projects",
            code="invalid_value",
        )
    for one in grants:
        projects.find_active(tx, organization_id, one.project_id)
    return tuple(grants)


def _is_user() -> Error:
    return Error(
        Kind.CONFLICT,
        "A user of this organization has this address already.",
        param="email",
        code="already_a_user",
    )
