"""The small data directory that is kept of each release: `python -m tests.support.release_data FILE.tar.gz`.

Run it on the tree of a release (docs/how-to/release.md). A real server makes it; its keys are throwaway ones.
`tests/api/test_upgrades.py` opens every one that is kept.
"""

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.support import fine_tuning_rows, servers

from tunewarden.finetuning.states import State

OTHERS = "other-org"
CHAT = (
    b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}\n'
)
# What a server makes anew at its start, or that is no file.
LEFT_OUT = {"run", "ballast", "server.json"}


def main() -> None:
    packed = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        facts = _made(data)
        with tarfile.open(packed, "w:gz") as archive:
            archive.add(data, "data", filter=_kept)
            text = json.dumps(facts, indent=1).encode()
            member = tarfile.TarInfo("facts.json")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    print(f"{packed}: {packed.stat().st_size} bytes")


def _made(data: Path) -> dict[str, Any]:
    """Run a server that makes the directory; return what a later release must find in it."""
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        owner, others = server.owner_key, server.make_key("owner", organization=OTHERS)
        models = {
            "kept": server.make_model(suffix="kept").id,
            "gone": server.make_model(suffix="gone").id,
            "others_kept": server.make_model(key=others).id,
        }
        files = server.client(owner).files
        kept = files.create(file=("kept.jsonl", CHAT), purpose="fine-tune").id
        gone = files.create(file=("gone.jsonl", CHAT), purpose="fine-tune").id
        job = fine_tuning_rows.make_job(server.app, owner, state=State.SUCCEEDED)
        server.client(owner).models.delete(models["gone"])
        files.delete(gone)
        deletions = server.get("/v1/deletions", key=owner).json["data"]
        assert isinstance(deletions, list)
        servers.wait_until(lambda: _are_erased(server), "every blob is erased")
        return {
            "owner": owner,
            "others": others,
            "models": models,
            "files": {"kept": kept, "gone": gone},
            "job": job,
            "log_key": server.get("/.well-known/tunewarden-log-key").body.decode(),
            "receipts": {
                one["id"]: server.get(f"/v1/deletions/{one['id']}/receipt", key=owner).body.decode()
                for one in deletions
            },
        }


def _are_erased(server: servers.Server) -> bool:
    deletions = server.get("/v1/deletions", key=server.owner_key).json["data"]
    assert isinstance(deletions, list)
    return all(one["status"] == "erased" for one in deletions)


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what is made anew, and who made it."""
    if LEFT_OUT & set(Path(member.name).parts) or not (member.isfile() or member.isdir()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
