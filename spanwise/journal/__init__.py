"""Where accepted requests are durable until they are stored."""

from spanwise.journal.config import SqliteJournalConfig
from spanwise.journal.kafka.config import KafkaJournalConfig
from spanwise.journal.sqlite import JournalError, JournalStats, SqliteJournal

__all__ = ["JournalError", "JournalStats", "KafkaJournalConfig", "SqliteJournal", "SqliteJournalConfig"]
