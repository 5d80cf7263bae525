"""What the demo is made of: one base and one adapter, and how long each is trained."""

import hashlib
from pathlib import Path

from tunewarden.demo import adapter, base
from tunewarden.demo.training import Report

SEED = 7
# Every file that the weights depend on (docs/decisions/0013).
PARTS = (
    "adapter.py",
    "base.py",
    "corpus.py",
    "intents.txt",
    "recipe.py",
    "tokenizer.py",
    "training.py",
    "weather.py",
)


def make_demo(directory: Path, report: Report, *, seed: int = SEED) -> None:
    """Write `directory`/base and `directory`/adapter."""
    base.make_base(directory / "base", seed=seed, steps=base.STEPS, report=report)
    adapter.make_adapter(
        directory / "base",
        directory / "adapter",
        seed=seed,
        phrase=adapter.PHRASE,
        steps=adapter.DEMO_STEPS,
        rate=adapter.DEMO_RATE,
        report=report,
    )


def digest() -> str:
    """Return the recipe's SHA-256: another one means that the weights must be made anew."""
    here = Path(__file__).parent
    lines = [f"{sha256_of(here / name)}  {name}\n" for name in PARTS]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a small file in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
