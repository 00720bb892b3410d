"""`topics` and `dead-letters`: the commands that talk to Kafka."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from spanwise.cli.client import CommandError
from spanwise.cli.settings import configured
from spanwise.cli.show import clean
from spanwise.journal import JournalError, KafkaJournalConfig
from spanwise.journal.kafka import journal


def create_topics(file: Path | None, out: TextIO) -> None:
    config = _config(file)
    with _sentences():
        made = journal.create_topics(config)
    out.write(f"created {', '.join(made)}\n" if made else "all topics are there\n")
    _check(config, out)


def check_topics(file: Path | None, out: TextIO) -> None:
    _check(_config(file), out)


def _check(config: KafkaJournalConfig, out: TextIO) -> None:
    with _sentences():
        problems = journal.check_topics(config)
    if problems:
        raise CommandError("the topics are not as they must be\n  " + "\n  ".join(problems))
    out.write("the topics are right\n")


def list_dead_letters(file: Path | None, out: TextIO, *, limit: int, as_json: bool) -> None:
    with _sentences():
        letters = journal.list_dead_letters(_config(file), limit, values=False)
    for letter in letters:
        place = f"{letter.topic}:{letter.partition}:{letter.offset}"
        received = letter.received.isoformat(timespec="seconds")
        if as_json:
            row = {
                "place": place,
                "reason": letter.reason,
                "tenant": letter.tenant,
                "received": received,
                "bytes": letter.size,
            }
            out.write(json.dumps(row) + "\n")
        else:
            out.write(f"{received}  {place}  {letter.size} bytes  {clean(letter.reason)}\n")
    if not letters and not as_json:
        out.write("there are no dead letters\n")


def replay_dead_letters(file: Path | None, out: TextIO) -> None:
    config = _config(file)
    sent = 0

    def count() -> None:
        nonlocal sent
        sent += 1

    try:
        with _sentences():
            journal.replay_dead_letters(config, count)
    finally:  # also if it was interrupted, or the brokers went away
        out.write(f"{sent} dead letters were sent again\n")


def _config(file: Path | None) -> KafkaJournalConfig:
    config = configured(file, {}).journal
    if not isinstance(config, KafkaJournalConfig):
        raise CommandError(
            "this is about Kafka, and journal.kind is sqlite", "give --config FILE, or set SPANWISE_JOURNAL__KIND=kafka"
        )
    return config


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except JournalError as error:
        raise CommandError(str(error)) from error
