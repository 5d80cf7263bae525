"""One organization's hostile grammars beside another one's schemas and chats, on the real engine, through the stock SDK."""

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from tests.support import engines
from tests.support.servers import Server

THREADS = 12
HONEST = 8
FIRST_TOKEN_SECONDS = 12
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
# It can be read in so many ways that each token of a longer text takes longer.
AMBIGUOUS = 'start: s\ns: s s | s s s | "a" | "NAME"'
PLAIN = 'start: ("a" | "NAME")+'


def intersection(number: int) -> str:
    """Return patterns that all must match, each time others: minutes of work."""
    patterns = " & ".join(f"/(.*a.{{{at}}}.*{number})/" for at in range(60))
    return f"start: R\nR: {patterns}"


def hold(client: openai.OpenAI, grammar: str, **options: Any) -> Any:
    extra = {"structured_outputs": {"grammar": grammar}, "logit_bias": engines.without_end()}
    return client.chat.completions.create(
        model=engines.BASE, messages=MESSAGES, extra_body=extra, **options
    )


def schema(name: str) -> Any:
    properties = {name: {"type": "boolean"}}
    described = {"type": "object", "properties": properties, "required": [name]}
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": described}}


@contextmanager
def hostile(client: openai.OpenAI, grammars: Any) -> Iterator[Counter[str]]:
    """Ask for other grammars all the time; yield how they ended."""
    ends: Counter[str] = Counter()
    stops = threading.Event()

    def ask(first: int) -> None:
        number = first
        while not stops.is_set():
            try:
                hold(client, grammars(number), n=8, max_tokens=400)
                ends["answered"] += 1
            except openai.APIStatusError as error:
                ends[str(error.status_code)] += 1
            except openai.APIError as error:
                ends[type(error).__name__] += 1
            number += THREADS

    threads = [threading.Thread(target=ask, args=[at], daemon=True) for at in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    yield ends
    stops.set()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def clients(engine_server: Server) -> Iterator[tuple[openai.OpenAI, openai.OpenAI]]:
    other = engine_server.make_key("owner", organization="hostile")
    with (
        engine_server.client(max_retries=0) as honest,
        engine_server.client(other, max_retries=0, timeout=20) as bad,
    ):
        yield honest, bad


def test_anothers_constraints_delay_no_first_token(
    clients: tuple[openai.OpenAI, openai.OpenAI],
) -> None:
    honest, bad = clients
    took = []
    with hostile(bad, intersection) as ends:
        for number in range(HONEST):
            began = time.monotonic()
            said = honest.chat.completions.create(
                model=engines.BASE,
                messages=MESSAGES,
                response_format=schema(f"a{number}"),
                max_tokens=100,
                temperature=0,
            )
            took.append(time.monotonic() - began)
            assert f"a{number}" in json.loads(said.choices[0].message.content or "")
    print(
        f"honest: median {statistics.median(took):.2f} s, most {max(took):.2f} s; hostile: {dict(ends)}"
    )
    assert max(took) < FIRST_TOKEN_SECONDS


def test_anothers_slow_masks_end_their_requests_and_not_ours(
    clients: tuple[openai.OpenAI, openai.OpenAI],
) -> None:
    """What they cost ours meanwhile is printed; a budget bounds it (tests/unit/embedded_engine/test_mask_time.py)."""
    honest, bad = clients

    def tokens() -> float:
        began = time.monotonic()
        honest.chat.completions.create(
            model=engines.BASE,
            messages=MESSAGES,
            max_tokens=60,
            logit_bias=engines.without_end(),
        )
        return time.monotonic() - began

    for name, grammar in (("plain", PLAIN), ("ambiguous", AMBIGUOUS)):
        with hostile(bad, lambda number, like=grammar: like.replace("NAME", f"b{number}")) as ends:
            beside = statistics.median(tokens() for _ in range(3))
        print(f"beside {name} grammars: {beside:.2f} s; hostile: {dict(ends)}")
    # With no budget they are answered, or end by their client's time-out.
    assert ends["400"] >= THREADS
    assert ends["answered"] == 0
