"""A store with an hour of traffic, asked as a dashboard asks it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spanwise.store import Store, StoreConfig, TtlDays, open_store
from tests.dashboards.boards import Question
from tests.dashboards.data import fill, singles
from tests.dashboards.grafana import View, expand

SPANS = 16_000
# Not a fixed time: the view `rollup` looks at the last two days for the minute up to which it has counted.
UNTIL = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
SINCE = UNTIL - timedelta(hours=1)


@dataclass
class Filled:
    """A store and the way a dashboard asks it."""

    store: Store
    singles: dict[str, dict[str, str]]
    """The choices that a dashboard about one thing needs, by dashboard."""

    def view(self, board: str, since: datetime = SINCE, until: datetime = UNTIL, **chosen: Any) -> View:
        return View(since, until, 60, {**self.singles.get(board, {}), **chosen})

    def rows(self, question: Question, view: View | None = None) -> list[dict[str, Any]]:
        sql = expand(question.sql, view or self.view(question.board))
        rows: list[dict[str, Any]] = self.store.read_arrow(sql).to_pylist()
        return rows


@pytest.fixture(scope="package")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    directory = tmp_path_factory.mktemp("dashboards")
    forever = TtlDays.model_validate(dict.fromkeys(TtlDays.model_fields, 0))
    config = StoreConfig.model_validate({"dsn": f"chdb://{directory}", "ttl_days": forever})
    store = open_store(Store(config))
    fill(store, SPANS, SINCE, UNTIL)
    yield Filled(store, singles(store))
    store.close()
