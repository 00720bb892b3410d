from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from spanwise.telemetry import LogLevel, TelemetryConfig, configure_logging

CANARY = "sk-canary-4711"


@pytest.fixture
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def stream(restore_logging: None) -> io.StringIO:
    return io.StringIO()


def configured(stream: io.StringIO, level: LogLevel = "info") -> Any:
    configure_logging(TelemetryConfig(log_level=level, log_format="json"), stream)
    return structlog.get_logger()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_fields(stream: io.StringIO) -> None:
    configured(stream).info("range stored", rows=20_000, seconds=0.31)

    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "range stored", "level": "info", "rows": 20_000, "seconds": 0.31}


def test_an_exception_is_logged_by_type_and_place_never_by_its_message(stream: io.StringIO) -> None:
    log = configured(stream)
    try:
        raise ValueError(f"bad value {CANARY}")
    except ValueError:
        log.exception("insert failed", table="spans")

    (line,) = lines(stream)
    assert line["error"] == "ValueError"
    assert line["at"].startswith("test_logging.py:")
    assert CANARY not in stream.getvalue()


def test_exceptions_of_libraries_keep_their_message_out_too(stream: io.StringIO) -> None:
    configured(stream)
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request")

    (line,) = lines(stream)
    assert (line["logger"], line["error"]) == ("aiohttp.server", "ValueError")
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize(
    "value", [CANARY.encode(), {"attribute": CANARY}, [CANARY], bytearray(CANARY.encode()), ("a" * 300) + CANARY]
)
def test_bytes_collections_and_long_texts_become_their_size(stream: io.StringIO, value: object) -> None:
    configured(stream).info("odd field", value=value)

    assert CANARY not in stream.getvalue()
    assert str(len(value)) in lines(stream)[0]["value"]  # type: ignore[arg-type]


def test_lines_below_the_level_are_not_written(stream: io.StringIO) -> None:
    configured(stream, "warning").info("quiet")

    assert stream.getvalue() == ""


def test_the_console_form_is_plain_when_the_stream_is_not_a_terminal(stream: io.StringIO) -> None:
    configure_logging(TelemetryConfig(log_format="console"), stream)
    structlog.get_logger().warning("journal nearly full", bytes=9)

    assert "journal nearly full" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
