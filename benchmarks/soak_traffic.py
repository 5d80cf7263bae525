"""What the soak asks, and whether each answer is right, while models and keys come and go.

A wrong answer is: another model's or another request's; one that is not whole without a reason; one of a model whose
DELETE had been answered when it was asked, or a piece of it that came later; one to a key that had been revoked; a 404
or 401 where model and key live; any status that has no reason. 429 and 503 with `retry-after` are no wrong answers,
but counted: at 70 % of capacity there should be none.
"""

import asyncio
import json
import random
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from benchmarks.open_loop import Asked, Load, chat, request
from benchmarks.served import EchoServer
from tests.support import bases
from tests.support.servers import LOCAL_BASE, ORGANIZATION

from tunewarden.identity import keys
from tunewarden.identity.policy import Role

STAYING, CHURNING = 20, 20
KEYS = 6
CHURN_SECONDS = 1.0
KEY_SECONDS = 2.0
CHUNKS, CHUNK_SECONDS = 12, 0.01
# Of all requests; the others are whole answers.
STREAMS, LEAVERS, SLOW_READERS, TO_GONE, BY_REVOKED = 0.25, 0.01, 0.005, 0.02, 0.01
SLOW_SECONDS = 2.0
TURN_SECONDS = 0.002
GONE_KEPT = 200
BOUNDARY = "border-of-the-benchmark"
CONTENT = re.compile(rb'"content":"([^"]*)"')
NAMED = re.compile(rb'"model":"([^"]*)"')


@dataclass(slots=True, eq=False)
class Model:
    """A fine-tune: what the engine calls it, and whether it is being deleted or gone."""

    id: str
    engine_name: str
    is_asked_to_go: bool = False
    gone_at: float = float("inf")
    # Some turns of the loop after the answer: what was received before it was read by then.
    is_silent: bool = False


@dataclass(slots=True, eq=False)
class Key:
    """A key."""

    text: str
    id: str
    is_asked_to_go: bool = False
    gone_at: float = float("inf")


@dataclass(slots=True)
class Seen:
    """Counts since the beginning."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of whole answers, since they were taken


class Traffic:
    """Requests, changes and checks. On one event loop, which hears of all of them in order."""

    def __init__(self, server: EchoServer) -> None:
        self.seen = Seen()
        self.load = Load(server.address, self._check)
        self.staying: list[Model] = []
        self.churning: deque[Model] = deque()
        self.gone: deque[Model] = deque(maxlen=GONE_KEPT)
        self.keys: deque[Key] = deque()
        self.revoked: deque[Key] = deque(maxlen=GONE_KEPT)
        self._by_id: dict[str, Model] = {}
        self._by_key: dict[str, Key] = {}
        self._app = server.app
        self._owner = Key(server.owner_key, "")
        self._by_key[self._owner.text] = self._owner
        self._number = 0
        adapter = bases.adapter()
        self._form = _form({"base": LOCAL_BASE}, adapter)

    async def begin(self) -> None:
        """Have all models and keys."""
        for _ in range(KEYS):
            await self._add_key()
        for _ in range(STAYING + CHURNING):
            await self._add_model()
        self.staying = [self.churning.popleft() for _ in range(STAYING)]

    def ask(self, due_at: float) -> Asked:
        """Return the next request."""
        self._number += 1
        chance, kind = random.random(), random.random()
        model = random.choice(self.staying if random.random() < 0.5 else list(self.churning))
        key = random.choice([self._owner, *self.keys])
        if chance < TO_GONE and self.gone:
            model = random.choice(self.gone)
        elif chance < TO_GONE + BY_REVOKED and self.revoked:
            key = random.choice(self.revoked)
        prompt = f"question {self._number} of {random.getrandbits(32):08x}"
        if kind >= STREAMS:
            return chat(model.id, key.text, prompt, due_at=due_at)
        how = {"chunks": CHUNKS, "pause": CHUNK_SECONDS}
        one = chat(model.id, key.text, prompt, due_at=due_at, stream=True, **how)
        one.on_piece = self._look
        if kind < LEAVERS:
            one.leave_after_bytes = 300
        elif kind < LEAVERS + SLOW_READERS:
            one.pause_seconds, one.on_piece = SLOW_SECONDS, None
        return one

    async def change(self, until: float) -> None:
        """Import and delete a model each second, make and revoke a key each other second."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._each(CHURN_SECONDS, until, self._change_models))
            tasks.create_task(self._each(KEY_SECONDS, until, self._change_keys))

    async def _each(self, seconds: float, until: float, do: Callable[[], Awaitable[None]]) -> None:
        due = time.monotonic()
        while (due := due + seconds) < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await do()

    async def _change_models(self) -> None:
        if await self._add_model():
            await self._delete(self.churning.popleft())

    async def _change_keys(self) -> None:
        await self._add_key()
        await self._revoke(self.keys.popleft())

    async def _add_model(self) -> bool:
        """Import one; whether that was answered well."""
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        data = request("POST", "/v1/models", self._owner.text, self._form, kind)
        asked = await self.load.answered(Asked(data, time.monotonic()))
        if asked.status != 200:
            self._is_wrong(f"an import was answered {asked.status}", asked)
            return False
        name = json.loads(asked.body)["id"]
        model = Model(name, await asyncio.to_thread(self._engine_name, name))
        self._by_id[name] = model
        self.churning.append(model)
        self.seen.counts["imports"] += 1
        return True

    def _engine_name(self, model: str) -> str:
        """Return what the engine knows a model by."""
        row = self._app.database.peek("SELECT internal_id FROM artifacts WHERE id = :id", id=model)
        assert row is not None
        return str(row[0])

    async def _delete(self, model: Model) -> None:
        model.is_asked_to_go = True
        data = request("DELETE", f"/v1/models/{model.id}", self._owner.text)
        asked = Asked(data, time.monotonic())
        asked.on_piece = lambda one: self._gone(model, one)
        await self.load.answered(asked)
        if asked.status != 200:
            self._is_wrong(f"DELETE was answered {asked.status}", asked)
        else:
            self.seen.counts["deletes"] += 1
            self.gone.append(model)
            self._forget_old()

    def _gone(self, model: Model, deletion: Asked) -> None:
        """Note, in the turn in which it comes, that the DELETE was answered."""
        if deletion.status == 200 and deletion.is_whole:
            model.gone_at = time.monotonic()
            self._silence(model, turns=4)

    def _silence(self, model: Model, turns: int) -> None:
        if turns:
            self.load.loop.call_later(TURN_SECONDS, self._silence, model, turns - 1)
        else:
            model.is_silent = True

    def _forget_old(self) -> None:
        if len(self._by_id) > 2 * GONE_KEPT:
            kept = {one.model for one in self.load.under_way} | {one.id for one in self.gone}
            kept |= {one.id for one in [*self.staying, *self.churning]}
            self._by_id = {name: one for name, one in self._by_id.items() if name in kept}
        if len(self._by_key) > 2 * GONE_KEPT:
            kept = {one.key for one in self.load.under_way} | {one.text for one in self.revoked}
            kept |= {one.text for one in [self._owner, *self.keys]}
            self._by_key = {text: one for text, one in self._by_key.items() if text in kept}

    async def _add_key(self) -> None:
        def create() -> Key:
            with self._app.database.write() as tx:
                made, text = keys.create(
                    tx, organization=ORGANIZATION, role=Role.OWNER, name="soak"
                )
            return Key(text, made.id)

        key = await asyncio.to_thread(create)
        self._by_key[key.text] = key
        self.keys.append(key)
        self.seen.counts["keys made"] += 1

    async def _revoke(self, key: Key) -> None:
        def revoke() -> None:
            with self._app.database.write() as tx:
                keys.revoke(tx, key.id)

        key.is_asked_to_go = True
        await asyncio.to_thread(revoke)
        key.gone_at = time.monotonic()
        self.revoked.append(key)
        self.seen.counts["keys revoked"] += 1

    # Is it right?

    def _look(self, asked: Asked) -> None:
        """Look at a piece of a stream as it comes: none may come of a model that is gone."""
        if self._by_id[asked.model].is_silent and asked.sent_at:
            new = asked.body[max(0, asked.looked_at - 16) :]
            if CONTENT.search(new) and asked.sent_at < self._by_id[asked.model].gone_at:
                self._is_wrong("a piece of a model came after its DELETE was answered", asked)
        asked.looked_at = len(asked.body)

    def _check(self, asked: Asked) -> None:
        if not asked.prompt:
            return  # A change, which looks at its answer itself.
        model, key = self._by_id[asked.model], self._by_key[asked.key]
        counts = self.seen.counts
        counts["streams" if asked.is_stream else "whole answers"] += 1
        if asked.sent_at > key.gone_at:
            counts["asked by revoked keys"] += 1
            if asked.status != 401:
                self._is_wrong(f"a revoked key was answered {asked.status}", asked)
        elif asked.sent_at > model.gone_at:
            counts["asked of deleted models"] += 1
            is_right = asked.status == 404 and asked.code == "model_not_found"
            if not (is_right or (asked.status == 401 and key.is_asked_to_go)):
                self._is_wrong(f"a deleted model was answered {asked.status}", asked)
        elif asked.status == 200:
            self._check_content(asked, model)
        elif asked.status in {429, 503} and asked.headers.get(b"retry-after"):
            counts[f"refused with {asked.status} {asked.code}"] += 1
        elif asked.status == 404 and model.is_asked_to_go:
            counts["ended by a DELETE"] += 1
        elif asked.status == 401 and key.is_asked_to_go:
            counts["asked by revoked keys"] += 1
        elif asked.status == 0 and model.is_asked_to_go:
            counts["ended by a DELETE"] += 1
        else:
            self._is_wrong(
                f"{asked.status or 'nothing'} without a reason; {asked.why_broken}", asked
            )

    def _check_content(self, asked: Asked, model: Model) -> None:
        body = bytes(asked.body)
        said = [text.decode() for text in CONTENT.findall(body)]
        expected = f"{model.engine_name}|{asked.prompt}"
        right = [expected]
        if asked.is_stream:
            right = [f"{expected}|{number}" for number in range(CHUNKS)]
        named = {text.decode() for text in NAMED.findall(body)}
        if said != right[: len(said)]:
            first = next(one for one in zip(said, [*right, None], strict=False) if one[0] != one[1])
            self._is_wrong(f"said {first[0]!r} where {first[1]!r} is right", asked)
        elif named - {model.id}:
            self._is_wrong(f"an answer of {model.id} names {named}", asked)
        elif asked.has_left:
            self.seen.counts["clients that left"] += 1
        elif asked.is_whole and len(said) == len(right) and _has_end(asked):
            if asked.pause_seconds:
                self.seen.counts["slow readers"] += 1
            elif not asked.is_stream:
                self.seen.seconds.append(asked.seconds)
        elif model.is_asked_to_go:
            self.seen.counts["ended by a DELETE"] += 1
        else:
            what = "" if asked.is_whole else f" and broken: {asked.why_broken}"
            self._is_wrong(f"{len(said)} of {len(right)} pieces{what}", asked)

    def _is_wrong(self, what: str, asked: Asked) -> None:
        self.seen.wrong[re.sub(r"'[^']*'|ft:\S+|\d+ of \d+", "…", what)] += 1
        if len(self.seen.examples) < 10:
            self.seen.examples.append(f"{what} [{asked.status} … {bytes(asked.body[-400:])!r}]")


def _has_end(asked: Asked) -> bool:
    return not asked.is_stream or asked.body.endswith(b"data: [DONE]\n\n")


def _form(fields: dict[str, str], adapter: bases.Adapter) -> bytes:
    """Return a multipart form with an adapter's two files."""
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [
        ('name="adapter_config"; filename="adapter_config.json"', adapter.config),
        ('name="adapter_model"; filename="adapter_model.safetensors"', adapter.weights),
    ]
    body = b"".join(
        f"--{BOUNDARY}\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
        for head, value in parts
    )
    return body + f"--{BOUNDARY}--\r\n".encode()
