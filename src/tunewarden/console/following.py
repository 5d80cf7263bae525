"""What goes on, told to the browser as it changes: server-sent events, for as long as one may see it (I19).

Each look reads the session and its caller again: it ends with either, and with the right to see what is followed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tunewarden.console.requests import Visit
from tunewarden.errors import Error
from tunewarden.identity import sessions

# How often it looks, and for how long at most: then the browser asks again.
LOOK_SECONDS = 1.0
FOLLOWING_SECONDS = 300.0
NO_BUFFERING = {"x-accel-buffering": "no"}


class Mark(NamedTuple):
    """What changes whenever the page would, and whether it has ended, so that it changes no more."""

    has_ended: bool
    text: str


async def follow(visit: Visit, look: Callable[[Visit], Mark]) -> Response:
    """Tell the browser whenever what `look` returns has changed, until it has ended. Looking raises as the page does."""
    first = await run_in_threadpool(look, visit)
    place = ExitStack()
    place.enter_context(visit.asked.services.followers.held(visit.caller.organization_id))
    return _Following(_changes(visit, look, first), place)


class _Following(StreamingResponse):
    """What a page that follows something gets. It holds a place among those that do until it ends, however it does."""

    def __init__(self, events: AsyncIterator[str], place: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers=NO_BUFFERING)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._place:
            await super().__call__(scope, receive, send)


async def _changes(visit: Visit, look: Callable[[Visit], Mark], mark: Mark) -> AsyncIterator[str]:
    """Yield an event for each change, and one when it has ended. Ends too when a look is refused."""
    services = visit.asked.services
    yield f"event: changed\ndata: {mark.text}\n\n"
    for _ in range(int(FOLLOWING_SECONDS / LOOK_SECONDS)):
        if mark.has_ended or services.readiness.is_draining:
            break
        await asyncio.sleep(LOOK_SECONDS)
        try:
            now = await run_in_threadpool(_look_again, visit, look)
        except Error:
            break
        # A comment, at least: so the server learns of a browser that has gone.
        yield ":\n\n" if now == mark else f"event: changed\ndata: {now.text}\n\n"
        mark = now
    if mark.has_ended:
        yield "event: ended\ndata: -\n\n"


def _look_again(visit: Visit, look: Callable[[Visit], Mark]) -> Mark:
    """Look as who the session's caller is now."""
    secret = visit.asked.request.cookies.get(visit.asked.way.cookie, "")
    database, request_id = visit.operations.database, visit.asked.request_id
    session = sessions.current(database, secret, request_id, is_use=False)
    return look(replace(visit, session=session))
