"""TLS on both ports, and client certificates instead of tokens."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import trustme

from receiver import Receiver
from tests.receiver.conftest import Start
from tests.receiver.doubles import MemoryJournal
from tests.receiver.requests import protobuf, traces

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Authority:
    """A certificate authority with a server certificate, and client certificates on request."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        server = self._ca.issue_cert("localhost", "127.0.0.1")
        self.ca, self.cert, self.key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self._ca.cert_pem.write_to_path(self.ca)
        server.private_key_pem.write_to_path(self.key)
        for blob in server.cert_chain_pems:
            blob.write_to_path(self.cert, append=True)

    def client(self) -> trustme.LeafCert:
        return self._ca.issue_cert("sender@example.com")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def send_grpc(receiver: Receiver, authority: Authority, client: trustme.LeafCert | None) -> bool:
    credentials = grpc.ssl_channel_credentials(
        authority.ca.read_bytes(),
        client.private_key_pem.bytes() if client else None,
        b"".join(blob.bytes() for blob in client.cert_chain_pems) if client else None,
    )
    async with grpc.aio.secure_channel(str(receiver.grpc_address), credentials) as channel:
        export: Any = channel.unary_unary(EXPORT)
        try:
            return bool(await export(protobuf(traces()), timeout=10) == b"")
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return False
            raise


async def send_http(receiver: Receiver, authority: Authority, client: trustme.LeafCert | None) -> bool:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if client:
        client.configure_cert(context)
    headers = {"Content-Type": "application/x-protobuf"}
    # a refused client certificate ends the connection; it must not be given back to a pool
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        try:
            url = f"https://{receiver.http_address}/v1/traces"
            async with session.post(url, data=protobuf(traces()), headers=headers) as reply:
                return reply.status == 200
        except (aiohttp.ClientError, OSError):
            return False


SEND = pytest.mark.parametrize("send", [send_grpc, send_http])


@SEND
async def test_the_server_certificate_is_served(
    start: Start, journal: MemoryJournal, authority: Authority, send: Any
) -> None:
    receiver = await start(tls={"cert": authority.cert, "key": authority.key})

    assert await send(receiver, authority, None)
    assert [frame.tenant for frame in journal.frames] == ["default"]


@SEND
async def test_with_a_client_ca_only_its_certificates_get_in(
    start: Start, journal: MemoryJournal, authority: Authority, tmp_path: Path, send: Any
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").client()
    receiver = await start(tls={"cert": authority.cert, "key": authority.key, "client_ca": authority.ca})

    assert not await send(receiver, authority, None)
    assert not await send(receiver, authority, stranger)
    assert journal.frames == []
    assert await send(receiver, authority, authority.client())
    assert [frame.tenant for frame in journal.frames] == ["default"]


async def test_a_silent_handshake_is_ended(start: Start, authority: Authority) -> None:
    receiver = await start(tls={"cert": authority.cert, "key": authority.key}, limits={"header_timeout_s": 0.1})
    assert receiver.http_address is not None
    reader, writer = await asyncio.open_connection(*receiver.http_address)

    assert await reader.read() == b""

    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
@pytest.mark.parametrize("option", ["cert", "key", "client_ca"])
async def test_a_certificate_that_cannot_be_used_stops_the_start_and_is_named(
    start: Start, authority: Authority, tmp_path: Path, option: str, content: bytes | None
) -> None:
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(content)
    files = {"cert": authority.cert, "key": authority.key, "client_ca": authority.ca, option: bad}

    with pytest.raises(ValueError, match=rf"tls\.{option}"):
        await start(tls=files)


@SEND
async def test_certificates_that_are_replaced_are_used_without_a_restart(
    start: Start, authority: Authority, tmp_path: Path, send: Any
) -> None:
    (tmp_path / "new").mkdir()
    new = Authority(tmp_path / "new")
    files = {"cert": authority.cert, "key": authority.key, "client_ca": authority.ca}
    receiver = await start(tls={**files, "look_every_s": 0.02})
    assert await send(receiver, authority, authority.client())

    for option, path in files.items():
        (new_file := path.with_suffix(".new")).write_bytes(getattr(new, option.replace("client_", "")).read_bytes())
        new_file.replace(path)
        await asyncio.sleep(0.05)  # looks at every state in between

    assert await send(receiver, new, new.client())
    assert not await send(receiver, new, authority.client())


@SEND
async def test_a_key_that_does_not_fit_changes_nothing(
    start: Start, authority: Authority, tmp_path: Path, send: Any
) -> None:
    (tmp_path / "new").mkdir()
    receiver = await start(tls={"cert": authority.cert, "key": authority.key, "look_every_s": 0.02})

    authority.key.write_bytes(Authority(tmp_path / "new").key.read_bytes())
    await asyncio.sleep(0.1)

    assert await send(receiver, authority, None)


async def test_a_connection_stays_while_certificates_change(start: Start, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    new = Authority(tmp_path / "new")
    receiver = await start(tls={"cert": authority.cert, "key": authority.key, "look_every_s": 0.02})
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(authority.ca)), limit=1)
    headers = {"Content-Type": "application/x-protobuf"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        url = f"https://{receiver.http_address}/v1/traces"
        async with session.post(url, data=protobuf(traces())) as reply:
            assert await reply.read() == b""
        authority.cert.write_bytes(new.cert.read_bytes())
        authority.key.write_bytes(new.key.read_bytes())
        await asyncio.sleep(0.1)
        async with session.post(url, data=protobuf(traces())) as reply:
            assert reply.status == 200

    assert await send_http(receiver, new, None)
