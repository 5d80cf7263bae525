"""Reports of usage through the stock SDK, of requests that it made."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.cli import in_process
from tests.fakes.upstream import PROMPT_TOKENS, WORDS, FakeUpstream
from tests.support import administration, servers
from tests.support.servers import Server, wait_until

BASE = "remote-base"
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
SAID = len(WORDS)
DAY = 86_400
OTHERS = "others"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("usage") / "data"
    with FakeUpstream() as upstream, servers.serving(data, workers=2) as running:
        added = in_process.on(running, "bases", "add", BASE, "--engine-url", upstream.url)
        assert added.returncode == 0, added.stderr
        yield running


@pytest.fixture(scope="module")
def admin(server: Server) -> openai.OpenAI:
    return administration.client(server, administration.make_admin_key(server.app))


def _now() -> int:
    return int(time.time())


def _total(admin: openai.OpenAI, **fields: Any) -> tuple[int, int, int, int]:
    """Requests, input, output and cached tokens of completions since yesterday."""
    page = admin.admin.organization.usage.completions(start_time=_now() - DAY, **fields)
    results = _results(page)
    return (
        sum(one.num_model_requests for one in results),
        sum(one.input_tokens for one in results),
        sum(one.output_tokens for one in results),
        sum(one.input_cached_tokens or 0 for one in results),
    )


def _results(page: Any) -> list[Any]:
    return [result for bucket in page.data for result in bucket.results]


def _key_id(key: str) -> str:
    return f"key_{key.split('-')[2]}"


def _wait_for(admin: openai.OpenAI, key: str, expected: tuple[int, ...]) -> None:
    wait_until(
        lambda: _total(admin, api_key_ids=[_key_id(key)])[: len(expected)] == expected,
        f"usage is {expected}",
    )


def test_chats_completions_and_responses_count_as_completions(
    server: Server, admin: openai.OpenAI
) -> None:
    key = server.make_key("reader")
    client = server.client(key)
    client.chat.completions.create(
        model=BASE, messages=MESSAGES, extra_body={"fake": {"cached": 4}}
    )
    for _ in client.chat.completions.create(model=BASE, messages=MESSAGES, stream=True):
        pass
    client.completions.create(model=BASE, prompt="Hello")
    client.responses.create(model=BASE, input="Hello", store=False)
    for _ in client.responses.create(model=BASE, input="Hello", store=False, stream=True):
        pass
    client.embeddings.create(model=BASE, input="Hello", encoding_format="float")
    _wait_for(admin, key, (5, 5 * PROMPT_TOKENS, 5 * SAID, 4))

    def embeddings() -> list[Any]:
        return _results(
            admin.admin.organization.usage.embeddings(
                start_time=_now() - DAY, api_key_ids=[_key_id(key)], group_by=["model", "user_id"]
            )
        )

    wait_until(embeddings, "the other worker has written too")
    (result,) = embeddings()
    assert result.object == "organization.usage.embeddings.result"
    assert (result.num_model_requests, result.input_tokens) == (1, PROMPT_TOKENS)
    assert (result.model, result.project_id, result.api_key_id) == (BASE, None, None)
    assert result.user_id is not None


def test_what_an_engine_refuses_is_no_usage(server: Server, admin: openai.OpenAI) -> None:
    key = server.make_key("reader")
    client = server.client(key, max_retries=0)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model=BASE, messages=MESSAGES, extra_body={"fake": {"status": 400}}
        )
    client.chat.completions.create(model=BASE, messages=MESSAGES)
    _wait_for(admin, key, (1, PROMPT_TOKENS, SAID))


def test_a_stream_that_its_client_leaves_counts_what_was_sent(
    server: Server, admin: openai.OpenAI
) -> None:
    key = server.make_key("reader")
    stream = server.client(key).chat.completions.create(
        model=BASE, messages=MESSAGES, stream=True, extra_body={"fake": {"endless": True}}
    )
    read = 0
    for _ in stream:
        read += 1
        if read == 20:
            break
    stream.close()
    wait_until(lambda: _total(admin, api_key_ids=[_key_id(key)])[0] == 1, "it is counted")
    # The stand-in sends no role first. One event more may have been on its way for each 2 ms.
    assert read - 1 <= _total(admin, api_key_ids=[_key_id(key)])[2] < read + 2000
    time.sleep(1.5)  # another flush
    assert _total(admin, api_key_ids=[_key_id(key)])[0] == 1


def test_a_stream_that_breaks_off_counts_what_was_sent(
    server: Server, admin: openai.OpenAI
) -> None:
    key = server.make_key("reader")
    with pytest.raises(openai.APIError):
        for _ in server.client(key).chat.completions.create(
            model=BASE, messages=MESSAGES, stream=True, extra_body={"fake": {"die_after": 3}}
        ):
            pass
    _wait_for(admin, key, (1, 0, 2))


def test_groups_are_what_was_asked_for_and_add_up(server: Server, admin: openai.OpenAI) -> None:
    keys = [server.make_key("reader"), server.make_key("owner")]
    for number, key in enumerate(keys):
        for _ in range(number + 1):
            server.client(key).chat.completions.create(model=BASE, messages=MESSAGES)
        _wait_for(admin, key, (number + 1,))
    since, ids = _now() - DAY, [_key_id(key) for key in keys]
    usage = admin.admin.organization.usage
    page = usage.completions(start_time=since, group_by=["api_key_id"], api_key_ids=ids)
    results = _results(page)
    assert {one.api_key_id: one.num_model_requests for one in results} == dict(
        zip(ids, (1, 2), strict=True)
    )
    page = usage.completions(
        start_time=since,
        group_by=[
            "project_id",
            "user_id",
            "api_key_id",
            "model",
            "batch",
            "service_tier",
            "api_source",
        ],
        api_key_ids=ids,
    )
    results = _results(page)
    users = {one.user_id for one in results}
    (project,) = {one.project_id for one in results}
    assert len(users) == 2
    assert {(one.model, one.batch, one.service_tier, one.api_source) for one in results} == {
        (BASE, False, "default", "unlabeled")
    }
    both = {"api_key_ids": ids}
    assert _total(admin, **both)[0] == 3
    assert _total(admin, **both, project_ids=[project], user_ids=list(users), models=[BASE])[0] == 3
    assert _total(admin, **both, models=["another"])[0] == 0
    assert _total(admin, **both, batch=False)[0] == 3
    assert _total(admin, **both, batch=True)[0] == 0
    plain = server.get(
        f"/v1/organization/usage/completions?start_time={since}&group_by=model&api_key_ids={ids[1]}",
        key=admin.admin_api_key,
    ).json
    (result,) = [result for bucket in plain["data"] for result in bucket["results"]]
    assert (result["model"], result["num_model_requests"]) == (BASE, 2), "without brackets too"


def test_usage_of_a_revoked_key_and_of_a_removed_user_stays_theirs(
    server: Server, admin: openai.OpenAI
) -> None:
    key = server.make_key("reader")
    server.client(key).chat.completions.create(model=BASE, messages=MESSAGES)
    _wait_for(admin, key, (1,))
    server.revoke_key(key)
    page = admin.admin.organization.usage.completions(
        start_time=_now() - DAY, api_key_ids=[_key_id(key)], group_by=["user_id"]
    )
    (result,) = _results(page)
    assert isinstance(result.user_id, str)
    with server.app.database.write() as tx:
        tx.run("UPDATE users SET removed_at = 1 WHERE id = :id", id=result.user_id)
    assert _total(admin, user_ids=[result.user_id], api_key_ids=[_key_id(key)])[0] == 1


def test_each_bucket_is_there_once_page_by_page(server: Server, admin: openai.OpenAI) -> None:
    key = server.make_key("reader")
    server.client(key).chat.completions.create(model=BASE, messages=MESSAGES)
    _wait_for(admin, key, (1,))
    usage = admin.admin.organization.usage
    for width, seconds, count in (("1m", 60, 60), ("1h", 3600, 48), ("1d", DAY, 20)):
        since = _now() - (count - 1) * seconds
        asked: dict[str, Any] = {
            "start_time": since,
            "bucket_width": width,
            "limit": 7,
            "api_key_ids": [_key_id(key)],
        }
        page = usage.completions(**asked)
        buckets = page.data
        while page.has_more:
            assert len(page.data) == 7
            page = usage.completions(**asked, page=page.next_page or "")
            buckets += page.data
        assert page.next_page is None
        begins = [bucket.start_time for bucket in buckets]
        assert begins == list(range(begins[0], begins[-1] + 1, seconds))
        assert [bucket.end_time for bucket in buckets] == [begin + seconds for begin in begins]
        assert begins[0] == since - since % seconds
        assert count <= len(buckets) <= count + 1
        assert sum(len(bucket.results) for bucket in buckets) == 1


def test_an_end_is_exclusive_and_a_time_to_come_is_empty(admin: openai.OpenAI) -> None:
    usage = admin.admin.organization.usage
    today = _now() // DAY * DAY
    page = usage.completions(start_time=today - DAY, end_time=today)
    assert [bucket.start_time for bucket in page.data] == [today - DAY]
    assert not page.has_more
    page = usage.completions(start_time=today + 2 * DAY)
    assert (page.data, page.has_more, page.next_page) == ([], False, None)


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"bucket_width": "1m", "limit": 1441}, "limit", "1 to 1440"),
        ({"bucket_width": "1h", "limit": 169}, "limit", "1 to 168"),
        ({"limit": 32}, "limit", "1 to 31"),
        ({"limit": 0}, "limit", ""),
        ({"end_time": 0}, "end_time", "later than start_time"),
        ({"bucket_width": "1w"}, "bucket_width", "1m"),
        ({"group_by": ["line_item"]}, "group_by", "project_id, user_id, api_key_id, model, batch"),
        ({"page": "page"}, "page", "next_page"),
        ({"page": "page_AAAAAGdGxdEiJdKOAAAAAGcqsYA="}, "page", "next_page"),
        ({"page": "page_é"}, "page", "next_page"),
        ({"models": [f"m{number}" for number in range(101)]}, "models", "at most 100"),
        ({"start_time": -1}, "start_time", ""),
        (
            {"start_time": 1_700_000_000, "bucket_width": "1m"},
            "start_time",
            "use bucket_width '1h'",
        ),
        (
            {"start_time": 1_700_000_000, "bucket_width": "1h"},
            "start_time",
            "use bucket_width '1d'",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(
    admin: openai.OpenAI, fields: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        admin.admin.organization.usage.completions(**{"start_time": _now(), **fields})
    assert refused.value.param == param
    assert said in refused.value.message


def test_without_a_start_it_is_refused(server: Server, admin: openai.OpenAI) -> None:
    reply = server.get("/v1/organization/usage/completions", key=admin.admin_api_key)
    assert (reply.status, reply.error["param"]) == (400, "start_time")


def test_embeddings_are_not_grouped_by_what_they_have_not(admin: openai.OpenAI) -> None:
    ask: Any = admin.admin.organization.usage.embeddings
    with pytest.raises(openai.BadRequestError) as refused:
        ask(start_time=_now(), group_by=["batch"])
    assert refused.value.param == "group_by"


def test_costs_and_other_kinds_are_not_offered(admin: openai.OpenAI) -> None:
    usage = admin.admin.organization.usage
    for ask in (usage.costs, usage.images, usage.vector_stores, usage.web_search_calls):
        with pytest.raises(openai.NotFoundError) as refused:
            ask(start_time=0)
        assert refused.value.code == "not_offered"


def test_usage_of_others_is_not_shown(server: Server, admin: openai.OpenAI) -> None:
    key = server.make_key("owner", organization=OTHERS)
    server.client(key).chat.completions.create(model=BASE, messages=MESSAGES)
    other = administration.client(server, administration.make_admin_key(server.app, OTHERS))
    _wait_for(other, key, (1,))
    assert _total(admin, api_key_ids=[_key_id(key)])[0] == 0
    assert _total(other)[0] == 1


def test_a_model_tells_its_last_use(server: Server) -> None:
    key = server.make_key("owner", organization="fresh")
    path = f"/v1/models/{BASE}/usage"
    never = server.get(path, key=key).json
    assert never == {
        "object": "model.usage",
        "model": BASE,
        "last_used_at": None,
        "requests_last_hour": 0,
        "requests_last_day": 0,
    }
    before = _now()
    for _ in range(3):
        server.client(key).chat.completions.create(model=BASE, messages=MESSAGES)
    wait_until(lambda: server.get(path, key=key).json["requests_last_hour"] == 3, "all are counted")
    used = server.get(path, key=key).json
    assert used["requests_last_day"] == 3
    assert before <= used["last_used_at"] <= _now()
    assert server.get("/v1/models/nobody/usage", key=key).status == 404


def _documented() -> list[str]:
    text = Path(__file__).parents[2].joinpath("docs/how-to/see-usage.md").read_text("utf-8")
    return re.findall(r"^tunewarden (usage.*)$", text, re.MULTILINE)


def test_the_commands_of_the_guide_show_the_same_counts(
    server: Server, admin: openai.OpenAI
) -> None:
    key = server.make_key("reader")
    server.client(key).chat.completions.create(model=BASE, messages=MESSAGES)
    _wait_for(admin, key, (1,))
    settings = {"TUNEWARDEN_URL": server.url, "TUNEWARDEN_ADMIN_KEY": str(admin.admin_api_key)}
    shown = {}
    for command in _documented():
        ran = in_process.run_cli(*command.split(), settings=settings)
        assert ran.returncode == 0, ran.stderr
        shown[command] = ran.stdout
    assert len(shown) == 5
    total = _total(admin)
    plain = [line.split("\t") for line in shown["usage"].splitlines()]
    assert [BASE, "completions", *map(str, (total[0], total[1], total[3], total[2]))] in plain
    by_key = [line.split("\t") for line in shown["usage --by key --since 24h"].splitlines()]
    assert [_key_id(key), "completions", "1", str(PROMPT_TOKENS), "0", str(SAID)] in by_key
    by_project = shown["usage --by project --since 30d --csv"].splitlines()
    assert by_project[0] == "project,kind,requests,input_tokens,cached_tokens,output_tokens"
    by_user = json.loads(shown["usage --by user --since 2026-01-01 --json"])["data"]
    assert sum(one["requests"] for one in by_user if one["kind"] == "completions") == total[0]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    earlier = in_process.run_cli(
        *("usage", "--since", "2d", "--until", today, "--by", "key"), settings=settings
    )
    assert earlier.returncode == 0, earlier.stderr
    assert _key_id(key) not in earlier.stdout, "the end is not part of it"
    ends = in_process.run_cli("usage", "--since", today, "--until", "2d", settings=settings)
    assert (ends.returncode, "--until must be after --since" in ends.stderr) == (2, True)
    local = in_process.on(server, "usage", "--since", "1d")
    assert local.returncode == 0, local.stderr
    wrong = in_process.run_cli("usage", "--since", "yesterday", settings=settings)
    assert (wrong.returncode, "24h, 7d" in wrong.stderr) == (2, True)


def test_the_command_shows_each_hour_or_day_that_has_usage(
    server: Server, admin: openai.OpenAI
) -> None:
    key = server.make_key("reader")
    key_id = _key_id(key)
    server.client(key).chat.completions.create(model=BASE, messages=MESSAGES)
    _wait_for(admin, key, (1,))
    settings = {"TUNEWARDEN_URL": server.url, "TUNEWARDEN_ADMIN_KEY": str(admin.admin_api_key)}
    now = _now()

    def shown(bucket: str) -> list[dict[str, Any]]:
        command = ("usage", "--by", "key", "--since", "2d", "--bucket", bucket, "--json")
        ran = in_process.run_cli(*command, settings=settings)
        assert ran.returncode == 0, ran.stderr
        found: list[dict[str, Any]] = json.loads(ran.stdout)["data"]
        assert [one["start"] for one in found] == sorted(one["start"] for one in found)
        return [one for one in found if one["key"] == key_id]

    for bucket, seconds in (("hour", 3600), ("day", 86_400)):
        (own,) = shown(bucket)
        assert own["start"] % seconds == 0
        assert 0 <= now - own["start"] < seconds + 120
        assert own["requests"] == 1
    table = in_process.run_cli(
        *("usage", "--by", "key", "--since", "2d", "--bucket", "day", "--csv"), settings=settings
    )
    assert table.stdout.splitlines()[0].startswith("start,key,kind,requests")
    own_line = next(line for line in table.stdout.splitlines() if key_id in line)
    assert own_line.startswith(f"{datetime.fromtimestamp(own['start'], UTC):%Y-%m-%d} 00:00:00Z,")
    wrong = in_process.run_cli("usage", "--bucket", "minute", settings=settings)
    assert wrong.returncode == 2


def test_the_program_of_the_guide_runs(server: Server, admin: openai.OpenAI) -> None:
    key = server.make_key("reader")
    server.client(key).chat.completions.create(model=BASE, messages=MESSAGES)
    _wait_for(admin, key, (1,))
    text = Path(__file__).parents[2].joinpath("docs/how-to/see-usage.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": server.owner_key,
            "OPENAI_ADMIN_KEY": str(admin.admin_api_key),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert f" {BASE} " in ran.stdout, ran.stderr
