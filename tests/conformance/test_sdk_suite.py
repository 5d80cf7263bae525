"""The official SDK's own tests, on a real server. docs/reference/conformance.md says what came of it.

After a change that is meant: `make conformance`, and read the difference.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.conformance import literals, offers, seeds, suite
from tests.conformance.offers import Set
from tests.conformance.seeds import Seeds
from tests.conformance.suite import Outcome
from tests.fakes.upstream import FakeUpstream, Recorded
from tests.support import administration, engines, servers
from tests.support.servers import Server

from tunewarden import app as composition
from tunewarden.app import open_app
from tunewarden.config import Config
from tunewarden.server.first_start import make_owner

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "conformance.md"
BEGIN, END = "<!-- conformance: begin -->\n", "<!-- conformance: end -->"
VARIANTS = 5  # two of the client, three of the asynchronous one
REFUSED = re.compile(r"Error code: (400|404|405)\b|Skipped: aiohttp client is not compatible")
# Jobs are taken on, paused and cancelled, but not trained: that is shown elsewhere, and takes a while.
SETTINGS = {"training_jobs_max": 0}


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of the whole suite, and the server, which still runs."""

    server: Server
    folder: Path
    outcomes: list[Outcome]
    passed_on: list[Recorded]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    directory = tmp_path_factory.mktemp("sdk")
    source = suite.unpack(directory)
    data = directory / "data"
    app = open_app(Config(data=data), migrate=True)
    make_owner(app)
    seeds.prepare_bases(app)
    with FakeUpstream() as upstream, servers.serving(data, settings=SETTINGS) as server:
        servers.wait_until(lambda: _answers(server), "the engine answers", engines.ENGINE_SECONDS)
        restored = Seeds(server.app, server.owner_key, upstream)
        files = [file for one in offers.SETS for file in one.files]
        outcomes = suite.run(
            source,
            files,
            url=server.url,
            key=server.owner_key,
            admin_key=administration.make_admin_key(server.app),
            before=restored.restore,
        )
        yield Ran(server, source / suite.FOLDER, outcomes, list(upstream.requests))


def test_every_test_of_what_is_offered_passes(ran: Ran) -> None:
    wrong = [
        f"{one.name} {one.outcome}: {one.text[-2000:]}"
        for one in ran.outcomes
        if not one.has_passed and offers.reason(one.name) is None
    ]
    assert wrong == []


def test_what_is_not_offered_is_refused_in_plain_words(ran: Ran) -> None:
    listed = [one for one in ran.outcomes if offers.reason(one.name) is not None]
    assert [one.name for one in listed if one.has_passed] == [], "take these off the list"
    assert [f"{one.name}: {one.text}" for one in listed if not REFUSED.search(one.text)] == []
    unused = [
        one.tests
        for one in offers.NOT_OFFERED
        if not any(one.covers(outcome.name) for outcome in ran.outcomes)
    ]
    assert unused == []


def test_no_test_of_the_suite_is_left_out(ran: Ran) -> None:
    written = {
        f"{path.relative_to(ran.folder)}::{test}"
        for one in offers.SETS
        for file in one.files
        for path in _files(ran.folder / file)
        for test in literals.functions(path)
    }
    assert {one.name.partition("[")[0] for one in ran.outcomes} == written
    # Each once for every client that the suite has.
    assert len(ran.outcomes) == len(written) // 2 * VARIANTS


def test_every_file_of_administration_is_a_set_or_left_out_for_a_reason(ran: Ran) -> None:
    known = {*offers.LEFT_OUT, *(file for one in offers.SETS for file in one.files)}
    files = [
        path.relative_to(ran.folder).as_posix()
        for path in (ran.folder / "admin").rglob("test_*.py")
    ]
    covering = {file: [one for one in known if f"{file}/".startswith(f"{one}/")] for file in files}
    assert {file: names for file, names in covering.items() if len(names) != 1} == {}
    used = {name for names in covering.values() for name in names}
    assert offers.LEFT_OUT.keys() <= used


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("chat/test_completions.py", "/v1/chat/completions"),
        ("test_completions.py", "/v1/completions"),
        ("test_responses.py", "/v1/responses"),
    ],
)
def test_a_remote_base_gets_every_parameter_as_it_was_sent(ran: Ran, file: str, path: str) -> None:
    # But for one: no response is stored.
    changed: dict[str, object] = {"model": FakeUpstream.models[0]}
    if path == "/v1/responses":
        changed["store"] = False
    for overload, is_stream in ((1, False), (2, True)):
        test = f"test_method_{seeds.EVERY_PARAMETER}_overload_{overload}"
        sent = literals.arguments(ran.folder / file, test, "create")
        got = [
            one.fields
            for one in ran.passed_on
            if one.path == path and bool(one.fields.get("stream")) is is_stream
        ]
        assert got == [sent | changed] * VARIANTS


def test_a_job_takes_all_parameters_of_the_suite_but_its_integration(ran: Ran) -> None:
    file = ran.folder / "fine_tuning" / "test_jobs.py"
    asked: dict[str, Any] = literals.arguments(file, "test_method_create_with_all_params", "create")
    del asked["integrations"]
    job = ran.server.client().fine_tuning.jobs.create(**asked)
    assert (job.seed, job.metadata, job.model) == (asked["seed"], asked["metadata"], asked["model"])


def test_what_the_suite_deleted_is_gone(ran: Ran) -> None:
    app = ran.server.app
    answered = [
        one.name
        for one in ran.outcomes
        if re.match(rf"test_(models|files)\.py::\w+::{offers.CALLS}_delete\[", one.name)
    ]
    found = app.database.peek("SELECT COUNT(*) FROM deletions WHERE receipt IS NOT NULL")
    assert found == (len(answered),)
    inventory = composition.inventory(app)
    servers.wait_until(
        lambda: not list(inventory.remnants(is_running=True)), "nothing is left of what was deleted"
    )


def test_with_a_key_of_another_organization_they_fail(ran: Ran) -> None:
    # A control: what passes above passes because of what the server answers.
    outcomes = suite.run(
        ran.folder.parents[1],
        ["fine_tuning/jobs"],
        url=ran.server.url,
        key=ran.server.make_key("owner", organization="another-org"),
        before=lambda _: None,
    )
    passed = {one.name for one in outcomes if one.has_passed}
    assert passed == {one.name for one in outcomes if "::test_path_params_" in one.name}


def test_the_server_met_no_error_of_its_own(ran: Ran) -> None:
    assert "Traceback" not in ran.server.log(), ran.server.log()


def test_the_page_says_what_has_passed(ran: Ran, request: pytest.FixtureRequest) -> None:
    text = PAGE.read_text("utf-8")
    head, rest = text.split(BEGIN)
    written, tail = rest.split(END)
    table = _table(ran.outcomes)
    if request.config.getoption("--update-golden"):
        PAGE.write_text(f"{head}{BEGIN}{table}{END}{tail}", "utf-8")
    else:
        assert written == table, "run `make conformance` and read the difference"


def _answers(server: Server) -> bool:
    client = server.client(max_retries=0)
    try:
        for base in (seeds.CHAT_BASE, seeds.COMPLETIONS_BASE):
            engines.say(client, base, tokens=1)
    except (openai.InternalServerError, openai.APIConnectionError):
        return False
    return True


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


def _table(outcomes: list[Outcome]) -> str:
    lines = [
        f"openai-python {suite.version()}, each test with five clients of it.\n",
        "| set | tests | passed | not offered | why |",
        "|---|---:|---:|---:|---|",
        *(_row(one, outcomes) for one in offers.SETS),
    ]
    passed = [one for one in outcomes if one.has_passed]
    lines.append(f"| **all** | {len(outcomes)} | {len(passed)} | {_refused(outcomes)} |  |")
    empty = [one.name for one in passed if "::test_path_params_" in one.name]
    failed = {one.name for one in outcomes if one.outcome == "failed"}
    idle = sum(one.replace("_path_params_", "_method_") in failed for one in empty)
    remote = sum(
        bool(re.match(r"(chat/)?test_(completions|responses)\.py", one.name))
        and seeds.EVERY_PARAMETER in one.name
        for one in passed
    )
    note = (
        f"Of those that passed, {len(empty)} check that the client refuses an empty id, and send nothing"
        f" ({idle} of them for operations that are not offered). {remote} of the chat completions,"
        " completions and responses give every parameter at once (tools, audio, web search), which the"
        " embedded engine refuses: they run on a remote base, a stand-in for OpenAI's API, which gets every"
        " parameter as it was sent, but for `store` of a response, which is always `false`. The rest of"
        " these run on the embedded engine. Jobs are taken on,"
        " paused, resumed and cancelled, not trained. The suite would answer requests for a file's"
        " content itself: the plugin lets them go to the server."
    )
    lines.append(f"\n{textwrap.fill(note, 118, break_on_hyphens=False)}\n")
    return "\n".join(lines)


def _row(one: Set, outcomes: list[Outcome]) -> str:
    own = [outcome for outcome in outcomes if offers.set_of(outcome.name) is one]
    passed = sum(outcome.has_passed for outcome in own)
    reasons = dict.fromkeys(
        why for outcome in own if (why := offers.reason(outcome.name)) is not None
    )
    return f"| {one.name} | {len(own)} | {passed} | {_refused(own)} | {'; '.join(reasons)} |"


def _refused(outcomes: list[Outcome]) -> int:
    return sum(offers.reason(one.name) is not None for one in outcomes)
