"""Secrets stay where they belong: no core dumps, nothing in logs, nothing readable by others (I16)."""

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

from tests.cli.terminal import Terminal
from tests.support import servers


def test_no_process_of_ours_can_leave_a_core_dump(server: servers.Server) -> None:
    pids = server.processes()
    assert len(pids) >= 5  # supervisor, fork server, two workers, runner
    for pid in pids:
        limits = Path(f"/proc/{pid}/limits").read_text()
        found = re.search(r"Max core file size\s+(\d+|unlimited)\s+(\d+|unlimited)", limits)
        assert found is not None
        assert found.groups() == ("0", "0"), f"process {pid}"


def test_keys_are_in_no_log_and_in_no_table(server: servers.Server) -> None:
    owner, reader = server.owner_key, server.make_key("reader")
    model = server.make_model()
    server.request("DELETE", f"/v1/models/{model.id}", key=reader)
    server.request("DELETE", f"/v1/models/{owner}", key=owner)
    server.request("GET", "/v1/models", key=owner[:-1] + "x")
    server.request("POST", "/v1/models", key=owner, body=b"\x80\x04 not a form")
    server.request("DELETE", f"/v1/models/{model.id}", key=owner)
    for key in (owner, reader):
        secret = key.rpartition("-")[2][:43]
        assert secret not in server.log()
        rows = b"".join(path.read_bytes() for path in server.data.glob("tunewarden.sqlite*"))
        assert secret.encode() not in rows


def test_secrets_are_readable_by_their_owner_alone(server: servers.Server) -> None:
    model = server.make_model()
    server.request("DELETE", f"/v1/models/{model.id}", key=server.owner_key)
    for name in ("owner.key", "log.key", "keyring", "run", "blobs"):
        mode = stat.S_IMODE((server.data / name).stat().st_mode)
        assert mode & 0o077 == 0, f"{name} has mode {mode:o}"
    assert stat.S_IMODE(server.data.stat().st_mode) & 0o077 == 0


def test_an_answer_to_a_wrong_key_does_not_repeat_it(server: servers.Server) -> None:
    wrong = "sk-tw-" + "A" * 16 + "-" + "B" * 49
    reply = server.request("GET", "/v1/models", key=wrong)
    assert reply.status == 401
    assert "BBBB" not in json.dumps(reply.json)


def test_a_data_directory_that_others_can_read_is_closed_at_start(data: Path) -> None:
    servers.prepare_local_base(data)
    (data / "tunewarden.toml").write_text("")
    for path in (data, *data.iterdir()):
        path.chmod(path.stat().st_mode | 0o055)
    with servers.serving(data) as server:
        left = [path.name for path in (data, *data.iterdir()) if path.stat().st_mode & 0o077]
        assert left == ["tunewarden.toml"]
        assert f"{data} had mode 0755" in server.log()
        doctor = server.cli("doctor")
        assert "ok   modes: only its owner can access the data directory" in doctor.stdout


def test_what_a_server_and_its_commands_write_is_its_owners_alone(data: Path) -> None:
    for_all = ("sh", "-c", 'umask 000 && exec "$0" "$@"')
    with servers.serving(data, prefix=for_all) as server:
        key = server.owner_key
        server.client().files.create(file=b"{}", purpose="user_data")
        file = server.client().files.list().data[0]
        server.client().files.delete(file.id)
        copy = data.parent / "copy.sqlite"
        command = ["backup", "database", str(copy), "--data", str(data)]
        subprocess.run([*for_all, sys.executable, "-m", "tunewarden", *command], check=True)
        written = [path for path in data.rglob("*") if not path.is_socket()]
        open_to_others = [path for path in (copy, *written) if path.stat().st_mode & 0o077]
        assert open_to_others == []
        assert len(written) > 20
        assert key.startswith("sk-")


def test_a_command_that_reads_keys_leaves_no_core_dump(server: servers.Server) -> None:
    model = server.make_model()
    terminal = Terminal("models", "delete", model.id, "--data", str(server.data))
    try:
        terminal.wait_for("Type the model's id")
        limits = Path(f"/proc/{terminal.process.pid}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0", limits)
    finally:
        terminal.process.kill()
        terminal.end()


def test_no_command_can_be_opened_by_its_users_other_processes() -> None:
    shown = "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    main = "from tunewarden import __main__ as it; it.cli = lambda prog_name: show(); it.main()"
    for code, dumpable in ((f"show = lambda: {shown}; {main}", "0"), (shown, "1")):
        ran = subprocess.run(
            [sys.executable, "-c", f"import ctypes; {code}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout == f"{dumpable}\n"
