"""Real clients against a real server with the demo, each as its own quick start does: `make test-clients`.

`CLIENTS="curl langchain"` chooses. docs/reference/clients.md says what works; these tests hold that it is true.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clients import running, sink
from tests.clients.catalog import Client
from tests.support.servers import Server


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("clients") / "data"
    with running.serving_demo(data) as server:
        yield server


@pytest.fixture(scope="module")
def model(demo: Server) -> str:
    [found] = [one.id for one in demo.client().models.list() if one.id.startswith("ft:")]
    return found


def test_a_client_in_its_default_use(
    client: Client,
    demo: Server,
    model: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    with sink.open_sink() as traces:
        ran = running.run(client, demo, model, tmp_path, traces.url)
    print(ran.output)
    record_property("client", (client, ran))
    assert ran.works is not bool(client.fails), ran.output[-3000:]
