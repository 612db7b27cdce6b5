"""How many sessions a device takes: by its memory, and by its measured speed. Pure functions; reading is done once."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from services.pass_times import PassTimes
from visavis.contract import CHUNK_SECONDS
from visavis.runtime.settings import Environment, SettingsError

MOST_SLOTS: Final = 10_000
CGROUP: Final = Path("/sys/fs/cgroup")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """What the settings leave to measurement."""

    # As VISAVIS_SLOTS says; 0: as many as the device keeps in real time.
    slots: int
    # Part of the device's time and memory that is not given to sessions.
    headroom: float
    # For sessions and sinks; 0: what the device has free once the model is warm.
    memory_bytes: int
    # A device that cannot keep one session in real time offers one slot, for files; otherwise it does not start.
    slower_than_real_time: bool


def read_admission_settings(environment: Environment) -> AdmissionSettings:
    """Reads VISAVIS_SLOTS, _HEADROOM, _SESSION_MEMORY_BYTES and _SLOWER_THAN_REAL_TIME; raises SettingsError."""
    headroom = environment.ratio("HEADROOM", 0.15)
    if headroom == 1:
        raise SettingsError("VISAVIS_HEADROOM is 1, which leaves nothing for sessions; use less")
    return AdmissionSettings(
        slots=environment.integer("SLOTS", 0, maximum=MOST_SLOTS),
        headroom=headroom,
        memory_bytes=environment.integer("SESSION_MEMORY_BYTES", 0, maximum=2**63 - 1),
        slower_than_real_time=environment.flag("SLOWER_THAN_REAL_TIME", default=True),
    )


def sessions_in_real_time(
    times: PassTimes, passes: int, begin_seconds: float, headroom: float, most_together: int
) -> int:
    """Sessions whose chunks a device generates as fast as they play.

    `passes` of a chunk, `begin_seconds` of one before its first pass, `most_together`: sessions that share a pass.
    """
    seconds, fit = (1 - headroom) * CHUNK_SECONDS, 0
    for width in times.widths:
        sessions = int(seconds / (begin_seconds + passes * times.best_seconds(width)))
        # With fewer sessions than that there is nothing to fill such a pass with.
        if width <= most_together and sessions >= width:
            fit = max(fit, sessions)
    return min(fit, MOST_SLOTS)


def sessions_in_memory(session_bytes: int, kept_bytes: int, free_bytes: int, headroom: float) -> int:
    """Sessions of which each takes `session_bytes`, beside `kept_bytes` of what they share."""
    return max(0, min(MOST_SLOTS, int((1 - headroom) * free_bytes - kept_bytes) // max(session_bytes, 1)))


def slots_to_offer(settings: AdmissionSettings, in_real_time: int, in_memory: int) -> int:
    """The sessions to take; the settings' number wins over the measured speed, but not over memory.

    Raises:
        RuntimeError: none fits into memory, or none in real time where the settings ask for that.
    """
    figures = {"in_real_time": in_real_time, "in_memory": in_memory}
    if not in_memory:
        raise RuntimeError(
            "the device's memory does not hold one session; lower VISAVIS_SINK_CAPACITY or VISAVIS_KEPT_BORDERS"
        )
    if in_real_time == 0:
        if not settings.slower_than_real_time:
            raise RuntimeError(
                "the device does not keep one session in real time, and VISAVIS_SLOWER_THAN_REAL_TIME is off"
            )
        logger.warning("the device does not keep one session in real time: files only", extra=figures)
    slots = min(settings.slots or max(1, in_real_time), in_memory)
    logger.info("sessions that fit", extra={**figures, "slots": slots})
    return slots


def free_memory_bytes(device: torch.device) -> int:
    """What the device has free: of its own memory, or of the machine's or the container's."""
    if device.type == "cuda":
        # Torch keeps what it has freed for the next tensors; what graphs keep is for nobody else.
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return int(min(_machine_free_bytes(Path("/proc/meminfo")), container_free_bytes(CGROUP)))


def container_free_bytes(cgroup: Path) -> float:
    """What a container (cgroup version 2) may still take; infinite where nothing limits it."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return math.inf
    return math.inf if limit == "max" else max(0, int(limit) - used)


def _machine_free_bytes(meminfo: Path) -> int:
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2**63 - 1  # where nobody says (not Linux), memory is no limit
