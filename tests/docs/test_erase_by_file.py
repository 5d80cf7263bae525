"""docs/tutorials/erase-by-file.md: its lines run, with real jobs on the demo's base, and its commands do what it says."""

import re
import shlex
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.support import engines, servers
from tests.support.servers import Server

from tunewarden_receipts import cli as receipts_cli

DOCUMENT = Path(__file__).parents[2] / "docs/tutorials/erase-by-file.md"
TEXT = DOCUMENT.read_text("utf-8")
CODE = dict(re.findall(r"^```python (\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.long
def test_its_lines_erase_a_file_with_both_models_that_learned_from_it(
    engine_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = engine_server
    run: dict[str, Any] = {}
    # Nothing but the address is not as it is printed.
    (tmp_path / "data").symlink_to(server.data)
    exec(CODE["make"].replace("http://127.0.0.1:8800/v1", server.url), run)
    assert run["BASE"] == engines.BASE
    exec(CODE["plan"], run)
    file = run["theirs"].id
    shown = _command(server, COMMANDS[0], FILE=file)
    assert run["second"] in shown
    assert "dry run" in shown
    run["imported"] = run["other"]
    exec(CODE["declare"], run)
    assert f"{run['other']} (declared, not seen here)" in _command(server, COMMANDS[0], FILE=file)
    run["client"].post(f"/models/{run['other']}", body={"metadata": {}}, cast_to=object)
    lineage = _command(server, "tunewarden models lineage MODEL", MODEL=run["second"])
    assert file in lineage
    assert run["second"] in _command(server, "tunewarden files lineage FILE", FILE=file)
    exec(CODE["erase"], run)
    for gone in (run["first"], run["second"]):
        with pytest.raises(openai.NotFoundError):
            server.client().models.retrieve(gone)
    assert server.client().models.retrieve(run["other"]).id == run["other"]
    case = run["case"]["id"]
    assert case in _command(server, "tunewarden deletions cases")
    _command(server, COMMANDS[2], CASE=case)
    Path("log.pem").write_bytes(server.get("/.well-known/tunewarden-log-key").body)
    assert COMMANDS[3].startswith("tunewarden-receipts verify-case receipts/case.json")
    members = sorted(map(str, Path("receipts").glob("del_*.json")))
    assert len(members) == run["case"]["members"]
    with pytest.raises(SystemExit) as ended:
        receipts_cli.main(["verify-case", "receipts/case.json", *members, "--log-key", "log.pem"])
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as refused:
        receipts_cli.main(
            ["verify-case", "receipts/case.json", *members[1:], "--log-key", "log.pem"]
        )
    assert refused.value.code == 1


def test_the_command_asks_for_the_files_id_and_deletes_what_it_showed(server: Server) -> None:
    content = ("a.jsonl", b'{"messages": []}\n')
    file = server.client().files.create(file=content, purpose="fine-tune").id
    model = server.make_model().id
    server.post(f"/v1/models/{model}", {"metadata": {"trained_on": file}})
    words = shlex.split(COMMANDS[1].replace("FILE", file))[1:]
    ran = servers.run_cli(*words, settings=_settings(server), stdin="file-other\n")
    assert ran.returncode == 1
    assert "Nothing was deleted" in ran.stderr
    assert server.client().models.retrieve(model).id == model
    hold = server.post("/v1/holds", {"model": model, "reason": "x"}).json["id"]
    ran = servers.run_cli(*words, settings=_settings(server), stdin=f"{file}\n")
    assert (ran.returncode, model in ran.stderr) == (5, True)
    server.post(f"/v1/holds/{hold}/lift", {})
    ran = servers.run_cli(*words, settings=_settings(server), stdin=f"{file}\n")
    assert ran.returncode == 0, ran.stderr
    case = ran.stdout.strip()
    assert f"model: {model} (declared, not seen here)" in ran.stderr
    found = server.get(f"/v1/deletion_cases/{case}", key=server.owner_key).json
    assert (found["status"], found["members"]) == ("complete", 2)


def _settings(server: Server) -> dict[str, str]:
    return {
        "TUNEWARDEN_URL": server.url.removesuffix("/v1"),
        "TUNEWARDEN_API_KEY": server.owner_key,
    }


def _command(server: Server, line: str, **names: str) -> str:
    """Run a command of the document; return all that it said."""
    for name, value in names.items():
        line = line.replace(name, value)
    ran = servers.run_cli(*shlex.split(line)[1:], settings=_settings(server))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr
