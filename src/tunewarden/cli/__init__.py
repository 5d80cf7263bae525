"""The command line: thin, each command calls one operation or the HTTP API."""
