"""The ClickHouse port beside the others: it may be taken, moved, or left away."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.config import ReceiverConfig
from spanwise.clickhouse_http import ClickHouseConfig
from spanwise.config import Config
from spanwise.server import StartError, running
from spanwise.web import WebConfig


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def configured(directory: Path, clickhouse: ClickHouseConfig) -> Config:
    return Config(
        data_dir=directory,
        receiver=ReceiverConfig(grpc="127.0.0.1:0", http="127.0.0.1:0"),
        web=WebConfig(address="127.0.0.1:0"),
        clickhouse=clickhouse,
    )


async def test_a_default_port_that_is_taken_does_not_keep_the_server_from_starting(tmp_path: Path, taken: str) -> None:
    # the default is one fixed port, so a free one stands in for it: an address that nobody has chosen
    unchosen = ClickHouseConfig.model_construct(_fields_set=set(), address=taken)

    async with running(configured(tmp_path / "data", unchosen)) as started:
        assert started.http
        assert started.clickhouse == ""


async def test_a_chosen_port_that_is_taken_stops_the_start_with_a_sentence(tmp_path: Path, taken: str) -> None:
    with pytest.raises(StartError, match=f"cannot start clickhouse on {taken}"):
        async with running(configured(tmp_path / "data", ClickHouseConfig(address=taken))):
            pass


async def test_the_port_can_be_left_away(tmp_path: Path) -> None:
    async with running(configured(tmp_path / "data", ClickHouseConfig(address="off"))) as started:
        assert started.clickhouse == ""
