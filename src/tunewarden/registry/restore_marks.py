"""High-water marks (log size, shard generations) that reveal a restored, older component (I10); and of swap (I16)."""

from tunewarden.db.database import Database, Tx


def log_size(database: Database) -> int:
    """Return the greatest noted size of the log."""
    row = database.peek("SELECT size FROM log_seen")
    return int(row[0]) if row else 0


def see_log(tx: Tx, size: int) -> None:
    """Raise the mark of the log's size, in the caller's transaction."""
    tx.run("UPDATE log_seen SET size = :size WHERE size < :size", size=size)


def keyring_generations(database: Database) -> dict[int, int]:
    """Return the greatest noted generation of each shard."""
    with database.read() as tx:
        rows = tx.rows("SELECT shard, generation FROM keyring_seen ORDER BY shard")
    return {int(shard): int(generation) for shard, generation in rows}


def see_keyring(tx: Tx, shard: int, generation: int) -> None:
    """Raise the mark of a shard's generation, in the caller's transaction."""
    tx.run(
        "INSERT INTO keyring_seen VALUES (:shard, :generation) ON CONFLICT (shard) DO UPDATE"
        " SET generation = excluded.generation WHERE keyring_seen.generation < excluded.generation",
        shard=shard,
        generation=generation,
    )


def forget_keyring(tx: Tx) -> None:
    """Reset the keyring's marks: an operator accepts an older keyring."""
    tx.run("DELETE FROM keyring_seen")


def see_swap(database: Database) -> None:
    """Note that memory may be swapped to a disk at this time."""
    with database.write(survives=False, below_floor=True) as tx:
        tx.run("UPDATE swap_seen SET at = :now WHERE at < :now", now=tx.now_micros)


def was_swappable(tx: Tx, n: int) -> bool:
    """Return whether swap was seen since artifact `n` was created."""
    found = tx.row(
        "SELECT 1 FROM artifacts a, swap_seen WHERE a.n = :n AND swap_seen.at >= a.created_at", n=n
    )
    return found is not None
