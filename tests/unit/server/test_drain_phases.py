"""The table at the top of `drain.py`, held against a server without connections."""

import asyncio
import signal
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from tests.support.state_tables import transitions

from tunewarden.server import drain
from tunewarden.server.drain import DrainingServer, Phase

DELAY_SECONDS = 1000.0


class _Lifespan:
    async def shutdown(self) -> None: ...


async def _phases() -> set[tuple[str, str, str]]:
    application = SimpleNamespace(readiness=SimpleNamespace(is_draining=False))
    server = DrainingServer(
        uvicorn.Config(cast("Any", None)),
        cast("Any", application),
        delay=DELAY_SECONDS,
        seconds=DELAY_SECONDS,
    )
    server.lifespan = cast("Any", _Lifespan())
    found = set()
    for event in ("signal", "signal", "end", "signal", "end"):
        before = server.phase
        if event == "signal":
            server.handle_exit(signal.SIGTERM, None)
            said = "a signal"
        else:
            await server.shutdown()
            said = "no request is left, or the timeout passed"
        found.add((before.name, said, server.phase.name))
        assert application.readiness.is_draining
    return found


async def _unhurried() -> set[tuple[str, str, str]]:
    """The same with one signal."""
    application = SimpleNamespace(readiness=SimpleNamespace(is_draining=False))
    server = DrainingServer(
        uvicorn.Config(cast("Any", None)), cast("Any", application), delay=0.0, seconds=0.0
    )
    server.lifespan = cast("Any", _Lifespan())
    server.handle_exit(signal.SIGTERM, None)
    before = server.phase
    await server.shutdown()
    return {(before.name, "no request is left, or the timeout passed", server.phase.name)}


def test_a_worker_shuts_down_as_the_table_says() -> None:
    assert asyncio.run(_phases()) | asyncio.run(_unhurried()) == transitions(drain, Phase)
