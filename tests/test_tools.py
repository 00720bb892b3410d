"""The cache of programs that tests run beside Spanwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tools
from tests.tools import NotFetchedError, built, cached, run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tools, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_a_program_is_fetched_once() -> None:
    fetched: list[Path] = []
    places = [cached("program", fetched.append) for _ in range(2)]

    assert len(fetched) == 1
    assert places[0] == places[1]
    assert places[0].is_dir()


def test_what_could_not_be_fetched_is_told_and_tried_again(cache: Path) -> None:
    def fetch(folder: Path) -> None:
        (folder / "half").touch()
        run(["sh", "-c", "echo no network; exit 7"], folder)

    for _ in range(2):
        with pytest.raises(NotFetchedError, match=r"^sh -c failed: no network$"):
            cached("program", fetch)
    assert [path.name for path in cache.iterdir()] == ["program.lock"]


def test_a_command_that_does_not_end_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFetchedError, match="sleep 60 is not done after 0 s"):
        run(["sleep", "60"], tmp_path, 0.1)


def test_a_program_is_built_again_when_its_sources_changed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    texts = ["one", "one", "two"]

    made = []
    for text in texts:
        (source / "text").write_text(text)
        made.append(built("program", source, ["sh", "-c", "cp text $RESULT"], RESULT="result"))

    assert [(place / "result").read_text() for place in made] == texts
    assert made[0] == made[1] != made[2]
    assert not (source / "result").exists()
