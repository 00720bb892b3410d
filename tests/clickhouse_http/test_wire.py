"""Blocks in Native format, rewritten for a client's revision."""

from __future__ import annotations

import random

import pytest

from spanwise._native import NativeBlocks
from tests.clickhouse_http.serving import Endpoint

REVISION = 54460
EVERY_LAYOUT = """
    SELECT number AS n, toString(number) AS s, toLowCardinality(toString(number % 3)) AS l,
        if(number % 2 = 0, NULL, number) AS o, [[toString(number)], []] AS a, map('k', number) AS m,
        toDecimal128(number, 9) AS d, (number, toLowCardinality(toNullable('y'))) AS p, toFixedString('abc', 5) AS f,
        arrayMap(x -> toLowCardinality(toString(x)), range(number % 3)) AS r, toIntervalDay(1) AS i, NULL AS z
    FROM numbers(500) SETTINGS max_block_size = 200
"""


@pytest.fixture(scope="module")
def plain(endpoint: Endpoint) -> bytes:
    return endpoint.ask(EVERY_LAYOUT, default_format="Native").data


def rewritten(data: bytes, size: int) -> bytes:
    blocks = NativeBlocks(REVISION)
    return b"".join(blocks.feed(data[at : at + size]) for at in range(0, len(data), size)) + blocks.finish()


def test_the_endpoint_answers_in_the_revision_that_is_asked_for(endpoint: Endpoint, plain: bytes) -> None:
    asked = endpoint.ask(EVERY_LAYOUT, default_format="Native", client_protocol_version=str(REVISION)).data

    assert asked == rewritten(plain, len(plain))
    # three blocks of twelve columns: an info before each block, a byte in each column
    assert len(asked) - len(plain) == 3 * (8 + 12)


@pytest.mark.parametrize("size", [1_000, 4_096, 60_000])
def test_where_pieces_end_makes_no_difference(plain: bytes, size: int) -> None:
    assert rewritten(plain, size) == rewritten(plain, len(plain))


def test_damaged_blocks_are_refused_and_never_a_defect(plain: bytes) -> None:
    chosen = random.Random(26)
    refused = []
    for _ in range(2_000):
        data = bytearray(plain)
        for _ in range(chosen.randint(1, 4)):
            data[chosen.randrange(len(data))] = chosen.randrange(256)
        try:
            rewritten(bytes(data[: chosen.randint(1, len(data))]), len(data))
        except ValueError as error:
            refused.append(str(error))

    assert len(refused) > 500
    assert not [text for text in refused if "defect" in text]
