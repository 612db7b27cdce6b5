"""`python -m services.decoder`: one decoder process."""

from __future__ import annotations

import sys

from services.decoder.service import define_service
from services.decoder.settings import read_decoder_settings
from services.worker_threads import with_default_threads
from visavis.runtime.server import run_main
from visavis.runtime.service import ServiceDefinition
from visavis.runtime.settings import Environment, ServiceSettings, read_service_settings


def build(environment: Environment) -> tuple[ServiceDefinition, ServiceSettings]:
    """The service and its settings; raises SettingsError."""
    settings = read_service_settings(environment, default_port=50053, default_slots=16)
    return define_service(read_decoder_settings(environment)), with_default_threads(settings, 1)


if __name__ == "__main__":
    sys.exit(run_main(build))
