"""The protocol between gateway and engine: paths, messages, error codes, version. Needs only msgspec."""
