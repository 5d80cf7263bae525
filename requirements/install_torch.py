"""Install torch into the environment of the Python that runs this: a CPU build, wherever the machine is.

`python requirements/install_torch.py VERSION BUILD UV`: BUILD is `cpu`, or the name of another build, such as
`cu130`. UV is a directory in which uv is installed if it is needed.

A plain `pip install torch` takes gigabytes of CUDA on x86-64 Linux. A build that is not the default one carries
its name as a local version (2.13.0+cpu). pip is asked for exactly that first: it knows the machine's own settings
(a mirror, a directory of wheels). Where it has none, uv knows where PyTorch publishes its builds.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]


def main(version: str, build: str, uv: str) -> None:
    """Install it, unless it is there. Exits with a message if another build, or none, is there afterwards."""
    wanted = f"{version}+{build}"
    if _installed() == wanted:
        return
    # Of the CPU build, the lock has every dependency; others bring packages of their own.
    extent = ["--no-deps"] if build == "cpu" else ["--constraint", str(HERE / "local.txt")]
    asked = _run([*PIP, *extent, f"torch=={wanted}"])
    if asked.returncode != 0:
        print(f"pip has no torch {wanted} here; fetching it from PyTorch's own index.", flush=True)
        program = _install_uv(Path(uv))
        place = ["--python", sys.executable, "--torch-backend", build]
        command = [str(program), "pip", "install", "--quiet", "--no-config", *place, *extent]
        tried = _run([*command, f"torch=={wanted}"])
        if tried.returncode != 0:
            sys.exit(
                f"torch {wanted} could not be installed.\npip said:\n{asked.stderr}\nuv said:\n{tried.stderr}"
            )
    found = _installed()
    if found != wanted:
        sys.exit(f"torch {found} was installed, which is not the {build} build {wanted}.")


def _installed() -> str | None:
    """Return the version of torch, as a new process sees it."""
    code = "from importlib.metadata import version; print(version('torch'))"
    asked = _run([sys.executable, "-c", code])
    return asked.stdout.strip() if asked.returncode == 0 else None


def _install_uv(directory: Path) -> Path:
    program = directory / "bin" / "uv"
    if not program.is_file():
        place = ["--target", str(directory), "--upgrade"]
        lock = str(HERE / "uv.txt")
        subprocess.run([*PIP, *place, "--no-deps", "--require-hashes", "-r", lock], check=True)
    return program


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
