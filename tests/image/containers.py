"""The server's image, built by buildah and run by podman, as the container page says."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.servers import REPOSITORY, Server, wait_until

CACHE = REPOSITORY / ".cache/image"
# podman wants a short path, and always the same one.
RUN = Path(f"/tmp/tunewarden-image-{hashlib.sha256(bytes(CACHE)).hexdigest()[:8]}")
PAGE = REPOSITORY / "docs/how-to/container.md"
BASE = "localhost/tunewarden-test-base"
IMAGE = "localhost/tunewarden"
USER = 10001
# Not as on the page: test machines are often containers themselves, without systemd, a bridge or all of the limits.
HERE = [
    "--network=host",
    "--no-healthcheck",
    "--ulimit=nofile=4096:4096",
    "--ulimit=nproc=4096:4096",
    "--read-only-tmpfs=false",  # podman would add writable directories
]
LEFT_OUT = {"--detach", "--env", "--memory", "--memory-swap", "--name", "--publish", "--volume"}


class Store:
    """Images and containers. They are kept, so that the next run builds only what has changed."""

    def podman(self, *arguments: str) -> list[str]:
        """Return the command."""
        places = ["--root", str(CACHE / "storage"), "--runroot", str(RUN)]
        return ["podman", *places, "--runtime", "runc", "--cgroup-manager", "cgroupfs", *arguments]

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run podman."""
        return _run(self.podman(*arguments))

    def inspected(self, name: str) -> dict[str, Any]:
        """Return what podman knows of an image or a container."""
        [found] = json.loads(self.call("inspect", name).stdout)
        assert isinstance(found, dict)
        return found

    def build(self) -> None:
        """Build the base, if it is not there, and the image on it. No network is needed."""
        assert (CACHE / "base").exists(), "make test-image"
        if self.call("image", "exists", BASE).returncode != 0:
            made = self._buildah("from", "scratch").stdout.strip()
            self._buildah("add", "--quiet", made, str(CACHE / "base"), "/")
            self._buildah("commit", "--quiet", "--rm", made, BASE)
        arguments = {"BASE": BASE, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "VERSION": "0"}
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        options += ["--volume", f"{CACHE}/wheels:/wheels:ro", "--pull-never"]
        options += ["--isolation", "chroot"]  # needs no control groups
        options += ["--layers", "--format", "docker", "--tag", IMAGE]
        self._buildah("build", *options, "--file", "deploy/container/Containerfile", ".")

    def _buildah(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        places = ["--root", str(CACHE / "storage"), "--runroot", str(RUN)]
        done = _run(["buildah", *places, *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def options_of_the_page() -> dict[str, list[str]]:
    """Return the options with which the page runs the image, by name."""
    [shown] = re.findall(
        r"^docker run (.*?)tunewarden$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    words = shlex.split(shown.replace("\\\n", " "))
    found: dict[str, list[str]] = {}
    while words:
        name = words.pop(0)
        assert name.startswith("--")
        has_value = bool(words) and not words[0].startswith("--")
        found.setdefault(name, []).append(words.pop(0) if has_value else "")
    return found


class Container(Server):
    """A server in a container. Its data directory is on this machine, so that tests can look into it."""

    def __init__(self, data: Path, store: Store, *, volume: Path | None = None) -> None:
        """`volume` is mounted at /data: by default `data`, else a directory in which `data` is."""
        self._store = store
        self._name = f"tunewarden-{os.getpid()}-{data.name}"
        self._volume = volume or data
        if volume is None:
            data.mkdir(mode=0o700)
            os.chown(data, USER, USER)
        super().__init__(data)
        shutil.rmtree(self.scratch)

    def _start(self) -> None:
        (self.data / "run" / "server.json").unlink(missing_ok=True)
        options = [
            f"{name}={value}" if value else name
            for name, values in options_of_the_page().items()
            if name not in LEFT_OUT
            for value in values
        ]
        options += [*HERE, "--rm", "--name", self._name, "--env", "TUNEWARDEN_PORT=0"]
        inside = Path("/data") / self.data.relative_to(self._volume)
        options += ["--volume", f"{self._volume}:/data", "--env", f"TUNEWARDEN_DATA={inside}"]
        # Adapters that tests import.
        options += ["--volume", f"{self.data.parent}:{self.data.parent}:ro"]
        with self._file("stdout").open("ab") as out, self._file("stderr").open("ab") as err:
            command = self._store.podman("run", *options, IMAGE)
            self.process = subprocess.Popen(command, stdout=out, stderr=err)
        wait_until(self._is_ready, "the server answers")

    def cli(
        self, *arguments: str, stdin: str = "", settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container."""
        assert not stdin
        assert not settings
        return self.inside("tunewarden", *arguments)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the container, as its user."""
        return self._store.call("exec", self._name, *command)

    def is_healthy(self) -> bool:
        """Run the image's health check, on the port that this container has."""
        check = self._store.inspected(IMAGE)["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        port = str(urlsplit(self.url).port)
        return self.inside(*(word.replace("8800", port) for word in check[1:])).returncode == 0

    def status(self) -> dict[str, str]:
        """Return what the kernel says of the container's first process (proc(5), status)."""
        pid = self._store.inspected(self._name)["State"]["Pid"]
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
        return {name: value.strip() for name, _, value in (one.partition(":") for one in lines)}

    def kill(self) -> None:
        self._store.call("rm", "--force", self._name)
        super().kill()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False
    )
