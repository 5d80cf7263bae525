"""Usage on the embedded engine: what a cut stream cost, what the prefix cache knew, and that a deleted model keeps its own."""

import time
from typing import Any

import openai
from tests.support import administration, engines
from tests.support.servers import Server, wait_until

DAY = 86_400
MESSAGES: Any = [{"role": "user", "content": "Tell me everything. " * 8}]


def _results(admin: openai.OpenAI, model: str) -> list[Any]:
    page = admin.admin.organization.usage.completions(
        start_time=int(time.time()) - DAY, models=[model], group_by=["model"]
    )
    return [result for bucket in page.data for result in bucket.results]


def _requests(admin: openai.OpenAI, model: str) -> int:
    return sum(one.num_model_requests for one in _results(admin, model))


def test_a_cut_stream_counts_its_prompt_and_a_deleted_model_its_past(engine_server: Server) -> None:
    admin = administration.client(engine_server, administration.make_admin_key(engine_server.app))
    model = engines.import_model(engine_server, "zebra says", suffix="counted")
    client = engine_server.client()
    chat = client.chat.completions
    whole = chat.create(model=model, messages=MESSAGES, max_tokens=4)
    assert whole.usage is not None
    wait_until(lambda: _requests(admin, model) == 1, "the whole answer is counted")
    (first,) = _results(admin, model)
    assert first.input_tokens == whole.usage.prompt_tokens
    assert first.output_tokens == whole.usage.completion_tokens == 4

    stream = chat.create(
        model=model, messages=MESSAGES, max_tokens=100, stream=True, extra_body={"ignore_eos": True}
    )
    read = sum(1 for _, chunk in zip(range(9), stream, strict=False) if chunk.choices)
    stream.close()
    wait_until(lambda: _requests(admin, model) == 2, "the cut stream is counted")
    (both,) = _results(admin, model)
    assert both.input_tokens == 2 * whole.usage.prompt_tokens, (
        "the engine tells the prompt at the head"
    )
    assert read - 1 <= both.output_tokens - 4 <= 100

    text = "Which words of this were computed before, and which were not? " * 4
    cached = 0
    for _ in range(2):
        answer = client.responses.create(model=model, input=text, max_output_tokens=1, store=False)
        assert answer.usage is not None
        cached += answer.usage.input_tokens_details.cached_tokens
    assert cached > 0
    wait_until(lambda: _requests(admin, model) == 4, "both responses are counted")
    (all_of_them,) = _results(admin, model)
    assert all_of_them.input_cached_tokens == cached
    assert all_of_them.input_uncached_tokens == all_of_them.input_tokens - cached

    client.models.delete(model)
    (kept,) = _results(admin, model)
    assert (kept.model, kept.num_model_requests) == (model, 4)
