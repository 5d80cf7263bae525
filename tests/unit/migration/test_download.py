"""A download while the source makes it wait: the target is not kept waiting with it."""

from collections.abc import Callable
from pathlib import Path

from tests.fakes import openai_source
from tests.fakes.clock import HandClock
from tests.fakes.memory_target import MemoryTarget, nothing
from tests.fakes.openai_source import KEY, rate_limited
from tests.support import migrations

from tunewarden.migration import addresses, inventory
from tunewarden.migration.download import Downloads
from tunewarden.migration.source import Source
from tunewarden.migration.state import State


def test_nothing_is_read_from_the_source_while_a_part_is_sent(tmp_path: Path) -> None:
    """A server ends a request whose body stops for a minute."""

    class Sending(MemoryTarget):
        def add_part(self, upload_id: str, size: int, read: Callable[[int], bytes]) -> str:
            before = len(has.asked)
            part = super().add_part(upload_id, size, read)
            assert len(has.asked) == before
            return part

    clock, target = HandClock(), Sending()
    with openai_source.serving(migrations.acme()) as has:
        address = addresses.parse(has.url)
        source = Source(address, KEY, clock=clock, say=nothing)
        found = inventory.read(source, clock, nothing)
        has.cuts.append(100)
        has.refusals.extend([None, rate_limited(retry_after="75")])
        outcome = Downloads(source, target, State(tmp_path, address.url), nothing).run(found)
    assert outcome.failed == {}
    assert clock.monotonic() > 75
    contents = [has.contents[name] for name in outcome.saved]
    assert list(target.files.values()) == contents
