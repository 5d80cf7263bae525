"""Engine for a base that an OpenAI-compatible server elsewhere answers: plain pass-through."""

from tunewarden.registry.served import Target
from tunewarden.serving.address import Address
from tunewarden.serving.upstream import Upstream


class RemoteEngine:
    """One server at a URL. It knows nothing of our models, so only its base can be used."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.upstream = Upstream(Address.of_url(url), key)

    def has(self, target: Target) -> bool:
        """Tell that there is nothing to load: a base at a URL is there or it is not."""
        return True

    async def load(self, target: Target) -> None:
        """Do nothing."""

    def unload(self, target: Target) -> None:
        """Do nothing."""
