"""DSPy: a signature, by its text format and by its fallback, which asks for JSON."""

import os
from typing import Literal

import dspy

dspy.configure(
    lm=dspy.LM(f"openai/{os.environ['MODEL']}", max_tokens=256, temperature=0, cache=False)
)


class Mood(dspy.Signature):
    """Tell how a text sounds."""

    text: str = dspy.InputField()
    mood: Literal["friendly", "unfriendly"] = dspy.OutputField()


print(dspy.Predict(Mood)(text="Hello"))
