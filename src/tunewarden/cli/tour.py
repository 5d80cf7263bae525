"""A tour: a model is made, answers, is deleted while it answers, is gone, and leaves a proof.

Everything is done to a model that the tour makes itself; nothing else on the server is changed.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tunewarden.cli import forms, waiting
from tunewarden.cli.client import Client
from tunewarden.cli.tour_calls import Calls, Event, Reply, chat_call, curl_call
from tunewarden.cli.tour_output import Shown
from tunewarden.cli.transport import Http
from tunewarden.errors import Error, Kind
from tunewarden.server import first_start
from tunewarden.transparency import tiles
from tunewarden_receipts import merkle
from tunewarden_receipts.leaf import DeletionLeaf
from tunewarden_receipts.note import Checkpoint, LogKey, open_checkpoint
from tunewarden_receipts.receipt import VerifiedReceipt, verify, verify_consistency

SUFFIX = "tour"
# Metadata of a tour's model: by them alone a later one removes it, if it was killed and that long ago.
MARK = {"made_by": "tunewarden tour"}
LEFT_SECONDS = 600
CHATS = "/chat/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]
# Longer than the deletion takes, and within the demo's context.
TOKENS_MAX = 1900
# After so many pieces the model is in the middle of its answer.
PIECES_BEFORE = 5
KEY_PATH = "/.well-known/tunewarden-log-key"
CHECKPOINT_PATH = "/log/checkpoint"


class BrokenPromiseError(Exception):
    """The server did something else than the tour says that it does."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What to keep: it can be checked without the server."""

    receipt: bytes
    log_key: bytes
    before: bytes
    after: bytes

    def files(self) -> dict[str, bytes]:
        """Return the bytes under the names that the tour shows."""
        return {
            "receipt.json": self.receipt,
            "log.pem": self.log_key,
            "before.txt": self.before,
            "after.txt": self.after,
        }


class Tour:
    """One tour of a server."""

    def __init__(self, url: str, key: str, shown: Shown) -> None:
        self._client = Client(Http(url, key))
        self._calls = Calls(url, key)
        self._shown = shown

    def run(self) -> tuple[str, Proof]:
        """Take the tour; return the id of its model, and the proof.

        Raises Error if it cannot begin or go on; BrokenPromiseError, ReceiptError, ValueError for what is not as it says.
        """
        model = self._make()
        try:
            self._remove_left(model)
            waiting.until_it_answers(self._client, model)
            self._shown.found(model)
            self._ask(model)
            before = self._mark_log()
            deletion = self._delete_in_mid_stream(model)
        except BaseException:
            with suppress(Error):
                self._calls.send("DELETE", f"/models/{model}?force=true")
            raise
        self._look_for_it(model)
        receipt, key = self._check_receipt(model, deletion)
        after = self._compare_logs(before, key, receipt)
        return model, Proof(receipt, key, before, after)

    def _make(self) -> str:
        """Import the tour's own copy of the demo's fine-tune; return its id."""
        _, adapter = first_start.packaged_demo()
        base = first_start.DEMO_BASE
        if base not in [one["id"] for one in self._client.get("models")["data"]]:
            raise Error(
                Kind.NOT_FOUND,
                f"This server has no {base}. Start one that has, `tunewarden serve --demo --data NEW_DIRECTORY`, and"
                " give its directory to the tour.",
            )
        self._shown.step(
            "make", "A fine-tune of the tour's own, so that nothing of yours is touched."
        )
        options = " ".join(f"--metadata {name}={value!r}" for name, value in MARK.items())
        self._shown.call(
            f"tunewarden models import {adapter} --base {base} --suffix {SUFFIX} {options}"
        )
        return str(forms.import_adapter(self._client, adapter, base, SUFFIX, MARK)["id"])

    def _remove_left(self, model: str) -> None:
        """Delete what tours left that were killed: models with their mark, much older than this one's."""
        listed = {one["id"]: one["created"] for one in self._client.get("models")["data"]}
        for name, created in listed.items():
            # By the server's clock alone.
            is_old = listed.get(model, 0) - created > LEFT_SECONDS
            if f":{SUFFIX}:" not in name or name == model or not is_old:
                continue
            with suppress(Error):  # it is somebody's, or gone
                if self._client.get("models", name).get("metadata") != MARK:
                    continue
                self._client.delete("models", name)
                self._shown.found(f"{name} was left by a tour that was killed: removed.")

    def _ask(self, model: str) -> None:
        asked = {"model": model, "messages": MESSAGES, "temperature": 0}
        self._shown.step("chat", "It answers the stock openai SDK.")
        self._shown.call(chat_call(asked))
        answer = _expected(self._calls.send("POST", CHATS, asked), 200).fields()
        self._shown.found(json.dumps(answer["choices"][0]["message"]["content"]))

    def _mark_log(self) -> bytes:
        """Return the log's checkpoint of before the deletion."""
        self._shown.step("mark", "The log of deletions, as it is before.")
        self._shown.call(curl_call(f"{self._calls.root}{CHECKPOINT_PATH}", into="before.txt"))
        return self._calls.fetch(CHECKPOINT_PATH)

    def _delete_in_mid_stream(self, model: str) -> str:
        """Delete the model while it answers; return the deletion's id."""
        asked: dict[str, Any] = {
            "model": model,
            "messages": MESSAGES,
            "stream": True,
            "max_tokens": TOKENS_MAX,
            "logit_bias": _without_end(),
        }
        self._shown.step("delete", "It is deleted in the middle of an answer.")
        self._shown.call(f"stream = {chat_call(asked)}")
        with self._calls.stream(CHATS, asked) as events:
            pieces = 0
            for event in events:
                pieces += _is_piece(event)
                if pieces == PIECES_BEFORE:
                    break
            self._shown.call(f"client.models.delete({model!r})")
            began = time.perf_counter()
            deleted = _expected(self._calls.send("DELETE", f"/models/{model}"), 200)
            took = time.perf_counter() - began
            rest = list(events)
        self._shown.found(f"{deleted.body.decode()} after {took * 1000:.0f} ms")
        error = rest[-1].get("error", {}) if rest else {}
        code = error.get("code")
        if code != "model_deleted":
            raise BrokenPromiseError("The stream did not end with model_deleted.")
        pieces += sum(map(_is_piece, rest))
        self._shown.found(
            f"The stream broke off after {pieces} of {TOKENS_MAX} tokens: {code}, {error['message']}"
        )
        return deleted.headers["tunewarden-deletion"]

    def _look_for_it(self, model: str) -> None:
        self._shown.step("gone", "It is gone, for every request from now on.")
        asked = {"model": model, "messages": MESSAGES}
        for line, method, path, fields in (
            (chat_call(asked), "POST", CHATS, asked),
            (f"client.models.retrieve({model!r})", "GET", f"/models/{model}", None),
        ):
            self._shown.call(line)
            refused = _expected(self._calls.send(method, path, fields), 404).fields()["error"]
            self._shown.found(f"404 {refused['code']}: {refused['message']}")

    def _check_receipt(self, model: str, deletion: str) -> tuple[bytes, bytes]:
        """Return the receipt and the log's key, after a check that asks nobody."""
        path = f"/deletions/{deletion}/receipt"
        self._shown.step("receipt", "A signed receipt says so, and is checked without the server.")
        self._shown.call(curl_call(f"{self._calls.url}{path}", into="receipt.json", with_key=True))
        receipt = _expected(self._calls.send("GET", path), 200).body
        self._shown.call(curl_call(f"{self._calls.root}{KEY_PATH}", into="log.pem"))
        key = self._calls.fetch(KEY_PATH)
        self._shown.call("tunewarden-receipts verify receipt.json --log-key log.pem")
        verified = verify(receipt, key)
        told = verified.disclosed.artifact_id if verified.disclosed else None
        if told != model:
            raise BrokenPromiseError(f"The receipt is of {told}, not of {model}.")
        self._shown.found(*_said(verified))
        return receipt, key

    def _compare_logs(self, before: bytes, key: bytes, receipt: bytes) -> bytes:
        """Return the log's newest checkpoint, after a proof that the log only grew."""
        self._shown.step(
            "log", "The log of deletions only grew: what was in it before is still there."
        )
        self._shown.call(curl_call(f"{self._calls.root}{CHECKPOINT_PATH}", into="after.txt"))
        after = self._calls.fetch(CHECKPOINT_PATH)
        log_key = LogKey.parse(key)
        first, second = (open_checkpoint(note, log_key) for note in (before, after))
        proof = merkle.consistency_proof(
            first.size, second.size, lambda level, index: self._node(level, index, second)
        )
        verify_consistency(before, after, proof, key)
        index = verify(receipt, key).index
        self._shown.found(
            f"{first.origin}: {first.size} entries before the deletion, {second.size} now, consistent;"
            f" the receipt is entry {index}"
        )
        return after

    def _node(self, level: int, index: int, tree: Checkpoint) -> bytes:
        """Return the hash of a subtree of the log, from the tile that has it."""
        tile_level, tile_index = tiles.tile_of_node(level, index)
        width = tiles.width_at(tile_level, tile_index, tree.size)
        name = tiles.TileName(tile_level, tile_index, width)
        return tiles.node_in(self._calls.fetch(f"/log/{name.path()}"), level, index)


def _expected(reply: Reply, status: int) -> Reply:
    """Return a response that has this status. Raises BrokenPromiseError with the server's message."""
    if reply.status == status:
        return reply
    said = reply.fields().get("error", {}).get("message", "")
    raise BrokenPromiseError(f"The server answered {reply.status}, not {status}. {said}".strip())


def _is_piece(event: Event) -> bool:
    """Return whether an event of a stream has a token."""
    choices: list[Event] = event.get("choices", [])
    return bool(choices and choices[0]["delta"].get("content"))


def _without_end() -> dict[str, int]:
    """Return the bias under which the demo's models go on until `max_tokens`."""
    base, _ = first_start.packaged_demo()
    end = json.loads((base / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    return {str(end): -100}


def _said(verified: VerifiedReceipt) -> list[str]:
    """Return what a receipt says, in short."""
    leaf = verified.facts
    if not isinstance(leaf, DeletionLeaf):
        raise BrokenPromiseError("The receipt is not of a deletion, or of an older server.")
    return [
        f"valid, signed by sha256:{verified.key_id}",
        f"requested {leaf.requested_at}, nobody can begin since {leaf.fenced_at}, key erased {leaf.key_erased_at}",
    ]
