"""The one logging setup: structured JSON lines on stderr, the same fields in every component.

A line can be followed from the operator to the API to a crew pod because all of them bind the
same names: `flow` (its uid), `round`, `phase`, `attempt`, `tenant` (the namespace's uid). An
operator's worker and an API's request bind them for what they are doing now, a crew pod for the
whole process. Standard output stays free for results.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog


def configure_logging(component: str, level: str | None = None) -> None:
    """Send structlog and the standard library's records to stderr.

    JSON, or readable text when stderr is a terminal. `level` defaults to `DISCOVERY_LOG_LEVEL`
    (debug, info, warning, error), else info; an unknown name counts as info. Safe to call
    again.
    """
    name = (level or os.environ.get("DISCOVERY_LOG_LEVEL") or "info").upper()
    threshold = logging.getLevelNamesMapping().get(name, logging.INFO)
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _named(component),
    ]
    terminal = sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer()
        if terminal
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    tail: list[structlog.types.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta
    ]
    if not terminal:
        tail.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[*tail, renderer],
        )
    )
    # a line per request says nothing that our own lines do not
    for library in ("httpx", "httpcore", "openai", "crewai_core"):
        logging.getLogger(library).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


# fields of every line of this process, whichever thread writes it
_PROCESS: dict[str, object] = {}


def _named(component: str) -> structlog.types.Processor:
    """A processor that names the component and what the whole process is about."""

    def add(
        logger: structlog.types.WrappedLogger, method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        del logger, method
        event["component"] = component
        for name, value in _PROCESS.items():
            event.setdefault(name, value)
        return event

    return add


def bind(**fields: object) -> None:
    """Add fields (flow, phase, attempt, tenant) to every later line of this task or request."""
    structlog.contextvars.bind_contextvars(**{k: v for k, v in fields.items() if v is not None})


def bind_process(**fields: object) -> None:
    """Add fields to every later line of this process, in all of its threads."""
    _PROCESS.update({k: v for k, v in fields.items() if v is not None})


def begin(**fields: object) -> None:
    """Forget what was bound in this task, and bind these: something else is being done now."""
    structlog.contextvars.clear_contextvars()
    bind(**fields)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; fields are given as keywords: `log.info("claimed", fence=7)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
