"""The audit log: events, written in the transactions that they record. Its names that every writer needs are here."""

from tunewarden.audit.events import SERVER, Actor, EventType, record

__all__ = ["SERVER", "Actor", "EventType", "record"]
