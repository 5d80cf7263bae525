"""A real vLLM behind certificates that is frozen and killed across deletions, under streams."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.support import demo_models, servers
from tests.support.pushed_models import ASKED, Pushed
from tests.support.servers import WithoutTorch, wait_until
from tests.vllm.running import BASE, PLUGIN, SLOTS, Vllm, running

from tunewarden.engine_protocol.codes import Code
from tunewarden.engines.tls import ClientTls

RETRIES = 5  # on a busy machine a lease may end by itself


@pytest.fixture(scope="module")
def both(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pushed, Vllm]]:
    directory = tmp_path_factory.mktemp("leases")
    out = directory / "engine"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with servers.serving(directory / "data", kind=WithoutTorch) as server:
        issued = server.cli("certificates", "issue", "127.0.0.1", "--out", str(out))
        assert issued.returncode == 0, issued.stderr
        files = (
            ("--ssl-certfile", "engine.crt"),
            ("--ssl-keyfile", "engine.key"),
            ("--ssl-ca-certs", "ca.crt"),
        )
        tls = [word for flag, file in files for word in (flag, str(out / file))]
        flags = (*PLUGIN, *tls, "--ssl-cert-reqs", "2")
        context = ClientTls(server.app.config.certificates).context()
        with running(program, directory, *flags, port=port, tls=context) as vllm:
            found = Pushed(server, BASE)
            assert found.add_base(f"https://127.0.0.1:{port}/v1") == ""
            yield found, vllm


def test_a_frozen_vllm_is_counted_out_and_overwrites_when_it_wakes(
    both: tuple[Pushed, Vllm],
) -> None:
    pushed, vllm = both
    victim, kept = (pushed.imported(demo_models.adapter_dir(one)) for one in ("zebra", "quartz"))
    assert "zebra" in pushed.said(victim, max_retries=RETRIES).lower()
    client = pushed.server.client(max_retries=RETRIES).chat.completions
    stream = client.create(model=kept, messages=ASKED, max_tokens=1900, stream=True)
    next(iter(stream))
    os.kill(vllm.process.pid, signal.SIGSTOP)
    [engine] = pushed.deleted(victim)
    assert (engine.engine, engine.how) == (f"vllm:{BASE}", "lease_ended")
    os.kill(vllm.process.pid, signal.SIGCONT)
    with pytest.raises(openai.APIError) as ended:
        list(stream)
    assert ended.value.code == Code.NO_LEASE
    wait_until(lambda: vllm.held()["sums"] == [0.0] * SLOTS, "it has overwritten everything", 60)
    assert "quartz" in pushed.said(kept, max_retries=RETRIES).lower()
    with pytest.raises(openai.NotFoundError):
        pushed.said(victim)
    assert pushed.deleted(kept)[0].how == "zeroed"


def test_a_killed_vllm_holds_no_deletion_up(both: tuple[Pushed, Vllm]) -> None:
    """The last test of this vLLM."""
    pushed, vllm = both
    model = pushed.imported(demo_models.adapter_dir("zebra"))
    assert "zebra" in pushed.said(model, max_retries=RETRIES).lower()
    vllm.process.kill()
    vllm.process.wait()
    assert pushed.deleted(model)[0].how == "lease_ended"
