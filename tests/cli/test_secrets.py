"""Secrets stay where they belong: no core dumps, nothing in logs, nothing readable by others (I16)."""

import json
import re
import stat
from pathlib import Path

from tests import servers


def test_no_process_of_ours_can_leave_a_core_dump(server: servers.Server) -> None:
    pids = server.processes()
    assert len(pids) >= 4  # supervisor, two workers, runner
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
