"""A model is deleted while it answers: its streams end at once, nobody else's do."""

import queue
import threading
import time
from dataclasses import dataclass, field

import openai
import pytest
from tests.support import engines
from tests.support.servers import Server

STREAM_TOKENS = 600
ATTEMPTS = 3

# The SDK hands out what it received a moment later, more so with many threads on few processors; when
# the bytes themselves come is judged on sockets, by tests/chaos/test_streams_are_cut.py.
PARSING_SECONDS = 2.0


@dataclass
class Stream:
    """One stream, read by a thread: what came, how it ended, and when the last piece came."""

    text: str = ""
    finish: str | None = None
    error: openai.APIError | None = None
    last_at: float = 0.0
    began: threading.Event = field(default_factory=threading.Event)


def read(client: openai.OpenAI, model: str, stream: Stream, tokens: int = STREAM_TOKENS) -> None:
    try:
        with client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=tokens,
            temperature=0,
            stream=True,
            logit_bias=engines.without_end(),
        ) as chunks:
            for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    stream.text += chunk.choices[0].delta.content
                    stream.last_at = time.monotonic()
                    stream.began.set()
                if chunk.choices and chunk.choices[0].finish_reason:
                    stream.finish = chunk.choices[0].finish_reason
    except openai.APIError as error:
        stream.error = error
    finally:
        stream.began.set()


def start(server: Server, model: str, count: int) -> tuple[list[Stream], list[threading.Thread]]:
    streams = [Stream() for _ in range(count)]
    client = server.client(max_retries=0)
    threads = [threading.Thread(target=read, args=(client, model, one)) for one in streams]
    for thread in threads:
        thread.start()
    return streams, threads


def test_a_stream_ends_with_the_error_at_once_and_others_are_unharmed(
    engine_server: Server,
) -> None:
    victim = engines.import_model(engine_server, "zebra says")
    others = [engines.import_model(engine_server, "quartz says"), engines.BASE]
    cut, cut_threads = start(engine_server, victim, 4)
    kept, kept_threads = [], []
    for other in others:
        streams, threads = start(engine_server, other, 2)
        kept += streams
        kept_threads += threads
    for stream in cut + kept:
        assert stream.began.wait(30)
    assert engine_server.client().models.delete(victim).deleted
    answered_at = time.monotonic()
    for thread in cut_threads + kept_threads:
        thread.join(60)
    for stream in cut:
        assert stream.error is not None, stream.text
        assert stream.error.code == "model_deleted"
        assert stream.finish is None
        assert stream.last_at < answered_at + PARSING_SECONDS
        # It began; how far it came before it was cut is chance.
        assert stream.text[: len("zebra says")] in {"zebra says"[: len(stream.text)], "zebra says"}
    for stream in kept:
        assert stream.error is None, stream.error
        assert stream.finish in {"stop", "length"}
    with pytest.raises(openai.NotFoundError) as missing:
        engines.say(engine_server.client(), victim)
    assert missing.value.code == "model_not_found"


def test_a_request_that_is_not_streamed_gets_the_error(engine_server: Server) -> None:
    # On a busy machine the request may come after the deletion; then it never ran.
    codes: list[str | None] = []
    while not codes or (codes[-1] == "model_not_found" and len(codes) < ATTEMPTS):
        error = _deleted_while_it_runs(engine_server)
        assert isinstance(error, openai.NotFoundError)
        codes.append(error.code)
    assert codes[-1] == "model_deleted", codes


def _deleted_while_it_runs(engine_server: Server) -> openai.APIStatusError | None:
    """Delete a model while it answers; return what the request's client got."""
    model = engines.import_model(engine_server, "zebra says")
    client = engine_server.client(max_retries=0)
    answers: queue.Queue[openai.APIStatusError | None] = queue.Queue()

    def ask() -> None:
        try:
            client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Hello"}],
                max_tokens=STREAM_TOKENS,
                logit_bias=engines.without_end(),
            )
            answers.put(None)
        except openai.APIStatusError as error:
            answers.put(error)

    thread = threading.Thread(target=ask)
    thread.start()
    watched, threads = start(engine_server, model, 1)
    assert watched[0].began.wait(30)  # the engine works on this model now
    assert engine_server.client().models.delete(model).deleted
    thread.join(30)
    threads[0].join(30)
    return answers.get(timeout=1)


def test_a_model_that_never_answered_can_be_deleted(engine_server: Server) -> None:
    model = engines.import_model(engine_server, "zebra says")
    reply = engine_server.request("DELETE", f"/v1/models/{model}", key=engine_server.owner_key)
    assert reply.json == {"id": model, "object": "model", "deleted": True}


def test_a_stream_on_a_model_that_is_archived_ends_with_an_error_that_says_so(
    engine_server: Server,
) -> None:
    model = engines.import_model(engine_server, "zebra says")
    streams, threads = start(engine_server, model, 1)
    assert streams[0].began.wait(60)
    assert engine_server.post(f"/v1/models/{model}", {"archived": True}).status == 200
    for thread in threads:
        thread.join(60)
    assert streams[0].finish is None
    assert streams[0].error is not None
    assert streams[0].error.code == "model_archived"
    assert engine_server.post(f"/v1/models/{model}", {"archived": False}).status == 200
    read(engine_server.client(max_retries=0), model, after := Stream(), tokens=4)
    assert after.text
