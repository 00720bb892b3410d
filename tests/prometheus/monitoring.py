"""A real Prometheus and Alertmanager with the shipped configuration, and somebody who is called.

The rules are used as they are, except that everything happens more often: scrapes, evaluations and the first message
after a second instead of 10, 15 and 5. Addresses are those of the test.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

import urllib3
import yaml

from tests.prometheus.rules import FOLDER
from tests.running import free_port

_START_S: Final = 30.0


def often(text: str) -> str:
    """A rule file, or a configuration, in which what is done at intervals is done every second."""
    return re.sub(
        r"(?m)^(\s*)(interval|scrape_interval|evaluation_interval|group_wait|group_interval): \w+$", r"\1\2: 1s", text
    )


class OnCall:
    """Receives what Alertmanager sends: (path, alert)."""

    def __init__(self) -> None:
        self._told: list[tuple[str, dict[str, Any]]] = []
        self._news = news = threading.Condition()
        told = self._told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with news:
                    told.extend((self.path, alert) for alert in body["alerts"])
                    news.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_for(self, path: str, labels: Mapping[str, str], timeout_s: float = 30) -> dict[str, Any]:
        """The first firing alert on that path with these labels."""

        def found() -> dict[str, Any] | None:
            firing = [alert for at, alert in self._told if at == path and alert["status"] == "firing"]
            return next((alert for alert in firing if labels.items() <= alert["labels"].items()), None)

        with self._news:
            alert = self._news.wait_for(found, timeout_s)
        assert alert is not None, f"nobody was told of {labels} on {path} within {timeout_s} s"
        return alert

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Monitoring:
    """Prometheus scraping one server, and Alertmanager behind it, as child processes."""

    def __init__(self, directory: Path, *, prometheus: str, alertmanager: str, target: str) -> None:
        self.on_call = OnCall()
        self._directory = directory
        self._http = urllib3.PoolManager(retries=False)
        ports = free_port(), free_port()
        self._prometheus, self._alertmanager = (f"127.0.0.1:{port}" for port in ports)
        self._write(target)
        here, there = f"--web.listen-address={self._prometheus}", f"--web.listen-address={self._alertmanager}"
        alone = "--cluster.listen-address="
        self._processes = [
            self._start(prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", here),
            self._start(alertmanager, "--config.file=alertmanager.yml", "--storage.path=alertmanager", alone, there),
        ]

    def _write(self, target: str) -> None:
        for folder in ("rules", "optional"):
            (self._directory / folder).mkdir()
            for path in (FOLDER / folder).glob("*.yml"):
                (self._directory / folder / path.name).write_text(often(path.read_text()))
        config = yaml.safe_load(often((FOLDER / "prometheus.yml").read_text()))
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [self._alertmanager]}]}]
        (self._directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        shipped = often((FOLDER / "alertmanager.yml").read_text())
        (self._directory / "alertmanager.yml").write_text(
            re.sub(r"(?m)url: http://127\.0\.0\.1:9099/", f"url: {self.on_call.url}/", shipped)
        )

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._directory / "monitoring.log").open("ab") as log:
            return subprocess.Popen([*command, "--log.level=warn"], cwd=self._directory, stdout=log, stderr=log)

    def ask(self, path: str, **query: str) -> Any:
        """What the HTTP API of Prometheus answers."""
        answer = self._http.request("GET", f"http://{self._prometheus}/api/v1/{path}", fields=query, timeout=10)
        return json.loads(answer.data)["data"]

    def suppressed(self, labels: Mapping[str, str]) -> bool:
        """Whether Alertmanager keeps an alert with these labels to itself."""
        answer = self._http.request("GET", f"http://{self._alertmanager}/api/v2/alerts", timeout=10)
        known = [alert for alert in json.loads(answer.data) if labels.items() <= alert["labels"].items()]
        return [alert["status"]["state"] for alert in known] == ["suppressed"]

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def wait_until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                if done():
                    return
            except (urllib3.exceptions.HTTPError, ValueError, KeyError):
                pass  # it is starting
            if time.monotonic() > deadline:
                log = (self._directory / "monitoring.log").read_text(errors="replace")
                raise AssertionError(f"{what}: not so after {_START_S} s: {log[-2000:]}")
            time.sleep(0.1)

    def __enter__(self) -> Self:
        scraped = "spanwise_build_info"
        self.wait_until(lambda: bool(self.ask("query", query=scraped)["result"]), "Prometheus scrapes the server")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(10)
        self.on_call.close()
