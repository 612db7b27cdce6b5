"""Tells Kubernetes which pod to remove first when a Deployment shrinks: the one with the fewest sessions.

A ReplicaSet removes pods with the lowest annotation `controller.kubernetes.io/pod-deletion-cost` first, so each pod
writes its own number of sessions there, through the API server. Only where the settings name the pod.
"""

import asyncio
import json
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from visavis.runtime.settings import PodSettings

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
_TIMEOUT_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


class PodDeletionCost:
    """Writes the number of sessions when it has changed, at most every `interval_seconds`.

    Every write is an update of a pod that the API server sends to all who watch pods, hence the interval. A write that
    fails is logged once and repeated at the next interval; nothing else depends on it.
    """

    def __init__(self, settings: PodSettings, sessions: Callable[[], int]) -> None:
        self._settings = settings
        self._sessions = sessions
        self._written: int | None = None
        self._failing = False

    async def follow(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self.write_if_changed()
            await asyncio.sleep(self._settings.deletion_cost_seconds)

    async def write_if_changed(self) -> None:
        """One write where one is due."""
        sessions = self._sessions()
        if sessions == self._written:
            return
        try:
            await asyncio.to_thread(self._write, sessions)
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            if not self._failing:
                logger.warning("the pod's deletion cost cannot be written", extra={"reason": _reason(error)})
            self._failing = True
            return
        self._written, self._failing = sessions, False

    def _write(self, sessions: int) -> None:
        change = {"metadata": {"annotations": {ANNOTATION: str(sessions)}}}
        # The token is read each time: kubelet renews it.
        token = self._settings.credentials.joinpath("token").read_text().strip()
        request = urllib.request.Request(
            self._address(),
            method="PATCH",
            data=json.dumps(change).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"},
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=self._trust()) as answer:
            answer.read()

    def _address(self) -> str:
        settings = self._settings
        return f"{settings.kubernetes_url}/api/v1/namespaces/{quote(settings.namespace)}/pods/{quote(settings.name)}"

    def _trust(self) -> ssl.SSLContext | None:
        if not self._settings.kubernetes_url.startswith("https:"):
            return None
        return ssl.create_default_context(cafile=self._settings.credentials / "ca.crt")


def _reason(error: Exception) -> str:
    return f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else str(error)
