"""The audit log: events, written in the transactions that they record. Its names that every writer needs are here."""

from tunewarden.audit.events import SERVER, Act, Actor, EventType, record, record_each

__all__ = ["SERVER", "Act", "Actor", "EventType", "record", "record_each"]
