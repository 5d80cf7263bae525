"""D8 of a group: what it writes comes in the order of the deletions."""

import json
from pathlib import Path

from tests.support import fine_tuning_rows as rows
from tests.support import servers

from tunewarden.deletion.bulk.bulk_deletions import BulkDeletions, Wanted
from tunewarden.deletion.requests import Attempt
from tunewarden.webhooks import endpoint_rows
from tunewarden.webhooks.event_types import WebhookEventType


def test_webhooks_and_audit_follow_the_order_of_the_deletions(data: Path) -> None:
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    caller = rows.caller_of(app, key)
    models = [servers.import_adapter(app, key).id for _ in range(3)]
    ids = [models[0], rows.make_file(app, key), *models[1:], rows.make_file(app, key)]
    with app.database.write() as tx:
        endpoint_rows.insert(
            tx, "whe_a", caller.organization_id, b"sealed", tuple(WebhookEventType)
        )
    list(BulkDeletions(app.database, app.executor).delete(caller, Wanted(tuple(ids)), Attempt()))
    with app.database.read() as tx:
        queued = tx.rows("SELECT data FROM webhook_deliveries ORDER BY n")
        audited = tx.rows(
            "SELECT resource_id FROM audit_events WHERE type = 'resource.deleted' ORDER BY n"
        )
    assert [row[0] for row in audited] == ids
    assert [json.loads(row[0])["id"] for row in queued] == ids
