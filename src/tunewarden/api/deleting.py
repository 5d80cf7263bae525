"""DELETE for models and files: the first request runs the deletion, concurrent ones wait for it without a thread."""

import asyncio
from collections import Counter

from starlette.concurrency import run_in_threadpool

from tunewarden.deletion.executor import Executor, Joined, still_deleting
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt
from tunewarden.identity.policy import Caller
from tunewarden.registry.artifacts import ArtifactKind

# Per worker and artifact. Any further request gets a 503 with Retry-After.
JOINED_MAX = 8
POLL_SECONDS = 0.01


class Deleting:
    """The DELETE requests of one worker. Runs on its event loop."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._joined: Counter[int] = Counter()

    async def delete(
        self, caller: Caller, kind: ArtifactKind, artifact_id: str, attempt: Attempt
    ) -> Deletion:
        """Delete an artifact; return when it is gone (D8). Raises what `Executor.delete` raises."""
        started = await run_in_threadpool(self._executor.begin, caller, kind, artifact_id, attempt)
        return started if isinstance(started, Deletion) else await self._join(started)

    async def _join(self, join: Joined) -> Deletion:
        """Wait for a deletion that another request began (D1)."""
        deletion = join.asked.deletion
        if self._joined[deletion.n] >= JOINED_MAX:
            raise still_deleting(deletion)
        self._joined[deletion.n] += 1
        try:
            while not self._executor.is_over(join):  # noqa: ASYNC110  another process may end it
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._joined[deletion.n] -= 1
            if not self._joined[deletion.n]:
                del self._joined[deletion.n]
        return await run_in_threadpool(self._executor.answer, join)
