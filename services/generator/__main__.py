"""`python -m services.generator`: one generator process."""

from __future__ import annotations

import os
import sys

from services.admission import MOST_SLOTS
from services.generator.service import define_service
from services.generator.settings import read_generator_settings
from services.worker_threads import with_default_threads
from visavis.runtime.server import run_main
from visavis.runtime.service import ServiceDefinition
from visavis.runtime.settings import Environment, ServiceSettings, read_service_settings


def build(environment: Environment) -> tuple[ServiceDefinition, ServiceSettings]:
    """The service and its settings; raises SettingsError."""
    settings = read_service_settings(environment, default_port=50052, default_slots=MOST_SLOTS)
    threads = len(os.sched_getaffinity(0))
    return define_service(read_generator_settings(environment)), with_default_threads(settings, threads)


if __name__ == "__main__":
    sys.exit(run_main(build))
