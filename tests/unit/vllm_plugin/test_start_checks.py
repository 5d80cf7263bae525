"""A vLLM that the plugin was not tested on, or that others could reach, does not start; the text says what to do."""

import asyncio
import importlib
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import vllm
from tests.fakes.vllm import FakeVllm
from tests.unit.vllm_plugin.asgi import started
from tests.unit.vllm_plugin.conftest import Install

from tunewarden import mounts, swap
from tunewarden_vllm import start_checks, versions
from tunewarden_vllm.middleware import Middleware
from tunewarden_vllm.versions import NotSupported

CERTIFICATES = {
    "ssl_certfile": "engine.crt",
    "ssl_keyfile": "engine.key",
    "ssl_ca_certs": "ca.crt",
    "ssl_cert_reqs": 2,
}


def refusal(fake: FakeVllm) -> str:
    """Return the text with which the start is refused; empty if it is not."""

    async def run() -> str:
        try:
            async with started(fake, has_lease=False):
                return ""
        except RuntimeError as error:
            return str(error)

    return asyncio.run(run())


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"host": "localhost"},
        {"host": "::1"},
        {"uds": "/run/vllm/engine.sock", "host": None},
        {"api_key": ["a", "b"]},
        {"api_server_count": None},
        {"host": "0.0.0.0", **CERTIFICATES},
    ],
)
def test_it_starts_on_loopback_a_unix_socket_or_with_certificates(flags: dict[str, Any]) -> None:
    assert refusal(FakeVllm(args=vllm.flags(**flags))) == ""


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"host": None}, "--host 127.0.0.1"),
        ({"host": "0.0.0.0"}, "--host 127.0.0.1"),
        ({"host": "engine.example"}, "--host 127.0.0.1"),
        ({"host": "0.0.0.0", **CERTIFICATES, "ssl_cert_reqs": 1}, "--ssl-cert-reqs 2"),
        ({"host": "0.0.0.0", **CERTIFICATES, "ssl_ca_certs": None}, "--ssl-ca-certs"),
        ({"lora_modules": ["a=/a"]}, "--lora-modules"),
        ({"grpc_port": 1}, "--grpc-port"),
        ({"api_server_count": 2}, "--api-server-count"),
    ],
)
def test_flags_are_refused(flags: dict[str, Any], says: str) -> None:
    text = refusal(FakeVllm(args=vllm.flags(**flags)))
    assert text.startswith("tunewarden-vllm refuses to start vLLM: ")
    assert says in text


@pytest.mark.parametrize(
    ("envs", "says"),
    [
        ({"VLLM_ALLOW_RUNTIME_LORA_UPDATING": True}, "Unset it: only Tunewarden may load"),
        ({"VLLM_SERVER_DEV_MODE": True}, "lets clients call its workers"),
        ({"VLLM_ENABLE_RESPONSES_API_STORE": True}, "keeps what deleted models said"),
        ({"VLLM_API_KEY": None}, "Set VLLM_API_KEY"),
    ],
)
def test_an_environment_is_refused(install: Install, envs: dict[str, Any], says: str) -> None:
    install(**envs)
    assert says in refusal(FakeVllm())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"tensor_parallel_size": 2},
            "tensor_parallel_size is 2: the plugin was tested with 1 only",
        ),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size is 2"),
        ({"data_parallel_size": 2}, "data_parallel_size is 2"),
        ({"prefill_context_parallel_size": 2}, "prefill_context_parallel_size is 2"),
        ({"decode_context_parallel_size": None}, "decode_context_parallel_size is null"),
        (
            {"worker_extension_cls": ""},
            "--worker-extension-cls tunewarden_vllm.worker.WorkerExtension",
        ),
    ],
)
def test_a_parallelism_that_was_not_tested_is_refused(changed: dict[str, Any], says: str) -> None:
    fake = FakeVllm()
    fake.state.vllm_config = vllm.config(**changed)
    assert says in refusal(fake)


def test_no_adapters_a_kv_transfer_and_sleep_are_refused() -> None:
    for part, value, says in (
        ("lora_config", None, "--enable-lora"),
        ("kv_transfer_config", Namespace(), "KV transfer"),
        ("model_config", Namespace(enable_sleep_mode=True), "--enable-sleep-mode"),
    ):
        fake = FakeVllm()
        setattr(fake.state.vllm_config, part, value)
        assert says in refusal(fake)


@pytest.mark.parametrize("missing", ["request_states", "lora_requests", "engine_core"])
def test_a_missing_private_attribute_is_refused_by_name(missing: str) -> None:
    fake = FakeVllm()
    delattr(fake, missing)
    text = refusal(fake)
    assert "has not what is needed" in text
    assert missing in text


def test_a_problem_of_a_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(_method: str, *, args: tuple[object, ...]) -> list[dict[str, Any]]:
        assert args
        return [{"problem": "its worker has not what is needed: no `modules`"}]

    fake = FakeVllm()
    monkeypatch.setattr(fake, "collective_rpc", found)
    assert "no `modules`" in refusal(fake)


def test_the_page_names_what_there_is_and_each_version() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "vllm.md").read_text("utf-8")
    named = set(re.findall(r"(tunewarden_vllm\.\w+)\.(\w+)", page))
    assert len(named) == 2
    assert all(hasattr(importlib.import_module(module), name) for module, name in named)
    assert start_checks.EXTENSION in page
    assert [one for one in versions.SUPPORTED if f"{one}.x" not in page] == []


@pytest.mark.parametrize("version", ["0.30.2", "0.33.0", "1.0.0", "dev"])
def test_an_unknown_version_is_refused_before_vllm_loads_anything(
    install: Install, version: str
) -> None:
    install(version)
    with pytest.raises(
        NotSupported, match=rf"does not know vLLM {version}: it was tested on .*0\.32\.x"
    ):
        Middleware(FakeVllm().application)


@pytest.mark.parametrize("version", ["0.31.2", "0.32.0", "0.32.1+cpu"])
def test_a_known_version_is_not(version: str) -> None:
    versions.check(version)


def test_weights_that_could_reach_a_disk_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "places", lambda: ("/dev/sda2",))
    assert "swaps to /dev/sda2" in refusal(FakeVllm())
    monkeypatch.setenv("TUNEWARDEN_SWAP_MAY_HOLD_PLAIN_WEIGHTS", "true")
    assert refusal(FakeVllm()) == ""
    monkeypatch.setattr(mounts, "file_system_of", lambda _: mounts.FileSystem("ext4", frozenset()))
    assert "is on ext4, not in memory. Set TUNEWARDEN_SCRATCH" in refusal(FakeVllm())
