"""Webhooks on the command line, over HTTP and on a data directory without a server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli import in_process
from tests.support import servers, webhook_receiver
from tests.support.webhook_receiver import Receiver

from tunewarden.cli.exit_codes import ExitCode


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with webhook_receiver.receiving() as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("webhooks") / "data"
    servers.prepare_local_base(found)
    (found / "tunewarden.toml").write_text("webhook_http_to_loopback = true\n")
    return found


def test_an_endpoint_from_its_first_to_its_last_command(data: Path, receiver: Receiver) -> None:
    def cli(*arguments: str, expected: int = 0) -> str:
        done = in_process.run_cli("webhooks", *arguments, "--data", str(data))
        assert done.returncode == expected, done.stderr
        return done.stdout.strip()

    assert "model.deleted" in cli("types").splitlines()
    secret = cli("create", receiver.url(), "--name", "ops", "--event", "model.deleted")
    assert secret.startswith("whsec_"), "it stands alone, for scripts"
    [listed] = json.loads(cli("list", "--json"))["data"]
    endpoint = listed["id"]
    assert f"{endpoint}\tops\t{receiver.url()}\tenabled" in cli("list")
    assert cli("show", endpoint).splitlines()[1:] == ["model.deleted"]

    receiver.statuses += [202]
    assert cli("test", endpoint, "--event", "model.deleted") == "202"
    assert receiver.received[-1].event(secret).type == "model.deleted"
    cli(
        "update",
        endpoint,
        "--name",
        "renamed",
        "--event",
        "file.deleted",
        "--event",
        "model.created",
    )
    assert cli("show", endpoint).splitlines()[1:] == ["model.created", "file.deleted"]
    new = cli("rotate", endpoint)
    cli("test", endpoint)
    got = receiver.received[-1]
    assert got.event(secret).id == got.event(new).id, "the old one signs for a day"
    newest = cli("rotate", endpoint, "--now")
    cli("test", endpoint)
    assert len(receiver.received[-1].headers["webhook-signature"].split()) == 1
    receiver.received[-1].event(newest)

    deliveries = json.loads(cli("deliveries", endpoint, "--json"))["data"]
    assert [one["status_code"] for one in deliveries] == [200, 200, 202]
    assert cli("redeliver", endpoint, deliveries[0]["id"]) == deliveries[0]["id"]
    assert deliveries[0]["id"] in cli("deliveries", endpoint, "--status", "pending")
    assert "disabled (owner)" in cli("disable", endpoint)
    cli("redeliver", endpoint, deliveries[0]["id"], expected=ExitCode.CONFLICT)
    assert "enabled" in cli("enable", endpoint)
    assert cli("delete", endpoint, "--dry-run") == endpoint
    assert endpoint in cli("list")
    assert cli("delete", endpoint) == endpoint
    cli("show", endpoint, expected=ExitCode.NOT_FOUND)


def test_a_url_that_is_refused_says_what_to_do(data: Path) -> None:
    done = in_process.run_cli(
        "webhooks", "create", "https://10.0.0.1/", "--name", "x", "--event", "model.deleted",
        "--data", str(data),
    )  # fmt: skip
    assert done.returncode == ExitCode.FAILED
    assert "webhook_allowed_networks" in done.stderr
