"""What no deletion reaches, by word, in the report of a case and in that of a plan (I18)."""

from collections.abc import Iterator

from msgspec import Struct


class NotReached(Struct, frozen=True):
    """Something that the case does not reach. `count` is how much of it the server knows of; null: it cannot know."""

    what: str
    count: int | None
    why: str


def counted(hidden: int, exports: int) -> Iterator[NotReached]:
    """Yield what the server knows before it deletes anything."""
    yield NotReached(
        "members in other projects",
        hidden,
        "They stay, and who asked does not see which they are.",
    )
    yield NotReached(
        "exports",
        exports,
        "Plain weights that left the server before. Who has them must delete them.",
    )


def unknown() -> Iterator[NotReached]:
    """Yield what it cannot know."""
    yield NotReached(
        "backups",
        None,
        "Copies of the sealed files and of the database. No key opens the files, unless a copy of the keyring was made"
        " outside the documented backups.",
    )
    yield NotReached(
        "storage below the file system",
        None,
        "What a device keeps of blocks that were overwritten (wear levelling, snapshots): sealed files, and keys of shards"
        " that were rewritten.",
    )
    yield NotReached(
        "answers and copies elsewhere",
        None,
        "What clients and proxies received and kept, and what logs of remote engines and providers hold.",
    )
