"""The README's program and its commands run as they stand, on other addresses, ids and paths."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.support import bases, migrations, servers
from tests.support.servers import Server

from tunewarden_receipts import cli as receipts_cli

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("readme") / "data"
    with servers.serving(data, local_base=True, kind=migrations.WithFakeTrainer) as running:
        yield running


def _block(language: str, beginning: str) -> str:
    found: list[str]
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    [one] = [code for code in found if code.startswith(beginning)]
    return one


def test_its_program_gets_an_answer_and_deletes_the_model(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _block("python", "from openai")
    [named, _] = re.findall(r'"(ft:[^"]+)"', code)
    model = server.make_model().id
    here = {"http://127.0.0.1:8800/v1": server.url, "sk-tw-…": server.owner_key, named: model}
    for written, instead in here.items():
        assert written in code
        code = code.replace(written, instead)
    exec(code, {})
    assert capsys.readouterr().out.strip()
    with pytest.raises(openai.NotFoundError):
        server.client().models.retrieve(model)


def test_its_commands_add_import_train_delete_and_verify(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bases.write_base(tmp_path / "base")
    Path("my-lora").mkdir()
    adapter = bases.adapter()
    Path("my-lora/adapter_config.json").write_bytes(adapter.config)
    Path("my-lora/adapter_model.safetensors").write_bytes(adapter.weights)
    Path("chats.jsonl").write_bytes(migrations.chats(12))
    Path("log.pem").write_bytes(server.get("/.well-known/tunewarden-log-key").body)
    here = {"/models/my-base": str(tmp_path / "base"), "data": str(server.data)}
    add, bring_in, train, make_key, delete, show, verify = [
        [here.get(word, word) for word in shlex.split(line, comments=True)]
        for line in _block("sh", "tunewarden bases").splitlines()
    ]
    _run(add)
    model = _run(bring_in).strip()
    assert model.startswith("ft:my-base:")
    job = _run(train).strip()
    assert server.client().fine_tuning.jobs.retrieve(job).status == "succeeded"
    assert "sk-tw-" in _run(make_key)
    deletion = _run([model if word.startswith("ft:") else word for word in delete], f"{model}\n")
    assert deletion.startswith("del_")
    _run([deletion.strip() if word == "del_…" else word for word in show])
    with pytest.raises(SystemExit) as ended:
        receipts_cli.main(verify[1:])
    assert ended.value.code == 0


def _run(words: list[str], stdin: str = "") -> str:
    assert words[0] == "tunewarden"
    ran = servers.run_cli(*words[1:], stdin=stdin)
    assert ran.returncode == 0, (words, ran.stderr)
    return ran.stdout
