"""The canary's requests to the server, over its socket like a client's."""

import fcntl
import json
import socket
import struct
import termios
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from tunewarden.errors import Error, Kind

# A base may have to be loaded first.
FIRST_TOKEN_SECONDS = 120.0
ANSWER_SECONDS = 60.0
# How long a stream may take to end after the deletion was answered.
END_SECONDS = 5.0
PIECE_BYTES = 64 * 1024
# In each event of a completion that has a token, and in no error.
TOKEN = b'"choices"'
END = b"data: [DONE]"
MODELS, COMPLETIONS = "/models", "/completions"


class Requests:
    """Sends requests to a server at a URL such as `http://127.0.0.1:8800/v1`."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 80
        self._root = parts.path
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def status(
        self, method: str, path: str, fields: object = None
    ) -> tuple[int, Mapping[str, str]]:
        """Return a response's status and headers, over a connection of its own. Raises Error(UNAVAILABLE)."""
        body = b"" if fields is None else json.dumps(fields).encode()
        connection = HTTPConnection(*self._address, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, self._root + path, body, self._headers)
            response = connection.getresponse()
            response.read()
        except (OSError, HTTPException) as error:
            raise _no_answer(error) from error
        finally:
            connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}

    def stream(self, fields: object) -> "Stream":
        """Begin a completion that streams; return it once it has a token. Raises Error(UNAVAILABLE)."""
        body = json.dumps(fields).encode()
        head = [
            f"POST {self._root}{COMPLETIONS} HTTP/1.1",
            f"host: {self._address[0]}",
            f"content-length: {len(body)}",
            "connection: close",
            *(f"{name}: {value}" for name, value in self._headers.items()),
        ]
        try:
            opened = socket.create_connection(self._address, timeout=FIRST_TOKEN_SECONDS)
        except OSError as error:
            raise _no_answer(error) from error
        stream = Stream(opened)
        try:
            opened.sendall("\r\n".join([*head, "", ""]).encode() + body)
            stream.read_first_token()
        except OSError as error:
            stream.close()
            raise _no_answer(error) from error
        except Error:
            stream.close()
            raise
        return stream


class Stream:
    """A completion that comes over a socket. What has come is left there until it is asked for."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._received = bytearray()
        self._marked = 0

    def read_first_token(self) -> None:
        """Read until there is a token. Raises Error(UNAVAILABLE) for an answer that is none, OSError."""
        while TOKEN not in self._received:
            piece = self._socket.recv(PIECE_BYTES)
            self._received += piece
            if not piece:
                status = bytes(self._received[:12]).decode("latin-1")
                raise Error(Kind.UNAVAILABLE, f"The model gave no token: {status or 'no answer'}.")

    def mark(self) -> bool:
        """Mark what has come so far: what the kernel has for this socket. Return whether the stream had not ended."""
        waiting = struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)))[0]
        self._marked = len(self._received) + waiting
        while len(self._received) < self._marked:
            self._received += self._socket.recv(self._marked - len(self._received))
        return END not in self._received

    def tokens_since_mark(self) -> int:
        """Read to the end; return how many tokens came after the mark."""
        self._socket.settimeout(END_SECONDS)
        try:
            while piece := self._socket.recv(PIECE_BYTES):
                self._received += piece
        except OSError:
            pass  # reset, which ends it too; or it stays open and silent
        return bytes(self._received[self._marked :]).count(TOKEN)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _no_answer(error: Exception) -> Error:
    return Error(Kind.UNAVAILABLE, f"The server gave no answer: {type(error).__name__}.")
