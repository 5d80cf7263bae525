"""Every operation that the stock SDK has under `client.admin.organization`: it is offered, or says that it is not."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from starlette.routing import Route
from tests.support import administration
from tests.support.servers import Server

from tunewarden.api.administration import not_offered
from tunewarden.api.administration.routers import ROUTERS

# Of the SDK that is locked; a newer one may have more, which then must be offered or be in the table.
OPERATIONS_MIN = 143
SERVED = [route.path_regex for room in ROUTERS for route in room.routes if isinstance(route, Route)]
# What arguments are, where a text is not enough for the SDK to send anything.
ARGUMENTS: dict[str, Any] = {
    "projects": [],
    "emails": ["a@example.com"],
    "scopes": [],
    "permissions": ["x"],
    "certificate_ids": ["x"],
    "start_time": 0,
    "provider": {},
    "attribute_matchers": [],
    "notification_channel": {"recipients": ["a@example.com"], "type": "email"},
    "threshold_amount": 1,
}

# What overloads ask for, and signatures do not say.
OVERLOADED = {
    "organization.external_keys.create": dict.fromkeys(
        ("external_id", "kms_arn", "name", "role_arn", "type"), "x"
    ),
}

Answers = dict[str, tuple[str, openai.APIStatusError | None]]


def _is_served(path: str) -> bool:
    return any(pattern.fullmatch(path) for pattern in SERVED)


def _operations(
    resource: Any, name: str = "organization"
) -> Iterator[tuple[str, Callable[..., Any]]]:
    for attribute in dir(type(resource)):
        if attribute.startswith(("_", "with_")):
            continue
        value = getattr(resource, attribute)
        if inspect.ismethod(value):
            yield f"{name}.{attribute}", value
        elif type(value).__module__.startswith("openai.resources"):
            yield from _operations(value, f"{name}.{attribute}")


def _arguments(operation: Callable[..., Any]) -> dict[str, Any]:
    """Arguments for all parameters that must be given."""
    return {
        name: ARGUMENTS.get(name, "x")
        for name, one in inspect.signature(operation).parameters.items()
        if one.default is inspect.Parameter.empty
    }


@pytest.fixture(scope="module")
def answers(server: Server) -> Answers:
    """By operation: the path it asked, and the error it got."""
    paths: list[str] = []
    http = openai.DefaultHttpxClient(
        event_hooks={"request": [lambda request: paths.append(request.url.raw_path.decode())]}
    )
    key = administration.make_admin_key(server.app, "whole-surface")
    client = OpenAI(
        base_url=server.url, api_key="unused", admin_api_key=key, max_retries=0, http_client=http
    )
    found: Answers = {}
    with client:
        for name, operation in _operations(client.admin.organization):
            error = None
            before = len(paths)
            try:
                operation(**(OVERLOADED.get(name) or _arguments(operation)))
            except openai.APIStatusError as refused:
                error = refused
            assert len(paths) == before + 1, f"{name} sent nothing"
            found[name] = paths[-1].partition("?")[0], error
    return found


def test_every_operation_is_offered_or_says_that_it_is_not(
    answers: Answers,
) -> None:
    assert len(answers) >= OPERATIONS_MIN
    offered = 0
    for name, (path, error) in answers.items():
        if _is_served(path):
            offered += 1
            assert error is None or error.code != "not_offered", name
            assert error is None or error.status_code in {400, 404, 409}, (name, error)
            continue
        assert isinstance(error, openai.NotFoundError), (name, path, error)
        assert error.code == "not_offered", (name, path, error)
        assert error.type == "invalid_request_error"
        assert "not offered by this server" in error.message
    print(
        f"{len(answers)} operations: {offered} offered, {len(answers) - offered} say they are not"
    )


def test_every_row_of_the_table_is_needed_and_hides_no_route(
    answers: Answers,
) -> None:
    asked = {path for path, _ in answers.values()}
    for row in not_offered.TABLE:
        covered = {path for path in asked if row.paths.fullmatch(path)}
        assert covered, f"nothing of the SDK is {row.what}"
        assert not [path for path in covered if _is_served(path)], row.what
        assert row.what
        assert row.instead.endswith(".")


def test_control_what_openai_does_not_have_either_is_only_unknown(server: Server) -> None:
    key = administration.make_admin_key(server.app, "whole-surface")
    reply = administration.ask(server, "GET", "/nothing", key)
    assert (reply.status, reply.error["code"]) == (404, None)
    assert str(reply.error["message"]).startswith("Invalid URL")
