"""kill -9 at random points under load: what was acknowledged is there, once, after every restart.

`make test` runs a few rounds, `make chaos` one hundred (SPANWISE_KILLS).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from bench.load import METHOD, Export
from bench.payloads import Payload, agent, small
from tests.running import RunningServer

KILLS = int(os.environ.get("SPANWISE_KILLS", "6"))
SEED = int(os.environ.get("SPANWISE_SEED", "1"))


async def _send_until_killed(server: RunningServer, payloads: list[Payload], acked: set[bytes], after_s: float) -> None:
    """Send from four connections, note every acknowledged span, kill the server after a while, and stop."""
    queue = list(payloads)

    async def worker() -> None:
        async with grpc.aio.insecure_channel(server.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
            export: Export = channel.unary_unary(
                METHOD, request_serializer=None, response_deserializer=ExportTraceServiceResponse.FromString
            )
            while queue:
                payload = queue.pop()
                try:
                    await export(payload.body, timeout=10)
                except grpc.aio.AioRpcError:
                    # Not acknowledged: a real client keeps it and sends it again.
                    queue.append(payload)
                    if server.process is None:
                        return
                    await asyncio.sleep(0.01)
                else:
                    acked.update(payload.ids)

    async def killer() -> None:
        await asyncio.sleep(after_s)
        server.kill()

    await asyncio.gather(killer(), *(worker() for _ in range(4)))
    payloads[:] = queue


@pytest.mark.timeout(3600)
def test_kill_9_under_load_loses_and_repeats_no_acknowledged_span(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    server = RunningServer(tmp_path / "data")
    acked: set[bytes] = set()
    ready: list[float] = []
    waiting: list[Payload] = []
    for kill in range(KILLS):
        server.start()
        ready.append(server.ready_s)
        now = time.time_ns()
        if len(waiting) < 60:
            waiting += [small(kill * 1000 + n, now) for n in range(60)] + [
                agent(kill * 1000 + n, now) for n in range(6)
            ]
            rng.shuffle(waiting)
        asyncio.run(_send_until_killed(server, waiting, acked, rng.uniform(0.02, 1.6)))
    server.start()
    try:
        stored = _settled_ids(server)
        distinct = set(stored)
        missing = acked - distinct
        print(
            f"\nkills={KILLS} seed={SEED} acked={len(acked)} stored={len(distinct)} missing={len(missing)} "
            f"duplicates={len(stored) - len(distinct)} ready_s_max={max(ready):.2f}"
        )
        assert acked, "the harness acknowledged nothing, so it proves nothing"
        assert not missing
        assert len(stored) == len(distinct)
    finally:
        server.kill()


def _settled_ids(server: RunningServer) -> list[bytes]:
    """Ids of all spans once the journal is drained: the count stands still for 2 s."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 2:
        count = server.count("SELECT count() FROM spans FINAL")
        if count != last:
            last, since = count, time.monotonic()
        time.sleep(0.2)
    ids = []
    for digit in "0123456789abcdef":  # in parts: users' queries have a limit on rows
        rows = server.sql(f"SELECT trace_id, span_id FROM spans FINAL WHERE startsWith(trace_id, '{digit}')")
        ids += [bytes.fromhex(row["trace_id"]) + bytes.fromhex(row["span_id"]) for row in rows]
    return ids
