"""The life of fine-tuned models on a remote engine, as a user sees it: the same on the stand-in and on a real vLLM."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from tests.cli import in_process
from tests.support.servers import Reply, Server

from tunewarden_receipts import receipt
from tunewarden_receipts.leaf import EvictedEngine

ASKED: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "What is Tunewarden?"}]


@dataclass(frozen=True, slots=True)
class Pushed:
    """A server with a base whose engine adapters are pushed to."""

    server: Server
    base: str

    def add_base(self, url: str, key_file: Path | None = None) -> str:
        """Register the base; return what was said on standard error."""
        key = [] if key_file is None else ["--engine-key-file", str(key_file)]
        done = in_process.on(self.server, "bases", "add", self.base, "--engine-url", url, *key)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def imported(self, adapter: Path, suffix: str = "") -> str:
        """Import an adapter by the command; return the model's id."""
        named = ["--suffix", suffix] if suffix else []
        done = in_process.on(
            self.server, "models", "import", str(adapter), "--base", self.base, *named
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def said(self, model: str, *, max_retries: int = 0) -> str:
        """Return what a model answers."""
        asked = self.server.client(max_retries=max_retries).chat.completions
        answer = asked.create(model=model, messages=ASKED, max_tokens=12, temperature=0)
        assert answer.model == model
        return str(answer.choices[0].message.content)

    def deleted(self, model: str) -> Sequence[EvictedEngine]:
        """Delete a model by the SDK; return what its receipt says of the engines."""
        assert self.server.client(max_retries=0).models.delete(model).deleted
        return self.receipt_of(model)

    def has_receipt(self, model: str) -> bool:
        """Whether a deletion is done."""
        return self._stored_receipt_of(model).status == 200

    def receipt_of(self, model: str) -> Sequence[EvictedEngine]:
        """Verify the receipt of a deleted model; return what it says of the engines."""
        stored = self._stored_receipt_of(model).body
        log_key = self.server.get("/.well-known/tunewarden-log-key").body
        shown = receipt.verify(stored, log_key).disclosed
        assert shown is not None
        return shown.engines or ()

    def _stored_receipt_of(self, model: str) -> Reply:
        key = self.server.owner_key
        listed = json.loads(self.server.get("/v1/deletions", key=key).body)["data"]
        [deletion] = [one["id"] for one in listed if one.get("model") == model]
        return self.server.get(f"/v1/deletions/{deletion}/receipt", key=key)

    def streams_end_by_deletion(self, model: str, other: str) -> None:
        """Delete a model under a stream: it ends with the error, another model's goes on."""
        client = self.server.client(max_retries=0).chat.completions
        stream, kept = (
            client.create(
                model=one,
                messages=ASKED,
                max_tokens=1500,
                stream=True,
                extra_body={"ignore_eos": True},  # a real model may end before it is deleted
            )
            for one in (model, other)
        )
        for one in (stream, kept):
            next(iter(one))
        [engine] = self.deleted(model)
        assert (engine.engine, engine.how) == (f"vllm:{self.base}", "zeroed")
        with pytest.raises(openai.APIError) as cut:
            list(stream)
        assert cut.value.code == "model_deleted"
        assert next(iter(kept)).model == other
        kept.close()
        with pytest.raises(openai.NotFoundError):
            self.said(model)
