"""A real server whose engine is `echo_engine`, for the benchmarks that check what is answered."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import echo_engine
from tests.chaos.fake_engine_server import CarelessServer, FakeEngineServer
from tests.support import servers


class EchoServer(FakeEngineServer):
    """Everything real but the engine."""

    program = "benchmarks.with_echo_engine"


class CarelessEchoServer(EchoServer):
    """Its workers take no guard and never look again (a control)."""

    careless = CarelessServer.careless | {
        "PYTHONPATH": os.pathsep.join(
            filter(None, [CarelessServer.careless["PYTHONPATH"], os.environ.get("PYTHONPATH")])
        )
    }


@contextlib.contextmanager
def serving(
    data: Path,
    *,
    workers: int,
    settings: Mapping[str, object] | None = None,
    slots: int = 1,
    slot_seconds: float = 0.0,
    control: str = "",
) -> Iterator[EchoServer]:
    """Run one with the tiny base for a block; `slots`, `slot_seconds`, `control`: see `echo_engine`."""
    servers.prepare_local_base(data)
    os.environ |= {
        echo_engine.SLOTS: str(slots),
        echo_engine.SLOT_SECONDS: str(slot_seconds),
        echo_engine.CONTROL: control,
    }
    # Whoever ends the benchmark ends its server with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    kind = CarelessEchoServer if control == "careless" else EchoServer
    server = kind(data, workers=workers, settings=settings)
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
