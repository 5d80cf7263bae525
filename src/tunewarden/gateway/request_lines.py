"""Checks request lines as they were received: httptools passes on parsed ones, and is lenient.

It takes RTSP and ICE for HTTP, and several blanks for one. RFC 9112 §3 allows a method, a target and a version with
single blanks between them.
"""

from tunewarden.errors import Error, Kind

HEAD_END = b"\r\n\r\n"


class RequestLines:
    """Follows the reads of one connection to where each request begins.

    A request that follows a chunked body in the same read begins at an unknown place; its line must only occur there.
    """

    __slots__ = ("_begin", "_bytes_max", "_earlier", "_read")

    def __init__(self, bytes_max: int) -> None:
        """Keep at most `bytes_max` of an unfinished head."""
        self._bytes_max = bytes_max
        self._earlier = b""  # An unfinished head, but for the current read.
        self._read: bytes | memoryview = b""
        # Offset of the request in what was read of it, or of the next one; None: unknown.
        self._begin: int | None = 0

    def begin_read(self, read: bytes | memoryview, *, is_between: bool) -> None:
        """Note a read; `is_between`: no request is unfinished."""
        self._read = read
        if is_between:
            self._begin = 0

    def check(self, line: bytes) -> None:
        """Check the request whose head is complete. Raises Error(INVALID)."""
        read = self._earlier + bytes(self._read) if self._earlier else bytes(self._read)
        begin = self._begin
        if begin is None:
            is_strict = line in read
        elif read.startswith(line, begin):
            is_strict = True
        else:
            begin = len(read) - len(read[begin:].lstrip(b"\r\n"))
            is_strict = read.startswith(line, begin)
        if not is_strict:
            said = "The request line must be a method, a target, and HTTP/1.0 or HTTP/1.1."
            raise Error(Kind.INVALID, said)
        if begin is not None:
            self._begin = read.index(HEAD_END, begin) + len(HEAD_END) - len(self._earlier)
        self._earlier = b""

    def skip(self, size: int) -> None:
        """Note bytes of a body."""
        if self._begin is not None:
            self._begin += size

    def lose_place(self) -> None:
        """Note a chunk of a body."""
        self._begin = None

    def end_read(self, *, is_in_head: bool) -> None:
        """Keep an unfinished head, and nothing else."""
        if is_in_head:
            self._earlier = (self._earlier + bytes(self._read[self._begin or 0 :]))[
                : self._bytes_max
            ]
        elif self._earlier:
            self._earlier = b""
        if self._begin is not None:
            self._begin = 0
        self._read = b""
