"""
Logs: one line for one thing that happened, JSON by default, to standard output.

Only names, times and sentences are logged; what holds a key is never passed here.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure(level: str, form: str) -> None:
    """Set up structlog and the standard library's logging; *form* is ``json`` or ``text``."""
    number = getattr(logging, level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(default=str)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # line and line end in one write, so that no other stream gets between them
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    # what libraries say comes in the same form
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # these print whole requests at debug level, keys' signatures and tokens included
    for name in ("acme", "kubernetes", "urllib3", "waitress"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # a tick that meets the one before is made up for (`schedule`), and no news
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def logger() -> Any:
    """Give the logger; keyword arguments of a call become fields of the line."""
    return structlog.get_logger()
