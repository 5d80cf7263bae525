"""The image: small, of no more rights than the page says, and a whole server within them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes import vllm
from tests.fakes.vllm_server import digest_of
from tests.image.containers import BASE, HERE, IMAGE, USER, Container, Store
from tests.support import bases, fake_engines
from tests.support.pushed_models import Pushed

from tunewarden.cli.exit_codes import ExitCode

# What the image adds to its base: 157 MB, half of it numpy.
ADDED_BYTES_MAX = 190_000_000


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    made = Store()
    made.build()
    yield made
    made.call("rm", "--all", "--force")


@pytest.fixture(scope="module")
def container(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    running = Container(tmp_path_factory.mktemp("container") / "data", store)
    try:
        yield running
        running.stop()
    finally:
        if running.process.poll() is None:
            running.kill()


def test_the_image_is_small_and_says_what_it_is(store: Store) -> None:
    image, base = store.inspected(IMAGE), store.inspected(BASE)
    assert image["Size"] - base["Size"] < ADDED_BYTES_MAX
    config = image["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["/usr/bin/tini", "--", "tunewarden"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert not [one for one in config["Env"] if one.startswith("TUNEWARDEN_HOST")]
    assert "TMPDIR=/dev/shm" in config["Env"]  # torch, in the larger image, needs one


def test_the_image_has_nothing_to_install_with_and_no_torch(container: Container) -> None:
    for module in ("pip", "torch", "hatchling"):
        assert container.inside("python", "-c", f"import {module}").returncode != 0
    assert container.inside("python", "-c", "import tunewarden").returncode == 0  # control


def test_it_runs_without_capabilities_new_privileges_and_a_writable_root(
    container: Container,
) -> None:
    status = container.status()
    assert set(status["Uid"].split()) == {str(USER)}
    assert {int(status[name], 16) for name in ("CapEff", "CapBnd", "CapPrm", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for place in ("/", "/tmp", "/opt/tunewarden", "/run"):
        assert container.inside("test", "-w", place).returncode != 0
    assert container.inside("test", "-w", "/data").returncode == 0  # control


def test_it_listens_on_loopback_unless_it_is_asked(container: Container) -> None:
    host, port = container.address
    assert host == "127.0.0.1"
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]
    ]
    assert [one for one in listening if one.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_models_live_and_die_in_it(container: Container) -> None:
    place = container.data.parent / "files"
    place.mkdir()
    files = bases.adapter()
    (place / "adapter_config.json").write_bytes(files.config)
    (place / "adapter_model.safetensors").write_bytes(files.weights)
    (place / "engine.key").write_text(vllm.KEY)
    for one in (place, place.parent):
        one.chmod(0o755)
    with fake_engines.running(1) as [engine]:
        pushed = Pushed(container, "llama")
        pushed.add_base(engine.url, place / "engine.key")
        model, kept = pushed.imported(place), pushed.imported(place, "kept")
        assert {one.id for one in container.client().models.list()} >= {model, kept}
        assert pushed.said(model) == digest_of(files.weights)
        [engine_said] = pushed.deleted(model)
        assert engine_said.how == "zeroed"
        assert container.inside("sh", "-c", "ls /dev/shm/*").stdout == ""
        assert container.is_healthy()

        container.stop()
        container.start_again()
        assert pushed.has_receipt(model)
        assert {one.id for one in container.client().models.list()} == {"llama", kept}
        # The engine has lost its lease; the runner renews it.
        assert pushed.said(kept, max_retries=20) == digest_of(files.weights)


def test_what_it_writes_is_its_own(container: Container) -> None:
    found = [container.data, *container.data.rglob("*")]
    assert {path.stat().st_uid for path in found} == {USER}
    assert [path for path in found if path.stat().st_mode & 0o077] == []
    assert container.owner_key not in container.log() + container.printed()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume as Kubernetes prepares it for `fsGroup`."""
    made = tmp_path / "volume"
    made.mkdir()
    os.chown(made, 0, USER)
    made.chmod(0o2775)
    return made


def test_a_volume_of_a_group_holds_a_directory_of_the_servers_own(
    store: Store, volume: Path
) -> None:
    server = Container(volume / "tunewarden", store, volume=volume)
    try:
        assert stat.S_IMODE(server.data.stat().st_mode) & 0o777 == 0o700
        assert server.get("/healthz").status == 200
        server.stop()
    finally:
        server.kill()
    # Control: the volume itself is refused.
    mounted = ["--volume", f"{volume}:/data", *HERE]
    refused = store.call("run", "--rm", *mounted, IMAGE)
    assert refused.returncode == ExitCode.UNAVAILABLE
    assert "/data has mode 2775" in refused.stderr


def test_the_variables_of_a_service_are_no_settings(store: Store) -> None:
    linked = ["--env", "TUNEWARDEN_SERVICE_HOST=10.0.0.1", *HERE]
    refused = store.call("run", "--rm", *linked, IMAGE, "config", "show")
    assert refused.returncode != 0
    assert "service_host" in refused.stderr
