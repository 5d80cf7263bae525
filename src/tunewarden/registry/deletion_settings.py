"""What an organization asks of deletions: for how many minutes after its last use a model counts as in use."""

from tunewarden import audit
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys
from tunewarden.identity.admin_keys import Administrator

MINUTES_MAX = 525_600  # a year


def in_use_minutes_of(tx: Tx, organization_id: str) -> int | None:
    """Return for how many minutes a model is in use after its last use; None: use blocks no deletion."""
    row = tx.row(
        "SELECT in_use_minutes FROM deletion_settings WHERE organization_id = :organization",
        organization=organization_id,
    )
    return row[0] if row else None


def find(database: Database, administrator: Administrator) -> int | None:
    """Return it, for an administrator. Raises Error(UNAUTHENTICATED)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        return in_use_minutes_of(tx, administrator.organization_id)


def change(database: Database, administrator: Administrator, minutes: int | None) -> int | None:
    """Set it; return it. Raises Error(UNAUTHENTICATED), Error(INVALID)."""
    if minutes is not None and not 1 <= minutes <= MINUTES_MAX:
        raise Error(
            Kind.INVALID,
            f"Invalid value for 'in_use_minutes': {minutes}. Use 1 to {MINUTES_MAX} minutes, or null: then use blocks no"
            " deletion.",
            param="in_use_minutes",
            code="invalid_value",
        )
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        organization_id = administrator.organization_id
        if in_use_minutes_of(tx, organization_id) != minutes:
            _set(tx, administrator, minutes)
    return minutes


def _set(tx: Tx, administrator: Administrator, minutes: int | None) -> None:
    tx.run(
        "INSERT INTO deletion_settings VALUES (:organization, :minutes)"
        " ON CONFLICT (organization_id) DO UPDATE SET in_use_minutes = excluded.in_use_minutes",
        organization=administrator.organization_id,
        minutes=minutes,
    )
    audit.record(
        tx,
        audit.EventType.DELETION_SETTINGS_UPDATED,
        organization_id=administrator.organization_id,
        actor=administrator.actor,
        resource_id=administrator.organization_id,
        in_use_minutes=minutes,
    )
