"""Instructor: every mode that its documentation names for OpenAI's API."""

import os
from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


messages = [{"role": "user", "content": "Hello"}]
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(OpenAI(), mode=mode)
    print(
        mode.name,
        client.create(model=os.environ["MODEL"], response_model=Mood, messages=messages),
    )
provided = instructor.from_provider(f"openai/{os.environ['MODEL']}")
print(provided.create(response_model=Mood, messages=messages))
