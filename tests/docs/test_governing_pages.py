"""Pages whose commands and programs run here, in their order: keys, limits, the audit log, deleting the right model."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.cli import in_process
from tests.support import administration, servers
from tests.support.servers import LOCAL_BASE, Server, WithoutTorch

from tunewarden.identity.policy import Role
from tunewarden_receipts import cli as receipts_cli

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
BLOCK = re.compile(r"^```(sh|python)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
URL = "http://127.0.0.1:8800/v1"
MODEL = "ft:my-base:my-org:support:AbCd1234"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("governing") / "data"
    with servers.serving(data, local_base=True, kind=WithoutTorch) as running:
        yield running


@dataclass
class Reader:
    """Who follows a page: with an Owner's key and an admin key, and words of the page that are something else here."""

    page: str
    server: Server
    admin_key: str
    words: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text = (HOW_TO / self.page).read_text("utf-8")
        self.blocks = [(kind, self._here(code)) for kind, code in BLOCK.findall(text)]
        self.environment |= {
            "TUNEWARDEN_URL": self.server.url,
            "TUNEWARDEN_API_KEY": self.server.owner_key,
            "TUNEWARDEN_ADMIN_KEY": self.admin_key,
        }

    def _here(self, code: str) -> str:
        for word, here in self.words.items():
            code = code.replace(word, here)
        return code

    def run(self, number: int, *more: str, **environment: str) -> list[str]:
        """Run the commands of a block, the first is 1; return what each printed."""
        kind, code = self.blocks[number - 1]
        assert kind == "sh"
        return [self.command(one, *more, **environment) for one in code.splitlines()]

    def command(self, line: str, *more: str, **environment: str) -> str:
        words = shlex.split(line, comments=True)
        assert words[0] == "tunewarden"
        settings = environment or self.environment
        ran = in_process.run_cli(*words[1:], *more, settings=settings)
        assert ran.returncode == 0, (line, ran.stderr)
        return ran.stdout

    def execute(self, number: int, **names: Any) -> dict[str, Any]:
        kind, code = self.blocks[number - 1]
        assert kind == "python"
        here = code.replace(URL, self.server.url).replace("sk-tw-admin-…", self.admin_key)
        exec(here, names)
        return names


def _project(server: Server, admin_key: str, name: str) -> str:
    made = administration.ask(server, "POST", "/projects", admin_key, {"name": name})
    return str(made.json["id"])


def test_keys(server: Server) -> None:
    here = {"TUNEWARDEN_DATA": str(server.data)}
    page = Reader("keys.md", server, "", {"DIR": str(server.data)})
    [first] = page.run(1, **here)
    page.admin_key = page.environment["TUNEWARDEN_ADMIN_KEY"] = first.strip()
    _, code = page.blocks[1]
    address, key, create = code.splitlines()
    assert (address.split("=")[0], key.split("=")[0]) == (
        "export TUNEWARDEN_URL",
        "export TUNEWARDEN_ADMIN_KEY",
    )
    assert page.command(create).startswith("proj_")
    page.execute(
        3, OpenAI=lambda **of: openai.OpenAI(**of | {"base_url": server.url, "api_key": "-"})
    )
    administration.make_user(server.app, "ada", email="ada@example.com", role=Role.OWNER)
    assert page.run(4)[0].startswith("sk-tw-admin-")
    server.make_key("owner", organization="research")
    assert page.run(5)[0].startswith("sk-tw-admin-")
    administration.make_user(server.app, "bob", email="bob@example.com")
    page.blocks = [
        (kind, code.replace("ada@example.com", "bob@example.com")) for kind, code in page.blocks
    ]
    project = _project(server, page.admin_key, "keys")
    page.blocks = [(kind, code.replace("proj_…", project)) for kind, code in page.blocks]
    _, of_person = page.run(6)
    of_account = page.run(7)[0]
    for shown in (of_person, of_account):
        assert "sk-tw-" in shown
    listed = page.run(9)[0]
    [key_id] = re.findall(r"^(key_\w+)\tlaptop", listed, re.MULTILINE)
    page.blocks = [(kind, code.replace("key_…", key_id)) for kind, code in page.blocks]
    assert "sk-tw-" in page.run(8)[0]
    page.run(10)
    _, code = page.blocks[10]
    revoke, remove = code.splitlines()
    page.command(revoke)
    assert key_id not in page.run(9)[0]
    page.command(remove, "--yes")
    assert "\tlaptop" not in page.run(9)[0]


def test_limits(server: Server) -> None:
    admin_key = administration.make_admin_key(server.app)
    project = _project(server, admin_key, "limited")
    user = administration.make_user(server.app, "limited", role=Role.OWNER)
    key = administration.ask(
        server, "POST", f"/projects/{project}/api_keys", admin_key, {"user_id": user, "name": "k"}
    ).json["id"]
    words = {"PROJECT": project, "proj_…": project, "KEY_ID": key, "demo": LOCAL_BASE}
    page = Reader("limits.md", server, admin_key, words)
    page.run(1)
    page.execute(2, openai=openai)
    assert f"{LOCAL_BASE}\t600\t" in page.command(f"tunewarden projects limits list {project}")
    page.run(3)
    assert "50000000000" in page.command(f"tunewarden projects quota {project}")


def test_the_audit_log(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = server.make_model().id
    server.client().models.delete(model)
    words = {"ft:my-base:my-org::a1b2c3d4": model, "DIR": str(server.data)}
    page = Reader("audit-log.md", server, administration.make_admin_key(server.app), words)
    deleted, of_model = page.run(1)
    assert model in deleted
    assert model in of_model
    page.execute(2)
    assert model in capsys.readouterr().out
    page.run(3)
    assert Path("2026-01.jsonl").is_file()
    administration.make_digest(server.app)
    Path("log.pem").write_bytes(server.get("/.well-known/tunewarden-log-key").body)
    page.run(4)
    page.run(5)


def test_delete_the_right_model(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", server.owner_key)
    first, second, third, fourth = (server.make_model(suffix="trial").id for _ in range(4))
    words = {
        "ft:my-base:my-org:support:EfGh5678": second,
        "ft:…:EfGh5678": second,
        "ft:…:IjKl9012": third,
        "file-AbCd1234": server.client()
        .files.create(file=("a.jsonl", b'{"messages": []}\n'), purpose="fine-tune")
        .id,
    }
    page = Reader("delete-the-right-model.md", server, "", words | {MODEL: first})
    page.environment["TUNEWARDEN_ADMIN_KEY"] = administration.make_admin_key(server.app)
    assert first in page.run(1)[0]
    page.run(3)
    page.run(5)
    page.command("tunewarden aliases delete support")
    page.execute(2)
    page.blocks = [(kind, code.replace(first, fourth)) for kind, code in page.blocks]
    page.run(4, "--yes")
    left = {one.id for one in server.client().models.list()}
    assert left.isdisjoint({first, fourth})
    assert {second, third} <= left, "the latest three are kept"


def test_the_logs_key_is_rotated_and_an_old_receipt_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    with servers.serving(data, local_base=True, kind=WithoutTorch) as server:
        client = server.client()
        client.models.delete(server.make_model().id)
        deletion = server.get("/v1/deletions", key=server.owner_key).json["data"][0]["id"]
        receipt = server.get(f"/v1/deletions/{deletion}/receipt", key=server.owner_key).body
        Path("receipt.json").write_bytes(receipt)
        Path("old.pem").write_bytes(server.get("/.well-known/tunewarden-log-key").body)
    [(_, rotate), (_, verify)] = BLOCK.findall((HOW_TO / "keys.md").read_text("utf-8"))[11:]
    looked, rotated = rotate.replace("DIR", str(data)).splitlines()
    for line, more in ((looked, ()), (rotated, ("--yes",))):
        ran = in_process.run_cli(*shlex.split(line, comments=True)[1:], *more)
        assert ran.returncode == 0, ran.stderr
    fetch, check = verify.splitlines()
    with servers.serving(data, kind=WithoutTorch) as server:
        path = fetch.removeprefix("curl -O https://models.example.com")
        Path("hand-overs").write_bytes(server.get(path).body)
        key = server.get("/.well-known/tunewarden-log-key").body
        assert key != Path("old.pem").read_bytes()
    with pytest.raises(SystemExit) as ended:
        receipts_cli.main(shlex.split(check)[1:])
    assert ended.value.code == 0


def test_a_certificate_for_an_engine_is_issued(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = Reader("vllm.md", server, "", {})
    page.run(5, TUNEWARDEN_DATA=str(server.data))
    assert {one.name for one in Path("gpu-1").iterdir()} >= {"engine.crt", "engine.key", "ca.crt"}
