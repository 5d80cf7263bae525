"""Outlines: text, a stream, and a schema, which is its purpose."""

import os
from typing import Literal

import openai
import outlines
from pydantic import BaseModel


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


model = outlines.from_openai(openai.OpenAI(), os.environ["MODEL"])
print(model("Hello"))
print("".join(model.stream("Hello")))
print(model("Hello", Mood))
