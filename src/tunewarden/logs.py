"""The server's log: lines on standard error, as text or JSON objects, without client data.

An exception's text may quote client data (`KeyError: 'Jane Roe'`), so a traceback is
logged as types and source locations only. # I18
"""

import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

_CODE = re.compile(r"[a-z_]{1,64}")
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        fields = getattr(record, "fields", None)
        if fields is None:
            return text
        return " ".join([text, *(f"{name}={value}" for name, value in fields.items())])

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - logging's name
        return "" if ei[1] is None else trace(ei[1], ei[2])


# Libraries that log what clients send wrongly, once for each: an answer says it.
_QUIET = ("python_multipart",)


class _JsonFormatter(_Formatter):
    """One object a line: RFC 3339 time, level, process, logger, message, and the request's id where it is known."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self.formatMessage(record),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, str) and value.startswith("req_"):
                line["request_id"] = value
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line | getattr(record, "fields", {}))


def to_stderr(name: str, form: str = "text") -> None:
    """Write the log of this process to standard error, labelled with `name`; `form` is `text` or `json`."""
    handler = logging.StreamHandler()
    if form == "json":
        handler.setFormatter(_JsonFormatter(name, validate=False))
    else:
        handler.setFormatter(_Formatter(f"%(asctime)s %(levelname)s {name} %(message)s"))
    logging.basicConfig(handlers=[handler])
    for library in _QUIET:
        logging.getLogger(library).propagate = False
        logging.getLogger(library).addHandler(logging.NullHandler())


def trace(error: BaseException, traceback: TracebackType | None) -> str:
    """Return an error's type and traceback, without its text, which may hold client data."""
    lines = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        lines.append(f"  {Path(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    cause = error.__cause__ or error.__context__
    kind = type(error)
    head = f"{kind.__module__}.{kind.__qualname__}{_detail(error)}"
    before = f"{trace(cause, cause.__traceback__)}, and then\n" if cause is not None else ""
    return before + "\n".join([head, *lines])


def _detail(error: BaseException) -> str:
    """Return the safe detail of an error: our own fixed kind, or the system's errno text."""
    if isinstance(error, OSError) and error.errno is not None:
        return f" [{error.strerror}]"
    code = getattr(error, "code", None)
    return f" [{code}]" if isinstance(code, str) and _CODE.fullmatch(code) else ""
