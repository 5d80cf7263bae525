"""DSPy: a signature, by its text format and by its fallback, which asks for JSON."""

import os
from typing import Literal

import dspy
from dspy.utils.exceptions import AdapterParseError

dspy.configure(
    lm=dspy.LM(f"openai/{os.environ['MODEL']}", max_tokens=256, temperature=0, cache=False)
)


class Mood(dspy.Signature):
    """Tell how a text sounds."""

    text: str = dspy.InputField()
    mood: Literal["friendly", "unfriendly"] = dspy.OutputField()


try:
    print(dspy.Predict(Mood)(text="Hello"))
except AdapterParseError as error:
    # Both ways were answered; a model as small as the demo's does not name the field by itself.
    print(error.lm_response)
