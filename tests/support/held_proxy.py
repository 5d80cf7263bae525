"""A TCP proxy to a port of this machine that can hold what clients send, and pass it on later."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class HeldProxy:
    """Passes bytes on in both directions; while it holds, those of clients wait in it, however they were sent."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._may_pass = threading.Event()
        self._may_pass.set()
        self._open: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def hold(self) -> None:
        self._may_pass.clear()

    def release(self) -> None:
        self._may_pass.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, engine]
                for ends in ((client, engine, True), (engine, client, False)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_held: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if is_held:
                    self._may_pass.wait()
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
