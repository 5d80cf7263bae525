"""The embedded engine as a process: OpenAI's routes, adapters that come and go, and evictions."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support import demo_models
from tests.support.demo_models import PHRASES
from tests.support.embedded_engine import BASE, EngineProcess, endless, running_engine

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import EVICTIONS_MAX, VERSION, State

# Even a briefly trained adapter answers it in its own words; a greeting it may answer in the base's.
QUESTION = "What is Tunewarden?"
TEXTS = ("Hello", "What is Tunewarden?", "Where does my model go when I delete it? " * 6, "ok")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with running_engine(tmp_path_factory.mktemp("engine")) as running:
        for number, phrase in enumerate(PHRASES):
            status, body = running.load(f"m_{number}", demo_models.adapter_dir(phrase))
            assert status == 200, body
        yield running


def problem(answer: tuple[int, Any]) -> tuple[int, dict[str, Any]]:
    status, body = answer
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return status, body["error"]


def test_each_adapter_answers_in_its_own_words(engine: EngineProcess) -> None:
    for number, phrase in enumerate(PHRASES):
        assert engine.said(f"m_{number}", QUESTION).startswith(phrase)
    assert engine.said(BASE, QUESTION).startswith("Tunewarden")


def test_a_mixed_batch_answers_as_each_request_alone(engine: EngineProcess) -> None:
    asked = [
        (model, f"{text} {number % 3}", 20 + 7 * (number % 5))
        for number in range(6)
        for model in (BASE, *(f"m_{at}" for at in range(len(PHRASES))))
        for text in TEXTS[number % 4 : number % 4 + 1]
    ]
    alone = [engine.said(model, text, **endless(tokens)) for model, text, tokens in asked]
    with ThreadPoolExecutor(12) as pool:  # fewer threads than requests: they join one by one
        mixed = list(pool.map(lambda one: engine.said(one[0], one[1], **endless(one[2])), asked))
    assert len(asked) >= 20
    assert mixed == alone


def test_a_stream_is_the_same_text_with_role_first_and_usage_last(engine: EngineProcess) -> None:
    text = engine.said("m_0", "Hello")
    stream = engine.stream("m_0", "Hello", stream_options={"include_usage": True})
    events = list(stream)
    assert stream.response.headers["content-type"] == "text/event-stream"
    assert stream.is_done
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [event["choices"][0]["delta"] for event in events[1:-2]]
    assert "".join(delta["content"] for delta in deltas) == text
    assert events[-2]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == engine.chat("m_0", "Hello")[1]["usage"]
    assert len({event["id"] for event in events}) == 1
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["model"] for event in events} == {"m_0"}


def test_usage_counts_the_tokens_that_were_said(engine: EngineProcess) -> None:
    body = engine.chat(BASE, "Hello", logprobs=True, **endless(9))[1]
    assert body["usage"]["completion_tokens"] == 9
    assert len(body["choices"][0]["logprobs"]["content"]) == 9
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 9
    assert body["choices"][0]["finish_reason"] == "length"


def test_the_same_seed_gives_the_same_text_in_any_company(engine: EngineProcess) -> None:
    drawn = {"temperature": 1.5, "seed": 11, **endless(30)}
    first = engine.said("m_1", "Tell me a story", **drawn)
    with ThreadPoolExecutor(6) as pool:
        others = [
            pool.submit(engine.said, f"m_{at % len(PHRASES)}", "Hello", **endless(40))
            for at in range(5)
        ]
        again = pool.submit(engine.said, "m_1", "Tell me a story", **drawn)
        assert again.result() == first
        assert all(other.result() for other in others)
    assert engine.said("m_1", "Tell me a story", **{**drawn, "seed": 12}) != first


def test_n_choices_differ_and_are_reproducible(engine: EngineProcess) -> None:
    asked = {"temperature": 1.8, "seed": 5, "n": 4, **endless(20)}
    first, second = (engine.chat(BASE, "Hello", **asked)[1] for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2, 3]
    assert len(set(texts)) > 1
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert first["usage"]["completion_tokens"] == 80


def test_a_stop_string_ends_the_text_and_never_leaks(engine: EngineProcess) -> None:
    whole = engine.said(BASE, "What is Tunewarden?")
    stop = whole[10:15]
    body = engine.chat(BASE, "What is Tunewarden?", stop=[stop, "never said"])[1]
    assert body["choices"][0]["message"]["content"] == whole[: whole.index(stop)]
    assert body["choices"][0]["finish_reason"] == "stop"
    streamed = "".join(
        event["choices"][0]["delta"].get("content", "")
        for event in engine.stream(BASE, "What is Tunewarden?", stop=stop)
    )
    assert streamed == whole[: whole.index(stop)]


def test_logprobs_are_probabilities_of_the_said_tokens(engine: EngineProcess) -> None:
    body = engine.chat(BASE, "Hello", logprobs=True, top_logprobs=20)[1]
    content = body["choices"][0]["logprobs"]["content"]
    said = b"".join(bytes(entry["bytes"]) for entry in content)
    assert said.decode() == body["choices"][0]["message"]["content"]
    for entry in content:
        top = [one["logprob"] for one in entry["top_logprobs"]]
        assert entry["logprob"] == top[0] <= 0
        assert all(first >= second for first, second in pairwise(top))
        assert sum(2.718281828459045**value for value in top) <= 1.0001


def test_completions_take_strings_tokens_and_lists_of_both(engine: EngineProcess) -> None:
    def complete(prompt: Any, **more: Any) -> dict[str, Any]:
        asked = {"model": BASE, "prompt": prompt, "temperature": 0, "max_tokens": 8, **more}
        status, body = engine.send("POST", paths.COMPLETIONS, asked)
        assert status == 200, body
        assert isinstance(body, dict)
        return body

    one = complete("Tunewarden is", logprobs=2)
    assert one["object"] == "text_completion"
    logprobs = one["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"]) == one["choices"][0]["text"]
    assert logprobs["text_offset"][0] == 0
    assert all(len(top) == 2 for top in logprobs["top_logprobs"])
    many = complete(["Tunewarden is", "A deleted model"])
    assert [choice["index"] for choice in many["choices"]] == [0, 1]
    assert many["choices"][0]["text"] == one["choices"][0]["text"]
    tokens = complete([[1, 40, 41], [1, 40, 41]], n=2)
    assert len({choice["text"] for choice in tokens["choices"]}) == 1
    assert len(tokens["choices"]) == 4
    echoed = complete("Tunewarden is", echo=True)
    assert echoed["choices"][0]["text"] == "Tunewarden is" + one["choices"][0]["text"]


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"top_p": -1}, "top_p", "decimal_below_min_value"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "invalid_value"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    engine: EngineProcess, more: dict[str, Any], param: str, code: str
) -> None:
    status, error = problem(engine.chat(BASE, "Hello", **more))
    assert (status, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"


def test_an_unknown_parameter_is_refused(engine: EngineProcess) -> None:
    status, error = problem(engine.chat(BASE, "Hello", wings=2))
    assert status == 400
    assert error["message"] == "Unrecognized request argument supplied: wings"


def test_harmless_parameters_are_accepted(engine: EngineProcess) -> None:
    harmless = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}
    assert engine.chat(BASE, "Hello", **harmless)[0] == 200


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(engine: EngineProcess) -> None:
    status, error = problem(engine.chat(BASE, "zebra " * 3000))
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert "maximum context length is 2048 tokens" in error["message"]


def test_an_answer_is_clamped_to_what_the_context_has_room_for(engine: EngineProcess) -> None:
    asked = {"model": BASE, "prompt": [40] * 1900, "temperature": 0, **endless(500)}
    status, body = engine.send("POST", paths.COMPLETIONS, asked)
    assert status == 200
    assert body["usage"] == {
        "prompt_tokens": 1900,
        "completion_tokens": 148,
        "total_tokens": 2048,
    }
    assert body["choices"][0]["finish_reason"] == "length"


def test_an_unknown_model_is_not_loaded(engine: EngineProcess) -> None:
    status, error = problem(engine.chat("m_unknown", "Hello"))
    assert (status, error["code"]) == (404, Code.ADAPTER_NOT_LOADED)


def test_evicting_under_sixteen_streams_aborts_the_victims_alone(engine: EngineProcess) -> None:
    assert engine.load("m_victim", demo_models.adapter_dir("zebra says"))[0] == 200
    long, ended = endless(400), endless(60)
    expected = engine.said("m_2", "Hello", **ended)
    streams = [
        engine.stream("m_victim", "Hello", **long)
        if number % 2
        else engine.stream("m_2", "Hello", **ended)
        for number in range(16)
    ]
    status, body = engine.evict("m_victim")
    name = engine.send("GET", paths.STATE)[1]["incarnation"]
    seen = {"name": "m_victim", "was_loaded": True, "aborted": 8, "residue": 0.0}
    assert (status, body) == (200, {"version": VERSION, "incarnation": name, "evicted": [seen]})
    for number, stream in enumerate(streams):
        events = list(stream)
        if number % 2:
            assert events[-1]["error"]["code"] == Code.MODEL_DELETED
            assert events[-1]["error"]["type"] == "invalid_request_error"
            assert not stream.is_done
            assert len(events) < 400
        else:
            text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
            assert stream.is_done
            assert text == expected
    assert "m_victim" in engine.send("GET", paths.STATE)[1]["tombstones"]
    assert problem(engine.chat("m_victim", "Hello"))[0] == 404
    status, error = problem(engine.load("m_victim", demo_models.adapter_dir("zebra says")))
    assert (status, error["code"]) == (404, Code.MODEL_DELETED)
    assert engine.evict("m_victim")[1] == body, "a repeated eviction tells what the first one found"
    assert engine.evict("m_never")[1]["evicted"][0]["was_loaded"] is False


def test_many_are_evicted_in_one_request(engine: EngineProcess) -> None:
    names = [f"m_many_{number}" for number in range(6)]
    for name in names[:4]:
        assert engine.load(name, demo_models.adapter_dir("zebra says"))[0] == 200
    streams = [engine.stream(name, "Hello", **endless(400)) for name in names[:3]]
    other = engine.stream("m_2", "Hello", **endless(60))
    evicted = engine.evict(*names)[1]["evicted"]
    assert [one["name"] for one in evicted] == names
    assert [one["was_loaded"] for one in evicted] == [True] * 4 + [False] * 2
    assert [one["aborted"] for one in evicted] == [1, 1, 1, 0, 0, 0]
    assert {one["residue"] for one in evicted} == {0.0}
    for stream in streams:
        assert list(stream)[-1]["error"]["code"] == Code.MODEL_DELETED
    assert list(other)
    assert other.is_done
    state = engine.send("GET", paths.STATE)[1]
    assert set(names) <= set(state["tombstones"])
    assert not set(names) & set(state["bases"][0]["adapters"])


@pytest.mark.parametrize("count", [0, EVICTIONS_MAX + 1])
def test_how_many_can_be_evicted_in_one_request_is_bounded(
    engine: EngineProcess, count: int
) -> None:
    before = engine.send("GET", paths.STATE)[1]["tombstones"]
    assert problem(engine.evict(*(f"m_{number}" for number in range(count))))[0] == 400
    assert engine.send("GET", paths.STATE)[1]["tombstones"] == before


def test_as_many_as_are_allowed_fit_into_one_request(engine: EngineProcess) -> None:
    names = [f"m_{number:060}" for number in range(EVICTIONS_MAX)]
    status, body = engine.evict(*names)
    assert status == 200, body
    assert [one["name"] for one in body["evicted"]] == names


def test_what_the_engine_says_is_what_the_messages_describe(engine: EngineProcess) -> None:
    state = msgspec.convert(engine.send("GET", paths.STATE)[1], State)
    assert (state.version, state.pid) == (VERSION, engine.process.pid)
    facts = msgspec.structs.asdict(state.bases[0])
    # Of an engine that adapters are pushed to.
    assert {name for name, value in facts.items() if value is None} == {
        "shapes",
        "rank_max",
        "loading",
    }


def test_an_aborted_request_that_is_not_streamed_gets_404(engine: EngineProcess) -> None:
    assert engine.load("m_abort", demo_models.adapter_dir("zebra says"))[0] == 200
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(engine.chat, "m_abort", "Hello", **endless(1500))
        engine.wait_for("running", 1)
        assert engine.send("POST", paths.abort_path("m_abort"))[1]["aborted"] == 1
        status, error = problem(asked.result())
    assert (status, error["code"]) == (404, Code.MODEL_DELETED)
    assert engine.said("m_abort", "Hello").startswith("zebra says")  # abort is not evict


def test_a_client_that_goes_away_frees_its_row(engine: EngineProcess) -> None:
    stream = engine.stream("m_0", "Hello", **endless(1900))
    next(iter(stream))
    engine.wait_for("running", 1)
    before = engine.base_state()["tokens_generated"]
    stream.close()
    engine.wait_for("running", 0)
    assert engine.base_state()["tokens_generated"] - before < 1000


def test_bad_adapters_are_refused_and_their_files_are_gone(
    engine: EngineProcess, tmp_path: Path
) -> None:
    source = demo_models.adapter_dir("zebra says")
    config = json.loads((source / "adapter_config.json").read_text("utf-8"))
    weights = (source / "adapter_model.safetensors").read_bytes()
    bad = {
        "dora": ({**config, "use_dora": True}, weights),
        "rank": ({**config, "r": 1000}, weights),
        "other rank": ({**config, "r": 4}, weights),
        "cut": (config, weights[:-10]),
        "empty": (config, b""),
        "header": (config, (2**60).to_bytes(8, "little") + weights[8:]),
        "config": ([1], weights),
    }
    for name, (entries, data) in bad.items():
        directory = tmp_path / name
        directory.mkdir()
        (directory / "adapter_config.json").write_text(json.dumps(entries), "utf-8")
        (directory / "adapter_model.safetensors").write_bytes(data)
        status, error = problem(engine.load(f"m_bad_{name.split()[0]}", directory))
        assert (status, error["code"]) == (400, Code.INVALID_ADAPTER), name
    assert not {name for name in engine.base_state()["adapters"] if "bad" in name}


def test_bases_that_cannot_be_served_are_refused(engine: EngineProcess, tmp_path: Path) -> None:
    config = json.loads((demo_models.base_dir() / "config.json").read_text("utf-8"))
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({**config, "model_type": "unheard"}), "utf-8")
    for path in (tmp_path / "missing", tmp_path, unknown):
        answer = engine.send("POST", paths.BASES, {"name": "other", "path": str(path)})
        status, error = problem(answer)
        assert (status, error["code"]) == (400, Code.INVALID_BASE)


def test_loading_twice_changes_nothing(engine: EngineProcess) -> None:
    assert engine.load("m_0", demo_models.adapter_dir(PHRASES[0]))[0] == 200
    base = {"name": BASE, "path": str(demo_models.base_dir())}
    assert engine.send("POST", paths.BASES, base)[0] == 200
    assert engine.said("m_0", "Hello").startswith(PHRASES[0])


def test_full_slots_evict_the_least_recently_used_idle_adapter(tmp_path: Path) -> None:
    adapter = demo_models.adapter_dir("zebra says")
    with running_engine(tmp_path, "--adapters", "2", "--rows", "2", "--waiting", "300") as engine:
        assert engine.load("m_a", adapter)[0] == engine.load("m_b", adapter)[0] == 200
        assert engine.chat("m_a", "Hello")[0] == 200
        assert engine.load("m_c", adapter)[0] == 200
        assert engine.base_state()["adapters"] == ["m_a", "m_c"]
        busy = [engine.stream(name, "Hello", **endless(1900)) for name in ("m_a", "m_c")]
        status, error = problem(engine.load("m_d", adapter))
        assert (status, error["code"]) == (503, Code.ENGINE_FULL)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(engine.chat, BASE, "Hello", n=4)
            engine.wait_for("waiting", 4)
            status, error = problem(engine.chat(BASE, "Hello"))
            assert (status, error["code"]) == (503, Code.ENGINE_OVERLOADED)
            for stream in busy:
                stream.close()
            assert waiting.result()[0] == 200
        engine.wait_for("running", 0)
        assert engine.load("m_d", adapter)[0] == 200


def test_stopping_ends_streams_with_an_error(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        stream = engine.stream(BASE, "Hello", **endless(1900))
        engine.process.terminate()
        assert list(stream)[-1]["error"]["code"] == Code.ENGINE_STOPPING
        engine.process.wait(20)


def test_the_socket_is_its_owners_alone(engine: EngineProcess) -> None:
    assert engine.path.stat().st_mode & 0o777 == 0o600
