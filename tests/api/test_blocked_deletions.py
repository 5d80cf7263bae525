"""What blocks a deletion, its plan and fingerprint, as the stock SDK sees them: holds, protection, jobs, force."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.support.servers import (
    LOCAL_BASE,
    Server,
    WithoutTorch,
    run_cli,
    serving,
    wait_until,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("blocked") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=2) as running:
        body = {"model": LOCAL_BASE, "messages": [{"role": "user", "content": "hello"}]}
        wait_until(lambda: running.post("/v1/chat/completions", body).status == 200, "the engine")
        yield running


def place(server: Server, model: str, reason: str = "case 17") -> str:
    placed = server.post("/v1/holds", {"model": model, "reason": reason})
    assert placed.status == 200, placed.body
    return str(placed.json["id"])


def plan(server: Server, model: str) -> dict[str, Any]:
    return server.get(f"/v1/models/{model}/deletion_plan", key=server.owner_key).json


def refused(server: Server, model: str, **query: object) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        server.client(max_retries=0).models.delete(model, extra_query=query)
    return caught.value


def test_nothing_deletes_past_a_hold_and_lifting_it_lets_go(server: Server) -> None:
    model = server.make_model().id
    hold = place(server, model)
    other = place(server, model, "another matter")
    for query in ({}, {"force": True}):
        error = refused(server, model, **query)
        assert error.status_code == 409
        assert error.code == "on_hold"
        assert hold in error.message
        assert error.response.headers["x-should-retry"] == "false"
    assert [one["type"] for one in plan(server, model)["blockers"]] == ["hold", "hold"]
    assert server.post(f"/v1/holds/{hold}/lift", {}).json["in_force"] is False
    assert refused(server, model, force=True).code == "on_hold"
    assert server.post(f"/v1/holds/{other}/lift", {}).status == 200
    assert server.client().models.delete(model).deleted
    listed = server.get(f"/v1/holds?artifact={model}", key=server.owner_key).json["data"]
    assert [(one["id"], one["reason"]) for one in listed] == [(other, None), (hold, None)]


def test_a_protected_model_is_deleted_by_force_or_when_it_is_not_protected_any_more(
    server: Server,
) -> None:
    one, two = server.make_model().id, server.make_model().id
    for model in (one, two):
        shown = server.post(f"/v1/models/{model}", {"protected": True}).json
        assert shown["protected"] is True
        assert refused(server, model).code == "protected"
    assert server.client().models.delete(one, extra_query={"force": True}).deleted
    assert server.post(f"/v1/models/{two}", {"protected": False}).json["protected"] is False
    assert server.client().models.delete(two).deleted


def test_a_dry_run_says_what_would_go_and_deletes_nothing(server: Server) -> None:
    model = server.make_model().id
    place(server, model)
    said = server.client().models.delete(model, extra_query={"dry_run": True})
    assert (said.id, said.object, said.deleted) == (model, "model", False)
    assert said.model_extra is not None
    assert said.model_extra["plan"] == plan(server, model)
    assert server.client().models.retrieve(model).id == model
    reader = server.make_key("reader")
    with pytest.raises(openai.PermissionDeniedError):
        server.client(reader).models.delete(model, extra_query={"dry_run": True})


def test_if_match_deletes_what_was_seen_and_nothing_else(server: Server) -> None:
    model = server.make_model().id
    seen = plan(server, model)["fingerprint"]
    assert plan(server, model)["fingerprint"] == seen
    server.post(f"/v1/models/{model}", {"protected": True})
    for tag in (seen, f'"{seen}"', '"nothing"'):
        for query in ({"force": True}, {"dry_run": True}):
            with pytest.raises(openai.APIStatusError) as caught:
                server.client().models.delete(
                    model, extra_headers={"If-Match": tag}, extra_query=query
                )
            assert (caught.value.status_code, caught.value.code) == (412, "plan_changed")
    now = plan(server, model)["fingerprint"]
    still = server.client().models.delete(
        model, extra_headers={"If-Match": f'"{now}"'}, extra_query={"dry_run": True}
    )
    assert not still.deleted
    deleted = server.client().models.delete(
        model, extra_headers={"If-Match": f'"{now}"'}, extra_query={"force": True}
    )
    assert deleted.deleted


def test_a_dry_run_of_a_file_says_too_that_its_plan_changed(server: Server) -> None:
    client = server.client()
    file = client.files.create(file=("a.txt", b"x"), purpose="user_data").id
    query = {"dry_run": True}
    seen = server.get(f"/v1/files/{file}/deletion_plan", key=server.owner_key).json["fingerprint"]
    asked = client.files.delete(file, extra_headers={"If-Match": seen}, extra_query=query)
    assert not asked.deleted
    assert server.post("/v1/holds", {"file": file, "reason": "case 17"}).status == 200
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.delete(file, extra_headers={"If-Match": seen}, extra_query=query)
    assert (caught.value.status_code, caught.value.code) == (412, "plan_changed")


def test_an_archived_model_is_listed_and_not_served_until_it_is_active_again(
    server: Server,
) -> None:
    model = server.make_model().id
    client = server.client(max_retries=0)

    def chat() -> int:
        said: list[Any] = [{"role": "user", "content": "hello"}]
        try:
            client.chat.completions.create(model=model, messages=said, max_tokens=1)
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    active = chat()
    assert active != 404
    assert server.post(f"/v1/models/{model}", {"archived": True}).json["archived"] is True
    assert {chat() for _ in range(20)} == {404}
    assert model in {one.id for one in client.models.list()}
    assert server.post(f"/v1/models/{model}", {"archived": False}).json["archived"] is False
    assert {chat() for _ in range(4)} == {active}
    server.post(f"/v1/models/{model}", {"archived": True})
    assert client.models.delete(model).deleted


def test_metadata_is_kept_sealed_and_goes_with_its_model(server: Server) -> None:
    model = server.make_model().id
    words = "canary-of-the-metadata"
    shown = server.post(f"/v1/models/{model}", {"metadata": {"team": words}}).json
    assert shown["metadata"] == {"team": words}
    assert server.get(f"/v1/models/{model}", key=server.owner_key).json["metadata"] == {
        "team": words
    }
    place(server, server.make_model().id, f"hold {words}")
    stored = b"".join(one.read_bytes() for one in server.data.glob("tunewarden.sqlite*"))
    assert model.encode() in stored  # the control: what is not sealed is found
    assert words.encode() not in stored
    assert server.post(f"/v1/models/{model}", {"metadata": {}}).json["metadata"] == {}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("models", {"archived": "yes"}, "archived"),
        ("models", {"metadata": {"a": 1}}, "metadata"),
        ("models", {"unknown": True}, None),
        ("holds", {"reason": "why"}, "model"),
        ("holds", {"model": "ft:x", "file": "file-x", "reason": "why"}, "model"),
        ("holds", {"model": "ft:x", "reason": "  "}, "reason"),
        ("holds", {"model": "ft:x", "reason": "x" * 1001}, "reason"),
    ],
)
def test_bad_input_is_refused(server: Server, path: str, fields: object, param: str | None) -> None:
    where = f"/v1/models/{server.make_model().id}" if path == "models" else "/v1/holds"
    answer = server.post(where, fields)
    assert answer.status == 400
    if param is not None:
        assert str(answer.json["error"]["param"]).startswith(param)


def test_only_an_owner_holds_protects_and_archives(server: Server) -> None:
    model = server.make_model().id
    hold = place(server, model)
    reader = server.make_key("reader")
    for path, fields in (
        ("/v1/holds", {"model": model, "reason": "x"}),
        (f"/v1/holds/{hold}/lift", {}),
        (f"/v1/models/{model}", {"protected": True}),
        (f"/v1/models/{model}", {"archived": True}),
    ):
        assert server.post(path, fields, key=reader).status == 403
    foreign = server.make_key("owner", organization="elsewhere")
    unknown = server.post("/v1/holds/hold_nobody/lift", {}, key=foreign)
    answer = server.post(f"/v1/holds/{hold}/lift", {}, key=foreign)
    assert answer.status == unknown.status == 404
    assert server.get("/v1/holds", key=foreign).json["data"] == []
    assert server.get(f"/v1/holds/{hold}", key=reader).json["in_force"] is True


def test_commands_place_lift_protect_and_force(server: Server) -> None:
    model = server.make_model().id
    settings = {
        "TUNEWARDEN_URL": server.url.removesuffix("/v1"),
        "TUNEWARDEN_API_KEY": server.owner_key,
    }

    def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        ended = run_cli(*arguments, settings=settings, stdin=stdin)
        return ended.returncode, ended.stdout.strip(), ended.stderr

    code, hold, _ = run("holds", "place", model, "--reason", "case 17")
    assert code == 0
    code, listed, _ = run("holds", "list", "--artifact", model)
    assert hold in listed
    assert "case 17" in listed
    assert run("models", "delete", model, "--yes", "--force")[0] == 5
    code, _, said = run("models", "delete", model, stdin=f"{model}\n")
    assert code == 5
    assert "Lift holds first" in said
    assert run("holds", "lift", hold)[0] == 0
    assert run("models", "protect", model)[:2] == (0, model)
    code, _, said = run("models", "delete", model, stdin=f"{model}\n")
    assert code == 5
    assert "--force overrides" in said
    assert run("models", "delete", model, "--force", stdin=f"{model}\n")[0] == 0
    assert run("models", "show", model)[0] == 3
