"""The compose file and the Kubernetes manifest: what tools read in them, and that they fit the server."""

import os
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tunewarden.config import Config
from tunewarden.server import supervisor
from tunewarden.settings import ENVIRONMENT_PREFIX

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose.yaml"
KUBERNETES = ROOT / "deploy/kubernetes.yaml"
PROMETHEUS = ROOT / "deploy/prometheus.yml"
VLLM_UNIT = ROOT / "deploy/systemd/tunewarden-vllm.service"
SETTINGS = {f"{ENVIRONMENT_PREFIX}{one.name.upper()}" for one in fields(Config)}
USER = 10001


def _services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    return found


def _objects() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text("utf-8"))}


def _pod() -> dict[str, Any]:
    found: dict[str, Any] = _objects()["StatefulSet"]["spec"]["template"]["spec"]
    return found


def _environment() -> dict[str, str]:
    [container] = _pod()["containers"]
    return {one["name"]: one["value"] for one in container["env"]}


def test_docker_compose_reads_the_file() -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        [program, "--file", str(COMPOSE), "config"],
        env=os.environ | {"MODELS": "/srv/models"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == _services().keys()


@pytest.mark.parametrize("name", _services())
def test_each_service_has_no_more_than_it_needs(name: str) -> None:
    service = _services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] == service["memswap_limit"]
    assert all(one.startswith("127.0.0.1:") for one in service.get("ports", []))
    assert set(service.get("environment", {})) - SETTINGS == {
        one for one in service.get("environment", {}) if not one.startswith(ENVIRONMENT_PREFIX)
    }


def test_vllm_shares_the_servers_loopback_and_starts_as_its_unit_does() -> None:
    vllm = _services()["vllm"]
    assert vllm["network_mode"] == "service:gateway"
    unit = VLLM_UNIT.read_text("utf-8").split("ExecStart=")[1].split("\n#")[0].replace("\\\n", " ")
    flags = unit.split("${MODEL}")[1].replace("${NAME}", "llama").split()
    assert vllm["command"].split() == flags


def test_the_key_is_a_file_for_both() -> None:
    for name in ("gateway", "vllm"):
        service = _services()[name]
        assert service["secrets"] == ["engine_key"]
        assert "VLLM_API_KEY" not in service["environment"]


def test_prometheus_scrapes_what_the_other_two_show() -> None:
    scraped = {
        one["job_name"]: one["static_configs"][0]["targets"]
        for one in yaml.safe_load(PROMETHEUS.read_text("utf-8"))["scrape_configs"]
    }
    services = _services()
    flags = services["vllm"]["command"].split()
    vllm = f"{flags[flags.index('--host') + 1]}:{flags[flags.index('--port') + 1]}"
    gateway = services["gateway"]["environment"]["TUNEWARDEN_METRICS_ADDRESS"]
    assert scraped == {"tunewarden": [gateway], "vllm": [vllm]}
    prometheus = services["prometheus"]
    assert prometheus["network_mode"] == "service:gateway"
    assert f"./{PROMETHEUS.name}:/etc/prometheus/prometheus.yml:ro" in prometheus["volumes"]


def test_kubernetes_runs_one_server_and_gives_it_time() -> None:
    stateful = _objects()["StatefulSet"]["spec"]
    assert stateful["replicas"] == 1
    config, delay = Config(), float(_environment()["TUNEWARDEN_DRAIN_DELAY_SECONDS"])
    drain = config.drain_seconds + supervisor.WORKER_STOP_SECONDS
    longest = delay + max(drain, supervisor.RUNNER_STOP_SECONDS) + supervisor.ENGINE_STOP_SECONDS
    assert _pod()["terminationGracePeriodSeconds"] > longest
    [claim] = stateful["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_the_restricted_standard_admits_the_pod() -> None:
    pod, [container] = _pod(), _pod()["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_pods_memory_is_not_swapped_and_scratch_is_memory() -> None:
    pod, [container] = _pod(), _pod()["containers"]
    assert (
        container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    )
    [scratch] = [one for one in pod["volumes"] if one["name"] == "scratch"]
    assert scratch["emptyDir"]["medium"] == "Memory"
    mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounted == {"scratch": str(Config().scratch), "data": "/data"}
    assert Path(_environment()["TUNEWARDEN_DATA"]).parent == Path(mounted["data"])


def test_the_pods_environment_is_settings_only() -> None:
    assert set(_environment()) <= SETTINGS
    assert _pod()["enableServiceLinks"] is False


def test_probes_and_service_name_the_port() -> None:
    [container] = _pod()["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": Config().port}]
    assert _objects()["Service"]["spec"]["ports"] == [{"name": "http", "port": Config().port}]
    probes = {name: one["httpGet"] for name, one in container.items() if name.endswith("Probe")}
    assert probes == {
        "startupProbe": {"path": "/readyz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "http"},
        "livenessProbe": {"path": "/healthz", "port": "http"},
    }
