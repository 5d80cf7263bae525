"""Spans of inference requests, by OpenTelemetry (setting `otel_endpoint`; the extra `[otel]`). Off, it costs nothing.

One span a request, from its head to its end, with the attributes of OpenTelemetry's conventions for generative AI: no
prompt, no answer, no name of a fine-tune; `gen_ai.request.model` is the base. The caller's `traceparent` (W3C Trace
Context) is its parent, and the engine gets one of its own.

The SDK reads the standard variables OTEL_* (headers, sampler, resource attributes) itself.
"""

import re
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from tunewarden import __version__
from tunewarden.engine_protocol import paths

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

PROVIDER: Final = "tunewarden"
# OpenTelemetry's names of the operations.
OPERATIONS: Final = {
    paths.CHAT_COMPLETIONS: "chat",
    paths.COMPLETIONS: "text_completion",
    f"{paths.OPENAI}/embeddings": "embeddings",
    paths.RESPONSES: "chat",
}
REMEDY: Final = "pip install 'tunewarden[otel]'"
# OTLP's path for spans.
SIGNAL: Final = "v1/traces"
FLUSH_MILLISECONDS: Final = 1000
_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


def is_installed() -> bool:
    """Return whether the extra's packages are installed."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


class Tracing:
    """The spans of one worker; loads the SDK with the first one. Runs on the event loop, exports in a thread."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint.rstrip("/")

    def begin(self, traceparent: bytes) -> "Span":
        """Begin the span of a request whose head has this `traceparent`, empty if it has none or an invalid one."""
        from opentelemetry import trace  # noqa: PLC0415  only where spans are wanted

        parent = None
        found = _PARENT.fullmatch(traceparent)
        if found is not None:
            of_trace, of_span, flags = (int(one, 16) for one in found.groups())
            context = trace.SpanContext(of_trace, of_span, True, trace.TraceFlags(flags))  # noqa: FBT003  is_remote
            parent = trace.set_span_in_context(trace.NonRecordingSpan(context))
        return self._tracer.start_span("inference", parent, trace.SpanKind.SERVER)

    def end(
        self,
        span: "Span",
        request_id: str,
        outcome: tuple[str, str, int, str],
        tokens: tuple[int, int, int],
    ) -> None:
        """End a span; `outcome` is the request's route, base, status and error."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415  as above

        route, base, status, error = outcome
        operation = OPERATIONS[route]
        span.update_name(f"{operation} {base}" if base else operation)
        span.set_attributes(
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": PROVIDER,
                "gen_ai.request.model": base,
                "gen_ai.usage.input_tokens": tokens[0],
                "gen_ai.usage.output_tokens": tokens[1],
                "http.request.method": "POST",
                "http.route": route,
                "http.response.status_code": status,
                "tunewarden.request_id": request_id,
            }
        )
        if error:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Export what is left, for at most FLUSH_MILLISECONDS."""
        if "_tracer" in self.__dict__:
            self._provider.force_flush(FLUSH_MILLISECONDS)

    @cached_property
    def _provider(self) -> "TracerProvider":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  as above
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415  as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  as above

        resource = Resource.create({"service.version": __version__})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: PROVIDER}))
        # At exit nothing is waited for: a worker that drains has called `close`.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{self._endpoint}/{SIGNAL}")
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return provider

    @cached_property
    def _tracer(self) -> "Tracer":
        return self._provider.get_tracer(PROVIDER, __version__)


def header(span: "Span") -> bytes:
    """Return the header line that makes the engine's spans children of this one."""
    context = span.get_span_context()
    return b"traceparent: 00-%032x-%016x-%02x\r\n" % (
        context.trace_id,
        context.span_id,
        context.trace_flags,
    )
