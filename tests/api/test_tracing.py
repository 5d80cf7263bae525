"""Spans of inference requests: a collector on loopback gets them, and an engine the caller's trace."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from tests.support import servers
from tests.support.servers import Server, wait_until

from tunewarden.errors import Error
from tunewarden.gateway import tracing
from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra [otel]")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

SUFFIX = "jane-roe"
FAR = "far-base"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ANSWER = {"model": "far", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}


class _Here(BaseHTTPRequestHandler):
    """A collector of spans, and an engine with OpenAI's API."""

    exported: ClassVar[list[bytes]] = []
    parents: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces":
            self.exported.append(body)
            answer = b""
        else:
            self.parents.append(self.headers["traceparent"])
            answer = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), _Here) as here,
        pytest.MonkeyPatch.context() as patch,
    ):
        threading.Thread(target=here.serve_forever).start()
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        url = f"http://127.0.0.1:{here.server_port}"
        data = tmp_path_factory.mktemp("traced") / "data"
        settings = {"otel_endpoint": url}
        kind = servers.WithoutTorch
        with servers.serving(data, settings=settings, local_base=True, kind=kind) as running:
            with running.app.database.write() as tx:
                bases.add(
                    tx,
                    name=FAR,
                    kind=BaseKind.REMOTE,
                    location=url,
                    engine_model="far",
                    modules={},
                )
            wait_until(lambda: _has_base(running), "the engine has the base")
            yield running
        here.shutdown()


def _has_base(server: Server) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, Error):
        return bool(server.app.engine.bases())
    return False


def _span(request_id: str) -> Any:
    """Return the span of a request, with its attributes by name, as soon as it is exported."""
    found: list[Any] = []

    def look() -> bool:
        for body in list(_Here.exported):
            request = ExportTraceServiceRequest.FromString(body)
            found.extend(
                span
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
                if _attributes(span)["tunewarden.request_id"] == request_id
            )
        return bool(found)

    wait_until(look, f"the span of {request_id} is exported")
    return found[0]


def _attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def _chat(server: Server, model: str, **headers: str) -> servers.Reply:
    asked = {"model": model, "messages": [{"role": "user", "content": f"I am {SUFFIX}"}]}
    return server.request(
        "POST",
        "/v1/chat/completions",
        key=server.owner_key,
        headers={"content-type": "application/json", **headers},
        body=json.dumps(asked).encode(),
    )


def test_a_request_on_a_fine_tune_is_a_span_that_names_its_base_only(server: Server) -> None:
    model = server.make_model(suffix=SUFFIX).id
    reply = _chat(server, model)
    span = _span(str(reply.header("x-request-id")))
    found = _attributes(span)
    assert span.name == f"chat {servers.LOCAL_BASE}"
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == servers.LOCAL_BASE
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (1, 1)
    assert found["http.response.status_code"] == 200
    assert span.start_time_unix_nano < span.end_time_unix_nano
    assert span.parent_span_id == b""
    sent = b"".join(_Here.exported)
    for secret in (SUFFIX, model, servers.ORGANIZATION, server.owner_key):
        assert secret.encode() not in sent


def test_a_callers_trace_goes_on_to_the_engine(server: Server) -> None:
    reply = _chat(server, FAR, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert reply.status == 200, reply.body
    span = _span(str(reply.header("x-request-id")))
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT
    assert _Here.parents[-1] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert _attributes(span)["gen_ai.usage.output_tokens"] == 5


def test_an_error_is_said_by_its_code(server: Server) -> None:
    reply = _chat(server, "ft:unknown", traceparent="nonsense")
    span = _span(str(reply.header("x-request-id")))
    assert _attributes(span)["error.type"] == "model_not_found"
    assert _attributes(span)["http.response.status_code"] == 404
    assert span.status.code == 2
    assert span.parent_span_id == b""


def test_a_new_traceparent_is_written_as_the_standard_has_it() -> None:
    span = tracing.Tracing("http://127.0.0.1:9").begin(f"00-{TRACE}-{PARENT}-00".encode())
    assert not span.is_recording(), "its parent is not sampled"
    assert tracing.header(span).startswith(f"traceparent: 00-{TRACE}-".encode())
