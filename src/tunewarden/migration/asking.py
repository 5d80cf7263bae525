"""Asking a model of the source so that its answer can be compared later: no randomness, and what it was sure of."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from threading import Lock

from tunewarden.migration.prompts import Prompt
from tunewarden.migration.source import Object, Reply, Source

SEED = 0
LOGPROBS = 5
# What a model may not take; the data's own parameters are never left out.
OURS = frozenset({"temperature", "seed", "logprobs", "top_logprobs", "max_completion_tokens"})
TOGETHER = {"logprobs": ("top_logprobs",), "top_logprobs": ("logprobs",)}


class ModelGone(Exception):
    """The model answers nobody any more, or not this key."""


class NoChats(Exception):
    """The model is there, but answers no chat completions: a base of completions, or an Azure model not deployed."""


@dataclass(slots=True)
class Asker:
    """Asks one model. `without` are the parameters that it does not take, which grow as it refuses them."""

    source: Source
    model: str
    answer_tokens_max: int
    without: set[str] = field(default_factory=set)
    _guard: Lock = field(default_factory=Lock)

    def ask(self, prompt: Prompt) -> Object:
        """Return the request with its answer, or with the refusal if the model does not take this question.

        Raises ModelGone, NoChats, Error.
        """
        while True:
            with self._guard:
                left_out = frozenset(self.without)
            request = self._request(prompt, left_out)
            reply = self.source.chat(self.model, request)
            answer = reply.object
            if reply.status == 200:
                if answer is None or not isinstance(answer.get("choices"), list):
                    raise self.source.misread()
                return {"request": request, "status": 200, "response": answer}
            refused = _parameter(reply, request)
            if refused is None:
                break
            with self._guard:
                self.without |= {refused, *TOGETHER.get(refused, ())}
        if reply.status == 410 or reply.problem.get("code") == "model_not_found":
            raise ModelGone
        if reply.status == 404:
            raise NoChats
        if reply.status not in {400, 422}:
            raise self.source.refused(reply)
        return {"request": request, "status": reply.status, "error": reply.problem}

    def _request(self, prompt: Prompt, left_out: Collection[str]) -> Object:
        wanted: Object = {
            "temperature": 0,
            "seed": SEED,
            "logprobs": True,
            "top_logprobs": LOGPROBS,
            "max_completion_tokens": self.answer_tokens_max,
        }
        if "max_completion_tokens" in left_out:
            wanted["max_tokens"] = self.answer_tokens_max
        chosen = {name: value for name, value in wanted.items() if name not in left_out}
        return {"model": self.model, **prompt.fields, **chosen}


def line(answered: Object, *, model: str, prompts_file: str, number: int) -> bytes:
    """Return one line of a file of answers: the model, where its question stands, and the answer."""
    head = {"model": model, "prompts_file": prompts_file, "line": number}
    return json.dumps({**head, **answered}, separators=(",", ":")).encode() + b"\n"


def _parameter(reply: Reply, request: Object) -> str | None:
    """Return which parameter that we added the refusal names; None if it names none of them."""
    if reply.status not in {400, 403, 422}:
        return None
    param = str(reply.problem.get("param")).partition(".")[0]
    if param in OURS and param in request:
        return param
    # So says OpenAI of models that do not show logprobs, without naming the parameter.
    if "logprobs" in request and "logprobs" in str(reply.problem.get("message")):
        return "logprobs"
    return None
