"""JSON logs on stderr. Never audio, never a face: only text and numbers get in."""

import json
import logging
import sys
import time

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, stage, instance_id, then the entry's `extra` fields."""

    def __init__(self, *, stage: str, instance_id: str) -> None:
        super().__init__()
        self._constant = {"stage": stage, "instance_id": instance_id}

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **self._constant,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS and (value is None or isinstance(value, str | int | float | bool)):
                entry[name] = value
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure_logging(*, stage: str, instance_id: str, level: str) -> None:
    """Sends everything that is logged in this process to stderr as JSON, warnings included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(stage=stage, instance_id=instance_id))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(True)
