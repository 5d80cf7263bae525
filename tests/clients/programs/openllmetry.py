"""OpenLLMetry: spans of chats, with model and tokens."""

import os

from openai import OpenAI
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
OpenAIInstrumentor().instrument(tracer_provider=provider)
client = OpenAI()
asked = {"model": os.environ["MODEL"], "messages": [{"role": "user", "content": "Hello"}]}
client.chat.completions.create(**asked)
list(client.chat.completions.create(**asked, stream=True))
ended = spans.get_finished_spans()
assert len(ended) == 2
for span in ended:
    assert span.attributes["gen_ai.response.model"] == os.environ["MODEL"], span.attributes
    print(span.name, dict(span.attributes))
