"""Aliases, as the stock SDK and applications see them: use, switch, split, roll back, and what deleting does."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.cli import in_process
from tests.fakes.upstream import FakeUpstream
from tests.support.servers import (
    LOCAL_BASE,
    Reply,
    Server,
    WithoutTorch,
    run_cli,
    serving,
    wait_until,
)

from tunewarden.registry import models

SAID: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("aliases") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=2) as running:
        body = {"model": LOCAL_BASE, "messages": SAID, "max_tokens": 1}
        wait_until(lambda: running.post("/v1/chat/completions", body).status == 200, "the engine")
        yield running


def point(server: Server, name: str, *models: str, **fields: object) -> Reply:
    targets = [{"model": model} for model in models]
    return server.post("/v1/aliases", {"name": name, "targets": targets, **fields})


def served_by(server: Server, name: str, **options: Any) -> str:
    """The model that an answer names."""
    made = server.client(max_retries=0).chat.completions.create(
        model=name, messages=SAID, max_tokens=1, **options
    )
    return str(made.model)


def test_an_alias_is_used_switched_and_rolled_back(server: Server) -> None:
    one, two = server.make_model().id, server.make_model().id
    made = point(server, "support", one)
    assert made.status == 200, made.body
    assert served_by(server, "support") == one
    switched = server.post("/v1/aliases/support", {"model": two}).json
    assert (switched["version"], switched["targets"]) == (2, [{"model": two, "weight": 1}])
    assert {served_by(server, "support") for _ in range(8)} == {two}
    again = server.post("/v1/aliases/support", {"model": two}).json
    assert again["version"] == 2, "the same again is no new version"
    assert server.post("/v1/aliases/support", {"rollback": True}).json["version"] == 3
    assert {served_by(server, "support") for _ in range(8)} == {one}
    history = server.get("/v1/aliases/support", key=server.owner_key).json["history"]
    assert [[target["model"] for target in of["targets"]] for of in history] == [
        [one],
        [two],
        [one],
    ]
    shown = server.client().models.retrieve("support")
    assert shown.model_extra is not None
    assert shown.model_extra["alias_of"] == [one]
    assert server.request("DELETE", "/v1/aliases/support", key=server.owner_key).status == 200
    with pytest.raises(openai.NotFoundError):
        served_by(server, "support")


def test_a_split_is_by_weight_and_the_same_user_stays(server: Server) -> None:
    one, two = server.make_model().id, server.make_model().id
    targets = [{"model": one, "weight": 3}, {"model": two, "weight": 1}]
    assert server.post("/v1/aliases", {"name": "split", "targets": targets}).status == 200
    by_user = {user: served_by(server, "split", user=f"user-{user}") for user in range(120)}
    counts = Counter(by_user.values())
    assert 60 < counts[one] < 115, counts
    assert counts[two] == 120 - counts[one]
    for user in range(0, 120, 10):
        assert served_by(server, "split", user=f"user-{user}", seed=user) == by_user[user]
        keyed = {served_by(server, "split", prompt_cache_key=f"{user}", seed=n) for n in range(4)}
        assert len(keyed) == 1
        # A person's chats have keys of their own: the person stays all the same.
        chats = {
            served_by(server, "split", user=f"user-{user}", prompt_cache_key=f"chat-{n}")
            for n in range(6)
        }
        assert chats == {by_user[user]}
    assert len({served_by(server, "split", seed=7) for _ in range(6)}) == 1, "a retry agrees"
    assert len({served_by(server, "split", seed=n) for n in range(40)}) == 2


def test_deleting_never_follows_an_alias_and_a_target_needs_force(server: Server) -> None:
    one, two = server.make_model().id, server.make_model().id
    point(server, "production", one, two)
    client = server.client(max_retries=0)
    with pytest.raises(openai.ConflictError) as caught:
        client.models.delete("production")
    assert (caught.value.code, one in caught.value.message) == ("is_alias", True)
    with pytest.raises(openai.PermissionDeniedError):
        server.client(server.make_key("reader"), max_retries=0).models.delete("production")
    with pytest.raises(openai.ConflictError) as caught:
        client.models.delete(one)
    assert (caught.value.code, "production" in caught.value.message) == ("alias_target", True)
    assert client.models.delete(one, extra_query={"force": True}).deleted
    assert {served_by(server, "production", seed=n) for n in range(8)} == {two}
    assert client.models.delete(two, extra_query={"force": True}).deleted
    with pytest.raises(openai.NotFoundError):
        served_by(server, "production")
    assert server.get("/v1/aliases/production", key=server.owner_key).status == 404


def test_who_looks_before_deleting_is_told_of_an_alias_as_who_deletes(server: Server) -> None:
    model = server.make_model().id
    point(server, "looked-at", model)
    client = server.client(max_retries=0)
    reader = server.client(server.make_key("reader"), max_retries=0)
    with pytest.raises(openai.ConflictError) as deleted:
        client.models.delete("looked-at")
    with pytest.raises(openai.ConflictError) as dry:
        client.models.delete("looked-at", extra_query={"dry_run": True})
    with pytest.raises(openai.ConflictError) as planned:
        reader.get("/models/looked-at/deletion_plan", cast_to=object)
    assert model in deleted.value.message
    assert deleted.value.body == dry.value.body == planned.value.body
    with pytest.raises(openai.PermissionDeniedError):
        reader.models.delete("looked-at", extra_query={"dry_run": True})
    stranger = server.client(server.make_key("owner", organization="elsewhere"), max_retries=0)
    with pytest.raises(openai.NotFoundError):
        stranger.models.delete("looked-at", extra_query={"dry_run": True})
    settings = {
        "TUNEWARDEN_URL": server.url.removesuffix("/v1"),
        "TUNEWARDEN_API_KEY": server.owner_key,
    }
    for how in (["--dry-run"], [], ["--yes"]):
        ended = run_cli("models", "delete", "looked-at", *how, settings=settings, stdin="looked-at")
        assert (ended.returncode, model in ended.stderr) == (5, True), ended
    assert served_by(server, "looked-at") == model


def test_a_rollback_to_a_deleted_model_is_refused(server: Server) -> None:
    one, two = server.make_model().id, server.make_model().id
    point(server, "rolled", one)
    server.post("/v1/aliases/rolled", {"model": two})
    assert server.client().models.delete(one).deleted, "no alias points to it any more"
    answer = server.post("/v1/aliases/rolled", {"rollback": True})
    assert (answer.status, answer.json["error"]["code"]) == (409, "alias_target_gone")
    assert served_by(server, "rolled") == two


def test_the_pages_loop_over_old_models_meets_no_alias_and_spares_what_one_means(
    server: Server,
) -> None:
    """An old id of OpenAI's is an alias of a young model: the loop of the page runs, and deletes the old ones only."""
    young, old = server.make_model().id, server.make_model().id
    name = "ft:gpt-3.5-turbo:my-org:custom-model:id"
    assert point(server, name, young).status == 200
    with server.app.database.write() as tx:
        day = 24 * 60 * 60 * 1_000_000
        tx.run(
            "UPDATE artifacts SET created_at = created_at - :age WHERE id = :id",
            age=91 * day,
            id=old,
        )
        tx.run("UPDATE aliases SET created_at = created_at - :age", age=200 * day)
    client = server.client()
    threshold = server.app.clock.now().timestamp() - (90 * 24 * 60 * 60)
    deleted = [
        client.models.delete(model.id).id
        for model in client.models.list()
        if model.id.startswith("ft:") and model.created < threshold
    ]
    assert deleted == [old]
    assert served_by(server, name) == young
    listed = server.get("/v1/models?aliases=true", key=server.owner_key).json["data"]
    assert name in {one["id"] for one in listed}


def test_a_switch_is_atomic_on_every_worker(server: Server) -> None:
    """After a switch was answered, no request is served by the model before; none fails."""
    models = [server.make_model().id for _ in range(2)]
    point(server, "atomic", models[0])
    versions, wrong, done = [0], [], threading.Event()
    served: Counter[str] = Counter()

    def ask() -> None:
        while not done.is_set():
            before = versions[0]
            model = served_by(server, "atomic")
            served[model] += 1
            # Nothing was switched meanwhile: only then is it known which model must have answered.
            if versions[0] == before and before % 2 == 0 and model != models[before // 2 % 2]:
                wrong.append(before)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for one in askers:
        one.start()
    for turn in range(1, 21):
        versions[0] += 1  # odd: a switch is under way
        assert server.post("/v1/aliases/atomic", {"model": models[turn % 2]}).status == 200
        versions[0] += 1
        served_by(server, "atomic")
    done.set()
    for one in askers:
        one.join()
    print(f"switches 20, answers {dict(served)}, wrong {len(wrong)}")
    assert wrong == []
    assert min(served[model] for model in models) > 10, "the control: both served"


@pytest.mark.parametrize(
    ("name", "status"),
    [("", 400), ("a b", 400), ("-a", 400), ("a/b", 400), ("x" * 129, 400), (LOCAL_BASE, 409)],
)
def test_a_name_that_cannot_be_an_alias_is_refused(server: Server, name: str, status: int) -> None:
    answer = point(server, name, server.make_model().id)
    assert (answer.status, answer.json["error"]["param"]) == (status, "name")


def test_a_base_takes_no_aliass_name(server: Server) -> None:
    """Else what asks for the alias would be answered by the raw base, without a word."""
    other = server.make_key("owner", organization="alias-holders")
    model = server.make_model(key=other).id
    alias = {"name": "taken", "model": model}
    assert server.post("/v1/aliases", alias, key=other).status == 200
    with FakeUpstream(models=("taken", "free")) as upstream:
        address = ("--engine-url", upstream.url)
        for words in (
            ("bases", "add", "taken", *address),
            ("bases", "add", "free", *address, "--also-named", "taken"),
            ("bases", "name", LOCAL_BASE, "--also-named", "taken"),
        ):
            refused = in_process.on(server, *words)
            assert refused.returncode == 5, refused
            assert "'taken' is an alias of the organization alias-holders" in refused.stderr
        assert "free" not in in_process.on(server, "bases", "list").stdout, "nothing was registered"
        asked = server.client(other, max_retries=0).chat.completions.create(
            model="taken", messages=SAID, max_tokens=1
        )
        assert asked.model == model
        assert server.request("DELETE", "/v1/aliases/taken", key=other).status == 200
        added = in_process.on(server, "bases", "add", "taken", *address)
        assert added.returncode == 0, added.stderr


def test_a_new_model_takes_no_id_that_is_an_alias(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alias may have the form of a model's id. A new model then gets another id."""
    model = server.make_model().id
    taken = f"{model.rpartition(':')[0]}:AAAAAAAA"
    assert point(server, taken, model).status == 200
    drawn = iter(["AAAAAAAA", "BBBBBBBB"])
    monkeypatch.setattr(models, "token", lambda _: next(drawn))
    assert server.make_model().id == taken.replace("AAAAAAAA", "BBBBBBBB")
    assert served_by(server, taken) == model


def test_an_alias_takes_no_id_that_a_model_of_its_organization_ever_had(server: Server) -> None:
    gone, model = server.make_model().id, server.make_model().id
    server.client().models.delete(gone)
    for name in (gone, model):
        assert point(server, name, model).json["error"]["code"] == "name_taken"
    other = server.make_key("owner", organization="elsewhere")
    theirs = server.make_model(key=other).id
    mine = server.make_model().id
    assert point(server, theirs, mine).status == 200, "another's id tells nothing (I9)"
    assert served_by(server, theirs) == mine
    answer = server.client(other, max_retries=0).chat.completions.create(
        model=theirs, messages=SAID, max_tokens=1
    )
    assert answer.model == theirs


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "ft:a", "targets": []},
        {"targets": []},
        {"targets": [{"model": "ft:a", "weight": 0}]},
        {"targets": [{"model": "ft:a"}, {"model": "ft:a"}]},
        {"rollback": True, "model": "ft:a"},
        {"version": 2**63},
        {"version": 0},
        {"unknown": 1},
    ],
)
def test_bad_input_changes_nothing(server: Server, fields: object) -> None:
    name = "unchanged"
    server.post("/v1/aliases", {"name": name, "model": server.make_model().id})
    before = server.get(f"/v1/aliases/{name}", key=server.owner_key).json
    assert server.post(f"/v1/aliases/{name}", fields).status == 400
    assert server.get(f"/v1/aliases/{name}", key=server.owner_key).json == before


def test_foreign_and_archived_models_are_no_targets(server: Server) -> None:
    other = server.make_key("owner", organization="elsewhere")
    theirs = server.make_model(key=other).id
    archived = server.make_model().id
    server.post(f"/v1/models/{archived}", {"archived": True})
    for model in (theirs, archived, "ft:nobody"):
        assert point(server, "nowhere", model).status == 404


def test_a_model_that_an_alias_means_is_not_archived(server: Server) -> None:
    model = server.make_model().id
    point(server, "kept", model)
    refused = server.post(f"/v1/models/{model}", {"archived": True})
    assert (refused.status, refused.json["error"]["code"]) == (409, "alias_target")
    assert served_by(server, "kept") == model


def test_commands_create_switch_split_and_roll_back(server: Server) -> None:
    one, two = server.make_model().id, server.make_model().id
    settings = {
        "TUNEWARDEN_URL": server.url.removesuffix("/v1"),
        "TUNEWARDEN_API_KEY": server.owner_key,
    }

    def run(*arguments: str) -> tuple[int, str]:
        ended = in_process.run_cli("aliases", *arguments, settings=settings)
        return ended.returncode, ended.stdout.strip()

    assert run("create", "by-hand", one) == (0, f"by-hand\t1\t{one}=1")
    assert run("switch", "by-hand", f"{one}=9", f"{two}=1")[0] == 0
    assert f"{one}=9, {two}=1" in run("list")[1]
    assert run("rollback", "by-hand") == (0, f"by-hand\t3\t{one}=1")
    assert len(run("show", "by-hand")[1].splitlines()) == 3
    assert run("delete", "by-hand", "--dry-run") == (0, "by-hand")
    assert run("delete", "by-hand") == (0, "by-hand")
    assert run("show", "by-hand")[0] == 3
    assert run("create", "x", f"{one}=many")[0] == 2
