"""The server's log names what went wrong and where, and nothing that a client sent."""

import json
import subprocess
import sys
from datetime import datetime, timedelta

SECRET = "Jane Roe"
PROGRAM = f"""
import logging, sys
from tunewarden import logs
from tunewarden.errors import Error, Kind
logs.to_stderr("worker[7]", *sys.argv[1:])
try:
    try:
        {{}}["{SECRET}"]
    except KeyError as error:
        raise Error(Kind.INVALID, "{SECRET}", code="bad_thing") from error
except Error:
    logging.getLogger("x").exception("request %s failed", "req_1")
logging.getLogger("python_multipart.multipart").warning("Expected boundary, got {SECRET}")
try:
    open("/nowhere/at/all")
except OSError:
    logging.getLogger("x").exception("and the disk")
"""


def test_json_lines_have_the_same_and_the_request_by_itself() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "json"], capture_output=True, text=True, check=True
    )
    assert SECRET not in ended.stderr
    first, last = [json.loads(line) for line in ended.stderr.splitlines()]
    assert first["message"] == "request req_1 failed"
    assert (first["level"], first["logger"], first["process"]) == ("error", "x", "worker[7]")
    assert first["request_id"] == "req_1"
    assert "tunewarden.errors.Error [bad_thing]" in first["trace"]
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert "request_id" not in last


def test_a_logged_exception_has_types_and_places_and_no_text() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    found = ended.stderr
    assert SECRET not in found
    assert "worker[7] request req_1 failed" in found
    assert "builtins.KeyError" in found
    assert "tunewarden.errors.Error [bad_thing]" in found
    assert "<string>:8 <module>" in found
    assert "FileNotFoundError [No such file or directory]" in found
