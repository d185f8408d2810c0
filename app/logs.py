"""Logs: one pipe for our lines and for those of uvicorn, SQLAlchemy and asyncio. Never a key, a body or a DSN."""

import logging
import sys

import structlog
from structlog.types import EventDict, WrappedLogger

from app.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Send every line of the process through structlog to stdout, as JSON or, on a terminal, for people."""
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _name_request,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    if people:
        # Local variables hold secrets, so no renderer that shows them.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        rendering = [renderer]
    else:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    # The middleware writes the line of each request; SQLAlchemy below a warning would show statements.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("sqlalchemy").setLevel(logging.WARNING)


def _name_request(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Every line carries a request_id; outside a request it is `-`."""
    line.setdefault("request_id", "-")
    line.pop("color_message", None)
    return line
