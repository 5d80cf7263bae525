"""Some of the routes for the golden table of tests/api/test_authorization.py."""

import json
from collections.abc import Callable, Iterator
from functools import partial

from tests.support import webhook_rows
from tests.support.servers import Server

from tunewarden.api import webhook_schemas

Ask = Callable[[str | None], int]
Row = tuple[str, str, Ask]


def of_webhooks(server: Server, other: str, ask: Callable[[str, str], Ask]) -> Iterator[Row]:
    """Yield each route on each kind of target; what is foreign is made with the key `other`."""
    path, route = webhook_schemas.PATH, webhook_schemas.ENDPOINT
    app, own = server.app, server.owner_key
    made = {"own": own, "foreign": other}
    targets = {one: webhook_rows.make_endpoint(app, key) for one, key in made.items()}
    deliveries = {
        one: webhook_rows.make_delivery(app, key, targets[one]) for one, key in made.items()
    }
    yield "GET /v1/webhook_event_types", "-", ask("GET", "/v1/webhook_event_types")
    yield f"GET {path}", "-", ask("GET", path)
    # Who may create one is told that this URL is none (400): an organization may have few.
    new = {"name": "x", "url": "none", "event_types": ["model.created"]}
    yield f"POST {path}", "-", partial(_post, server, path, new)
    for target, endpoint in {**targets, "unknown": "whe_nobody"}.items():
        where = f"{path}/{endpoint}"
        yield f"GET {route}", target, ask("GET", where)
        yield f"POST {route}", target, partial(_post, server, where, {})
        rotate = f"{where}/rotate_secret"
        yield f"POST {route}/rotate_secret", target, partial(_post, server, rotate, {})
        no_test = {"event_type": "none"}  # 400 for who may send one
        yield f"POST {route}/test", target, partial(_post, server, f"{where}/test", no_test)
        yield f"GET {route}/deliveries", target, ask("GET", f"{where}/deliveries")
        again = f"/deliveries/{deliveries.get(target, 'whd_nobody')}/redeliver"
        yield (
            f"POST {route}/deliveries/{{delivery_id}}/redeliver",
            target,
            ask("POST", f"{where}{again}"),
        )
    yield f"DELETE {route}", "own", partial(_delete_a_fresh_endpoint, server)
    foreign = f"{path}/{targets['foreign']}"
    if server.get(foreign, key=own).status == 404:
        yield f"DELETE {route}", "foreign", ask("DELETE", foreign)
    yield f"DELETE {route}", "unknown", ask("DELETE", f"{path}/whe_nobody")


def of_responses(ask: Callable[[str, str], Ask]) -> Iterator[Row]:
    """Yield the routes of responses: they say that nothing is stored."""
    for method, suffix in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/input_items"),
    ):
        route = f"/v1/responses/{{response_id}}{suffix}"
        path = f"/v1/responses/resp_nobody{suffix}"
        yield f"{method} {route}", "unknown", ask(method, path)
    for what in ("compact", "input_tokens"):
        yield f"POST /v1/responses/{what}", "-", ask("POST", f"/v1/responses/{what}")


def _delete_a_fresh_endpoint(server: Server, key: str | None) -> int:
    path = f"{webhook_schemas.PATH}/{webhook_rows.make_endpoint(server.app, server.owner_key)}"
    status = server.request("DELETE", path, key=key).status
    left = server.request("DELETE", path, key=server.owner_key).status
    assert left == (404 if status == 200 else 200), "refused means that nothing changed"
    return status


def _post(server: Server, path: str, fields: object, key: str | None) -> int:
    headers = {"content-type": "application/json"}
    body = json.dumps(fields).encode()
    return server.request("POST", path, key=key, headers=headers, body=body).status
