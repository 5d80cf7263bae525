"""Fixtures that the tests of fine-tuning share."""

from collections.abc import Iterator

import pytest
from openai import OpenAI
from tests.support import fine_tuning_rows as rows
from tests.support import lone_worker
from tests.support.fine_tuning_rows import REMOTE_BASE
from tests.support.lone_worker import LoneWorker

from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneWorker]:
    """A worker with a base that trains and one that does not, and without a runner: jobs stay as a test wrote them."""
    with lone_worker.serving(tmp_path_factory.mktemp("jobs") / "data") as running:
        with running.app.database.write() as tx:
            bases.add(
                tx,
                name=REMOTE_BASE,
                kind=BaseKind.REMOTE,
                location="http://127.0.0.1:9",
                engine_model="far",
                modules={},
            )
        yield running


@pytest.fixture
def client(worker: LoneWorker) -> OpenAI:
    """A client that refuses what OpenAI's schema does not allow."""
    return worker.client(_strict_response_validation=True, max_retries=0)


@pytest.fixture
def file_id(worker: LoneWorker) -> str:
    return rows.make_file(worker.app, worker.owner_key)
