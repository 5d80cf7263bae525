"""Searches in files: a line of JSON for each match, as it is found. Each file is read under its guard, like a download.

Reading and searching run in one thread a worker, a short step at a time, and rest for as long as each step took: other
requests come first. A deletion waits for one step at most, and for nothing that the client of a search does.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from msgspec import Struct
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tunewarden.api.json_lines import JSON_LINES
from tunewarden.api.search_schemas import (
    SearchedFile,
    SearchMatch,
    SearchProgress,
    SearchSummary,
)
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller
from tunewarden.json_encoding import encoded
from tunewarden.registry import file_rows
from tunewarden.registry.file_rows import File
from tunewarden.registry.file_searches import FileSearch
from tunewarden.registry.files import Files
from tunewarden.registry.text_search import PIECE_BYTES, Found, Reading, Search, in_name
from tunewarden.serving.admission import Admissions, Serving

# In one request; a client continues with `after`.
FILES_MAX = 10_000
SECONDS_MAX = 300.0
PROGRESS_SECONDS = 1.0
SEARCHES_MAX = 4  # of a worker; one of each organization
# How long a step goes on with one bit of work after the other, and how long it rests, of the time that it took.
STEP_SECONDS = 0.005
REST = 1.0

T = TypeVar("T")

HAS_MORE = "has_more"
_READINGS: dict[Reading, Literal["as_written", "json", "web"]] = {
    Reading.AS_WRITTEN: "as_written",
    Reading.JSON: "json",
    Reading.WEB: "web",
}


class Searches:
    """Runs searches. One per worker."""

    def __init__(self, admissions: Admissions, files: Files) -> None:
        self.admissions = admissions
        self.files = files
        self.threads = ThreadPoolExecutor(1, "searches")
        self._running: set[str] = set()

    @asynccontextmanager
    async def turn(self, organization_id: str) -> AsyncGenerator[None, None]:
        """Hold one of the worker's places. Raises Error(RATE_LIMITED) if there is none."""
        if organization_id in self._running or len(self._running) >= SEARCHES_MAX:
            raise Error(
                Kind.RATE_LIMITED,
                "A search is running. Please try again when it has ended.",
                retry_after_seconds=5,
            )
        self._running.add(organization_id)
        try:
            yield
        finally:
            self._running.discard(organization_id)


@dataclass(slots=True)
class Searching:
    """One search: yields the lines of its response."""

    searches: Searches
    caller: Caller
    search: FileSearch
    _files: int = 0
    _bytes: int = 0
    _with_matches: int = 0
    _incomplete: int = 0
    _last: str | None = None
    _told_at: float = field(default=0.0)

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield matches as they are found, progress each second, and a summary. Raises Error if the caller lost access."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SECONDS_MAX
        self._told_at = loop.time()
        is_complete = True
        pages = self.search.pages()
        while page := await self._step(lambda: next(pages, [])):
            for file in page:
                if self._files >= FILES_MAX or loop.time() > until:
                    is_complete = False
                    break
                async with aclosing(self._of_file(file)) as found:
                    async for line in found:
                        yield line
                self._files += 1
                self._last = file.id
            if not is_complete:
                break
        yield _line(
            SearchSummary(
                "file.search.summary",
                is_complete,
                self._files,
                self._bytes,
                self._with_matches,
                self._incomplete,
                None if is_complete else self._last,
            )
        )

    async def _of_file(self, file: File) -> AsyncGenerator[bytes, None]:
        """Search one file, while its guard is held, and yield what was found."""
        found = Found()
        code: str | None = None
        # Apart from what is sent: a client that reads nothing must not keep the guard.
        reading = asyncio.create_task(self._read(file, found))
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=PROGRESS_SECONDS)
                if told := self._progress():
                    yield told
            reading.result()
        except Error as error:
            if error.kind in {Kind.UNAUTHENTICATED, Kind.FORBIDDEN}:
                raise
            if error.kind is Kind.NOT_FOUND:
                return  # It is deleted by now.
            code = error.code or error.kind.value
        finally:
            reading.cancel()
            await asyncio.wait({reading})
        for line in await self._step(lambda: list(self._matches(file, found))):
            yield line
        if code is None and found.has_more:
            code = HAS_MORE
        if code is not None:
            self._incomplete += 1
            yield _line(SearchedFile("file.search.incomplete", file.id, file.project_id, code))

    async def _read(self, file: File, found: Found) -> None:
        """Read and search a file. Raises Error(NOT_FOUND) if it is deleted, or if access was lost."""
        content = _in_pieces(self.searches.files.content(file))
        work = self._work(content, Search(self.search.patterns, found))
        admissions = self.searches.admissions
        absent = file_rows.missing(file.id)
        now = asyncio.get_running_loop().time
        with admissions.guarded(
            file.n, self.caller, Action.SEARCH_FILES, absent, lambda: None
        ) as serving:
            try:
                while await self._step(lambda: _goes_on(work, now)):
                    _check(admissions, serving, absent)
                _check(admissions, serving, absent)
            finally:
                await self._close(content)  # Its key is in memory until then.

    def _work(self, content: Generator[bytes, None, None], searching: Search) -> Iterator[None]:
        """Yield after each bit of the work on one file."""
        for piece in content:
            yield
            yield from searching.feed(piece)
            self._bytes += len(piece)
        yield from searching.end()

    def _matches(self, file: File, found: Found) -> Iterator[bytes]:
        """Yield a file's lines of the response; of its name too, which is decrypted here."""
        named = self.searches.files.named([file])
        if not named:
            return
        name = named[0].filename
        names = in_name(self.search.patterns, name)
        self._with_matches += bool(names or found.lines)
        for number in range(len(self.search.patterns)):
            lines: list[tuple[int | None, Reading]] = []
            if number in names:
                lines.append((None, names[number]))
            lines += sorted(found.lines.get(number, {}).items())
            for line, reading in lines:
                yield _line(
                    SearchMatch(
                        "file.search.match",
                        file.id,
                        name,
                        file.project_id,
                        number + 1,
                        line,
                        _READINGS[reading],
                    )
                )

    def _progress(self) -> bytes:
        """Return a line of progress if one is due."""
        now = asyncio.get_running_loop().time()
        if now - self._told_at < PROGRESS_SECONDS:
            return b""
        self._told_at = now
        return _line(
            SearchProgress(
                "file.search.progress",
                self._files,
                self.search.files,
                self._bytes,
                self.search.bytes,
            )
        )

    async def _step(self, work: Callable[[], T]) -> T:
        """Run a step in the thread, then rest."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await loop.run_in_executor(self.searches.threads, work)
        await asyncio.sleep((loop.time() - began) * REST)
        return result

    async def _close(self, content: Generator[bytes, None, None]) -> None:
        """Close a file's content, after the step that reads it."""
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self.searches.threads, content.close))


class Answer(StreamingResponse):
    """The response of a search. What it holds is let go of when it ends, however it ends."""

    def __init__(self, searching: Searching) -> None:
        self._searching = searching
        self._lines = searching.lines()
        super().__init__(self._lines, media_type=JSON_LINES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with (
            self._searching.searches.turn(self._searching.caller.organization_id),
            aclosing(self._lines),
        ):
            await super().__call__(scope, receive, send)


def _goes_on(work: Iterator[None], now: Callable[[], float]) -> bool:
    """Work for the time of one step; return whether there is more to do."""
    until = now() + STEP_SECONDS
    return any(now() >= until for _ in work)


def _check(admissions: Admissions, serving: Serving, absent: Error) -> None:
    """Raise why a file may not be read any more, if it may not."""
    if not admissions.may_go_on(serving):
        raise serving.ended_by or absent


def _in_pieces(content: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    """Yield a file's content in pieces so short that searching one delays the event loop by little: they share the GIL."""
    with closing(content):
        for chunk in content:
            for start in range(0, len(chunk), PIECE_BYTES):
                yield chunk[start : start + PIECE_BYTES]


def _line(said: Struct) -> bytes:
    return encoded(said) + b"\n"
