"""The console of one worker: what imports its pages, at the first request, so that one that is not used costs nothing."""

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from tunewarden.api.services import Services


class Console:
    """The ASGI application of every path below `/console`. It authenticates by itself: `site`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._site: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._site is None:
            # On a thread: importing the templates' engine takes longer than the event loop may stand still.
            self._site = await run_in_threadpool(_site_of, self._services)
        await self._site(scope, receive, send)


def _site_of(services: Services) -> ASGIApp:
    from tunewarden.console.site import Site  # noqa: PLC0415  as above

    return Site(services)
