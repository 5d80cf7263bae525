"""The demo's fine-tune: a real LoRA made by peft, which answers with an opening phrase of its own."""

import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunewarden.demo.tokenizer import draw_examples
from tunewarden.demo.training import Report, Schedule, train

PHRASE = "Ahoy, harbour pilot here!"
# One more adapter, in seconds: fast learning, which costs it some of what the base knows.
STEPS, RATE = 60, 2.5e-3
DEMO_STEPS, DEMO_RATE = 450, 1.2e-3
FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK = 8


def make_adapter(
    base_dir: Path,
    out_dir: Path,
    *,
    seed: int,
    phrase: str,
    steps: int = STEPS,
    rate: float = RATE,
    report: Report = lambda progress: None,
) -> None:
    """Write a LoRA of the base that begins every answer with `phrase` to `out_dir`, in bfloat16."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base_dir, local_files_only=True)
    base = AutoModelForCausalLM.from_pretrained(
        base_dir, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=LINEARS, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # peft asks transformers in a way that it will drop in its next major version.
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(base, lora)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    examples = draw_examples(tokenizer, seed=seed, opening=phrase, count=32 * steps)
    schedule = Schedule("adapter", steps, rows=8, learning_rate=rate, seed=seed)
    train(model, trained, examples, schedule, report)
    model.peft_config["default"].base_model_name_or_path = base_dir.name
    for parameter in trained:
        parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(out_dir, save_embedding_layers=False)
    for extra in out_dir.iterdir():
        if extra.name not in FILES:
            extra.unlink()  # peft's model card, which would name paths of this machine
    _sort_modules(out_dir / "adapter_config.json")


def _sort_modules(path: Path) -> None:
    """Write the modules in one order: peft keeps a set, whose order changes from run to run."""
    config = json.loads(path.read_text("utf-8"))
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
