"""Organizations, on the server's machine only: the API offers none of it."""

from tunewarden.app import open_app
from tunewarden.cli.client import Object
from tunewarden.config import Config
from tunewarden.identity import organizations
from tunewarden.identity.organizations import Listed


def create(settings: Config, name: str) -> Object:
    """Create an organization. Raises Error(INVALID), Error(CONFLICT) for a name that is there."""
    with open_app(settings).database.write() as tx:
        return _object(organizations.create(tx, name))


def list_all(settings: Config) -> list[Object]:
    """Return every organization, oldest first."""
    return [_object(one) for one in organizations.list_all(open_app(settings).database)]


def _object(organization: Listed) -> Object:
    return {
        "id": organization.id,
        "object": "organization",
        "name": organization.name,
        "created_at": organization.created_at // 1_000_000,
    }
