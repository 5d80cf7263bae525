"""deepeval: a local model, and an answer of a schema, which it asks for in the prompt."""

import os

from deepeval.models import LocalModel

model = LocalModel(
    model=os.environ["MODEL"],
    base_url=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
)
print(model.generate("Hello"))
