"""People in commands: named by id or by address."""

from tunewarden.cli.client import Client, Object
from tunewarden.errors import Error, Kind

USER_FIELDS = ("id", "email", "name", "role")


def find(server: Client, user: str) -> Object:
    """Return a person by id, or by what has an @, which is an address. Raises Error(NOT_FOUND)."""
    if "@" not in user:
        return server.get("organization", "users", user)
    found = server.get("organization", "users", **{"emails[]": user})["data"]
    if not found:
        raise Error(Kind.NOT_FOUND, f"No user has the address {user}. See `tunewarden users list`.")
    person: Object = found[0]
    return person


def id_of(server: Client, user: str) -> str:
    """Return the id of a person named like in `find`. Raises Error(NOT_FOUND)."""
    return str(find(server, user)["id"]) if "@" in user else user
