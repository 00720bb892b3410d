"""OTLP over gRPC and HTTP: listen, authenticate, admit, answer. Ends at the journal."""

from receiver.config import ReceiverConfig
from receiver.server import Receiver

__all__ = ["Receiver", "ReceiverConfig"]
