"""An engine in a network namespace of its own, cut off under load: deletions end, and it stops by itself.

Needs root and `ip`; skipped elsewhere. The engine is the stand-in with the real plugin, reached by mutual TLS.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.fakes import vllm
from tests.fakes.vllm_server import digest_of
from tests.support import bases, servers
from tests.support.fake_engines import FakeEngine
from tests.support.pushed_models import ASKED, Pushed
from tests.support.servers import Server, WithoutTorch, wait_until

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import State, decoded

SPACE = f"tw{os.getpid()}"
OURS, THEIRS = "10.231.77.1", "10.231.77.2"
FILES = bases.adapter("cut off")
ASK = (
    "import ssl, sys; from urllib.request import Request, urlopen;"
    "context = ssl.create_default_context(cafile=sys.argv[1] + '/ca.crt');"
    "context.load_cert_chain(sys.argv[1] + '/gateway.crt');"
    "asked = Request(sys.argv[2], headers={'authorization': 'Bearer ' + sys.argv[3]});"
    "sys.stdout.buffer.write(urlopen(asked, context=context).read())"
)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


class Space:
    """A network namespace with one link to this one."""

    prefix = ("ip", "netns", "exec", SPACE)

    def cut(self) -> None:
        """Drop what the engine sends, silently: no connection is made any more, and open ones hang."""
        _ip("-n", SPACE, "route", "replace", "blackhole", f"{OURS}/32")

    def mend(self) -> None:
        _ip("-n", SPACE, "route", "flush", "type", "blackhole")


@pytest.fixture(scope="module")
def space() -> Iterator[Space]:
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip`")
    try:
        _ip("netns", "add", SPACE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
    try:
        _ip("link", "add", SPACE, "type", "veth", "peer", "name", "inside", "netns", SPACE)
        _ip("addr", "add", f"{OURS}/30", "dev", SPACE)
        _ip("link", "set", SPACE, "up")
        _ip("-n", SPACE, "addr", "add", f"{THEIRS}/30", "dev", "inside")
        for link in ("lo", "inside"):
            _ip("-n", SPACE, "link", "set", link, "up")
        yield Space()
    finally:
        _ip("netns", "del", SPACE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("partitions") / "data"
    settings = {"engine_lease_seconds": 2.0}
    with servers.serving(data, settings=settings, kind=WithoutTorch) as found:
        yield found


@pytest.fixture
def pushed(server: Server, space: Space, tmp_path: Path) -> Iterator[Pushed]:
    out = tmp_path / "engine"
    issued = server.cli("certificates", "issue", THEIRS, "--out", str(out))
    assert issued.returncode == 0, issued.stderr
    engine = FakeEngine(4, out, host=THEIRS, prefix=space.prefix)
    try:
        found = Pushed(server, "cut-off")
        key_file = tmp_path / "engine.key"
        key_file.write_text(vllm.KEY)
        assert found.add_base(engine.url, key_file) == ""
        yield found
    finally:
        space.mend()
        engine.stop()


def test_an_engine_that_is_cut_off_stops_by_itself(
    pushed: Pushed, server: Server, space: Space, tmp_path: Path
) -> None:
    models = [pushed.imported(FILES.write(tmp_path / str(n))) for n in range(3)]
    for model in models:
        assert pushed.said(model, max_retries=5) == digest_of(FILES.weights)
    kept, *deleted = models
    client = server.client(max_retries=0).chat.completions
    stream = client.create(model=kept, messages=ASKED, max_tokens=10**6, stream=True)
    next(iter(stream))
    url = server.cli("replicas", "list", pushed.base).stdout.split("\t")[1].removesuffix("/v1")

    def loaded() -> list[str]:
        """What it has, asked from its side of the cut."""
        ask = [*space.prefix, "python3", "-c", ASK, str(server.app.config.certificates)]
        told = subprocess.run(
            [*ask, url + paths.STATE, vllm.KEY], check=True, capture_output=True, timeout=60
        )
        return [name for base in decoded(told.stdout, State).bases for name in base.adapters]

    assert len(loaded()) == 3
    space.cut()
    assert [pushed.deleted(model)[0].how for model in deleted] == ["lease_ended"] * 2
    wait_until(lambda: not loaded(), "it has dropped everything by itself")
    space.mend()
    with pytest.raises(openai.APIError) as ended:
        list(stream)
    assert ended.value.code == Code.NO_LEASE
    wait_until(lambda: _says_again(pushed, kept), "the engine joins again")
    for model in deleted:
        with pytest.raises(openai.NotFoundError):
            pushed.said(model)
    assert pushed.deleted(kept)[0].how == "zeroed"


def _says_again(pushed: Pushed, model: str) -> bool:
    try:
        return pushed.said(model) == digest_of(FILES.weights)
    except openai.APIStatusError:
        return False
