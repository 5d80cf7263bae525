"""Commands about webhooks: where events are sent."""

from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import Object
from tunewarden.cli.options import (
    data_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
)
from tunewarden.cli.output import plain, say_if_more, show_json, show_table, shown_time

ENDPOINTS = "webhook_endpoints"


@click.group()
def webhooks() -> None:
    """Where events are sent.

    Events say what happened to models, files and jobs, with ids only, signed as Standard Webhooks.
    """


@webhooks.command("types")
@json_option
@data_option
@refusing
def webhooks_types(data: Path | None, *, as_json: bool) -> None:
    """List the types of events."""
    with client.opened(data) as server:
        found = server.get("webhook_event_types")
    if as_json:
        show_json(found)
    else:
        click.echo("\n".join(found["data"]))


@webhooks.command(
    "create",
    epilog="\b\nExample:\n  tunewarden webhooks create https://example.com/hook --name ops --event model.deleted",
)
@click.argument("url")
@click.option("--name", required=True, help="What it is for.")
@click.option(
    "--event", "events", multiple=True, required=True, help="A type of events; repeat it for more."
)
@json_option
@data_option
@refusing
def webhooks_create(
    url: str, name: str, events: tuple[str, ...], data: Path | None, *, as_json: bool
) -> None:
    """Create an endpoint; print its secret, which is shown once."""
    fields = {"name": name, "url": url, "event_types": list(events)}
    with client.opened(data) as server:
        made = server.post(ENDPOINTS, fields=fields)
    _show_secret(made, as_json=as_json)


@webhooks.command("list")
@json_option
@data_option
@refusing
def webhooks_list(data: Path | None, *, as_json: bool) -> None:
    """List endpoints: id, name, URL, state, deliveries."""
    with client.opened(data) as server:
        found = server.pages(ENDPOINTS, limit=None)
    if as_json:
        show_json(found)
        return
    names = ("id", "name", "url", "state", "pending", "delivered", "failed", "dropped")
    show_table(names, map(_row, found["data"]))


@webhooks.command("show")
@click.argument("endpoint_id")
@json_option
@data_option
@refusing
def webhooks_show(endpoint_id: str, data: Path | None, *, as_json: bool) -> None:
    """Show an endpoint and the types of events that it gets."""
    with client.opened(data) as server:
        found = server.get(ENDPOINTS, endpoint_id)
    if as_json:
        show_json(found)
        return
    click.echo("\t".join(map(str, _row(found))))
    click.echo("\n".join(found["event_types"]))


@webhooks.command("update")
@click.argument("endpoint_id")
@click.option("--name", help="Another name.")
@click.option("--url", help="Another URL.")
@click.option("--event", "events", multiple=True, help="All types of events that it is to get.")
@json_option
@data_option
@refusing
def webhooks_update(
    endpoint_id: str,
    name: str | None,
    url: str | None,
    events: tuple[str, ...],
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Change an endpoint; what is pending goes to where it is then."""
    fields = {"name": name, "url": url, "event_types": list(events) or None}
    _change(endpoint_id, fields, data, as_json=as_json)


@webhooks.command("disable")
@click.argument("endpoint_id")
@json_option
@data_option
@refusing
def webhooks_disable(endpoint_id: str, data: Path | None, *, as_json: bool) -> None:
    """Send nothing to an endpoint; new events are not kept for it."""
    _change(endpoint_id, {"enabled": False}, data, as_json=as_json)


@webhooks.command("enable")
@click.argument("endpoint_id")
@json_option
@data_option
@refusing
def webhooks_enable(endpoint_id: str, data: Path | None, *, as_json: bool) -> None:
    """Send to an endpoint again, what is still pending first."""
    _change(endpoint_id, {"enabled": True}, data, as_json=as_json)


@webhooks.command("rotate")
@click.argument("endpoint_id")
@click.option("--now", is_flag=True, help="The old secret ends at once, not in a day.")
@json_option
@data_option
@refusing
def webhooks_rotate(endpoint_id: str, data: Path | None, *, now: bool, as_json: bool) -> None:
    """Give an endpoint a new secret; the old one signs too, for a day."""
    fields = {"keep_old_secret_active_for_24_hours": not now}
    with client.opened(data) as server:
        made = server.post(ENDPOINTS, endpoint_id, "rotate_secret", fields=fields)
    _show_secret(made, as_json=as_json)


@webhooks.command("test")
@click.argument("endpoint_id")
@click.option("--event", default="model.created", show_default=True, help="The type of the event.")
@json_option
@data_option
@refusing
def webhooks_test(endpoint_id: str, event: str, data: Path | None, *, as_json: bool) -> None:
    """Send a sample event now; print the status that the endpoint answered."""
    with client.opened(data) as server:
        found = server.post(ENDPOINTS, endpoint_id, "test", fields={"event_type": event})
    if as_json:
        show_json(found)
    else:
        click.echo(found["status_code"])


@webhooks.command("deliveries")
@click.argument("endpoint_id")
@click.option("--status", type=click.Choice(["pending", "delivered", "failed"]), help="Only those.")
@limit_option
@json_option
@data_option
@refusing
def webhooks_deliveries(
    endpoint_id: str, status: str | None, limit: int | None, data: Path | None, *, as_json: bool
) -> None:
    """List what was and is to be sent, newest first."""
    with client.opened(data) as server:
        found = server.pages(ENDPOINTS, endpoint_id, "deliveries", limit=limit, status=status)
    if as_json:
        show_json(found)
        return
    names = ("id", "type", "created", "status", "attempts", "answer")
    show_table(names, map(_delivery_row, found["data"]))
    if limit is not None:
        say_if_more(found)


@webhooks.command("redeliver")
@click.argument("endpoint_id")
@click.argument("delivery_id")
@json_option
@data_option
@refusing
def webhooks_redeliver(
    endpoint_id: str, delivery_id: str, data: Path | None, *, as_json: bool
) -> None:
    """Send an event again, with the same id."""
    with client.opened(data) as server:
        found = server.post(ENDPOINTS, endpoint_id, "deliveries", delivery_id, "redeliver")
    if as_json:
        show_json(found)
    else:
        click.echo(found["id"])


@webhooks.command("delete")
@click.argument("endpoint_id")
@dry_run_option
@json_option
@data_option
@refusing
def webhooks_delete(endpoint_id: str, data: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Delete an endpoint, its log, and what waits to be sent to it."""
    with client.opened(data) as server:
        found = server.get(ENDPOINTS, endpoint_id)
        if not dry_run:
            server.delete(ENDPOINTS, endpoint_id)
    if as_json:
        show_json(found)
    else:
        click.echo(found["id"])
    if dry_run:
        click.echo("This was a dry run. Nothing was deleted.", err=True)


def _change(endpoint_id: str, fields: Object, data: Path | None, *, as_json: bool) -> None:
    with client.opened(data) as server:
        changed = server.post(ENDPOINTS, endpoint_id, fields=fields)
    if as_json:
        show_json(changed)
    else:
        click.echo("\t".join(map(str, _row(changed))))


def _row(endpoint: Object) -> tuple[object, ...]:
    counts = (endpoint[name] for name in ("pending", "delivered", "failed", "dropped"))
    return endpoint["id"], endpoint["name"], endpoint["url"], _state(endpoint), *counts


def _state(endpoint: Object) -> str:
    if not endpoint["enabled"]:
        return f"disabled ({endpoint['disabled_because']})"
    since = endpoint["failing_since"]
    return "enabled" if since is None else f"failing since {shown_time(since)}"


def _delivery_row(one: Object) -> tuple[object, ...]:
    answer = one["error"] if one["status_code"] is None else one["status_code"]
    created = shown_time(one["created_at"])
    return one["id"], one["event_type"], created, one["status"], one["attempts"], answer or ""


def _show_secret(endpoint: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(endpoint)
    else:
        name = plain(endpoint["name"])
        click.echo(f"{endpoint['id']} for {name}; its secret is shown only once:", err=True)
        click.echo(endpoint["signing_secret"])
