"""Engines: the port, its drivers, and the connections to them."""
