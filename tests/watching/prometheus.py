"""A real Prometheus for tests: scrapes every second, evaluates our rules, keeps exemplars, answers queries."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.rules import program, write_rule_file

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
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}", timeout=20) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        """Whether it answers and has scraped every target."""
        try:
            targets = self.get("targets")["activeTargets"]
        except OSError:
            return False
        return bool(targets) and all(target["health"] == "up" for target in targets)


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Scrapes `targets` (name -> host:port), which count as one namespace. Skips the test where there is none."""
    executable = program("prometheus")
    write_rule_file(folder / "rules.yaml")
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_configuration(targets)))
    address = f"127.0.0.1:{_free_port()}"
    command = [
        executable,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            prometheus = Prometheus(address)
            deadline = time.monotonic() + 30
            while not prometheus.ready():
                said = (folder / "prometheus.log").read_text()
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.2)
            yield prometheus
        finally:
            process.kill()


def _configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    labels = {"namespace": NAMESPACE}
    static = [{"targets": [address], "labels": labels} for address in targets.values()]
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "visavis", "static_configs": static}],
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
