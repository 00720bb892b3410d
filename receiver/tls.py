"""The certificates of both ports, read again when their files change."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import structlog

from receiver.auth import Signature, signature
from receiver.config import TlsConfig

log = structlog.get_logger(__name__)


class Certificates:
    """What the files of a `TlsConfig` held when they last could be used together.

    Raises ValueError at construction, naming the option whose file cannot be used.
    """

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._signatures = self._look()
        self.context, self._grpc = self._load()

    def refresh(self) -> bool:
        """True if the files changed and are in use now. Files that do not fit each other, as in the middle of an
        exchange, leave what there was."""
        now = self._look()
        if now == self._signatures:
            return False
        self._signatures = now
        try:
            self.context, self._grpc = self._load()
        except ValueError as error:
            log.warning("certificates_not_read_again", error=str(error))
            return False
        log.info("certificates_read_again")
        return True

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials that hand every new connection what was last read."""
        # gRPC asks for each connection, on threads of its own
        return grpc.dynamic_ssl_server_credentials(
            self._grpc, lambda: self._grpc, require_client_authentication=self._config.client_ca is not None
        )

    def _look(self) -> list[Signature | None]:
        return [signature(path) if path else None for path in self._paths().values()]

    def _paths(self) -> dict[str, Path | None]:
        tls = self._config
        return {"cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca}

    def _load(self) -> tuple[ssl.SSLContext, grpc.ServerCertificateConfiguration]:
        tls = self._config
        held: dict[str, bytes] = {}
        for option, path in self._paths().items():
            try:
                held[option] = path.read_bytes() if path else b""
            except OSError as error:
                raise ValueError(f"cannot read tls.{option} from {path}: {error.strerror}") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(tls.cert, tls.key)
        except ssl.SSLError as error:
            raise ValueError(f"cannot use tls.cert {tls.cert} with tls.key {tls.key}: {error.reason}") from None
        if tls.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(cafile=tls.client_ca)
            except ssl.SSLError as error:
                raise ValueError(f"cannot use tls.client_ca {tls.client_ca}: {error.reason}") from None
        return context, grpc.ssl_server_certificate_configuration(
            [(held["key"], held["cert"])], root_certificates=held["client_ca"] or None
        )
