"""Speed of the trainer against a bare script: `python -m benchmarks.training [threads] [rounds]`.

Both fine-tune the demo's base on the same chats, with the same hyperparameters, on the same machine, by
turns. The script is what one would write by hand: transformers.Trainer and peft, batches padded, nothing
told, saved once. Ours is asked through the control protocol and offers checkpoints and states.
Prints medians in seconds, and the ratio of speeds: above 1 we are faster. "train" is from the loaded
model to the saved adapter, by the clock and in processor time (which neighbours disturb less); "all" is
from the start of Python to its end.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support import demo_models
from tests.trainer.data import chats
from tests.trainer.driver import running

from tunewarden.config import child_environment

EXAMPLES, EPOCHS, BATCH, RANK, RATE = 300, 4, 8, 8, 2.5e-3
BARE = """
import json, sys, time
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

base, data, out, threads, epochs, batch, rank, rate = sys.argv[1:]
torch.set_num_threads(int(threads))
tokenizer = AutoTokenizer.from_pretrained(base)
examples = []
for line in open(data):
    chat = tokenizer.apply_chat_template(
        json.loads(line)["messages"], return_dict=True, return_assistant_tokens_mask=True)
    labels = [i if m else -100 for i, m in zip(chat["input_ids"], chat["assistant_masks"])]
    examples.append({"input_ids": chat["input_ids"], "labels": labels})
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
began = time.monotonic(), time.process_time()
torch.manual_seed(1)
linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(
    r=int(rank), lora_alpha=2 * int(rank), target_modules=linears, task_type="CAUSAL_LM"))
trainer = Trainer(
    model=model, train_dataset=examples, data_collator=DataCollatorForSeq2Seq(tokenizer),
    args=TrainingArguments(
        output_dir=out, num_train_epochs=int(epochs), per_device_train_batch_size=int(batch),
        learning_rate=float(rate), lr_scheduler_type="cosine", warmup_steps=5, seed=1,
        save_strategy="no", logging_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False))
trainer.train()
model.save_pretrained(out)
print("seconds", time.monotonic() - began[0], time.process_time() - began[1])
"""
Times = tuple[float, ...]
WHAT = ("train, by the clock", "train, processor", "all, by the clock")


def bare(threads: int, directory: Path, data: Path) -> Times:
    began = time.monotonic()
    numbers = (threads, EPOCHS, BATCH, RANK, RATE)
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(demo_models.base_dir()), str(data), str(directory)]
        + [str(number) for number in numbers],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    clock, processor = done.stdout.rpartition("seconds")[2].split()
    return float(clock), float(processor), time.monotonic() - began


def ours(threads: int, directory: Path, examples: list[dict[str, Any]]) -> Times:
    asked = {"n_epochs": EPOCHS, "batch_size": BATCH, "learning_rate_multiplier": 1.0}
    with running(directory, examples, threads=threads, hyperparameters=asked, rank=RANK) as runner:
        plan = runner.until("plan")
        before = processor_seconds(runner.process.pid)
        last = runner.until("finished")
        spent = processor_seconds(runner.process.pid) - before
        runner.acknowledge()
        runner.to_end()
        return last["at"] - plan["at"], spent, time.monotonic() - runner.began_at


def processor_seconds(pid: int) -> float:
    """What a process has used (proc(5), stat: fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(threads: int = 1, rounds: int = 5) -> None:
    examples = chats(EXAMPLES)
    found: dict[str, list[Times]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data.jsonl"
        data.write_text("\n".join(json.dumps(example) for example in examples), "utf-8")
        for number in range(rounds):
            directory = Path(name) / str(number)
            directory.mkdir()
            found["bare"].append(bare(threads, directory, data))
            found["ours"].append(ours(threads, directory, examples))
    for position, what in enumerate(WHAT):
        bare_seconds, our_seconds = (
            statistics.median(one[position] for one in times) for times in found.values()
        )
        print(
            f"{what:20}: bare {bare_seconds:5.2f} s, ours {our_seconds:5.2f} s,"
            f" speed {bare_seconds / our_seconds:.2f} x"
        )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
