"""What every page that destroys asks for: a recent proof of identity, and that the plan is what was shown."""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api.deletion_schemas import Blocker, DeletionPlan
from tunewarden.console import rendering
from tunewarden.console.requests import Visit
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, sessions

KEY = "key"
# A form is bounded (`requests.BODY_BYTES_MAX`), a plan is not: of a longer part the form has how many and a digest.
PART_MAX = 2 * 1024
SEEN_MAX = 64 * 1024
NAMED_MAX = 100
FINGERPRINT = re.compile("[0-9a-f]{64}")
# What a plan says that may change until it is confirmed, in a person's words.
PARTS = {
    "checkpoints": "Checkpoints",
    "blobs": "Sealed files",
    "bytes": "Bytes",
    "blockers": "Blockers",
    "aliases": "Aliases",
    "jobs": "Jobs",
    "derived_files": "Files made from it",
    "exports": "Exports",
    "learned": "What learned from it",
}


async def refusal(
    visit: Visit, sentence: str, again: Callable[[Visit, str, int], Response]
) -> Response | None:
    """Return the page again, by `again`, if what was typed is not the sentence, or no proof is fresh; None to go on."""
    unlike = mistyped(visit, sentence)
    if unlike:
        return await run_in_threadpool(again, visit, f"{unlike} Nothing was deleted.", 400)
    return await unproven(visit, again)


def mistyped(visit: Visit, sentence: str) -> str:
    """Return what is wrong with what was typed to confirm, and what to type; empty if it is the sentence."""
    typed = visit.asked.sent("confirmation").strip()
    if not sentence:
        return "Type or paste the sentence that stands at the field."
    if not typed:
        return f"Type or paste “{sentence}” to confirm."
    return "" if typed == sentence else f"What you typed is not “{sentence}”."


async def unproven(visit: Visit, again: Callable[[Visit, str, int], Response]) -> Response | None:
    """Return the page again, by `again`, unless there is a recent proof of identity; None to go on."""
    try:
        await run_in_threadpool(_prove, visit)
    except Error as refused:
        if refused.kind is not Kind.UNAUTHENTICATED:
            raise
        if visit.asked.sent(KEY):  # a guess: who was not asked yet has made none
            visit.asked.services.proofs.take(visit.operations.clock)
        return await run_in_threadpool(again, visit, refused.message, 403)
    return None


async def asked_again(visit: Visit, what: str) -> Response | None:
    """Return a page that asks for the key and sends the same form there again, if no proof is fresh; None to go on.

    `what` needs the proof, as a title.
    """
    return await unproven(visit, partial(_key_page, what=what))


def proved(
    what: str | Mapping[str, str],
) -> Callable[[Callable[[Visit], Response]], Callable[[Visit], Awaitable[Response]]]:
    """Return a page that first asks for the key again, if no proof is fresh: as `asked_again`.

    For what destroys, makes way for a deletion, hides one, or decides who may do what. `what` it is: as a title, or
    one for each `act` of the form that needs the proof.
    """

    def with_proof(
        answer: Callable[[Visit], Response],
    ) -> Callable[[Visit], Awaitable[Response]]:
        @wraps(answer)
        async def guarded(visit: Visit) -> Response:
            title = what if isinstance(what, str) else what.get(visit.asked.sent("act"))
            refused = None if title is None else await asked_again(visit, title)
            if refused is not None:
                return refused
            return await run_in_threadpool(answer, visit)

        return guarded

    return with_proof


def _key_page(visit: Visit, message: str, status: int, *, what: str) -> Response:
    values = {
        "what": what,
        "fields": [
            (name, one) for name, sent in visit.asked.form.items() if name != KEY for one in sent
        ],
        "message": message if visit.asked.sent(KEY) else "",
    }
    return rendering.page(visit, "key_again.html", values, status=status)


def form(visit: Visit) -> dict[str, Any]:
    """Return what the form needs beside its plan."""
    return {
        "needs_proof": not visit.session.has_fresh_proof,
        "is_forced": is_forced(visit),
        "typed": visit.asked.sent("confirmation"),
    }


def is_forced(visit: Visit) -> bool:
    """Return whether blockers are to be overridden, as the address or the form says."""
    return "yes" in {visit.asked.sent("force"), visit.asked.asked_for("force")}


def parted(visit: Visit, blockers: list[Blocker]) -> dict[str, Any]:
    """Return which blockers are in the way, which are overridden, and whether all could be."""
    force = is_forced(visit)
    left = [one for one in blockers if not (force and one.forcible)]
    return {
        "blockers": left,
        "overridden": [one for one in blockers if force and one.forcible],
        "can_force": bool(left) and all(one.forcible for one in left),
    }


def fingerprint(visit: Visit) -> str:
    """Return the fingerprint of the plan that was shown. Raises Error(PRECONDITION_FAILED) if the form has none."""
    sent = visit.asked.sent("fingerprint")
    if not FINGERPRINT.fullmatch(sent):  # as `*`, which would match any
        said = "The form does not say which plan you saw. Open the page again."
        raise Error(Kind.PRECONDITION_FAILED, said)
    return sent


def seen(plan: DeletionPlan) -> str:
    """Return of a plan what its fingerprint covers, as the form takes it along."""
    return json.dumps({part: _carried(value) for part, value in _covered(plan).items()})


def changed(before: str, plan: DeletionPlan) -> list[tuple[str, str, str]]:
    """Return what has changed since a plan was `seen`: its name, what it was, what it is; nothing if it cannot be read."""
    try:
        then = json.loads(before) if len(before) <= SEEN_MAX else None
        if not isinstance(then, dict):
            return []
        return [
            (PARTS[part], _said(then[part]), _said(now))
            for part, now in _covered(plan).items()
            if part in then and then[part] != _carried(now)
        ]
    except (ValueError, RecursionError):
        return []


def _prove(visit: Visit) -> None:
    if visit.session.has_fresh_proof:
        return
    if visit.session.row.by_sso:
        said = "First prove at your identity provider who you are, then confirm here. Nothing was deleted."
        raise Error(Kind.UNAUTHENTICATED, said, code="sso_old_proof")
    typed = visit.asked.sent(KEY).strip()
    if not typed:
        said = (
            "You signed in more than five minutes ago: type your API key again. Nothing was done."
        )
        raise Error(Kind.UNAUTHENTICATED, said)
    presented = key_format.present(typed)
    if presented.is_admin:
        said = "This is an admin key. Type the API key that you signed in with. Nothing was done."
        raise Error(Kind.UNAUTHENTICATED, said)
    sessions.prove(visit.operations.database, visit.session, presented)


def _covered(plan: DeletionPlan) -> dict[str, Any]:
    whole: Mapping[str, Any] = msgspec.to_builtins(plan)
    found = {part: whole[part] for part in PARTS if part in whole}
    learned = found.get("learned")
    if learned is not None:
        found["learned"] = [
            *learned["models"],
            *learned["checkpoints"],
            *learned["files"],
            *learned["jobs"],
            *learned["blockers"],
        ]
    return found


def _carried(value: object) -> object:
    """Return a part of a plan as a form carries it."""
    text = json.dumps(value)
    if not isinstance(value, list) or len(text) <= PART_MAX:
        return value
    return {"count": len(value), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _said(value: object) -> str:
    if isinstance(value, dict):
        return f"{value.get('count')} in all, too many to keep"
    if not isinstance(value, list):
        return str(value)
    if len(value) > NAMED_MAX:
        first = ", ".join(_named(one) for one in value[:NAMED_MAX])
        return f"{len(value)} in all: {first} and others"
    return ", ".join(_named(one) for one in value) or "none"


def _named(one: object) -> str:
    if not isinstance(one, dict):
        return str(one)
    return " ".join(str(one[part]) for part in ("type", "id") if part in one)
