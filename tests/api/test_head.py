"""HEAD on every route with GET: the same head, without the body. Monitors, proxies and browsers ask so."""

import socket

import pytest
from starlette.routing import Route
from tests.api.test_authorization import FILE
from tests.support import administration, fine_tuning_rows, uploading, webhook_rows
from tests.support.acts import RULE
from tests.support.servers import Server, wait_until

from tunewarden.api.administration import routers, usage_described
from tunewarden.api.routes import ROUTERS
from tunewarden.finetuning.states import State
from tunewarden.gateway.inference import ROUTES

# What differs between two responses to the same request. A body whose length is not known before is sent in chunks,
# which a head without a body does not say (RFC 9110, section 9.3.2).
OWN = {"x-request-id", "openai-processing-ms", "date", "connection", "transfer-encoding"}
PATHS = sorted(
    route.path
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, Route) and "GET" in (route.methods or ())
)


@pytest.fixture(scope="module")
def server_admin(server: Server) -> str:
    return administration.make_admin_key(server.app)


@pytest.fixture(scope="module")
def ids(server: Server, server_admin: str) -> dict[str, str]:
    """Something real for every name in a path."""
    model, gone = server.make_model().id, server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{gone}", key=server.owner_key)
    case = uploading.erase(server, server.owner_key)
    deletion = f"/v1/deletions/{deleted.header('tunewarden-deletion')}"
    invited = {"email": "headed@example.com", "role": "reader"}
    invite = administration.ask(server, "POST", "/invites", server_admin, invited)
    # Only then does a deletion no longer change.
    wait_until(lambda: server.get(deletion, key=server.owner_key).json["blobs_erased_at"], "D9")
    member = server.get(f"/v1/deletion_cases/{case}", key=server.owner_key).json["data"][0]
    other = f"/v1/deletions/{member['deletion']}"
    wait_until(lambda: server.get(other, key=server.owner_key).json["blobs_erased_at"], "D9")
    return {
        "model_id": model,
        "file_id": str(uploading.post(server, "/v1/files", *FILE).json["id"]),
        "job_id": fine_tuning_rows.make_job(server.app, server.owner_key, state=State.SUCCEEDED),
        "deletion_id": str(deleted.header("tunewarden-deletion")),
        "case_id": case,
        "name": str(server.post("/v1/aliases", {"name": "headed", "model": model}).json["name"]),
        "hold_id": str(server.post("/v1/holds", {"model": model, "reason": "x"}).json["id"]),
        "rule_id": str(server.post("/v1/retention/rules", RULE).json["id"]),
        "response_id": "resp_1",
        "webhook_endpoint_id": webhook_rows.make_endpoint(server.app, server.owner_key),
        **administration.names(server, server_admin),
        "token": invite.json["link"].rpartition("/")[2],
        "path:path": "0/999",
    }


def _named(path: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path
    return f"{path}?start_time=0" if path.startswith(usage_described.USAGE) else path


def _asked(
    connection: socket.socket, method: str, path: str, key: str
) -> tuple[str, dict[str, str]]:
    """The status and the headers of a response; its body, if it has one, is left in the socket."""
    said = f"{method} {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\r\n"
    connection.sendall(said.encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        assert piece, "the connection was closed"
        head += piece
    status, *lines = head.decode().rstrip().split("\r\n")
    return status.split()[1], dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("path", PATHS)
def test_head_answers_as_get_does_without_the_body(
    server: Server, ids: dict[str, str], server_admin: str, path: str
) -> None:
    path = _named(path, ids)
    key = server_admin if path.startswith(routers.PREFIXES) else server.owner_key
    got = server.get(path, key=key)
    is_missing = "/responses/" in path or "tile" in path
    assert got.status == (404 if is_missing else 200)
    with server.connect() as connection:
        # The second request shows that nothing follows the first response's head.
        for method in ("HEAD", "GET"):
            status, headers = _asked(connection, method, path, key)
            assert status == str(got.status)
            expected = {name.lower(): value for name, value in got.headers}
            assert headers.keys() - OWN == expected.keys() - OWN
            for name in headers.keys() - OWN:
                assert headers[name] == expected[name], name
        if "transfer-encoding" not in expected:
            assert len(got.body) == int(expected["content-length"])


@pytest.mark.parametrize("path", PATHS)
def test_head_is_for_those_who_may_get(server: Server, ids: dict[str, str], path: str) -> None:
    path = _named(path, ids)
    foreign = server.make_key("owner", organization="others")
    for key in (None, server.make_key("reader"), foreign):
        got, head = (server.request(method, path, key=key) for method in ("GET", "HEAD"))
        assert (head.status, head.body) == (got.status, b"")


def test_head_of_a_files_content_lets_the_file_be_deleted(server: Server) -> None:
    file_id = uploading.post(server, "/v1/files", *FILE).json["id"]
    with server.connect() as connection:
        path = f"/v1/files/{file_id}/content"
        _, headers = _asked(connection, "HEAD", path, server.owner_key)
        assert headers["content-length"] == str(len(FILE[1].content))
        path = f"/v1/files/{file_id}"
        assert server.request("DELETE", path, key=server.owner_key).status == 200
        assert _asked(connection, "HEAD", path, server.owner_key)[0] == "404"


def test_head_with_http_1_0_ends_with_the_connection(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.0\r\n\r\n")
        received = b""
        while piece := connection.recv(4096):
            received += piece
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", [*ROUTES, "/v1/uploads"])
def test_head_is_not_allowed_where_there_is_no_get(server: Server, path: str) -> None:
    assert server.request("HEAD", path).status == 401
    reply = server.request("HEAD", path, key=server.owner_key)
    assert (reply.status, reply.header("allow")) == (405, "POST")
