"""docs/how-to/answer-an-erasure-request.md and answer-an-auditor.md: their commands and lines run, in their order."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.cli import in_process
from tests.support.servers import Server, WithoutTorch, serving, wait_until

from tunewarden.deletion.cases.case_report import CaseReport, ReportedMember, ReportedReceipt
from tunewarden_receipts.leaf import DeletionLeaf

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
REQUEST = (HOW_TO / "answer-an-erasure-request.md").read_text("utf-8")
AUDITOR = (HOW_TO / "answer-an-auditor.md").read_text("utf-8")


def _commands(text: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def _run(server: Server, command: str, *, is_local: bool = False, **names: str) -> str:
    words = [names.get(word, word) for word in shlex.split(command)]
    assert words[0] == "tunewarden"
    here = {"TUNEWARDEN_DATA": str(server.data)}
    where = here if is_local else in_process.over_http(server)
    ran = in_process.run_cli(*words[1:], settings=where)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_request_is_answered_and_an_auditor_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("José García\n+49 30 1234\n", "utf-8")
    with serving(tmp_path / "data", local_base=True, kind=WithoutTorch) as server:
        line = b'{"messages":[{"role":"user","content":"Jos\\u00e9 Garc\\u00eda"}]}\n'
        client = server.client()
        file = client.files.create(file=("theirs.jsonl", line), purpose="fine-tune").id
        client.files.create(file=("ours.jsonl", b'{"messages":[]}\n'), purpose="fine-tune")
        model = server.make_model().id
        declared = {"metadata": {"trained_on": file}}
        assert server.post(f"/v1/models/{model}", declared).status == 200
        search, held, plan, planned, erase, report = _commands(REQUEST)
        assert _run(server, search) == f"{file}\t1\t1\tjson\ttheirs.jsonl\n"
        code = re.search(r"^```python search\n(.*?)^```$", REQUEST, re.MULTILINE | re.DOTALL)
        assert code is not None
        run: dict[str, Any] = {
            "BASE_URL": server.url,
            "API_KEY": server.owner_key,
            "TEXTS": ["José García"],
        }
        exec(code[1], run)
        assert run["files"] == {file}
        assert _run(server, held) == ""
        assert model in _run(server, plan, FILE=file)
        hold = server.post("/v1/holds", {"model": model, "reason": "a dispute"}).json["id"]
        assert "a dispute" in _run(server, planned, FILE=file)
        assert "a dispute" in Path("plan.html").read_text("utf-8")
        assert server.post(f"/v1/holds/{hold}/lift", None).status == 200
        case = _run(server, erase, FILE=file).strip()
        said = _run(server, report, CASE=case)
        assert model in said
        assert "not reached: backups" in said
        assert model in Path("report.html").read_text("utf-8")
        assert _run(server, search) == ""
        _audited(server, case)


def _audited(server: Server, case: str) -> None:
    show, verify, report, doctor = _commands(AUDITOR)
    member = server.get(f"/v1/deletion_cases/{case}", key=server.owner_key).json["data"][0]
    deletion = member["deletion"]
    wait_until(
        lambda: server.get(f"/v1/deletions/{deletion}", key=server.owner_key).json[
            "blobs_erased_at"
        ],
        "D9",
    )
    shown = _run(server, show, DELETION=deletion)
    assert "step_seconds: fence" in shown
    assert Path("receipt.json").is_file()
    assert deletion in _run(server, verify, is_local=True)
    assert "receipts are valid" in _run(server, report, CASE=case)
    assert "remnants: none" in _run(server, doctor, is_local=True)


def test_every_field_that_the_page_names_is_one() -> None:
    """What the mapping points to is in a report or a receipt."""
    known = {
        *CaseReport.__struct_fields__,
        *ReportedMember.__struct_fields__,
        *ReportedReceipt.__struct_fields__,
        *DeletionLeaf.__slots__,
        "zeroed",
    }
    table = AUDITOR.partition("| field | where |\n")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert len(named) > 10
    assert named - known == set()
