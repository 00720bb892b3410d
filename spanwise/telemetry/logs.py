"""Structured logs, without what a payload holds."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from spanwise.telemetry.config import TelemetryConfig

_LOG_TEXT_MAX: Final = 200


def configure_logging(config: TelemetryConfig, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging, once, at the start of the program.

    A line carries names, counts and sizes. Texts are cut, bytes and collections become their size, and an exception
    is logged by type and place: its message may quote a payload.
    """
    stream = stream or sys.stderr
    as_json = config.log_format == "json" or (config.log_format == "auto" and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exception_place,
        _no_payload,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(config.log_level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _exception_place(_logger: object, _method: str, event: EventDict) -> EventDict:
    error = _exception(event.pop("exc_info", None))
    if error is not None:
        event["error"] = type(error).__name__
        event["at"] = " < ".join(
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}"
            for frame in reversed(traceback.extract_tb(error.__traceback__)[-5:])
        )
    return event


def _exception(exc_info: ExcInfo | BaseException | bool | None) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1]
    return sys.exc_info()[1] if exc_info else None


def _no_payload(_logger: object, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str):
            if len(value) > _LOG_TEXT_MAX:
                event[key] = f"{value[:_LOG_TEXT_MAX]}... [{len(value)} characters]"
        elif isinstance(value, (bytes, bytearray, memoryview)):
            event[key] = f"[{len(value)} bytes]"
        elif value is not None and not isinstance(value, (bool, int, float)) and not key.startswith("_"):
            event[key] = _sized(value)
    return event


def _sized(value: object) -> str:
    try:
        return f"[{type(value).__name__} of {len(value)}]"  # type: ignore[arg-type]
    except TypeError:
        return f"[{type(value).__name__}]"
