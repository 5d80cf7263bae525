"""Fills a data directory with many models: rows written in bulk, a keyring that is full of noise, a few real ones among them."""

import os
import random
from pathlib import Path

import apsw
from tests.support import bases, servers
from tests.support.servers import ORGANIZATION

from tunewarden.app import App
from tunewarden.artifacts.directory_keyring import SHARD_CAPACITY
from tunewarden.artifacts.disk import LocalDisk
from tunewarden.artifacts.keyring_format import IDENTITY_BYTES, TOKEN_BYTES
from tunewarden.artifacts.keyring_shard import Shard

BATCHES = 4
# 2**32 divided by the golden ratio: an odd factor, so that every number gets another 8 hex digits.
FACTOR = 2_654_435_769
MODELS = """
WITH RECURSIVE numbers (i) AS (SELECT :first UNION ALL SELECT i + 1 FROM numbers WHERE i < :last)
INSERT INTO artifacts (kind, id, internal_id, organization_id, project_id, state, epoch, key_id, manifest,
  manifest_sha256, salt, created_by, created_at)
SELECT 'model', printf('ft:%s:%s::%08x', :base, :name, (i * :factor) % 4294967296),
  'm_' || lower(hex(randomblob(12))), :organization, :project, 'active', 1,
  printf('k%06d-%024d', (i + :sample) / :capacity, i), '{"rank":8,"weights_bytes":1000000}',
  lower(hex(randomblob(32))), randomblob(32), :by, :at + i FROM numbers
"""


def fill(
    app: App, base: str, count: int, sample: int, adapter: bases.Adapter | None = None
) -> list[str]:
    """Register so many models on a base that is there; return the ids of the `sample` that are real, shuffled.

    Only these can be served and deleted; they are imports of the adapter, by default of the tiny one. No server runs.
    """
    data = app.config.data
    key = app.config.owner_key.read_text("utf-8").strip()
    real: list[str] = []
    bulk, done = count - sample, 0
    for batch in range(1, BATCHES + 1):
        # The real ones stand among the others, not all in one page of the database.
        new = sample * batch // BATCHES - len(real)
        real += [
            servers.import_adapter(app, key, adapter=adapter, base=base).id for _ in range(new)
        ]
        last = bulk * batch // BATCHES
        if last > done:
            _insert(data / "tunewarden.sqlite", base, sample, done, last - 1)
        done = last
    _fill_keyring(data, bulk, sample)
    os.sync()  # else the first server waits for all that was written here
    random.Random(2).shuffle(real)
    return real


def _fill_keyring(data: Path, bulk: int, sample: int) -> None:
    """Add keys to the shards, of which the first has those of the real models."""
    noise = os.urandom(IDENTITY_BYTES)
    for number in range((bulk + sample - 1) // SHARD_CAPACITY + 1):
        first = max(0, number * SHARD_CAPACITY - sample)
        keys = range(first, min((number + 1) * SHARD_CAPACITY - sample, bulk))
        shard = Shard(LocalDisk(), data / "keyring" / f"{number:06}")
        generation, ring = shard.settle()
        added = [(b"%0*d" % (TOKEN_BYTES, key), noise) for key in keys]
        shard.rewrite(ring.with_added(added), generation)


def _insert(path: Path, base: str, sample: int, first: int, last: int) -> None:
    connection = apsw.Connection(str(path))
    for pragma in ("cache_size=-1000000", "synchronous=OFF"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    (owner,) = connection.execute(
        "SELECT k.organization_id, k.project_id, k.id FROM api_keys k"
    ).fetchall()
    before = connection.execute("SELECT COALESCE(MAX(n), 0) FROM artifacts").fetchall()[0][0]
    numbers = {"first": first, "last": last, "sample": sample}
    numbers |= {"factor": FACTOR, "capacity": SHARD_CAPACITY}
    owned = dict(zip(("organization", "project", "by"), owner, strict=True))
    named = {"base": base, "name": ORGANIZATION, "at": 1_760_000_000_000_000}
    new = "FROM artifacts WHERE n > :before"
    with connection:
        connection.execute(MODELS, {**numbers, **owned, **named})
        connection.execute(
            f"INSERT INTO models (n, base, suffix, listed_in) SELECT n, :base, '', organization_id {new}",
            {"before": before, "base": base},
        )
        for position, file in enumerate(("adapter_config.json", "adapter_model.safetensors")):
            connection.execute(
                f"INSERT INTO blobs SELECT internal_id || '/{file}.age', n, {position}, 1000, 1216, NULL {new}",
                {"before": before},
            )
        connection.execute(
            f"INSERT OR IGNORE INTO keyring_seen SELECT CAST(substr(key_id, 2, 6) AS INTEGER), 1 {new} GROUP BY 1",
            {"before": before},
        )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
