"""Programs that tests run beside Spanwise: the machine's own, else fetched once into a cache, without root.

None of them is needed to run Spanwise. Where a program can neither be found nor fetched, its tests are skipped, and the
notice says what to install.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanwise"
FETCH_S = 600


class NotFetchedError(Exception):
    """A program could not be fetched or built; the sentence says why."""


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
        run(["apt-get", "-q", *own, "update"], folder)
        run(["apt-get", "-q", *own, "download", package], folder)
        (archive,) = folder.glob(f"{package}_*.deb")
        run(["dpkg-deb", "--extract", str(archive), str(folder / "root")], folder)
        (folder / "root/usr/bin").rename(folder / "bin")
        for part in ("lists", "archives", "root"):
            shutil.rmtree(folder / part)
        archive.unlink()

    return str(cached_or_skip(f"debian-{package}", fetch, how) / "bin" / program)


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
        run([go, "install", f"{module}@{version}"], folder, GOBIN=str(folder))

    return str(cached_or_skip(f"go-{program}-{version}", fetch, how) / program)


def cached_or_skip(name: str, fetch: Callable[[Path], None], how: str) -> Path:
    """As `cached`, but skips the test, and says `how` to do without."""
    try:
        return cached(name, fetch)
    except NotFetchedError as error:
        pytest.skip(f"{how} ({error})")


def cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """A folder of the cache, filled by whoever comes first. Raises NotFetchedError if `fetch` cannot fill it."""
    place = CACHE / name
    with _alone(name):
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                folder = Path(scratch) / name
                folder.mkdir()
                try:
                    fetch(folder)
                except (OSError, ValueError) as error:
                    raise NotFetchedError(str(error)) from error
                folder.rename(place)
    return place


def built(name: str, source: Path, command: Sequence[str], timeout_s: float = FETCH_S, **environment: str) -> Path:
    """A copy of a folder's files in which `command` was run, once for each state of them. Raises NotFetchedError."""
    files = sorted(path for path in source.iterdir() if path.is_file())
    state = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]

    def build(folder: Path) -> None:
        for path in files:
            shutil.copy(path, folder)
        run(command, folder, timeout_s, **environment)

    return cached(f"{name}-{state}", build)


def run(command: Sequence[str], folder: Path, timeout_s: float = FETCH_S, **environment: str) -> None:
    """Run what fetches or builds. Raises NotFetchedError with the end of what it said."""
    told = " ".join(command[:2])
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotFetchedError(f"{told} is not done after {timeout_s:.0f} s; another run may go on from there") from None
    if done.returncode:
        raise NotFetchedError(f"{told} failed: {done.stdout.strip()[-300:]}")


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time: several run tests."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
