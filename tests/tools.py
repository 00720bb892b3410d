"""Programs that tests run beside Spanwise: the machine's own, else fetched once into a cache, without root.

None of them is needed to run Spanwise. Where a program can neither be found nor fetched, its tests are skipped, and the
notice says what to install.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanwise"
_FETCH_S = 600


@cache
def from_debian(program: str, package: str) -> str:
    """Where a program of a Debian package is. Skips the test where there is none."""
    found = shutil.which(program)
    if found:
        return found
    how = f"`{program}` is not installed; on Debian: apt-get install {package}"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip(how)

    def fetch(folder: Path) -> None:
        (folder / "lists/partial").mkdir(parents=True)
        (folder / "archives/partial").mkdir(parents=True)
        own = [
            f"-oDir::State::lists={folder}/lists",
            f"-oDir::Cache={folder}",
            "-oDebug::NoLocking=1",
            "-oAPT::Sandbox::User=",
        ]
        _run(["apt-get", "-q", *own, "update"], folder)
        _run(["apt-get", "-q", *own, "download", package], folder)
        (archive,) = folder.glob(f"{package}_*.deb")
        _run(["dpkg-deb", "--extract", str(archive), str(folder / "root")], folder)
        (folder / "root/usr/bin").rename(folder / "bin")
        for part in ("lists", "archives", "root"):
            shutil.rmtree(folder / part)
        archive.unlink()

    return str(_cached(f"debian-{package}", fetch, how) / "bin" / program)


@cache
def from_go(program: str, module: str, version: str) -> str:
    """Where a program written in Go is, built from its module if need be. Skips the test where there is no Go."""
    found = shutil.which(program)
    if found:
        return found
    how = f"`{program}` is not installed and there is no Go to build it: go install {module}@{version}"
    go = shutil.which("go")
    if go is None:
        pytest.skip(how)

    def fetch(folder: Path) -> None:
        _run([go, "install", f"{module}@{version}"], folder, GOBIN=str(folder))

    return str(_cached(f"go-{program}-{version}", fetch, how) / program)


def _cached(name: str, fetch: Callable[[Path], None], how: str) -> Path:
    """A folder of the cache, filled by whoever comes first. Skips the test if it cannot be."""
    place = CACHE / name
    with _alone(name):
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                folder = Path(scratch) / name
                folder.mkdir()
                try:
                    fetch(folder)
                except (OSError, ValueError, subprocess.SubprocessError) as error:
                    pytest.skip(f"{how} ({error})")
                folder.rename(place)
    return place


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time: several run tests."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], folder: Path, **environment: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=_FETCH_S,
        check=False,
    )
    if done.returncode:
        raise OSError(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-300:]}")
