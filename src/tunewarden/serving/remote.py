"""Engine for a base that an OpenAI-compatible server elsewhere answers: plain pass-through."""

from tunewarden.serving.admission import Target
from tunewarden.serving.upstream import Address, Upstream


class RemoteEngine:
    """One server at a URL. It knows nothing of our models, so only its base can be used."""

    def __init__(self, url: str) -> None:
        self.upstream = Upstream(Address.of_url(url))

    async def load(self, target: Target) -> None:
        """Do nothing: a base at a URL is there or it is not."""

    def unload(self, target: Target) -> None:
        """Do nothing: there is nothing to load again."""
