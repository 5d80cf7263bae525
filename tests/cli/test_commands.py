"""The commands, each as a person types it; refusals of arguments and lists in this process (in_process.py)."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tests.cli import in_process
from tests.fakes.upstream import FakeUpstream
from tests.support import servers
from tests.support.servers import LOCAL_BASE, ORGANIZATION, Server, run_cli

from tunewarden import __version__
from tunewarden.cli import waiting
from tunewarden.cli.commands import COMMANDS, cli
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.lazy_group import ALIASES_END
from tunewarden.cli.options import refusing
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format

CONTEXT = click.Context(cli)
STABILITY = Path(__file__).parents[2] / "docs/reference/stability.md"


def _commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command, groups too, and its names."""
    yield path, group
    for name in group.list_commands(CONTEXT):
        command = group.get_command(CONTEXT, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_explains_itself() -> None:
    commands = dict(_commands(cli))
    assert ("models", "delete") in commands
    for path, command in commands.items():
        context = click.Context(command, info_name=" ".join(("tunewarden", *path)))
        text = command.get_help(context)
        assert command.help, path
        assert "--help" in text
        undescribed = [
            option.name
            for option in command.params
            if isinstance(option, click.Option) and not option.help and not option.hidden
        ]
        assert undescribed == [], path


def test_the_line_of_a_group_in_the_help_is_its_own() -> None:
    for name, one in COMMANDS.items():
        command = cli.get_command(CONTEXT, name)
        assert command is not None
        assert command.help is not None
        assert command.help.startswith(one.summary.removesuffix(".")), name


def test_every_command_that_prints_can_print_json_and_every_one_that_destroys_can_show_its_plan() -> (
    None
):
    commands = {
        path: {option.name for option in command.params}
        for path, command in _commands(cli)
        if not isinstance(command, click.Group)
    }
    # One runs until it is stopped, the other prints nothing but JSON.
    assert {path for path, options in commands.items() if "as_json" not in options} == {
        ("serve",),
        ("audit", "export"),
    }
    assert {path for path, options in commands.items() if "dry_run" in options} == {
        ("admin-keys", "revoke"),
        ("aliases", "delete"),
        ("deletions", "create"),
        ("doctor",),
        ("files", "delete"),
        ("fine-tunes", "cancel"),
        ("invites", "revoke"),
        ("keyring", "adopt"),
        ("keys", "revoke"),
        ("keys", "rotate"),
        ("log", "rotate-key"),
        ("migrate", "openai", "delete-source"),
        ("migrate", "openai", "retrain"),
        ("migrate", "openai", "rollback"),
        ("migrate", "openai", "switch"),
        ("models", "delete"),
        ("projects", "archive"),
        ("projects", "users", "remove"),
        ("retention", "rules", "delete"),
        ("retention", "run"),
        ("service-accounts", "delete"),
        ("users", "remove"),
        ("users", "set-role"),
        ("webhooks", "delete"),
    }


@pytest.mark.parametrize(
    ("older", "name"),
    [("base", "bases"), ("receipt", "receipts"), ("finetune", "fine-tunes")],
)
def test_an_older_name_works_and_is_shown_nowhere(older: str, name: str) -> None:
    listed = in_process.run_cli("--help").stdout
    assert f"\n  {name} " in listed
    assert f"\n  {older} " not in listed
    by_older, by_name = (in_process.run_cli(one, "--help") for one in (older, name))
    assert by_older.returncode == 0
    assert by_older.stdout == by_name.stdout.replace(f" {name} ", f" {older} ", 1)
    assert by_name.stderr == ""
    assert by_older.stderr == (
        f"Warning: '{older}' is deprecated and will be removed in {ALIASES_END}. Use '{name}'.\n"
    )


def test_the_warning_of_an_older_name_stays_out_of_json(server: Server) -> None:
    older, name = (in_process.on(server, one, "list", "--json") for one in ("base", "bases"))
    assert (older.stdout, name.stderr) == (name.stdout, "")
    assert older.stderr.count("\n") == 1


def test_older_names_go_in_the_release_that_is_announced() -> None:
    announced = tuple(map(int, ALIASES_END.split(".")))
    assert tuple(map(int, __version__.split(".")[:2])) < announced, "remove them"
    older = [f"`{alias}`" for one in COMMANDS.values() for alias in one.aliases]
    [promise] = re.findall(rf"(`[^.|]*): removed in {ALIASES_END}\.", STABILITY.read_text("utf-8"))
    assert sorted(re.findall("`[a-z]+`", promise)) == sorted(older)


LOADED = """
import atexit, sys
atexit.register(lambda: print([name for name in ("tunewarden.app", "fastapi") if name in sys.modules]))
from tunewarden.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (("--help",), []),
        (("models", "--help"), []),
        (("models", "list"), []),
        (("models", "list", "--data", "{data}"), []),
        (("fine-tunes", "list"), []),
        (("users", "list", "--data", "{data}"), []),
        (("keys", "list", "--data", "{data}"), ["tunewarden.app"]),
    ],
)
def test_a_command_loads_what_it_needs(
    server: Server, arguments: tuple[str, ...], loaded: list[str]
) -> None:
    if "users" in arguments:
        # The first one makes the admin key, for which it needs the application.
        assert in_process.on(server, "users", "list").returncode == 0
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, *(one.format(data=server.data) for one in arguments)],
        capture_output=True,
        text=True,
        env=servers.environment({}) | in_process.over_http(server),
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == str(loaded)


def test_a_shell_completes_names_and_no_older_ones() -> None:
    def completed(*words: str) -> list[str]:
        asked = {
            "_TUNEWARDEN_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("tunewarden", *words)),
            "COMP_CWORD": str(len(words)),
        }
        ran = run_cli(settings=asked)
        assert ran.stderr == ""
        lines = ran.stdout.splitlines()
        return [line.partition(",")[2] for line in lines]

    assert completed("b") == ["backup", "bases"]
    assert completed("f") == ["files", "fine-tunes"]
    assert completed("models", "d") == ["delete"]
    assert completed("receipt", "v") == ["verify"]
    assert "--dry-run" in completed("models", "delete", "--")


def test_help_is_shown_by_the_real_command() -> None:
    shown = run_cli("models", "delete", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "cannot be undone" in shown.stdout or "for good" in shown.stdout
    assert run_cli("--version").stdout.startswith("tunewarden, version ")


def test_an_unknown_command_and_a_missing_argument_are_usage_errors() -> None:
    for arguments in (("nothing",), ("models", "show"), ("keys", "create", "--role", "king")):
        refused = run_cli(*arguments)
        assert refused.returncode == 2, refused
        assert "Traceback" not in refused.stderr


def test_a_command_on_no_data_directory_says_how_to_start_one(tmp_path: Path) -> None:
    for command in (("models", "list"), ("keys", "list"), ("bases", "list")):
        refused = in_process.run_cli(*command, "--data", f"{tmp_path}/nothing")
        assert refused.returncode == ExitCode.UNAVAILABLE
        assert "tunewarden serve --data" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


# Keys


@pytest.mark.parametrize("role", ["owner", "reader"])
def test_a_new_key_stands_alone_on_its_line_and_works(server: Server, role: str) -> None:
    made = in_process.on(server, "keys", "create", "--role", role, "--name", "ci")
    assert made.returncode == 0, made.stderr
    key = made.stdout.removesuffix("\n")
    assert key_format.FORMAT.fullmatch(key)
    assert key not in made.stderr
    assert server.client(key).models.list().data
    assert server.get("/v1/models", key=key).header("openai-organization") == ORGANIZATION


def test_a_key_for_a_new_organization_sees_none_of_the_others_models(server: Server) -> None:
    model = server.make_model()
    made = in_process.on(server, "keys", "create", "--role", "owner", "--organization", "new-one")
    listed = server.client(made.stdout.strip()).models.list().data
    assert [one.id for one in listed] == [LOCAL_BASE]
    assert model.id not in [one.id for one in listed]


def test_a_restricted_key_may_do_what_its_scope_says_alone(server: Server) -> None:
    made = in_process.on(server, "keys", "create", "--role", "owner", "--scope", "api.delete")
    key = made.stdout.strip()
    assert server.get("/v1/models", key=key).status == 403
    model = server.make_model()
    assert server.request("DELETE", f"/v1/models/{model.id}", key=key).status == 200
    refused = in_process.on(
        server, "keys", "create", "--role", "owner", "--scope", "api.everything"
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Unknown scope 'api.everything'" in refused.stderr


def test_a_revoked_key_is_refused_at_once_by_the_running_server(server: Server) -> None:
    made = in_process.on(server, "keys", "create", "--role", "owner")
    key = made.stdout.strip()
    key_id = made.stderr.split()[0]
    assert server.get("/v1/models", key=key).status == 200
    revoked = in_process.on(server, "keys", "revoke", key_id)
    assert (revoked.returncode, revoked.stdout) == (0, f"{key_id}\n")
    # Each a connection of its own, to whichever worker.
    assert {server.get("/v1/models", key=key).status for _ in range(10)} == {401}
    listed = in_process.on(server, "keys", "list").stdout.splitlines()
    assert next(line for line in listed if key_id in line).endswith("revoked")
    assert in_process.on(server, "keys", "revoke", key_id).returncode == 0, "twice changes nothing"
    assert in_process.on(server, "keys", "revoke", "key_nobody").returncode == ExitCode.NOT_FOUND
    assert key not in "".join(listed)


# Models


def test_models_are_listed_and_shown(server: Server) -> None:
    model = server.make_model(suffix="shown")
    listed = [
        line.split("\t") for line in in_process.on(server, "models", "list").stdout.splitlines()
    ]
    assert [LOCAL_BASE, "system"] in [line[:2] for line in listed]
    assert [model.id, ORGANIZATION] in [line[:2] for line in listed]
    shown = in_process.on(server, "models", "show", model.id).stdout
    assert f"id: {model.id}\n" in shown
    assert f"root: {LOCAL_BASE}\n" in shown
    missing = in_process.on(server, "models", "show", "ft:nobody")
    assert (missing.returncode, missing.stdout) == (ExitCode.NOT_FOUND, "")
    assert missing.stderr == "Error: The model 'ft:nobody' does not exist (model not found)\n"


@pytest.mark.parametrize("typed", ["", "\n", "yes\n", "ft:tiny-base:my-org::00000000\n"])
def test_a_wrong_confirmation_deletes_nothing(server: Server, typed: str) -> None:
    model = server.make_model()
    refused = server.cli("models", "delete", model.id, stdin=typed)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert server.get(f"/v1/models/{model.id}", key=server.owner_key).status == 200


def test_typing_the_id_deletes_the_model(server: Server) -> None:
    model = server.make_model()
    deleted = server.cli("models", "delete", model.id, stdin=f"{model.id}\n")
    assert deleted.returncode == 0, deleted.stderr
    assert deleted.stdout.startswith("del_")
    assert deleted.stdout.count("\n") == 1
    assert "cannot be undone" in deleted.stderr
    assert server.get(f"/v1/models/{model.id}", key=server.owner_key).status == 404


@pytest.mark.parametrize("by", ["address", "directory"])
def test_a_script_deletes(server: Server, by: str) -> None:
    model = server.make_model()
    over_http = in_process.over_http(server)
    arguments = ("models", "delete", model.id, "--yes")
    deleted = (
        server.cli(*arguments) if by == "directory" else run_cli(*arguments, settings=over_http)
    )
    assert deleted.returncode == 0, deleted.stderr
    assert deleted.stdout.startswith("del_")
    assert server.get(f"/v1/models/{model.id}", key=server.owner_key).status == 404
    again = server.cli(*arguments) if by == "directory" else run_cli(*arguments, settings=over_http)
    assert again.returncode == ExitCode.NOT_FOUND
    assert "model not found" in again.stderr


def test_a_base_and_a_readers_wish_are_refused(server: Server) -> None:
    base = in_process.on(server, "models", "delete", LOCAL_BASE, "--yes")
    assert base.returncode == ExitCode.REFUSED
    assert "Only fine-tuned models can be deleted" in base.stderr
    model = server.make_model()
    reader = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": server.make_key("reader")}
    refused = in_process.run_cli("models", "delete", model.id, "--yes", settings=reader)
    assert refused.returncode == ExitCode.REFUSED
    assert "Owner role" in refused.stderr


def test_the_output_can_be_piped_into_a_program_that_ends_early(server: Server) -> None:
    ran = subprocess.run(
        f"{sys.executable} -m tunewarden models list --data {server.data} | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=30,
        env=servers.environment({}),
        check=False,
    )
    assert "Traceback" not in ran.stderr


# Bases


def test_bases_are_listed(server: Server) -> None:
    listed = in_process.on(server, "bases", "list").stdout.splitlines()
    assert listed[0].split("\t")[:2] == [LOCAL_BASE, "local"]


def test_a_base_at_a_url_is_taken_by_its_name(server: Server) -> None:
    with FakeUpstream(models=("other", "by-name")) as upstream:
        added = in_process.on(server, "bases", "add", "by-name", "--engine-url", upstream.url + "/")
        assert (added.returncode, added.stdout) == (0, "by-name\n"), added.stderr
        assert upstream.requests[-1].fields["model"] == "by-name", "it answers before this returns"
        again = in_process.on(server, "bases", "add", "by-name", "--engine-url", upstream.url)
        assert again.returncode == ExitCode.CONFLICT
        assert "already" in again.stderr


def test_the_only_model_at_a_url_may_be_called_otherwise(server: Server) -> None:
    with FakeUpstream(models=("Org/Only-Model",)) as upstream:
        added = in_process.on(server, "bases", "add", "only", "--engine-url", upstream.url)
        assert added.returncode == 0, added.stderr
        assert upstream.requests[-1].fields["model"] == "Org/Only-Model"


def test_a_base_that_only_embeds_is_taken(server: Server) -> None:
    with FakeUpstream(models=("embeds",), only="/v1/embeddings") as upstream:
        added = in_process.on(server, "bases", "add", "embeds", "--engine-url", upstream.url)
        assert (added.returncode, added.stdout) == (0, "embeds\n"), added.stderr
        assert upstream.requests[-1].path == "/v1/embeddings"
    with FakeUpstream(models=("says-nothing",), only="/v1/other") as upstream:
        refused = in_process.on(
            server, "bases", "add", "says-nothing", "--engine-url", upstream.url
        )
        assert refused.returncode != 0
        assert "does not support v1/completions" in refused.stderr


def test_a_base_that_is_not_there_is_refused_with_what_is(server: Server) -> None:
    with FakeUpstream(models=("one", "two")) as upstream:
        refused = in_process.on(server, "bases", "add", "three", "--engine-url", upstream.url)
    assert refused.returncode == 1
    assert "It has: one, two." in refused.stderr
    assert "three" not in in_process.on(server, "bases", "list").stdout


def test_a_url_where_nothing_answers_is_refused(server: Server) -> None:
    with FakeUpstream() as upstream:
        url = upstream.url
    for wrong in (url, "http://127.0.0.1:9/v1"):
        refused = in_process.on(server, "bases", "add", "nowhere", "--engine-url", wrong)
        assert refused.returncode == ExitCode.UNAVAILABLE
        assert f"No OpenAI-compatible server answers at {wrong}/models." in refused.stderr


@pytest.mark.parametrize(
    "url", ["nonsense", "file:///etc/passwd", "http://u:p@x/v1", "http://x/v1?a=b", "http://x:port"]
)
def test_a_url_that_is_none_is_refused(server: Server, url: str) -> None:
    refused = in_process.on(server, "bases", "add", "nowhere", "--engine-url", url)
    assert refused.returncode == 1
    assert "An engine's URL looks like" in refused.stderr


@pytest.mark.parametrize("name", ["ft", "a:b", "a/b", "", "x" * 65, "é"])
def test_a_name_that_could_not_stand_in_an_id_is_refused(server: Server, name: str) -> None:
    with FakeUpstream() as upstream:
        refused = in_process.on(server, "bases", "add", name, "--engine-url", upstream.url)
    assert refused.returncode == 1
    assert "Invalid base name" in refused.stderr


def test_a_base_needs_exactly_one_place(server: Server) -> None:
    assert in_process.on(server, "bases", "add", "x").returncode == 2
    both = in_process.on(
        server, "bases", "add", "x", "--path", "/tmp", "--engine-url", "http://x/v1"
    )
    assert both.returncode == 2
    missing = in_process.on(server, "bases", "add", "x", "--path", "/nowhere/at/all")
    assert missing.returncode == 1
    assert "does not exist" in missing.stderr


# Doctor


def _wrong(examined: str) -> list[str]:
    """What is wrong, but for the remote bases of other tests, whose engines are gone."""
    lines = [line for line in examined.splitlines() if line.startswith("FAIL")]
    return [line for line in lines if not line.startswith("FAIL remote base: ")]


def test_doctor_finds_a_running_server_well(server: Server) -> None:
    pytest.importorskip("torch", reason="nothing is missing")
    examined = server.cli("doctor", settings={"TUNEWARDEN_SCRATCH": str(server.scratch)})
    assert _wrong(examined.stdout) == [], examined.stdout
    assert "server: running" in examined.stdout


def test_doctor_names_a_key_that_everybody_can_read_and_what_to_do(server: Server) -> None:
    pytest.importorskip("torch", reason="nothing else is wrong")
    path = server.data / "owner.key"
    path.chmod(0o644)
    try:
        examined = server.cli("doctor", settings={"TUNEWARDEN_SCRATCH": str(server.scratch)})
    finally:
        path.chmod(0o600)
    assert examined.returncode == 1
    assert _wrong(examined.stdout) == [f"FAIL owner.key: mode 0644: run chmod go= {path}"]


def test_doctor_says_of_a_base_that_is_loading_that_it_is_and_fails_only_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="nothing else is wrong")
    monkeypatch.setattr(waiting, "answers", lambda *_: False)
    started = server.data / "run" / "server.json"
    settings = {"TUNEWARDEN_SCRATCH": str(server.scratch)}

    def examined(started_at: float) -> subprocess.CompletedProcess[str]:
        os.utime(started, (started_at, started_at))
        return in_process.on(server, "doctor", settings=settings)

    now = time.time()
    loading = examined(now)
    assert re.search(rf"^wait base: {LOCAL_BASE} is loading", loading.stdout, re.MULTILINE)
    assert _wrong(loading.stdout) == []
    later = examined(now - waiting.WAIT_SECONDS - 1)
    assert later.returncode == ExitCode.FAILED
    assert [line.partition(":")[0] for line in _wrong(later.stdout)] == ["FAIL base"]


def test_an_error_prints_no_control_character() -> None:
    """Its words may quote what another server says."""

    @click.command()
    @refusing
    def command() -> None:
        raise Error(Kind.NOT_FOUND, "No file \x1b]0;title\x07")

    ran = CliRunner().invoke(command)
    assert ran.stderr == "Error: No file \ufffd]0;title\ufffd\n"
