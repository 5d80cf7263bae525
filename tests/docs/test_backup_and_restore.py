"""docs/how-to/backup-and-restore.md, followed to the letter."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import servers
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden_receipts.receipt import verify

DOCUMENT = Path(__file__).parents[2] / "docs/how-to/backup-and-restore.md"


def blocks() -> dict[str, str]:
    found = re.findall(r"```sh (\w+)\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert {name for name, _ in found} == {"backup", "mirror", "restore", "check"}
    return dict(found)


def follow(name: str, data: Path, backup: Path) -> None:
    """Run one block of the document in a shell that has the command."""
    environment = servers.environment({}) | {
        "DATA": str(data),
        "BACKUP": str(backup),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    script = "set -eu\n" + blocks()[name]
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def receipts(server: Server, deletion: str) -> bytes:
    return server.get(f"/v1/deletions/{deletion}/receipt", key=server.make_key("owner")).body


def test_a_restore_brings_everything_back_but_what_was_deleted(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        first, second = server.make_model(), server.make_model()
        follow("backup", data, backup)
        follow("mirror", data, backup)
        reply = server.request("DELETE", f"/v1/models/{first.id}", key=server.owner_key)
        deletion = reply.header("tunewarden-deletion")
        assert deletion is not None
        proof = receipts(server, deletion)
        key = server.get("/.well-known/tunewarden-log-key").body
        verify(proof, key)
        follow("mirror", data, backup)
    shutil.rmtree(data)
    follow("restore", data, backup)
    with servers.serving(data, kind=servers.WithoutTorch) as server:
        owner = server.make_key("owner")
        assert server.get(f"/v1/models/{first.id}", key=owner).status == 404
        assert server.get(f"/v1/models/{second.id}", key=owner).status == 200
        app = server.app
        assert not app.keyring.contains(first.key_id)
        assert app.keyring.contains(second.key_id)
        again = server.get(f"/v1/deletions/{deletion}", key=owner).json
        assert again["model"] == first.id
        verify(receipts(server, deletion), key)
        servers.wait_until(
            lambda: (
                server.get(f"/v1/deletions/{deletion}", key=owner).json["blobs_erased_at"]
                is not None
            ),
            "the restored blobs are erased",
        )
    follow("check", data, backup)


def test_an_old_mirror_is_refused_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        model = server.make_model()
        follow("mirror", data, backup)
        server.request("DELETE", f"/v1/models/{model.id}", key=server.owner_key)
    for part in ("keyring", "log"):
        newest = tmp_path / f"newest-{part}"
        shutil.copytree(data / part, newest)
        shutil.rmtree(data / part)
        shutil.copytree(backup / "mirror" / part, data / part)
        refused = servers.run_cli("serve", "--data", str(data), "--port", "0")
        assert refused.returncode == ExitCode.UNAVAILABLE
        assert "Restore the newest" in refused.stderr
        shutil.rmtree(data / part)
        shutil.copytree(newest, data / part)
    with servers.serving(data, kind=servers.WithoutTorch) as server:
        assert server.get(f"/v1/models/{model.id}", key=server.owner_key).status == 404


def test_a_missing_log_is_refused_even_with_a_database_from_before_the_first_deletion(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        model = server.make_model()
        follow("backup", data, tmp_path / "backup")
        server.request("DELETE", f"/v1/models/{model.id}", key=server.owner_key)
    shutil.copy(tmp_path / "backup/database/tunewarden.sqlite", data / "tunewarden.sqlite")
    shutil.rmtree(data / "log")
    refused = servers.run_cli("serve", "--data", str(data), "--port", "0")
    assert refused.returncode == ExitCode.UNAVAILABLE
    assert "The deletion log is missing" in refused.stderr
    assert not (data / "log").exists()
