"""`spanwise demo`: a server, realistic agent traffic through real exporters, and what became of it."""

from spanwise.demo.run import run

__all__ = ["run"]
