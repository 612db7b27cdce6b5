"""Shows the JSON log lines of services to people."""

import json


def readable_log_line(line: str) -> str:
    """Time, level and event of a service's log line, and the last line of its exception; other lines as they are."""
    try:
        entry = json.loads(line)
        text = f"{entry.get('time', '')} {entry['level']} {entry['event']}".strip()
    except (ValueError, TypeError, KeyError, AttributeError):
        return line
    if exception := str(entry.get("exception", "")).strip():
        text += f": {exception.splitlines()[-1]}"
    return text
