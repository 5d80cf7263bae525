"""What this database has seen of the log and of the keyring: a restored part shows by it (I10)."""

from tunewarden.db.database import Database, Tx


def log_size(database: Database) -> int:
    """Return the greatest size of the log that was noted."""
    row = database.peek("SELECT size FROM log_seen")
    return int(row[0]) if row else 0


def see_log(tx: Tx, size: int) -> None:
    """Note, in the caller's transaction, how long the log has been."""
    tx.run("UPDATE log_seen SET size = :size WHERE size < :size", size=size)


def keyring_generations(database: Database) -> dict[int, int]:
    """Return the greatest generation that was noted of each shard."""
    with database.read() as tx:
        rows = tx.rows("SELECT shard, generation FROM keyring_seen ORDER BY shard")
    return {int(shard): int(generation) for shard, generation in rows}


def see_keyring(tx: Tx, shard: int, generation: int) -> None:
    """Note, in the caller's transaction, how far a shard of the keyring has come."""
    tx.run(
        "INSERT INTO keyring_seen VALUES (:shard, :generation) ON CONFLICT (shard) DO UPDATE"
        " SET generation = MAX(keyring_seen.generation, excluded.generation)",
        shard=shard,
        generation=generation,
    )


def forget_keyring(tx: Tx) -> None:
    """Take back what was noted of the keyring: an operator accepts an older one."""
    tx.run("DELETE FROM keyring_seen")
