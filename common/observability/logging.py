"""Structured log lines: one JSON object a line in production, one readable line in the demo.

``configure`` is called once, by the composition root; nothing happens at import. Lines of the standard library's
loggers (uvicorn, asyncio, librdkafka's) take the same road and the same redaction. Lines go to standard error, so
that a command's output stays its output.

    log = get_logger(__name__)
    log.info("epoch committed", key_id="default", epoch=3)

One line per batch, not per record: a line costs more than the round of signing that it reports.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType
from typing import TextIO

import orjson
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from common.observability.redaction import scrub_fields, trace

Logger = structlog.stdlib.BoundLogger

LEVELS = ("debug", "info", "warning", "error")
_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class LogFormat(StrEnum):
    """JSON for machines, CONSOLE for a person in front of a terminal."""

    JSON = "json"
    CONSOLE = "console"


def get_logger(name: str) -> Logger:
    """Return a logger; cheap, and usable before ``configure``. ``name`` is the module's ``__name__``."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger


def says_debug(name: str) -> bool:
    """Whether that logger's debug lines are shown: where one would be made for every request, ask first."""
    return logging.getLogger(name).isEnabledFor(logging.DEBUG)


def configure(format: LogFormat, level: str, service: str, index: int, stream: TextIO | None = None) -> None:  # noqa: A002
    """Send every log line of this process to ``stream`` (standard error by default), and uncaught exceptions with them.

    Args:
        format: JSON or CONSOLE; CONSOLE is coloured where ``stream`` is a terminal.
        level: One of ``LEVELS``, in any case.
        service: ``rest_api`` or ``signer_service``: stands in every line.
        index: The pod's N or the seat's M: stands in every line.
        stream: A text stream that stays open; None takes ``sys.stderr``.

    Raises:
        ValueError: an unknown level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"a log level is one of {', '.join(LEVELS)}")
    out = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _Origin(service, index),
        _render_exception,
        _scrub,
    ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(format, out)],
            # The raw record would keep exc_info and stack_info, which the default formatter prints after the line.
            keep_exc_info=False,
            keep_stack_info=False,
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Start-up chatter and one line a request are not worth their price; requests are counted by metrics.
    logging.getLogger("uvicorn").setLevel(max(root.level, logging.WARNING))
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread_death


@contextmanager
def bound(*, request_id: str | None = None, trace_id: str | None = None) -> Iterator[None]:
    """Put ``request_id`` and ``trace_id`` into every line that this task logs inside the block."""
    given = {"request_id": request_id, "trace_id": trace_id}
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in given.items() if value is not None}):
        yield


class _Origin:
    """Adds the fields that say which process speaks."""

    def __init__(self, service: str, index: int) -> None:
        self._service = service
        self._index = index

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["service"] = self._service
        event["index"] = self._index
        return event


def _render_exception(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["exception"] = trace(error)
    return event


def _scrub(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    # These three are structlog's own, or already rendered line by line.
    kept = {name: event.pop(name) for name in ("_record", "_from_structlog", "exception") if name in event}
    return {**scrub_fields(event), **kept}


def _renderer(format: LogFormat, out: TextIO) -> Processor:  # noqa: A002
    if format is LogFormat.JSON:
        return _json
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, timestamp_key="timestamp"
    )


def _json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    # Never fails on a value: a line that cannot be written would take the reason for an outage with it.
    line = orjson.dumps(event, default=lambda value: f"<{type(value).__name__}>", option=orjson.OPT_NON_STR_KEYS)
    return line.decode()


def _log_uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    get_logger("uncaught").error("the process ends on an uncaught exception", exc_info=error)


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread is not None else "unknown"
        get_logger("uncaught").error("a thread died on an uncaught exception", thread=name, exc_info=args.exc_value)
