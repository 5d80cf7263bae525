"""A search in all files of an organization: who may, what for, and which files. Audited without the texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import file_rows, text_search
from tunewarden.registry.file_rows import File
from tunewarden.registry.text_search import Pattern

TEXTS_MAX = 20
CHARACTERS_MAX = 1000
# Fewer would be in nearly every line.
COMPARED_MIN = 3


@dataclass(frozen=True, slots=True)
class FileSearch:
    """A search that may begin: its patterns, and how much there is to read."""

    database: Database
    organization_id: str
    patterns: tuple[Pattern, ...]
    start: int
    files: int
    bytes: int

    def pages(self) -> Iterator[list[File]]:
        """Yield the files, oldest first, without names, in constant memory."""
        return file_rows.pages_of_organization(
            self.database, self.organization_id, start=self.start
        )


def begin(
    database: Database, caller: Caller, texts: Sequence[str], *, after: str | None
) -> FileSearch:
    """Check and record a search of an Owner in the files of all projects. `after` is the file that it goes on after.

    Raises Error(FORBIDDEN), Error(INVALID), which never quotes a text.
    """
    authorize(caller, Action.SEARCH_FILES)
    patterns = _patterns(texts)
    organization_id = caller.organization_id
    start = file_rows.position_in_organization(database, organization_id, after)
    with database.write() as tx:
        keys.authorize_now(tx, caller, Action.SEARCH_FILES)
        audit.record(
            tx,
            audit.EventType.FILES_SEARCHED,
            organization_id=organization_id,
            actor=caller.actor,
            resource_id=organization_id,
            texts=len(texts),
            is_continued=after is not None,
        )
    files, size = file_rows.totals(database, organization_id, start=start)
    return FileSearch(database, organization_id, patterns, start, files, size)


def _patterns(texts: Sequence[str]) -> tuple[Pattern, ...]:
    if not 1 <= len(texts) <= TEXTS_MAX:
        raise _invalid(f"give 1 to {TEXTS_MAX} texts")
    found = []
    for text in texts:
        if len(text) > CHARACTERS_MAX:
            raise _invalid(f"each text may have {CHARACTERS_MAX} characters")
        one = text_search.pattern(text)
        if one is None or text_search.compared_length(text) < COMPARED_MIN:
            raise _invalid(
                f"each text needs {COMPARED_MIN} characters or more, apart from spaces, + and accents"
            )
        found.append(one)
    return tuple(found)


def _invalid(what: str) -> Error:
    return Error(
        Kind.INVALID, f"Invalid value for 'texts': {what}.", param="texts", code="invalid_value"
    )
