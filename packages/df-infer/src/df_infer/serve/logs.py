"""One JSON object per line on standard error: what happened, to which session, never what was said or seen."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

LOGGER = "df_infer.serve"
T = TypeVar("T")
_log = logging.getLogger(LOGGER)


class JsonLines(logging.Formatter):
    """Formats records, and the fields that :func:`event` gives them."""

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def event(what: str, **fields: object) -> None:
    """Log an event with its fields."""
    _log.info(what, extra={"fields": fields})


def failure(what: str, **fields: object) -> None:
    """Log the exception that is being handled."""
    _log.error(what, extra={"fields": fields}, exc_info=True)


def failed(what: str, error: BaseException, **fields: object) -> None:
    """Log an exception that ended a task."""
    _log.error(what, extra={"fields": fields}, exc_info=error)


class _Noticing(logging.Handler):
    """Keeps warnings of one thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread, self.messages = threading.get_ident(), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        if record.thread == self.thread and record.levelno == logging.WARNING:
            self.messages.append(record.getMessage())


def noticing(warnings: list[str], work: Callable[..., T], *args: Any, **options: Any) -> T:
    """Do some work in this thread, and add what it warns of to ``warnings``; it is logged as well."""
    handler = _Noticing()
    loggers = [logging.getLogger(name) for name in ("df_infer", "df_models")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        return work(*args, **options)
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        warnings += handler.messages


def log_to_stderr() -> None:
    """Send this server's log, and warnings of all others, to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers = [handler]
    _log.setLevel(logging.INFO)
