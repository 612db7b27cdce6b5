"""`visavis up`: everything on this machine, until Ctrl-C or until one process dies."""

import argparse
import time

from visavis.cli.local_system import SystemSettings, local_system, sampling_environment

_WATCH_SECONDS = 0.2


def run(options: argparse.Namespace) -> int:
    """Runs until it is interrupted."""
    settings = SystemSettings(
        model=options.preset,
        redis_url=options.redis_url,
        run_folder=options.run_folder,
        gateway_address=options.listen,
        environment=sampling_environment(options.sampling),
        service_environment={},
    )
    with local_system(settings, lambda line: print(line, flush=True)) as system:
        print(f"Redis is at {system.redis_url}")
        for name, address in system.metrics.items():
            print(f"metrics of {name}: http://{address}/metrics")
        print(f"outputs and logs are in {system.supervisor.run_folder}")
        print(f"\nup: visavis talk --server {system.gateway_address} ...   (Ctrl-C stops everything)", flush=True)
        while True:
            system.supervisor.check()
            time.sleep(_WATCH_SECONDS)
