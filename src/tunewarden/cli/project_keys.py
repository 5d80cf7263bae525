"""API keys of a project over HTTP, with an admin key: what the commands of `keys` do with `--project`."""

from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Client, Object
from tunewarden.cli.output import shown_time

FIELDS = ("id", "name", "whose", "access", "scopes", "expires", "last used")


def create(server: Client, project: str, user_id: str, **fields: object) -> Object:
    """Create a key of a person; its text is in `value`. Raises Error."""
    return server.post(*path(project), fields={"user_id": user_id, **fields})


def rotate(server: Client, project: str, key_id: str, *, grace: int, expires: int | None) -> Object:
    """Create a key like another one, with its rate limit; that one ends after `grace` seconds, if not sooner.

    The new key lives for `expires` seconds; without that as long as the old one was made for. One request. Raises Error.
    """
    fields = {"overlap_seconds": grace, "expires_in_seconds": expires}
    return server.post(*path(project), key_id, "rotate", fields=fields)


def pages(server: Client, project: str, limit: int | None) -> Object:
    """Return the keys of a project as a list object, newest first. Raises Error."""
    return server.pages(*path(project), limit=limit, page_size=ADMINISTRATION_PAGE_SIZE)


def row(key: Object) -> tuple[str, ...]:
    """Return a key as a row of FIELDS."""
    owner = key["owner"].get("user") or key["owner"]["service_account"]
    scopes = " ".join(key["scopes"]) or "unrestricted"
    times = (key["expires_at"], key["last_used_at"])
    shown = ("-" if one is None else shown_time(one) for one in times)
    return key["id"], key["name"], owner["name"], key["owner_project_access"], scopes, *shown


def path(project: str) -> tuple[str, ...]:
    """Return the path of a project's keys."""
    return "organization", "projects", project, "api_keys"
