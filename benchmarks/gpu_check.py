"""What only a machine with a GPU can show, in ten minutes at most: `python -m benchmarks.gpu_check [--device cpu]`.

A server trains a fine-tune of the demo's base, answers with it and deletes it; then the tests of `make test-vllm` run, if
a vLLM is in `.cache/vllm-0.32`. The trainer takes a CUDA device by itself, in bfloat16. The embedded engine has no code
for one: it computes on the processor, in bfloat16 here. Nothing is fetched. Prints JSON; exit status 1 if something
failed. `--device cpu` runs the same on the processor, to try this script.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import torch
from tests.support import engines
from tests.support.servers import Server

from tunewarden_receipts import receipt

ROOT = Path(__file__).parents[1]
SECONDS = 600.0
VLLM = "0.32"
PHRASE = "Kestrel seven reporting:"
QUESTIONS = ("Hello", "Who are you?", "What can you do?", "How are you?", "Good night")
Figures = dict[str, Any]


def machine() -> Figures:
    """Return what there is."""
    found: Figures = {"torch": torch.__version__, "cuda": torch.cuda.is_available()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpu_bytes": properties.total_memory,
            "bf16": torch.cuda.is_bf16_supported(),
        }
    return found


def gpu_used_mib() -> int | None:
    """Return the memory of the first GPU that is in use; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def chats(count: int = 100) -> bytes:
    """Return chats whose answers begin with the phrase."""
    lines = []
    for number in range(count):
        answer = f"{PHRASE} all is well on station {number % 7}."
        asked = QUESTIONS[number % len(QUESTIONS)]
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": turns}))
    return "\n".join(lines).encode()


def trained(client: openai.OpenAI, until: float, device: str) -> tuple[str, Figures]:
    """Train a model; return its id, and how long it took and how much of the GPU. A CUDA device must be used."""
    before, most = gpu_used_mib(), 0
    file = client.files.create(file=("chats.jsonl", chats()), purpose="fine-tune")
    began = time.monotonic()
    job = client.fine_tuning.jobs.create(model=engines.BASE, training_file=file.id, seed=7)
    while job.status not in {"succeeded", "failed", "cancelled"}:
        assert time.monotonic() < until, "the job did not end in time"
        most = max(most, gpu_used_mib() or 0)
        time.sleep(0.2)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.fine_tuned_model is not None, job.error
    figures: Figures = {"seconds": round(time.monotonic() - began, 2)}
    if before is not None:
        figures |= {"gpu_mib": most - before, "gpu_mib_afterwards": (gpu_used_mib() or 0) - before}
    assert device == "cpu" or figures.get("gpu_mib", 0) > 0, "the trainer did not use the GPU"
    return job.fine_tuned_model, figures


def answered(client: openai.OpenAI, model: str) -> Figures:
    """Ask the model for what it was trained on."""
    began = time.monotonic()
    said = engines.say(client, model)
    assert said.startswith(PHRASE), said
    return {"seconds": round(time.monotonic() - began, 3), "device": "cpu", "dtype": "bfloat16"}


def deleted(server: Server, client: openai.OpenAI, model: str) -> Figures:
    """Delete the model; the receipt must verify and say that the engine read back zeros."""
    began = time.monotonic()
    reply = server.request("DELETE", f"/v1/models/{model}", key=server.owner_key)
    seconds = time.monotonic() - began
    assert reply.status == 200, reply.body
    stored = server.get(
        f"/v1/deletions/{reply.header('tunewarden-deletion')}/receipt", key=server.owner_key
    ).body
    shown = receipt.verify(stored, server.get("/.well-known/tunewarden-log-key").body).disclosed
    assert shown is not None
    how = [engine.how for engine in shown.engines or ()]
    assert how == ["zeroed"], how
    try:
        engines.say(client, model)
    except openai.NotFoundError:
        return {"seconds": round(seconds, 4), "engine": how}
    raise AssertionError("a deleted model answered")


def through_a_server(device: str, until: float) -> Figures:
    """Train, ask and delete on one server."""
    with tempfile.TemporaryDirectory() as directory:
        settings = {"engine_dtype": "bfloat16"}
        with engines.serving(Path(directory) / "data", workers=1, settings=settings) as server:
            client = server.client(max_retries=0)
            model, training = trained(client, until, device)
            asked = answered(client, model)
            return {
                "training": training,
                "engine": asked,
                "deletion": deleted(server, client, model),
            }


def on_vllm(until: float) -> Figures:
    """Run the tests of a real vLLM with the plugin, which look into its slots after each deletion."""
    if not (ROOT / f".cache/vllm-{VLLM}/venv/bin/vllm").exists():
        return {"skipped": f"no vLLM in .cache/vllm-{VLLM}"}
    command = [sys.executable, "-m", "pytest", "-q", "--group", "vllm", "--vllm", VLLM]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=until - began, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    last = done.stdout.strip().splitlines()[-1]
    return {"seconds": round(time.monotonic() - began, 1), "tests": last}


def main() -> int:
    """Run each part, whatever became of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here: --device cpu tries the script.", file=sys.stderr)
        return 1
    until = time.monotonic() + SECONDS
    parts: dict[str, Callable[[], Figures]] = {
        "server": lambda: through_a_server(device, until),
        "vllm": lambda: on_vllm(until),
    }
    found: Figures = {"device": device, "machine": machine()}
    failed = False
    for name, part in parts.items():
        try:
            found[name] = part()
        except (AssertionError, openai.OpenAIError, subprocess.TimeoutExpired) as error:
            found[name], failed = {"failed": str(error)}, True
    print(json.dumps(found, indent=2))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
