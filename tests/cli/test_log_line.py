"""Log lines of services for people."""

import pytest

from visavis.cli.log_line import readable_log_line


def test_a_log_line_shows_time_level_and_event() -> None:
    line = '{"time": "12:00", "level": "ERROR", "event": "the worker ends", "exception": "Traceback\\nOSError: gone"}'
    assert readable_log_line(line) == "12:00 ERROR the worker ends: OSError: gone"


@pytest.mark.parametrize("line", ["", "Traceback (most recent call last):", "[1]", "3", '{"event": "ready"}'])
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert readable_log_line(line) == line
