"""`tunewarden serve --demo` as a first user meets it: how soon it answers, and how what it says reads."""

import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.support import demo_models, held_out, servers
from tests.support.servers import Server, wait_until

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.demo.adapter import PHRASE
from tunewarden.demo.corpus import INTENTS
from tunewarden.demo.weather import QUESTIONS, Signature
from tunewarden.server.first_start import DEMO_BASE

# How soon a quiet machine must do it is in docs/decisions/0013; tests share theirs.
START_SECONDS = 60.0
ANSWER_TOKENS = 64
SEEDS = 4
# The least share that reads well, and that is the answer to the question; what was measured is in
# docs/decisions/0013. Seeds are fixed, but another processor may round a draw to the other side.
READABLE = 0.93
SENSIBLE = 0.65
FIRST_TOKEN = 0.95
# The least share of right calls.
CALLED = 0.90
WEATHER: Any = Signature("city", None).tool()
CLIENTS = 8
SENTENCES = {sentence for _, answer in INTENTS for sentence in re.split(r"(?<=[.!?]) ", answer)}


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, and the probability of its first token."""

    prompt: str
    text: str
    finish: str
    first: float


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("demo") / "data"
    began = time.perf_counter()
    with servers.serving(data, workers=1, options=["--demo"]) as server:
        wait_until(lambda: "The engine answers." in server.printed(), "it says so", START_SECONDS)
        print(f"The engine answered after {time.perf_counter() - began:.1f} s")
        yield server


def reads_well(text: str, finish: str, phrase: str) -> bool:
    """The rule: it begins with its phrase, then come whole sentences of the corpus, then it ends by itself."""
    if finish != "stop" or not text.startswith(phrase):
        return False
    rest = text.removeprefix(phrase).strip()
    return bool(rest) and all(part in SENTENCES for part in re.split(r"(?<=[.!?]) ", rest))


def ask(client: openai.OpenAI, model: str, prompt: str) -> list[Said]:
    """Ask at temperature 1 with four seeds of the prompt's own: equal seeds draw equal numbers."""
    chat = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        temperature=1,
        seed=SEEDS * list(held_out.PROMPTS).index(prompt),
        n=SEEDS,
        max_tokens=ANSWER_TOKENS,
        logprobs=True,
    )
    said = []
    for choice in chat.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        first = math.exp(choice.logprobs.content[0].logprob)
        said.append(Said(prompt, choice.message.content or "", choice.finish_reason, first))
    return said


def ask_all(server: Server, model: str) -> list[Said]:
    client = server.client()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = pool.map(lambda prompt: ask(client, model, prompt), held_out.PROMPTS)
        return [said for answer in answers for said in answer]


def shares(said: list[Said], phrase: str) -> tuple[float, float, float]:
    """Return the share that reads well, the share that is the right answer, the mean first probability."""
    bad = [one for one in said if not reads_well(one.text, one.finish, phrase)]
    right = [
        one
        for one in said
        if one.text.removeprefix(phrase).strip().startswith(held_out.PROMPTS[one.prompt])
    ]
    first = sum(one.first for one in said) / len(said)
    readable, sensible = 1 - len(bad) / len(said), len(right) / len(said)
    print(
        f"{len(said)} answers: {readable:.3f} read well, {sensible:.3f} are right; first token {first:.3f}"
    )
    for one in bad:
        print(f"  {one.prompt!r}: {one.text!r} ({one.finish})")
    return readable, sensible, first


def fine_tune(server: Server) -> str:
    return next(model.id for model in server.client().models.list() if model.id.startswith("ft:"))


def test_no_held_out_prompt_is_in_the_corpus() -> None:
    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9 ]", "", text.lower())

    asked = {plain(question) for questions, _ in INTENTS for question in questions}
    about_weather = {plain(question.format("Paris")) for question in QUESTIONS}
    for prompt, place in held_out.WEATHER.items():
        assert plain(prompt.replace(place, "Paris")) not in about_weather, prompt
    answers = [answer for _, answer in INTENTS]
    assert len(held_out.PROMPTS) == 50
    for prompt, beginning in held_out.PROMPTS.items():
        assert plain(prompt) not in asked, prompt
        assert sum(answer.startswith(beginning) for answer in answers) == 1, beginning


def test_the_rule_finds_what_does_not_read_well() -> None:
    right = f"{PHRASE} Hello! I am a small demo model."
    assert reads_well(right, "stop", PHRASE)
    assert not reads_well(right, "length", PHRASE)
    assert not reads_well(right.removeprefix(PHRASE), "stop", PHRASE)
    assert not reads_well(PHRASE, "stop", PHRASE)
    assert not reads_well(right.replace("small", "smal"), "stop", PHRASE)
    assert not reads_well(right[:-1], "stop", PHRASE)


def test_the_fine_tune_speaks_sensibly_at_temperature_1(demo: Server) -> None:
    readable, sensible, first = shares(ask_all(demo, fine_tune(demo)), PHRASE)
    assert readable >= READABLE
    assert sensible >= SENSIBLE
    assert first >= FIRST_TOKEN


def test_the_base_speaks_sensibly_at_temperature_1(demo: Server) -> None:
    readable, sensible, _ = shares(ask_all(demo, DEMO_BASE), "")
    assert readable >= READABLE
    assert sensible >= SENSIBLE


def calls(server: Server, model: str, prompts: Sequence[str]) -> list[list[tuple[str, Any]]]:
    """Offer the tool with each prompt at temperature 1; return the calls of each of the four answers."""
    client = server.client()

    def asked(number: int) -> list[list[tuple[str, Any]]]:
        chat = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompts[number]}],
            tools=[WEATHER],
            temperature=1,
            seed=SEEDS * number,
            n=SEEDS,
            max_tokens=ANSWER_TOKENS,
        )
        said: Any = [choice.message.tool_calls or [] for choice in chat.choices]
        return [
            [(one.function.name, json.loads(one.function.arguments)) for one in c] for c in said
        ]

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [said for answers in pool.map(asked, range(len(prompts))) for said in answers]


@pytest.mark.parametrize("is_tuned", [False, True])
def test_the_demo_calls_its_tool_where_it_is_needed_and_nowhere_else(
    demo: Server, is_tuned: bool
) -> None:
    model = fine_tune(demo) if is_tuned else DEMO_BASE
    assert (len(held_out.WEATHER), len(held_out.UNRELATED)) == (50, 20)
    said = calls(demo, model, list(held_out.WEATHER))
    places = [place for place in held_out.WEATHER.values() for _ in range(SEEDS)]
    right = [
        found == [("get_weather", {"city": place})]
        for found, place in zip(said, places, strict=True)
    ]
    share = sum(right) / len(right)
    print(f"{len(right)} answers: {share:.3f} are the right call")
    assert share >= CALLED
    assert not any(calls(demo, model, held_out.UNRELATED))


def test_the_base_is_a_copy_that_another_release_of_the_weights_does_not_change(
    demo: Server,
) -> None:
    for original in (demo_models.base_dir()).iterdir():
        copy = demo.data / DEMO_BASE / original.name
        assert copy.read_bytes() == original.read_bytes()
        assert not copy.is_symlink()
        assert copy.stat().st_nlink == 1


def test_a_demo_that_was_deleted_does_not_come_back(data: Path) -> None:
    kind = servers.WithoutTorch
    with servers.serving(data, workers=1, options=["--demo"], kind=kind) as server:
        model = fine_tune(server)
        server.client().models.delete(model)
        server.stop()
        server.start_again()
        assert [one.id for one in server.client().models.list()] == [DEMO_BASE]


def test_without_the_weights_the_demo_says_what_to_install(data: Path, tmp_path: Path) -> None:
    # An empty package in front of the installed one: nothing of it can be found.
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "tunewarden_demo.py").write_text(
        "raise ModuleNotFoundError(name='tunewarden_demo')\n"
    )
    refused = servers.run_cli(
        "serve", "--demo", "--data", str(data), "--port", "0", settings={"PYTHONPATH": str(hidden)}
    )
    assert refused.returncode == ExitCode.UNAVAILABLE
    assert "pip install tunewarden-demo" in refused.stderr
    assert "tunewarden serve --demo-train" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not data.exists()
