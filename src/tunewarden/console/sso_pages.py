"""Signing in at the identity provider, and proving there again who one is."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import anyio
from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api import expired_keys, refused_requests
from tunewarden.clock import Clock
from tunewarden.config import Config
from tunewarden.console import rendering
from tunewarden.console.oidc import setup
from tunewarden.console.oidc.attempt import Attempt, Purpose
from tunewarden.console.paths import OpenPage, Page
from tunewarden.console.requests import Asked, Visit
from tunewarden.errors import Error, Kind
from tunewarden.identity import sessions, sso
from tunewarden.identity.sso import Vouched

if TYPE_CHECKING:
    from tunewarden.console.oidc.provider import Provider

HOME = "/console"
BEGIN = "/console/sso"
BACK = "/console/sso/callback"
PROVE = "/console/sso/proof"
# For all steps of one sign-in. Threads that wait for a provider are few, so that one that hangs holds up nothing else.
SECONDS = 20.0
AT_ONCE_MAX = 4
CODE = re.compile(r"[\x21-\x7e]{1,4096}")
# Of errors, OpenID's own names are shown, nothing else that the address says.
KNOWN_ERRORS = frozenset(
    {"access_denied", "login_required", "server_error", "temporarily_unavailable"}
)
T = TypeVar("T")


async def begin(asked: Asked) -> Response:
    """Lead to the identity provider, to sign in."""
    return await _lead(asked, Purpose.SIGN_IN)


async def prove(visit: Visit) -> Response:
    """Lead to the identity provider, to prove again who one is."""
    return await _lead(visit.asked, Purpose.PROOF)


async def come_back(asked: Asked) -> Response:
    """Begin the session, or note the proof of identity, of a person whom the identity provider sends back."""
    _check_is_wanted(asked)
    try:
        return await _finish(asked)
    except Error as refused:
        if refused.kind in {Kind.UNAUTHENTICATED, Kind.FORBIDDEN}:
            asked.services.links.take(asked.operations.clock)
        if refused.kind is Kind.FORBIDDEN:
            await _record(asked, refused)
        await expired_keys.note(asked.operations.database, refused)
        return await run_in_threadpool(rendering.refusal, refused, None, _way_on(asked))


def _way_on(asked: Asked) -> tuple[str, str] | None:
    """Return where to try it once more, for who began here and was refused there."""
    attempt = Attempt.of_cookie(asked.request.cookies.get(asked.way.attempt_cookie, ""))
    if attempt is None:
        return rendering.SIGN_IN
    address, said = rendering.SIGN_IN
    if attempt.purpose is Purpose.PROOF:
        address, said = PROVE, "Prove once more who you are"
    after = rendering.ours(attempt.after, "")
    return address + (f"?next={quote(after, safe='')}" if after else ""), said


async def _lead(asked: Asked, purpose: Purpose) -> Response:
    attempt = Attempt.new(purpose, rendering.ours(asked.asked_for("next"), ""))
    address = await _ask(asked, lambda provider: provider.address(attempt, _redirect(asked)))
    response = rendering.to(address)
    response.headers["set-cookie"] = attempt.set_cookie(asked.way)
    return response


async def _finish(asked: Asked) -> Response:
    attempt = Attempt.of_cookie(asked.request.cookies.get(asked.way.attempt_cookie, ""))
    if attempt is None or not attempt.is_of(asked.asked_for("state")):
        said = (
            "This sign-in did not begin in this browser, or more than ten minutes ago, or you began another since. Begin"
            " anew."
        )
        raise Error(Kind.UNAUTHENTICATED, said, code="sso_unknown_attempt")
    code = asked.asked_for("code")
    if asked.asked_for("error") or not CODE.fullmatch(code):
        raise _not_signed_in(asked.asked_for("error"))
    vouched = await _ask(asked, lambda provider: _vouched(provider, asked, attempt, code))
    finish = _proved if attempt.purpose is Purpose.PROOF else _signed_in
    response = await run_in_threadpool(finish, asked, attempt, vouched)
    response.headers.append("set-cookie", asked.way.set_attempt("", seconds=0))
    return response


def _vouched(provider: "Provider", asked: Asked, attempt: Attempt, code: str) -> Vouched:
    from tunewarden.console.oidc.provider import CameBack  # noqa: PLC0415  as `_provider`

    came = CameBack(code, asked.request.query_params.get("iss"))
    return provider.vouched(attempt, came, _redirect(asked))


def _signed_in(asked: Asked, attempt: Attempt, vouched: Vouched) -> Response:
    of = asked.operations
    began = sso.sign_in(of.database, of.config.sso_organization, vouched, asked.request_id)
    response = rendering.to(rendering.ours(attempt.after, HOME))
    response.headers["set-cookie"] = asked.way.set_cookie(began.secret)
    return response


def _proved(asked: Asked, attempt: Attempt, vouched: Vouched) -> Response:
    of = asked.operations
    secret = asked.request.cookies.get(asked.way.cookie, "")
    session = sessions.current(of.database, secret, asked.request_id)
    sso.prove(of.database, session, of.config.sso_organization, vouched)
    return rendering.to(rendering.ours(attempt.after, HOME))


async def _ask(asked: Asked, question: Callable[["Provider"], T]) -> T:
    """Ask the provider, on a thread. Raises what it raises, Error(NOT_FOUND) without one, Error(UNAVAILABLE) if it is slow."""
    of = asked.operations
    _check_is_wanted(asked)
    try:
        with anyio.fail_after(SECONDS):
            return await anyio.to_thread.run_sync(
                lambda: question(_provider(of.config, of.clock)),
                limiter=_limiter(),
                abandon_on_cancel=True,
            )
    except TimeoutError:
        said = "The identity provider did not answer in time. Try again."
        raise Error(Kind.UNAVAILABLE, said, code="sso_unavailable") from None


def _check_is_wanted(asked: Asked) -> None:
    if not setup.is_wanted(asked.operations.config):
        said = "This server has no identity provider. Sign in with an API key."
        raise Error(Kind.NOT_FOUND, said)


@lru_cache(maxsize=1)
def _limiter() -> CapacityLimiter:
    """Return the bound of this worker, made on its event loop."""
    return CapacityLimiter(AT_ONCE_MAX)


def _provider(config: Config, clock: Clock) -> "Provider":
    """Return the provider. Raises Error(MISCONFIGURED) if something is missing for it."""
    lacking = setup.missing(config)
    if lacking is not None:
        said = f"Single sign-on does not work yet: the operator must {lacking}. Until then sign in with an API key."
        raise Error(Kind.MISCONFIGURED, said, code="sso_misconfigured")
    from tunewarden.console.oidc.provider import Provider  # noqa: PLC0415  the extra's packages, where it is used

    return Provider(config, clock)


def _redirect(asked: Asked) -> str:
    """Return where the provider leads back: below a name that the guard has allowed."""
    return asked.way.origin + BACK


async def _record(asked: Asked, refused: Error) -> None:
    of = asked.operations
    name = of.config.sso_organization
    organization_id = await run_in_threadpool(sso.organization_id, of.database, name)
    if organization_id is not None:
        tried = refused_requests.Tried(None, asked.request_id, f"GET {BACK}")
        await refused_requests.record_stranger(of.database, refused, tried, organization_id)


def _not_signed_in(error: str) -> Error:
    why = f" ({error})" if error in KNOWN_ERRORS else ""
    said = (
        f"The identity provider did not sign you in{why}. Begin anew, or sign in with an API key."
    )
    return Error(Kind.UNAUTHENTICATED, said, code="sso_not_signed_in")


PAGES = (
    OpenPage("GET", BEGIN, begin),
    OpenPage("GET", BACK, come_back),
    Page("GET", PROVE, prove),
)
