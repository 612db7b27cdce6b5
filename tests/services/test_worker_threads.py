from dataclasses import replace

from services.worker_threads import with_default_threads
from visavis.runtime.settings import Environment, ServiceSettings, read_service_settings


def threads(default: int, **worker: str) -> int:
    variables = {f"VISAVIS_WORKER_{name}": value for name, value in worker.items()}
    settings: ServiceSettings = read_service_settings(Environment(variables))
    found = with_default_threads(settings, default)
    assert replace(found, worker=settings.worker) == settings, "nothing else changes"
    return found.worker.threads


def test_a_stage_has_its_own_number_unless_the_settings_say_one() -> None:
    assert threads(8) == 8
    assert threads(8, THREADS="3") == 3


def test_a_pinned_worker_takes_no_more_threads_than_it_has_processors() -> None:
    assert threads(8, PROCESSORS="0,1") == 2
    assert threads(1, PROCESSORS="0,1") == 1
    assert threads(8, THREADS="5", PROCESSORS="0,1") == 5
