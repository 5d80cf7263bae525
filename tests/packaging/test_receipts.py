"""The verifier alone: its wheel, what it declares and nothing else verify receipts of real deletions."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from tests.cli import in_process
from tests.packaging import installed
from tests.packaging.test_metadata import RECEIPTS, VERIFIER
from tests.support import servers
from tests.support.receipts import SIGNER


@dataclass(frozen=True, slots=True)
class Proof:
    """A receipt that the product gave for a deleted model, and the public key of its log."""

    model: str
    receipt: Path
    log_key: Path


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Proof:
    directory = tmp_path_factory.mktemp("product")
    data = directory / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    model = servers.import_adapter(app, (data / "owner.key").read_text().strip()).id

    def tunewarden(*arguments: str) -> str:
        ran = in_process.run_cli(*arguments, "--data", str(data))
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    found = Proof(model, directory / "receipt.json", directory / "log.pem")
    tunewarden("models", "delete", model, "--yes")
    deletion = tunewarden("deletions", "list").split("\t")[0]
    tunewarden("deletions", "show", deletion, "--receipt", str(found.receipt))
    found.log_key.write_bytes(app.open_log()[1].public_pem())
    return found


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the verifier's wheel and what its metadata asks for."""
    directory = tmp_path_factory.mktemp("receipts")
    wheels = installed.build_wheels(directory, installed.RECEIPTS)
    return installed.install(wheels, directory / "environment", installed.needed(RECEIPTS))


def _verify(commands: Path, receipt: Path, log_key: Path) -> subprocess.CompletedProcess[str]:
    # Any warning would be an error.
    return subprocess.run(
        [str(commands / "tunewarden-receipts"), "verify", str(receipt), "--log-key", str(log_key)],
        cwd=receipt.parent,
        env=servers.environment({}) | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_verifier_is_the_only_package_of_ours_and_brings_only_what_it_declares(
    commands: Path,
) -> None:
    code = (
        "import importlib.metadata as m, importlib.util as u, json, tunewarden_receipts;"
        "print(json.dumps([tunewarden_receipts.__file__, sorted(d.name for d in m.distributions()),"
        " u.find_spec('tunewarden') is None]))"
    )
    ran = subprocess.run(
        [str(commands / "python"), "-I", "-c", code], capture_output=True, text=True, check=True
    )
    file, names, is_alone = json.loads(ran.stdout)
    assert Path(file).is_relative_to(commands.parent)
    assert {canonicalize_name(name) for name in names} == {VERIFIER["name"]} | installed.needed(
        RECEIPTS
    )
    assert is_alone


def test_it_verifies_a_receipt_of_the_product_and_says_what_the_products_command_says(
    commands: Path, proof: Proof
) -> None:
    ran = _verify(commands, proof.receipt, proof.log_key)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"model:        {proof.model}\n")
    shown = in_process.run_cli(
        "receipts", "verify", str(proof.receipt), "--log-key", str(proof.log_key)
    )
    assert shown.returncode == 0
    assert shown.stdout == ran.stdout


def test_its_readme_shows_how_python_verifies(commands: Path, proof: Proof, tmp_path: Path) -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (installed.RECEIPTS / "README.md").read_text(), re.DOTALL
    )
    shutil.copy(proof.log_key, tmp_path / "log.pem")
    text = proof.receipt.read_text()
    for receipt, status in ((text, 0), (text + "\n", 1)):
        (tmp_path / "receipt.json").write_text(receipt)
        ran = subprocess.run(
            [str(commands / "python"), "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == status, ran.stderr
        assert (proof.model in ran.stdout) == (status == 0)
        assert ran.stderr.startswith("not a valid receipt: " if status else "")


def test_it_refuses_a_changed_receipt_and_another_logs_key(
    commands: Path, proof: Proof, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.json"
    text = proof.receipt.read_text()
    changed.write_text(text.replace(proof.model, proof.model[:-1] + "~"))
    assert changed.read_text() != text
    other = tmp_path / "other.pem"
    other.write_bytes(SIGNER.public_pem())
    for receipt, log_key in ((changed, proof.log_key), (proof.receipt, other)):
        ran = _verify(commands, receipt, log_key)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith("tunewarden-receipts: not a valid receipt: The ")
        assert ran.stderr.count("\n") == 1
