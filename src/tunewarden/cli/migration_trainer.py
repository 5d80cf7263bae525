"""The migration's jobs and models at the target, through the commands' client."""

import json
from collections.abc import Mapping
from typing import Any

from tunewarden.cli.client import PAGE_SIZE, Client
from tunewarden.cli.following import JOBS
from tunewarden.cli.transport import Request
from tunewarden.errors import Error, Kind
from tunewarden.migration.remaking import SOURCE_JOB

Object = dict[str, Any]


class HttpTrainer:
    """A `migration.target.Trainer`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def knows(self, model: str) -> bool:
        """Return whether there is a base or a model of this name."""
        try:
            self._client.get("models", model)
        except Error as error:
            if error.kind is Kind.NOT_FOUND:
                return False
            raise
        return True

    def jobs_of(self, source_job: str) -> list[Object]:
        """Return the jobs whose metadata name a job of the source, the newest first."""
        named = {f"metadata[{SOURCE_JOB}]": source_job}
        page = self._client.pages(*JOBS, limit=None, page_size=PAGE_SIZE, **named)
        found: list[Object] = page["data"]
        return found

    def make_job(self, fields: Object, request_key: str) -> Object:
        """Create a job, or return the one that a request with this key created."""
        body = json.dumps(fields).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "idempotency-key": request_key,
        }
        made: Object = json.loads(
            self._client.exchange(Request("POST", f"/{'/'.join(JOBS)}", headers, [body])).body
        )
        return made

    def job(self, job_id: str) -> Object:
        """Return a job."""
        return self._client.get(*JOBS, job_id)

    def describe(self, model: str, metadata: Mapping[str, str]) -> None:
        """Add to a model's metadata; what is there already stays."""
        known = self._client.get("models", model).get("metadata") or {}
        if known.items() >= metadata.items():
            return
        self._client.post("models", model, fields={"metadata": {**known, **metadata}})
