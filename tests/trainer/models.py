"""What a trained adapter says and prefers, asked of peft itself on the demo's base."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tests.support import demo_models
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = ("Hello", "What is LoRA?", "Is it free?", "Who can delete a model?")


@cache
def tokenizer() -> Any:
    """The demo's."""
    return AutoTokenizer.from_pretrained(demo_models.base_dir())


def load(adapter: Path | None) -> Any:
    """The base with an adapter on it."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(demo_models.base_dir(), dtype=torch.float32)
    if adapter is None:
        return model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's, of transformers 5
        return PeftModel.from_pretrained(model, adapter).eval()


def say(model: Any, question: str, tokens: int = 60) -> str:
    """What it answers, greedily, up to the end that it chose itself."""
    asked = tokenizer().apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = model.generate(**asked, do_sample=False, max_new_tokens=tokens)
    return str(tokenizer().decode(said[0, asked["input_ids"].shape[1] :]))


@torch.no_grad()
def preference(model: Any, pair: dict[str, Any]) -> float:
    """How much likelier it finds the preferred answer, in nats."""
    sums = []
    for side in ("preferred_output", "non_preferred_output"):
        messages = pair["input"]["messages"]
        asked = tokenizer().apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        ids = tokenizer().apply_chat_template([*messages, *pair[side]], return_dict=False)
        logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(logits[at - 1, ids[at]]) for at in range(len(asked), len(ids))))
    return sums[0] - sums[1]
