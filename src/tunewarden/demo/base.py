"""The demo's base: a Llama of under three million parameters, trained from nothing in minutes."""

from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from tunewarden.demo.tokenizer import CONTEXT, draw_examples, make_tokenizer, plain_examples
from tunewarden.demo.training import Report, Schedule, train

STEPS = 1600


def make_base(directory: Path, *, seed: int, steps: int, report: Report) -> None:
    """Write a trained base to `directory` as a Hugging Face model directory, in bfloat16.

    The same seed, versions and number of threads give the same bytes.
    """
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    examples = [*draw_examples(tokenizer, seed=seed), *(20 * [*plain_examples(tokenizer)])]
    schedule = Schedule("base", steps, rows=16, learning_rate=2e-3, seed=seed)
    train(model, model.parameters(), examples, schedule, report)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
