"""Inference through the gateway to a base that another server answers."""

import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from tests.cli import in_process
from tests.fakes.upstream import PROMPT_TOKENS, WORDS, FakeUpstream
from tests.support import servers
from tests.support.servers import Reply, Server, wait_until

from tunewarden.engines.address import Address

BASE = "remote-base"
SAID = "".join(WORDS)
MESSAGES = [{"role": "user", "content": "Hello"}]
BODY_BYTES_MAX = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("gateway") / "data"
    settings = {"body_bytes_max": BODY_BYTES_MAX}
    with servers.serving(data, workers=1, settings=settings) as running:
        added = in_process.on(running, "bases", "add", BASE, "--engine-url", upstream.url)
        assert added.returncode == 0, added.stderr
        yield running


def _ask(gateway: Server, *, model: str = BASE, **fields: object) -> Reply:
    body = {"model": model, "messages": MESSAGES, **fields}
    return gateway.post("/v1/chat/completions", body)


def _chunks(reply: Reply) -> list[dict[str, Any]]:
    events = reply.body.decode().replace("\r\n", "\n").split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def _said(chunks: list[dict[str, Any]]) -> str:
    parsed = [ChatCompletionChunk.model_validate(chunk) for chunk in chunks]
    return "".join(c.choices[0].delta.content or "" for c in parsed if c.choices)


def _usage(gateway: Server) -> tuple[int, int, int]:
    row = gateway.app.database.peek(
        "SELECT SUM(requests), SUM(input_tokens), SUM(output_tokens) FROM usage u"
        " JOIN usage_series s ON s.n = u.series_n WHERE u.seconds = 86400 AND s.model_id = :model",
        model=BASE,
    )
    assert row is not None
    return row[0] or 0, row[1] or 0, row[2] or 0


def test_an_answer_comes_under_the_name_that_was_asked_for(
    gateway: Server, upstream: FakeUpstream
) -> None:
    answer = gateway.client().chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "Hello"}]
    )
    assert answer.model == BASE
    assert answer.choices[0].message.content == SAID
    assert upstream.requests[-1].fields["model"] == "upstream/model-1"
    assert upstream.requests[-1].path == "/v1/chat/completions"
    assert upstream.requests[-1].headers["host"] == f"127.0.0.1:{upstream.port}"


def test_the_key_of_the_caller_is_not_passed_on(gateway: Server, upstream: FakeUpstream) -> None:
    _ask(gateway)
    assert gateway.owner_key not in json.dumps(upstream.requests[-1].headers)


def test_a_remote_base_is_sent_its_own_key_which_stands_in_one_file_alone(
    gateway: Server, upstream: FakeUpstream, tmp_path: Path
) -> None:
    secret = "sk-upstream-" + "5" * 24
    file = tmp_path / "upstream.key"
    file.write_text(f"{secret}\n")
    add = ("bases", "add", "keyed-base", "--engine-url", upstream.url)
    (tmp_path / "bad.key").write_text("two words")
    refused = in_process.on(gateway, *add, "--engine-key-file", str(tmp_path / "bad.key"))
    assert (refused.returncode, "two words" in refused.stderr) == (1, False)
    added = in_process.on(gateway, *add, "--engine-key-file", str(file))
    assert added.returncode == 0, added.stderr
    assert upstream.lists[-1]["authorization"] == f"Bearer {secret}"
    assert _ask(gateway, model="keyed-base").status == 200
    assert upstream.requests[-1].headers["authorization"] == f"Bearer {secret}"
    _ask(gateway)
    assert "authorization" not in upstream.requests[-1].headers, "the base beside it has none"
    listed = in_process.on(gateway, "bases", "list").stdout
    assert f"keyed-base\tremote\t{upstream.url}\tkey\n" in listed
    holders = [
        one.relative_to(gateway.data).as_posix()
        for one in gateway.data.rglob("*")
        if one.is_file() and secret.encode() in one.read_bytes()
    ]
    assert holders == ["engine_keys/keyed-base.key"]
    kept = gateway.data / holders[0]
    assert [oct(one.stat().st_mode & 0o777) for one in (kept, kept.parent)] == ["0o600", "0o700"]
    assert secret not in listed + added.stdout + added.stderr + gateway.log() + gateway.printed()


def test_a_coded_answer_is_not_asked_for_and_not_passed_on_as_if_it_were_plain(
    gateway: Server, upstream: FakeUpstream
) -> None:
    how = {"status": 200, "headers": {"content-encoding": "gzip"}}
    reply = _ask(gateway, fake=how)
    assert (reply.status, reply.error["code"]) == (502, "engine_coded")
    assert upstream.requests[-1].headers["accept-encoding"] == "identity"


def test_a_key_that_would_cross_a_network_in_the_plain_is_warned_about(tmp_path: Path) -> None:
    # What would answer there is nobody: the warning comes before it is asked.
    for url, is_open in (
        ("http://127.0.0.1:8000/v1", False),
        ("http://[::1]:8000/v1", False),
        ("http://localhost/v1", False),
        ("https://engine.example/v1", False),
        ("http://engine.example/v1", True),
        ("http://10.0.0.1:8000/v1", True),
    ):
        assert Address.of_url(url).is_open_to_readers is is_open, url
    data, file = tmp_path / "data", tmp_path / "engine.key"
    file.write_text("sk-engine-" + "7" * 24)
    servers.prepare_local_base(data)
    add = ["bases", "add", "far", "--engine-key-file", str(file), "--data", str(data)]
    # Another address of this machine than loopback's: 0.0.0.0 reaches it, and nobody answers there.
    told = servers.run_cli(*add, "--engine-url", "http://0.0.0.0:9/v1").stderr
    assert "Warning: the API key is sent to 0.0.0.0 without TLS" in told
    assert "Warning" not in servers.run_cli(*add, "--engine-url", "http://127.0.0.1:9/v1").stderr


def test_an_engine_that_refuses_our_key_is_not_the_clients_matter(
    gateway: Server, upstream: FakeUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "upstream.key"
    file.write_text("sk-right")
    upstream.key = "sk-right"
    try:
        added = in_process.on(
            gateway,
            "base",
            "add",
            "changed-key",
            "--engine-url",
            upstream.url,
            "--engine-key-file",
            str(file),
        )
        assert added.returncode == 0, added.stderr
        upstream.key = "sk-another"  # it was changed there
        asked = _ask(gateway, model="changed-key")
        assert (asked.status, asked.error["code"]) == (502, "engine_refused")
        streamed = _ask(gateway, model="changed-key", stream=True)
        assert (streamed.status, streamed.error["code"]) == (502, "engine_refused")
        doctor = in_process.on(gateway, "doctor").stdout
        assert "changed-key: " in doctor
        assert "status 401" in doctor
        assert "engine_keys/changed-key.key" in doctor
    finally:
        upstream.key = None
    assert "the engine of the base changed-key refuses its API key" in gateway.log()


def test_fields_that_we_do_not_know_are_passed_on(gateway: Server, upstream: FakeUpstream) -> None:
    odd: dict[str, Any] = {
        "logit_bias": {"50256": -100},
        "seed": 2**53,
        "x": [None, 1.5e-7, "\u2028\U0001f600"],
    }
    _ask(gateway, **odd)
    assert {name: upstream.requests[-1].fields[name] for name in odd} == odd


def test_completions_are_passed_on_too(gateway: Server) -> None:
    answer = gateway.client().completions.create(model=BASE, prompt="Hello")
    assert (answer.model, answer.choices[0].text) == (BASE, SAID)


def test_a_stream_comes_under_the_name_that_was_asked_for(gateway: Server) -> None:
    stream = gateway.client().chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {BASE}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID


@pytest.mark.parametrize("seed", range(20))
def test_a_stream_cut_at_random_bytes_comes_whole(gateway: Server, seed: int) -> None:
    newline = random.Random(seed).choice(["\n", "\r\n"])
    reply = _ask(gateway, stream=True, fake={"cut_seed": seed, "newline": newline})
    chunks = _chunks(reply)
    assert {chunk["model"] for chunk in chunks} == {BASE}
    assert _said(chunks) == SAID


def test_a_stream_whose_last_event_lacks_its_blank_line_comes_whole(gateway: Server) -> None:
    reply = _ask(gateway, stream=True, fake={"unfinished": True})
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_a_stream_that_ends_with_its_connection_comes_whole(gateway: Server) -> None:
    assert _said(_chunks(_ask(gateway, stream=True, fake={"framing": "close"}))) == SAID


def test_an_answer_that_ends_with_its_connection_comes_whole(gateway: Server) -> None:
    reply = _ask(gateway, fake={"framing": "close"})
    assert (reply.status, reply.json["model"]) == (200, BASE)


@pytest.mark.parametrize("stream", [False, True])
def test_an_informational_answer_is_not_the_answer(gateway: Server, stream: bool) -> None:
    reply = _ask(gateway, stream=stream, fake={"informational": True})
    assert reply.status == 200
    assert BASE in reply.body.decode()
    assert _ask(gateway).status == 200


def test_usage_is_counted_and_the_chunk_that_only_we_asked_for_stays_hidden(
    gateway: Server, upstream: FakeUpstream
) -> None:
    wait_until(lambda: _flushed(gateway), "what ran before is counted")
    before = _usage(gateway)
    hidden = _chunks(_ask(gateway, stream=True))
    assert upstream.requests[-1].fields["stream_options"] == {"include_usage": True}
    assert all(chunk["choices"] for chunk in hidden)
    shown = _chunks(_ask(gateway, stream=True, stream_options={"include_usage": True}))
    assert shown[-1]["choices"] == []
    assert shown[-1]["usage"]["prompt_tokens"] == PROMPT_TOKENS
    _ask(gateway)
    expected = (before[0] + 3, before[1] + 3 * PROMPT_TOKENS, before[2] + 3 * len(WORDS))
    wait_until(lambda: _usage(gateway) == expected, f"usage is {expected}")


def _flushed(gateway: Server) -> bool:
    before = _usage(gateway)
    time.sleep(1.2)  # one flush
    return _usage(gateway) == before


def test_a_refusal_of_the_engine_is_passed_on_with_what_an_sdk_needs(gateway: Server) -> None:
    headers = {"retry-after": "7", "x-should-retry": "false"}
    reply = _ask(gateway, fake={"status": 429, "headers": headers})
    assert (reply.status, reply.header("retry-after")) == (429, "7")
    assert reply.header("x-should-retry") == "false"


def test_an_engine_that_does_not_know_the_route_is_a_404_that_says_so(gateway: Server) -> None:
    reply = _ask(gateway, fake={"status": 404})
    assert (reply.status, reply.error["code"]) == (404, "not_offered")


@pytest.mark.parametrize("cut_at", [0, 5, 40, 120])
def test_an_engine_that_breaks_off_before_its_answer_is_whole_is_a_503(
    gateway: Server, cut_at: int
) -> None:
    reply = _ask(gateway, fake={"cut_at": cut_at})
    assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")
    assert reply.header("retry-after") == "1"
    assert reply.header("x-should-retry") == "true"


def test_an_engine_that_dies_in_a_stream_ends_it_with_an_error(gateway: Server) -> None:
    stream = gateway.client().chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        extra_body={"fake": {"die_after": 2, "pause": 0.05}},
    )
    heard: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIError, match="not available"):
        heard.extend(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in heard) == "".join(WORDS[:2])


def test_a_kept_connection_that_was_closed_meanwhile_is_not_an_error(
    gateway: Server, upstream: FakeUpstream
) -> None:
    for _ in range(5):
        assert _ask(gateway).status == 200
        upstream.close_connections()


def test_an_engine_that_is_down_is_a_503_that_says_when_to_try_again(
    gateway: Server,
) -> None:
    with FakeUpstream(models=("gone",)) as short_lived:
        assert (
            in_process.on(
                gateway, "bases", "add", "gone", "--engine-url", short_lived.url
            ).returncode
            == 0
        )
    reply = _ask(gateway, model="gone")
    assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")
    assert reply.header("retry-after") == "1"
    assert reply.header("x-should-retry") == "true"


def test_a_client_that_goes_away_aborts_its_request_within_100_ms(
    gateway: Server, upstream: FakeUpstream
) -> None:
    took = []
    for _ in range(10):
        seen = len(upstream.gone_at)
        connection = _begin(gateway, {"stream": True, "fake": {"endless": True}})
        assert connection.recv(64)
        left_at = time.monotonic()
        connection.close()
        wait_until(lambda: len(upstream.gone_at) > seen, "the engine's client is gone", 5)  # noqa: B023  called at once
        took.append(upstream.gone_at[-1] - left_at)
    print(f"aborted after {max(took) * 1000:.1f} ms at most of {len(took)}")
    assert sorted(took)[len(took) // 2] < 0.1, took


def test_a_slow_client_slows_the_engine_and_gets_everything(
    gateway: Server, upstream: FakeUpstream
) -> None:
    flood = 64 * 1024 * 1024
    before = upstream.sent_bytes
    how = {"flood_bytes": flood, "size": 60_000}
    connection = _begin(gateway, {"stream": True, "fake": how})
    assert connection.recv(64)
    wait_until(lambda: _is_still(upstream), "the engine waits for the client")
    queued = upstream.sent_bytes - before
    print(f"{queued / 1e6:.1f} MB were under way to a client that did not read")
    assert queued < flood / 2
    # Others do not wait for the slow one.
    assert _ask(gateway).status == 200
    received = 0
    while piece := connection.recv(1024 * 1024):
        received += len(piece)
        if piece.endswith(b"0\r\n\r\n"):
            break
    connection.close()
    assert received > flood * 0.99


def _is_still(upstream: FakeUpstream) -> bool:
    before = upstream.sent_bytes
    time.sleep(0.3)
    return upstream.sent_bytes == before


def _begin(gateway: Server, fields: dict[str, object]) -> socket.socket:
    body = json.dumps({"model": BASE, "messages": MESSAGES, **fields}).encode()
    connection = gateway.connect()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (gateway.owner_key.encode(), len(body), body)
    )
    return connection


def test_a_body_beyond_the_bound_is_a_413(gateway: Server) -> None:
    fits = _ask(gateway, padding="x" * (BODY_BYTES_MAX - 1000))
    assert fits.status == 200
    reply = _ask(gateway, padding="x" * BODY_BYTES_MAX)
    assert reply.status == 413
    assert str(BODY_BYTES_MAX) in str(reply.error["message"])


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"null", b"\xff", b'{"model": NaN}', b"[" * 100_000,
     b'{"model": "\\ud800"}', b"{" + b'"a":{' * 50_000],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_a_400(gateway: Server, body: bytes) -> None:
    reply = gateway.request("POST", "/v1/chat/completions", key=gateway.owner_key, body=body)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "fields", [{}, {"model": None}, {"model": ""}, {"model": 5}, {"model": []}]
)
def test_a_missing_model_is_a_400_in_openais_words(
    gateway: Server, fields: dict[str, object]
) -> None:
    reply = gateway.post("/v1/chat/completions", {"messages": [], **fields})
    assert reply.status == 400
    assert reply.error["message"] == "You must provide a model parameter."


@pytest.mark.parametrize("name", ["gpt-4o", "ft:a:b::12345678", "é\u2028", "'; DROP TABLE x;--"])
def test_an_unknown_model_is_a_404_in_exactly_openais_words(gateway: Server, name: str) -> None:
    reply = _ask(gateway, model=name)
    assert reply.status == 404
    assert reply.error == {
        "message": f"The model `{name}` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }


def test_a_body_sent_in_chunks_is_read_whole(gateway: Server) -> None:
    body = json.dumps({"model": BASE, "messages": MESSAGES}).encode()
    connection = gateway.connect()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
        b"transfer-encoding: chunked\r\n\r\n" % gateway.owner_key.encode()
    )
    for byte in body:
        connection.sendall(b"1\r\n%c\r\n" % byte)
    connection.sendall(b"0\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    connection.close()


def test_a_client_that_goes_away_in_the_middle_of_its_body_harms_nobody(gateway: Server) -> None:
    connection = gateway.connect()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
        b"content-length: 1000\r\n\r\n{" % gateway.owner_key.encode()
    )
    connection.close()
    assert _ask(gateway).status == 200
    assert "Traceback" not in gateway.log()


def test_nothing_above_was_a_bug_of_the_server(gateway: Server) -> None:
    assert "Traceback" not in gateway.log(), gateway.log()
