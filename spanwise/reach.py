"""Why a server cannot be reached, in words for people."""

from __future__ import annotations

import ssl

from urllib3.exceptions import HTTPError, NameResolutionError, ReadTimeoutError, SSLError


def trouble(url: str, error: HTTPError) -> tuple[str, str]:
    """(what is wrong, what to do about it): '' for the second where only whoever asks knows."""
    if isinstance(error, SSLError):
        cause = error.args[0] if error.args else None
        why = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(error).__name__
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"no TLS connection to {url}: certificate verify failed: {why}",
                "name the file of its authority in SSL_CERT_FILE",
            )
        return f"no TLS connection to {url}: {why}", "if it is without TLS, write http:// before its name"
    if isinstance(error, ReadTimeoutError):
        return f"{url} takes connections and does not answer", "see the server's log"
    if isinstance(error, NameResolutionError):
        return f"no Spanwise server answers at {url}: the name cannot be resolved", ""
    return f"no Spanwise server answers at {url}", ""
