"""The migration's aliases at the target, through the commands' client."""

from typing import Any

from tunewarden.cli.client import Client
from tunewarden.errors import Error, Kind

Object = dict[str, Any]
PATH = "aliases"


class HttpAliases:
    """A `migration.target.Aliases`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def find(self, name: str) -> Object | None:
        """Return an alias with its history, or None."""
        try:
            return self._client.get(PATH, name)
        except Error as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise

    def set(self, name: str, model: str, *, is_new: bool) -> Object:
        """Create an alias, or point it to another model."""
        if is_new:
            return self._client.post(PATH, fields={"name": name, "model": model})
        return self._client.post(PATH, name, fields={"model": model})

    def roll_back(self, name: str, version: int) -> Object:
        """Point an alias to what an earlier version pointed to."""
        return self._client.post(PATH, name, fields={"rollback": True, "version": version})

    def delete(self, name: str) -> None:
        """Delete an alias."""
        self._client.delete(PATH, name)
