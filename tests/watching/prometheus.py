"""A real Prometheus for tests: scrapes every second, evaluates our rules, keeps exemplars, answers queries."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.rules import program, write_rule_file
from tests.patience import PATIENCE_SECONDS
from tests.reserved_port import reserved_port

NAMESPACE = "demo"


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant vector."""
        return list(self.get("query", query=expression)["result"])

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(
            f"http://{self._address}/api/v1/{path}?{query}", timeout=PATIENCE_SECONDS
        ) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        """Whether it answers and has scraped every target."""
        try:
            targets = self.get("targets")["activeTargets"]
        except OSError:
            return False
        return bool(targets) and all(target["health"] == "up" for target in targets)

    def wait_for_look(self) -> None:
        """Until what the targets say now has been scraped and is stored, and rules have been evaluated over it."""
        for _ in range(2):  # one that has ended may not be stored yet; behind it comes the next
            self._wait_until_all_after_now(lambda: [one["lastScrape"] for one in self.get("targets")["activeTargets"]])
        self._wait_until_all_after_now(lambda: [one["lastEvaluation"] for one in self.get("rules")["groups"]])

    @staticmethod
    def _wait_until_all_after_now(moments: Callable[[], list[str]]) -> None:
        now = time.time()
        while min(datetime.fromisoformat(moment).timestamp() for moment in moments()) <= now:
            assert time.time() < now + PATIENCE_SECONDS
            time.sleep(0.05)


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Scrapes `targets` (name -> host:port), which count as one namespace. Skips the test where there is none."""
    executable = program("prometheus")
    write_rule_file(folder / "rules.yaml")
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_configuration(targets)))
    with reserved_port() as port, (folder / "prometheus.log").open("wb") as log:
        command = [
            executable,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            prometheus = Prometheus(f"127.0.0.1:{port}")
            deadline = time.monotonic() + 2 * PATIENCE_SECONDS
            while not prometheus.ready():
                said = (folder / "prometheus.log").read_text()
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.2)
            yield prometheus
        finally:
            process.kill()
            process.wait()


def _configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    labels = {"namespace": NAMESPACE}
    static = [{"targets": [address], "labels": labels} for address in targets.values()]
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "visavis", "static_configs": static}],
    }
