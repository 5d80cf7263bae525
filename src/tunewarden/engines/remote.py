"""Driver of a remote OpenAI-compatible server: plain pass-through."""

from tunewarden.engines.address import Address
from tunewarden.engines.upstream import Upstream
from tunewarden.registry.model_lookup import Target


class RemoteEngine:
    """One server at a URL. It has none of our models, so only its base can be used."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.upstream = Upstream(Address.of_url(url), key)

    def has(self, target: Target) -> bool:
        """Return True: there is nothing to load."""
        return True

    async def load(self, target: Target) -> None:
        """Do nothing."""

    def unload(self, target: Target) -> None:
        """Do nothing."""
