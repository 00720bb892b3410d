"""A receiver in a process of its own, so that its memory can be measured: prints its addresses, ends with its stdin.

The journal forgets everything at once, or keeps every request waiting if the options say `{"hold": true}`.
"""

from __future__ import annotations

import asyncio
import json
import sys

from receiver import Receiver, ReceiverConfig
from spanwise.model import Signal


class Sink:
    def __init__(self, hold: bool) -> None:
        self._hold = hold

    async def append(self, tenant: str, signal: Signal, items: int, body: bytes) -> None:
        if self._hold:
            await asyncio.Event().wait()


async def main() -> None:
    options = json.loads(sys.argv[1])
    sink = Sink(options.pop("hold", False))
    receiver = Receiver(
        ReceiverConfig.model_validate({"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "drain_s": 0, **options}), sink
    )
    await receiver.start()
    print(json.dumps({"grpc": str(receiver.grpc_address), "http": str(receiver.http_address)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await receiver.drain()


if __name__ == "__main__":
    asyncio.run(main())
