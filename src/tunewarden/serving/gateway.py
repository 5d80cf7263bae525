"""From an admitted target to the engine's answer."""

from collections.abc import Callable

import msgspec

from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.serving.admission import Target, deleted
from tunewarden.serving.engine import Engine
from tunewarden.serving.upstream import Answer, unavailable

ANSWER_BYTES_MAX = 64 * 1024 * 1024
NOT_LOADED = "adapter_not_loaded"
DELETED = "model_deleted"


class _Problem(msgspec.Struct):
    code: str | None = None


class _Refused(msgspec.Struct):
    error: _Problem


class Gateway:
    """Routes requests by their base. One a worker, on its event loop."""

    def __init__(self, embedded: Engine, remote: Callable[[str], Engine]) -> None:
        self._embedded = embedded
        self._new_remote = remote
        self._remotes: dict[str, Engine] = {}

    async def send(self, target: Target, path: str, body: bytes) -> Answer:
        """Send an inference request; return the answer with its status, its body still to come.

        Called inside the target's guard. An engine that was started anew has no adapters: then the
        model is loaded again and the request repeated, once. Raises Error(UNAVAILABLE).
        """
        engine = self._engine_of(target.base)
        for _ in range(2):
            await engine.load(target)
            answer = await engine.upstream.send("POST", path, body)
            if answer.status != 404:
                return answer
            try:
                code = _code_of(await answer.read(ANSWER_BYTES_MAX))
            except ConnectionError as error:
                raise unavailable() from error
            if code == DELETED:
                raise deleted()
            if code != NOT_LOADED:
                raise Error(
                    Kind.NOT_FOUND,
                    f"The engine of this model does not offer {path}, or does not know the model.",
                    code="not_offered",
                )
            engine.unload(target)
        raise unavailable()  # It has just been started, and the runner has not loaded the base yet.

    def _engine_of(self, base: Base) -> Engine:
        if base.kind is BaseKind.LOCAL:
            return self._embedded
        if base.location not in self._remotes:
            self._remotes[base.location] = self._new_remote(base.location)
        return self._remotes[base.location]


def _code_of(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Refused).error.code
    except msgspec.DecodeError:
        return None
