"""A TCP proxy in front of a server that loses answers: the request arrives, the answer does not."""

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass
class CuttingProxy:
    """Passes everything on until the block ends, but loses the next `lose` answers."""

    target: tuple[str, int]
    lose: int = 0
    # So many pieces of answers are passed on before.
    skip: int = 0
    # Lose the answer to the next request that has this in it: pieces are no answers, for one may come in two.
    lose_answer_to: bytes = b""
    # Lose what comes after so many bytes of the answer; 0 loses all of it.
    after_bytes: int = 0
    # Besides, cut every second answer on average, at a random byte.
    chance: random.Random | None = None
    cuts: int = 0
    # Called with each piece of a request or an answer, before it is passed on.
    on_piece: Callable[[], None] = lambda: None
    requests: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        # A kept connection's threads still wait on it.
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            self._ends += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pass_on, args=(source, sink, source is server), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, are_answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(64 * 1024):
                self.on_piece()
                if not are_answers:
                    self.requests.append(data)
                    if self.lose_answer_to and self.lose_answer_to in data:
                        self.lose, self.lose_answer_to = 1, b""
                elif self.chance is not None and self.chance.random() < 0.5:
                    self.cuts += 1
                    sink.sendall(data[: self.chance.randrange(len(data))])
                    break
                elif self.skip:
                    self.skip -= 1
                elif self.lose:
                    self.lose -= 1
                    sink.sendall(data[: self.after_bytes])
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
