"""`visavis serve`: becomes one of the services."""

import argparse
import os
import sys

from visavis.cli.service_programs import service_command, service_python_path


def run(options: argparse.Namespace) -> int:
    """Replaces this process by the service; returns only when that fails."""
    command = service_command(options.service)
    environment = dict(os.environ)
    environment["PYTHONPATH"] = service_python_path(environment.get("PYTHONPATH", ""))
    overrides = {
        "VISAVIS_LISTEN_ADDRESS": options.listen,
        "VISAVIS_REDIS_URL": options.redis_url,
        "VISAVIS_MODEL": options.preset,
    }
    environment.update({name: value for name, value in overrides.items() if value is not None})
    sys.stdout.flush()
    os.execve(command[0], command, environment)
