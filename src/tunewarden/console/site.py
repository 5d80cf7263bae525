"""All pages behind one door: the host, the origin, the session, then the page. Default deny, like the API's.

A path without a session leads to the sign-in, whether or not there is such a page; only `OpenPage` needs none.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from inspect import iscoroutinefunction
from typing import TypeVar
from urllib.parse import quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunewarden.api import expired_keys, head_requests, refused_requests
from tunewarden.api.parameters import check_query
from tunewarden.api.services import Services
from tunewarden.console import forms_again, rendering
from tunewarden.console.guard import METHODS, SAFE, Guard, Way
from tunewarden.console.pages import PAGES
from tunewarden.console.paths import Answer, OpenPage, Page
from tunewarden.console.requests import Asked, Visit, read_form
from tunewarden.errors import Error, Kind
from tunewarden.identity import sessions
from tunewarden.identity.sessions import Session

SIGN_IN = "/console/sign-in"
AnyPage = Page | OpenPage
T = TypeVar("T")


class Site:
    """The pages of one worker."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._guard = Guard(services.operations.config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with a page, whatever goes wrong."""
        request = Request(scope, receive)
        visit: list[Visit] = []
        try:
            response = await self._answer(request, visit)
        except Error as error:
            response = await self._refusal(request, error, visit)
        except Exception as error:
            # The server logs it with the request's id.
            response = rendering.refusal(error, visit[0] if visit else None)
            await _finished(response)(scope, receive, send)
            raise
        await _finished(response)(scope, receive, send)

    async def _answer(self, request: Request, visits: list[Visit]) -> Response:
        way = self._guard.way_of(request.headers)
        if request.method not in METHODS:
            raise _no_such_page(request)
        self._guard.check_origin(request.method, request.headers, way)
        check_query(request.scope["query_string"])
        if request.scope["path"] == "/console/":
            return rendering.to("/console")
        page, segments = self._found(request)
        asked = Asked(request, self._services, way, segments)
        if isinstance(page, OpenPage):
            return await _run(page.answer, await _with_form(asked))
        try:
            session = await self._session(request, way)
        except Error as refused:
            if refused.kind is not Kind.UNAUTHENTICATED or request.method not in SAFE:
                raise
            return _to_sign_in(request)
        request.scope["state"]["caller"] = session.caller
        visits.append(Visit(asked, session))
        if page is None:
            return _without_page(visits[0])
        visits[0] = visit = Visit(await _with_form(asked), session)
        return await _run(page.answer, visit)

    async def _session(self, request: Request, way: Way) -> Session:
        secret = request.cookies.get(way.cookie)
        if secret is None:
            raise sessions.ended()
        of, request_id = self._services.operations, request.state.request_id
        # What a page fetches by itself, such as what is new of a job, keeps no session alive.
        is_use = request.headers.get("sec-fetch-mode", "navigate") == "navigate"
        current = partial(sessions.current, is_use=is_use)
        session = await run_in_threadpool(current, of.database, secret, request_id)
        of.usage.note_key(session.caller.organization_id, session.caller.key_id)
        if session.administrator is not None:
            of.usage.note_key(session.caller.organization_id, session.administrator.key_id)
        return session

    def _found(self, request: Request) -> tuple[AnyPage | None, Mapping[str, str]]:
        """Return the page of a path, and what its segments say. Raises Error(METHOD_NOT_ALLOWED) for an open one."""
        there = _there(request.scope["path"])
        for page, found in there:
            if page.method == request.method:
                segments = _segments(found)
                request.scope.update(route=page.route, path_params=segments)
                return page, segments
        if any(isinstance(page, OpenPage) for page, _ in there):
            raise _no_such_page(request)
        return None, {}

    async def _refusal(self, request: Request, error: Error, visits: list[Visit]) -> Response:
        database = self._services.operations.database
        await expired_keys.note(database, error)
        if not visits:
            return await run_in_threadpool(_refused, error, None, None)
        await refused_requests.record(database, request.scope, error)
        way_back = _way_back(visits[0]) if error.kind is not Kind.UNAUTHENTICATED else None
        again = await _form_again(visits[0], error, way_back)
        if again is not None:
            return again
        return await run_in_threadpool(_refused, error, visits[0], way_back)


def _refused(error: Error, visit: Visit | None, way_on: tuple[str, str] | None) -> Response:
    response = rendering.refusal(error, visit, way_on)
    if isinstance(error, NotAllowed):
        response.headers["allow"] = error.allowed
    return response


async def _form_again(
    visit: Visit, error: Error, way_back: tuple[str, str] | None
) -> Response | None:
    """Return the page with the form that was refused, as it was filled in; None if there is none."""
    if way_back is None or way_back == rendering.FIRST_PAGE:
        return None
    path = way_back[0].partition("?")[0]
    found = next((one for one in _there(path) if one[0].method == "GET"), None)
    again = found and forms_again.of(visit, error, way_back[0], (found[0], _segments(found[1])))
    if not found or not again:
        return None
    try:
        response = await _run(found[0].answer, again)  # type: ignore[arg-type]  # what is for everybody is none
    except Error:
        return None  # the page's own thing is gone
    return forms_again.answered(response, error, rendering.advice(error))


class NotAllowed(Error):
    """The error of a method that a page does not answer, with those that it does."""

    def __init__(self, allowed: Collection[str], message: str) -> None:
        super().__init__(Kind.METHOD_NOT_ALLOWED, message)
        self.allowed = ", ".join(sorted(allowed))


def _segments(found: re.Match[str]) -> dict[str, str]:
    return {name: _decoded(text) for name, text in found.groupdict().items()}


def _there(path: str) -> list[tuple[AnyPage, re.Match[str]]]:
    """Return the pages of a path, whatever their methods, each with its match."""
    tried = ((page, page.route.path_regex.fullmatch(path)) for page in PAGES)
    return [(page, found) for page, found in tried if found is not None]


def _without_page(visit: Visit) -> Response:
    """Lead from the address of a form, as of a key that was shown, to the page above it. Raises Error otherwise."""
    request = visit.asked.request
    way = _above(request.scope["path"])
    if way is None or request.method not in SAFE or not _there(request.scope["path"]):
        raise _no_such_page(request)
    return rendering.to(way)


def _no_such_page(request: Request) -> Error:
    """Return the error of a path that has no page, or none that answers this method."""
    methods = {page.method for page, _ in _there(request.scope["path"])}
    if not methods:
        return Error(Kind.NOT_FOUND, "There is no such page.")
    said = f"Not allowed to {head_requests.method(request.scope)} this page."
    return NotAllowed(methods | (SAFE if "GET" in methods else set()), said)


async def _run(answer: Callable[[T], Answer], given: T) -> Response:
    """Return a page's answer; a function's that is no coroutine from a thread."""
    if iscoroutinefunction(answer):
        response = await answer(given)
    else:
        response = await run_in_threadpool(answer, given)
    assert isinstance(response, Response), "what every page returns"
    return response


async def _with_form(asked: Asked) -> Asked:
    """Return a request with its form, once it is known that somebody may send it."""
    request = asked.request
    if request.method in SAFE:
        return asked
    return replace(asked, form=await read_form(request))


def _finished(response: Response) -> Response:
    """Return a response with what every page's has."""
    for name, value in rendering.HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _way_back(visit: Visit) -> tuple[str, str]:
    """Return the page with the form that was refused: the one that it names, or the nearest above where it went."""
    request = visit.asked.request
    path = rendering.ours(visit.asked.sent("then"), request.scope["path"])
    way = None if request.method in SAFE else _above(path)
    return rendering.FIRST_PAGE if way is None else (way, "Go back to the form")


def _above(path: str) -> str | None:
    """Return the address of the nearest page, at this one or above; None if only the first page is."""
    while path not in {"", "/console"}:
        here = path.partition("?")[0]
        if any(one.method == "GET" and one.route.path_regex.fullmatch(here) for one in PAGES):
            return path
        path = here.rpartition("/")[0]
    return None


def _to_sign_in(request: Request) -> Response:
    query = request.url.query
    wanted = request.scope["path"] + (f"?{query}" if query else "")
    after = "" if wanted == "/console" else f"?next={quote(wanted, safe='')}"
    return Response(status_code=303, headers={"location": SIGN_IN + after})


def _decoded(segment: str) -> str:
    try:
        return unquote(segment, errors="strict").replace("\0", "\N{REPLACEMENT CHARACTER}")
    except UnicodeDecodeError as error:
        raise Error(Kind.INVALID, "The path is not UTF-8.") from error
