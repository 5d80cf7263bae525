"""A base as large as the smallest that people use: `python -m benchmarks.large_base DIRECTORY`.

It has the shape of Qwen2.5-0.5B, and Qwen's own vocabulary of 151,643 tokens, which `dashscope`, a package on PyPI, brings
along. No weights can be had from a package; these are drawn by chance, so that each token is about as likely as any other.
It takes 1 GB.
"""

import argparse
import base64
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from benchmarks.peers.install import CACHE
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

PACKAGE = "dashscope==2.0.2"
RANKS = "dashscope/resources/qwen.tiktoken"
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT, BEGIN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_once() -> Path:
    """Return the base in the cache; it is made if it is missing."""
    base = CACHE / "large-base"
    if not base.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            made = Path(name) / "base"
            make(made)
            made.rename(base)
    return base


def make(base: Path) -> None:
    """Write the base into a directory."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(_ranks()), eos_token=END, pad_token=END_OF_TEXT
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151_936,  # as the model has it, padded
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            max_position_embeddings=32_768,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            dtype=torch.bfloat16,
        )
    )
    model.to(torch.bfloat16).save_pretrained(base)
    tokenizer.save_pretrained(base)


def _ranks() -> dict[bytes, int]:
    """Return Qwen's tokens in the order in which they are merged."""
    with tempfile.TemporaryDirectory() as name:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        subprocess.run([*pip, "download", "--no-deps", "-d", name, PACKAGE], check=True)
        (wheel,) = Path(name).iterdir()
        with zipfile.ZipFile(wheel) as packed:
            lines = packed.read(RANKS).splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}


def _tokenizer(ranks: dict[bytes, int]) -> Tokenizer:
    letters = bytes_to_unicode()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token in ranks:  # in their order
        halves = ((token[:at], token[at:]) for at in range(1, len(token)))
        known = [(left, right) for left, right in halves if left in ranks and right in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(spelled(left), spelled(right)) for left, right in known]
    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = [AddedToken(mark, special=True) for mark in (END_OF_TEXT, BEGIN, END)]
    tokenizer.add_special_tokens(marks)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    make(parser.parse_args().directory)


if __name__ == "__main__":
    main()
