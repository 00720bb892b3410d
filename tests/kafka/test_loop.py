"""The thread of the Kafka client leaves nothing behind, however its connections end."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from spanwise.journal.kafka.loop import LoopThread


@contextmanager
def silent(authority: trustme.CA) -> Iterator[int]:
    """A port that shakes hands and then says nothing more, not even goodbye."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    over = threading.Event()

    def serve() -> None:
        taken, _ = listening.accept()
        with context.wrap_socket(taken, server_side=True):
            over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            serving.join()


@pytest.mark.parametrize("closed", [True, False])
def test_a_connection_whose_end_the_other_side_does_not_confirm_is_closed_with_the_loop(
    authority: trustme.CA, closed: bool
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def connect(port: int) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        connection, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port, ssl=context)
        if closed:
            connection.close()
        return connection

    with silent(authority) as port:
        thread = LoopThread("test")
        connection = thread.run(connect(port), 20)
        used = connection.get_extra_info("socket")
        thread.close()
        assert used.fileno() == -1
    del connection, used
    gc.collect()  # a transport that is left open is a warning now, and an error of this test
