"""From a whole request body to its answer: check it, make it durable, say what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final, Protocol, TypeVar

import structlog

from receiver import metrics
from receiver.admission import Admission, Slot
from receiver.answer import Accepted, Kind, RefusedError, Service, Transport
from receiver.config import MIB, LimitsConfig
from receiver.observe import ReceiverObserver
from spanwise import _native
from spanwise.model import Signal
from spanwise.stage import Changed, OverloadedError, RejectedError

log = structlog.get_logger(__name__)

T = TypeVar("T")

_INLINE_BYTES: Final = MIB
"""Up to here checking costs less than handing over to a thread (the walk does about 3 GB/s)."""
_METRICS_BYTES_MAX: Final = 4 * MIB
"""Nothing of a metrics request is kept, so a big one is not worth its memory."""
_LISTED_MAX: Final = 5
_KEY_CHARS_MAX: Final = 128
_ITEMS: Final[dict[Service, str]] = {"traces": "spans", "logs": "log records", "metrics": "data points"}
_FIELD: Final[dict[Service, str]] = {"traces": "resource_spans", "logs": "resource_logs", "metrics": "resource_metrics"}


class Durable(Protocol):
    """What the receiver needs of a `spanwise.stage.Journal`."""

    async def append(self, tenant: str, signal: Signal, items: int, body: bytes) -> Changed | None: ...


class Call:
    """One request on its way: which service, over which transport, and what it holds."""

    def __init__(self, transport: Transport, service: Service | None) -> None:
        self.transport = transport
        self.service = service
        self.tenant = ""
        self.json = False
        self.slot: Slot | None = None
        self.began = time.perf_counter()


class Intake:
    """What both transports share: the byte budget, the checks, the journal, and the counting of outcomes."""

    def __init__(
        self,
        *,
        limits: LimitsConfig,
        journal: Durable,
        admission: Admission,
        executor: Executor,
        observer: ReceiverObserver,
    ) -> None:
        self.limits = limits
        self.admission = admission
        self._journal = journal
        self._executor = executor
        self._observer = observer

    @contextlib.contextmanager
    def outcome(self, call: Call) -> Iterator[None]:
        """Releases what the call holds and counts its refusal. Whatever goes wrong leaves as RefusedError: an
        unforeseen error may be gone in a second, and the sender still has the data."""
        try:
            yield
        except RefusedError as refused:
            self.count(call, refused)
            raise
        except Exception as error:
            log.exception("cannot take a request", transport=call.transport, signal=call.service)
            answer = RefusedError(Kind.UNAVAILABLE, "internal_error", "internal error; try again in a second")
            self.count(call, answer)
            raise answer from error
        finally:
            if call.slot is not None:
                call.slot.release()
            self._observer.inflight_bytes(self.admission.in_flight_bytes)

    async def reserve(self, call: Call, size: int) -> Slot:
        call.slot = await self.admission.reserve(size)
        self._observer.inflight_bytes(self.admission.in_flight_bytes)
        return call.slot

    def too_large(self) -> RefusedError:
        return RefusedError(
            Kind.TOO_LARGE,
            "too_large",
            f"the request is over {self.limits.request_bytes_max} bytes, inflated (limits.request_bytes_max)",
        )

    async def take(self, call: Call, body: bytes) -> Accepted:
        """Answer for a whole body; for traces and logs it is durable then. Raises RefusedError."""
        if call.service == "metrics":
            return await self._turn_down_metrics(call, body)
        assert call.service is not None  # noqa: S101 - the transports route before they read
        if call.json:
            transcode = partial(_native.json_to_protobuf, call.service, body)
            body = await self._run(len(body) * 8, transcode, field=_FIELD[call.service])
        return await self._keep(call, call.service, body)

    async def _keep(self, call: Call, signal: Signal, body: bytes) -> Accepted:
        limits, what = self.limits, _ITEMS[signal]
        inspect = partial(
            _native.inspect, signal, body, items_max=limits.items_max, attributes_max=limits.attributes_max
        )
        seen = await self._run(len(body), inspect, field=_FIELD[signal])
        for count, most, name, option in (
            (seen.items, limits.items_max, what, "items_max"),
            (seen.attributes, limits.attributes_max, "attributes", "attributes_max"),
        ):
            if count > most:
                raise RefusedError(
                    Kind.TOO_LARGE,
                    f"too_many_{name.replace(' ', '_')}",
                    f"the request has over {most} {name} (limits.{option})",
                )
        messages = []
        left_out = 0
        if seen.rejected:
            reasons = [f"{what.removesuffix('s')} {index}: {why}" for index, why in seen.rejects]
            messages.append(f"{seen.rejected} of {seen.items} {what} rejected: {_listed(seen.rejected, reasons)}")
        if seen.repaired:
            messages.append(f"bad UTF-8 bytes are stored as U+FFFD, strings with any: {seen.repaired}")
        if seen.items > seen.rejected:
            if signal == "traces" and len(body) > limits.span_bytes_max:
                cut = partial(_native.cut_oversized, body, span_bytes_max=limits.span_bytes_max)
                body, cuts = await self._run(len(body), cut)
                if cuts:
                    values = [
                        f"span {index}: {_key(key)}, {size} bytes, xxh3 {xxh3}" for index, key, size, xxh3 in cuts
                    ]
                    why = f"spans over {limits.span_bytes_max} bytes (limits.span_bytes_max)"
                    messages.append(f"values were cut in {why}: {_listed(len(cuts), values)}")
            if call.slot is not None:
                # a body that arrived as JSON has another size now
                call.slot.shrink(len(body))
            changed = await self._append(call, signal, seen.items, body)
            if changed is not None:
                left_out = changed.left_out
                messages.append(changed.message)
            self._observer.accepted(
                signal,
                call.transport,
                seen.items - seen.rejected - left_out,
                len(body),
                time.perf_counter() - call.began,
            )
        if seen.rejected:
            self._observer.rejected_items(signal, call.transport, "invalid_item", seen.rejected)
        if left_out:
            self._observer.rejected_items(signal, call.transport, "too_large_item", left_out)
        return Accepted(seen.items, seen.rejected + left_out, "; ".join(messages))

    async def _append(self, call: Call, signal: Signal, items: int, body: bytes) -> Changed | None:
        appended = asyncio.ensure_future(self._journal.append(call.tenant, signal, items, body))
        if call.slot is not None:
            call.slot.keep_until(appended)
        # not cancelled with the request or when time is up: the journal holds the body until it is done with it
        done, _ = await asyncio.wait({appended}, timeout=self.limits.ack_timeout_s)
        if not done or appended.cancelled():
            appended.add_done_callback(_log_late_failure)
            raise RefusedError(
                Kind.UNAVAILABLE, "journal_slow", "the request was not durable in time; try again in a second"
            )
        try:
            return appended.result()
        except OverloadedError as error:
            raise RefusedError(Kind.UNAVAILABLE, "journal_full", f"{error}; try again in a second") from None
        except RejectedError as error:
            raise RefusedError(Kind.INVALID, "journal_rejected", str(error), field=_FIELD[signal]) from None

    async def _turn_down_metrics(self, call: Call, body: bytes) -> Accepted:
        most = self.limits.items_max
        if len(body) > _METRICS_BYTES_MAX:
            raise RefusedError(
                Kind.TOO_LARGE,
                "too_large",
                f"the request is over {_METRICS_BYTES_MAX} bytes and Spanwise keeps no metrics",
            )
        if call.json:
            points = await self._run(len(body) * 8, partial(metrics.count_json, body), field=_FIELD["metrics"])
        else:
            count = partial(metrics.count_protobuf, body, items_max=most)
            points = await self._run(len(body) * 64, count, field=_FIELD["metrics"])
        if points > most:
            raise RefusedError(
                Kind.TOO_LARGE, "too_many_data_points", f"the request has over {most} data points (limits.items_max)"
            )
        if not points:
            return Accepted()
        self._observer.rejected_items("metrics", call.transport, "metrics", points)
        return Accepted(points, points, "Spanwise keeps no metrics: send only traces and logs here")

    async def _run(self, cost: int, work: Callable[[], T], *, field: str = "") -> T:
        """Do `work` here if it is small, else in a thread. A ValueError is the sender's, and about `field`."""
        try:
            if cost <= _INLINE_BYTES:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except ValueError as error:
            raise RefusedError(
                Kind.INVALID, "invalid_request", f"cannot read the request: {error}", field=field
            ) from None

    def count(self, call: Call, refused: RefusedError) -> None:
        count = self._observer.refused if refused.kind is Kind.UNAVAILABLE else self._observer.rejected
        count(call.service or "none", call.transport, refused.reason)


def _listed(total: int, items: Sequence[str]) -> str:
    shown = list(items[:_LISTED_MAX])
    if total > len(shown):
        shown.append("...")
    return ", ".join(shown)


def _key(key: str) -> str:
    return key if len(key) <= _KEY_CHARS_MAX else key[:_KEY_CHARS_MAX] + "..."


def _log_late_failure(appended: asyncio.Future[Changed | None]) -> None:
    if not appended.cancelled() and (error := appended.exception()) is not None:
        log.warning("a request was not made durable", error=type(error).__name__)
