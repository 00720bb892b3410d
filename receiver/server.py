"""The receiver as one thing to start and to drain."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from receiver.admission import Admission
from receiver.auth import Authenticator
from receiver.config import Address, ReceiverConfig
from receiver.grpc import GrpcListener
from receiver.http import HttpListener
from receiver.intake import Durable, Intake
from receiver.observe import ReceiverObserver, Unobserved
from receiver.tls import Certificates

_THREADS: Final = 2
_LAST_ANSWERS_S: Final = 0.5


class Receiver:
    """OTLP over gRPC and HTTP into a journal.

    `start` binds both ports and sets `grpc_address` and `http_address`; `drain` refuses what is new, lets what was
    admitted finish, and closes them. Construction raises ValueError if a token or a certificate
    cannot be used.
    """

    def __init__(self, config: ReceiverConfig, journal: Durable, observer: ReceiverObserver | None = None) -> None:
        limits = config.limits
        self.admission = Admission(
            in_flight_bytes_max=limits.in_flight_bytes_max,
            waiting_bytes_max=limits.waiting_bytes_max,
            wait_s=limits.wait_s,
        )
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="receiver")
        intake = Intake(
            limits=limits,
            journal=journal,
            admission=self.admission,
            executor=self._executor,
            observer=observer or Unobserved(),
        )
        authenticator = Authenticator(config.tokens)
        self._drain_s = config.drain_s
        self._tls = config.tls
        self._certificates = Certificates(config.tls) if config.tls else None
        self._http = HttpListener(config, authenticator, intake, self._certificates)
        self._grpc = GrpcListener(config, authenticator, intake, self._certificates)
        self._watching: asyncio.Task[None] | None = None
        self.grpc_address: Address | None = None
        self.http_address: Address | None = None

    async def start(self) -> None:
        """Bind both ports. Raises OSError, and then leaves neither open, if one cannot be had."""
        self.http_address = await self._http.start()
        try:
            self.grpc_address = await self._grpc.start()
        except BaseException:
            await self._http.stop(0)
            raise
        if self._tls is not None and self._certificates is not None:
            self._watching = asyncio.create_task(self._watch(self._certificates, self._tls.look_every_s))

    async def _watch(self, certificates: Certificates, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            if certificates.refresh():
                await self._http.reload()

    async def drain(self) -> bool:
        """Stop in good order; True if every admitted request was answered within `drain_s`.

        Health turns NOT_SERVING first, so that load balancers look elsewhere, and the ports stay open to the end, so
        that senders get an answer that keeps their data.
        """
        if self._watching is not None:
            self._watching.cancel()
        await self._grpc.not_serving()
        finished = await self.admission.drain(self._drain_s)
        await asyncio.gather(self._grpc.stop(_LAST_ANSWERS_S), self._http.stop(_LAST_ANSWERS_S))
        self._executor.shutdown(wait=False, cancel_futures=True)
        return finished
