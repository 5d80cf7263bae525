"""Keys that lose their access in every way there is, by requests of an administrator to a real server."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.support import administration
from tests.support.servers import ORGANIZATION, Server

from tunewarden.identity.policy import Role

# Longer than it takes to set out, so that nothing runs into it.
EXPIRY_SECONDS = 4


@dataclass(frozen=True, slots=True)
class Holder:
    """A key, and what an administrator needs to take it away."""

    key: str
    key_id: str
    user_id: str
    project_id: str


class Administrator:
    """An administrator of one organization of a server."""

    def __init__(self, server: Server, organization: str = ORGANIZATION) -> None:
        self.server = server
        self.organization = organization
        self._key = administration.make_admin_key(server.app, organization)

    def ask(self, method: str, path: str, fields: object | None = None) -> dict[str, object]:
        reply = administration.ask(self.server, method, path, self._key, fields)
        assert reply.status == 200, reply.body
        return reply.json

    def new_project(self) -> str:
        return str(self.ask("POST", "/projects", {"name": "p"})["id"])

    def new_holder(self, kind: str, project: str | None = None, **key: object) -> Holder:
        """Make a key in a project of its own, of an `owner`, a `member` or an `account` that is a member."""
        project = project or self.new_project()
        if kind == "account":
            account = self.ask("POST", f"/projects/{project}/service_accounts", {"name": "a"})
            user = str(account["id"])
            path = f"/projects/{project}/service_accounts/{user}/api_keys"
            given = self.ask("POST", path, key)
        else:
            role = Role.OWNER if kind == "owner" else Role.READER
            user = administration.make_user(
                self.server.app, kind, role=role, organization=self.organization
            )
            if kind == "member":
                fields = {"user_id": user, "role": "member"}
                self.ask("POST", f"/projects/{project}/users", fields)
            made = {"user_id": user, "name": kind, **key}
            given = self.ask("POST", f"/projects/{project}/api_keys", made)
        return Holder(str(given["value"]), str(given["id"]), user, project)


Losing = Callable[[Administrator, Holder], object]


def _wait_for_expiry(administrator: Administrator, holder: Holder) -> None:
    path = f"/projects/{holder.project_id}/api_keys/{holder.key_id}"
    expires_at = administrator.ask("POST", path, {"expires_in_seconds": EXPIRY_SECONDS})[
        "expires_at"
    ]
    assert isinstance(expires_at, int)
    while (left := expires_at - time.time()) > 0:
        time.sleep(left)


def _narrow(administrator: Administrator, holder: Holder) -> None:
    path = f"/projects/{holder.project_id}/api_keys/{holder.key_id}"
    administrator.ask("POST", path, {"scopes": ["api.deletions.read"]})


# How access is lost, with the kind of holder who loses it; it is lost when the call returns.
WAYS: Mapping[str, tuple[str, Losing]] = MappingProxyType({
    "revoked": ("member", lambda a, h: a.ask("DELETE", f"/projects/{h.project_id}/api_keys/{h.key_id}")),
    "narrowed": ("member", _narrow),
    "expired": ("member", _wait_for_expiry),
    "demoted": ("owner", lambda a, h: a.ask("POST", f"/users/{h.user_id}", {"role": "reader"})),
    "removed": ("owner", lambda a, h: a.ask("DELETE", f"/users/{h.user_id}")),
    "out of the project": ("member", lambda a, h: a.ask("DELETE", f"/projects/{h.project_id}/users/{h.user_id}")),
    "account deleted": ("account", lambda a, h: a.ask("DELETE", f"/projects/{h.project_id}/service_accounts/{h.user_id}")),
    "account without role": ("account", lambda a, h: a.ask("POST", f"/projects/{h.project_id}/service_accounts/{h.user_id}", {"role": "none"})),
    "archived": ("member", lambda a, h: a.ask("POST", f"/projects/{h.project_id}/archive")),
})  # fmt: skip
